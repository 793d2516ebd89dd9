"""Run the processes of a local network under a test: kill any at any instant, start it again, ask it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from learnchain.learning.fork_server import ForkServer
from learnchain.node.local_network import LocalNetwork
from learnchain.rejection import Unavailable

GRACE_SECONDS = 10.0


CALL_SECONDS = 60.0
"""Publishing encrypts and stores the data of a task before it answers."""


@dataclass
class LocalProcesses:
    """Hold one process a node; a killed one keeps its directory, its port and its identity."""

    network: LocalNetwork
    _running: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _fork_server: ForkServer | None = None

    def start(self) -> None:
        """Start every node; as under `learnchain up` they share one process that has loaded torch."""
        self._fork_server = self._fork_server or ForkServer.open(self.network.directory)
        for index in range(len(self.network.settings)):
            self.start_one(index)

    def start_one(self, index: int) -> None:
        """Start one node on whatever its directory holds."""
        settings = self.network.settings[index]
        with (settings.parent / "test.log").open("ab") as output:
            self._running[index] = subprocess.Popen(
                [sys.executable, "-m", "learnchain.app", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=() if self._fork_server is None else (self._fork_server.connection.fileno(),),
                env={**os.environ, **({} if self._fork_server is None else self._fork_server.environment())},
                start_new_session=True,
            )

    def kill(self, index: int) -> None:
        """End a node as a power cut does: it can say and write nothing any more."""
        process = self._running.pop(index)
        process.kill()
        process.wait()

    def signal(self, index: int, number: signal.Signals) -> None:
        """Send a signal to a node."""
        os.kill(self._running[index].pid, number)

    def wait(self, index: int, seconds: float) -> int:
        """Return the exit code of a node that is to end; raise TimeoutExpired when it does not."""
        code = self._running[index].wait(seconds)
        del self._running[index]
        return code

    def stop(self) -> None:
        """End every node cleanly."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None

    def call(self, index: int, method: str, *params: Any) -> Any:
        """Ask a node over its interface; raise `Unavailable` while it does not answer."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        url = f"http://127.0.0.1:{self.network.rpc_ports[index]}"
        try:
            with urlopen(Request(url, body, {"content-type": "application/json"}), timeout=CALL_SECONDS) as response:
                answer = json.loads(response.read())
        except (URLError, OSError) as error:
            raise Unavailable(f"node {index}: {error}") from error
        if "error" in answer:
            raise Unavailable(f"node {index}: {answer['error']}")
        return answer["result"]

    def height(self, index: int) -> int:
        """Return the height of a node's head."""
        return int(self.call(index, "learn_status")["head"]["height"])

    def heads(self) -> set[str]:
        """Return the heads of all running nodes; one element means that they agree."""
        return {self.call(index, "learn_status")["head"]["hash"] for index in self._running}

    def wait_until(self, condition: Callable[[], bool], within_seconds: float) -> None:
        """Wait; raise TimeoutError with the ends of all logs when the condition does not come true."""
        limit = time.monotonic() + within_seconds
        while time.monotonic() < limit:
            try:
                if condition():
                    return
            except Unavailable:
                pass
            time.sleep(0.1)
        raise TimeoutError("\n".join(_read_log_end(each.parent) for each in self.network.settings))

    def wait_until_ready(self, index: int, within_seconds: float) -> None:
        """Wait until a node answers."""
        self.wait_until(lambda: self.height(index) >= 0, within_seconds)

    def wait_for_height(self, height: int, within_seconds: float) -> None:
        """Wait until every running node has a head of at least this height, and all agree."""

        def reached() -> bool:
            return min(self.height(index) for index in self._running) >= height and len(self.heads()) == 1

        self.wait_until(reached, within_seconds)


def _read_log_end(directory: Path) -> str:
    logs = (directory / "test.log", directory / "logs" / "node.log")
    return "\n".join(f"--- {log}\n" + log.read_text(errors="replace")[-3_000:] for log in logs if log.exists())
