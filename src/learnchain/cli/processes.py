"""Run nodes as processes of this machine: start, watch, start again, and end each by its own process id."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from learnchain.rejection import Rejected, RejectionReason, Unavailable

if TYPE_CHECKING:
    from learnchain.learning.fork_server import ForkServer


LOG_NAME = "node.log"
LOCK_NAME = "up.lock"
LIST_NAME = "processes.json"
GRACE_SECONDS = 10.0
MAXIMUM_LOG_BYTES = 16 << 20

MAXIMUM_QUICK_DEATHS = 3
"""So often in a row a node may die within its first seconds before starting it again is given up."""

QUICK_DEATH_SECONDS = 15.0
_TAIL_LINES = 8
_TAIL_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Death:
    """Report a node that ended by itself, with the last lines of its log."""

    name: str
    exit_code: int
    last_lines: tuple[str, ...]
    restarted: bool


@dataclass(slots=True)
class _Child:
    settings: Path
    process: subprocess.Popen[bytes] | None = None
    started_seconds: float = 0.0
    quick_deaths: int = 0

    @property
    def name(self) -> str:
        return self.settings.parent.name


@dataclass(slots=True)
class NodeProcesses:
    """Hold the processes of one data directory; nobody else may run it at the same time."""

    directory: Path
    settings: tuple[Path, ...]
    restart: bool = True
    fork_server: "ForkServer | None" = None
    awaits_genesis: bool = False
    _children: list[_Child] = field(default_factory=list)
    _lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self._lock = (self.directory / LOCK_NAME).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            detail = f"another `learnchain up` runs on {self.directory}; end it, or choose another --data-dir"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail) from error
        try:
            self._end_leftovers()
        except BaseException:
            self.stop()
            raise
        return self

    def start(self) -> None:
        """Start all nodes."""
        self._children = [_Child(path) for path in self.settings]
        for child in self._children:
            self._start(child)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def is_alive(self, index: int) -> bool:
        """Return whether a node's process runs."""
        process = self._children[index].process
        return process is not None and process.poll() is None

    def is_ready(self, index: int) -> bool:
        """Return whether a node only waits for its genesis any more."""
        from learnchain.node.node import is_ready

        child = self._children[index]
        return child.process is not None and is_ready(child.settings.parent, child.process.pid)

    def deaths(self) -> tuple[Death, ...]:
        """Return the nodes that ended since the last look, started again unless they keep dying."""
        found: list[Death] = []
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            code, lived_seconds = child.process.returncode, time.monotonic() - child.started_seconds
            child.process = None
            child.quick_deaths = child.quick_deaths + 1 if lived_seconds < QUICK_DEATH_SECONDS else 0
            lines = log_tail(child.settings.parent)
            if child.quick_deaths >= MAXIMUM_QUICK_DEATHS:
                raise Unavailable(f"{child.name} dies at every start: {' | '.join(lines)}")
            if self.restart:
                self._start(child)
            found.append(Death(child.name, code, lines, self.restart))
        return tuple(found)

    def stop(self) -> None:
        """End all nodes: SIGTERM first, SIGKILL for those that are not gone after the grace."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        limit = time.monotonic() + GRACE_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self._children:
            child.process = None
        (self.directory / LIST_NAME).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _start(self, child: _Child) -> None:
        # As `learnchain.node.node` names it, which would load more than this program needs.
        flags = ("--await-genesis",) if self.awaits_genesis else ()
        log = child.settings.parent / LOG_NAME
        if log.exists() and log.stat().st_size > MAXIMUM_LOG_BYTES:
            log.replace(log.with_suffix(".log.old"))
        with log.open("ab") as output:
            child.process = subprocess.Popen(
                [sys.executable, "-m", "learnchain.app", str(child.settings), *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=() if self.fork_server is None else (self.fork_server.connection.fileno(),),
                env={**os.environ, **({} if self.fork_server is None else self.fork_server.environment())},
                # A session of its own: Ctrl-C reaches this program only, which then ends the nodes in order.
                start_new_session=True,
            )
        child.started_seconds = time.monotonic()
        ids = {str(each.process.pid): str(each.settings) for each in self._children if each.process is not None}
        (self.directory / LIST_NAME).write_text(json.dumps(ids) + "\n")

    def _end_leftovers(self) -> None:
        """End nodes that an earlier run left behind because it was killed; only those that run our own settings."""
        listing = self.directory / LIST_NAME
        if not listing.is_file():
            return
        left: list[int] = []
        try:
            left = [int(key) for key, path in json.loads(listing.read_text()).items() if _runs(int(key), path)]
        except (ValueError, AttributeError, TypeError):
            # A list that was cut short names nobody: the nodes' own stores still refuse a second owner.
            return
        for each in left:
            _signal(each, signal.SIGTERM)
        limit = time.monotonic() + GRACE_SECONDS
        while any(Path(f"/proc/{each}").exists() for each in left) and time.monotonic() < limit:
            time.sleep(0.1)
        for each in left:
            _signal(each, signal.SIGKILL)


def log_tail(directory: Path) -> tuple[str, ...]:
    """Return the last lines of a node's log."""
    path = directory / LOG_NAME
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return tuple(file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _runs(process_id: int, settings: str) -> bool:
    """Return whether a process is a node of ours: ids are given anew, so the command line decides."""
    try:
        words = Path(f"/proc/{process_id}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"learnchain.app" in words and settings.encode() in words


def _signal(process_id: int, number: signal.Signals) -> None:
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return
