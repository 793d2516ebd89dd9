"""Fork training processes from one that has loaded torch: a local network loads it once, not twice a miner.

`python -m learnchain.learning.fork_server DESCRIPTOR` is that process. Whoever holds the other end of its line asks for
a worker with one message that carries the worker's own end of a socket. The server ends when nobody holds its line any
more. It has one thread when it forks, and nothing was computed in it, so a worker is as fresh as one that was started.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from learnchain.rejection import Unavailable

VARIABLE = "LEARNCHAIN_FORK_SERVER"
"""Names the descriptor of the line to nodes that inherit it."""

THREADS = 1
"""Workers with another number of threads start on their own: thread pools take their size when they are loaded."""

ID_BYTES = 4
"""A worker says its process id first."""

_LOG_NAME = "training.log"
_CLOSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ForkServer:
    """Hold one end of the line to a fork server; `process` is set where it was started."""

    connection: socket.socket
    process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def open(cls, directory: Path) -> "ForkServer | None":
        """Start a fork server whose workers log into a directory; None where forking after torch is not safe."""
        if sys.platform != "linux":
            return None
        ours, theirs = socket.socketpair()
        one = str(THREADS)
        with theirs, (directory / _LOG_NAME).open("ab") as log:
            command = [sys.executable, "-m", "learnchain.learning.fork_server", str(theirs.fileno())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "OMP_NUM_THREADS": one, "MKL_NUM_THREADS": one, "OPENBLAS_NUM_THREADS": one},
                # Ctrl-C reaches the program only, which ends the nodes in order; they end their workers.
                start_new_session=True,
            )
        ours.setblocking(False)
        return cls(ours, process)

    @classmethod
    def inherit(cls, environment: Mapping[str, str]) -> "ForkServer | None":
        """Return the fork server that whoever started this process handed over; None if there is none."""
        try:
            line = socket.socket(fileno=int(environment[VARIABLE]))
        except (KeyError, ValueError, OSError):
            return None
        os.set_inheritable(line.fileno(), False)
        return cls(line)

    def environment(self) -> dict[str, str]:
        """Return what a process finds this fork server by, if it inherits the descriptor of the line too."""
        return {VARIABLE: str(self.connection.fileno())}

    def fork(self, nice: int) -> socket.socket:
        """Ask for a worker; return our end of its line, on which it says its process id and then answers jobs."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self.connection, [bytes([nice])], [theirs.fileno()])
        except OSError as error:
            # Gone, or so busy that its line is full: the caller starts a process of its own.
            ours.close()
            raise Unavailable(f"the fork server of training processes: {error}") from error
        return ours

    def close(self) -> None:
        """Let go of the line, and end the fork server where it was started; workers that still run need it no more."""
        self.connection.close()
        if self.process is None:
            return
        try:
            self.process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            # It still loads torch, or a node that was left behind holds its line.
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def serve(line: socket.socket) -> None:
    """Fork a worker for every message until nobody is left who could send one."""
    # Loaded before the first fork: what this costs is what every worker saves.
    from learnchain.learning.worker import serve as work

    # Nobody waits for the workers: their ends of the lines say when they end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(line, 1, 1)
        if not message:
            return
        if not descriptors:
            continue
        with socket.socket(fileno=descriptors[0]) as own:
            if os.fork():
                continue
            try:
                line.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                # A session of its own: schedulers that group by session would let all workers share one turn.
                os.setsid()
                os.nice(message[0])
                own.sendall(os.getpid().to_bytes(ID_BYTES, "big"))
                work(own.makefile("rb"), own.makefile("wb"), THREADS, time.perf_counter)
            finally:
                # Never return into the loop of the fork server, whatever happened.
                os._exit(1)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        serve(inherited)
