"""Hold the two ends of a line to one training process, whether it was started here or forked by the fork server.

Speak to the training process: one `Trainer` is one worker, started when needed and again when it died.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learnchain.encoding.codec import Hash32
from learnchain.learning import jobs
from learnchain.learning.fork_server import ID_BYTES, THREADS, ForkServer
from learnchain.protocol.audit_messages import UNDECLARED_CLASS
from learnchain.rejection import Rejected, RejectionReason, Unavailable


@dataclass(slots=True)
class WorkerConnection:
    """Join the streams of a worker with what ends it; `child` is None where the fork server is its parent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    process_id: int
    child: asyncio.subprocess.Process | None = None
    ended: bool = False

    def end_input(self) -> None:
        """Close the worker's input, which ends it; its last answers are still read."""
        with suppress(OSError, RuntimeError):
            self.writer.write_eof()

    def kill(self) -> None:
        """End the worker at once. While its line is open its id is still its own."""
        if self.child is not None:
            with suppress(ProcessLookupError):
                self.child.kill()
        elif not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self.process_id, signal.SIGKILL)

    async def wait(self) -> None:
        """Return once the worker is gone; its line has ended already."""
        self.ended = True
        self.writer.close()
        if self.child is not None:
            await self.child.wait()


async def start_worker(nice: int, threads: int) -> WorkerConnection:
    """Start a worker of our own, which loads torch first."""
    words = (sys.executable, "-m", "learnchain.learning.worker", "--threads", str(threads), "--nice", str(nice))
    child = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    return WorkerConnection(child.stdout, child.stdin, child.pid, child)


async def forked_worker(fork_server: ForkServer, nice: int) -> WorkerConnection:
    """Ask the fork server for a worker and wait for its birth; raise `Unavailable` when the server is gone."""
    reader, writer = await asyncio.open_connection(sock=fork_server.fork(nice))
    try:
        process_id = int.from_bytes(await reader.readexactly(ID_BYTES), "big")
    except BaseException as error:
        writer.close()
        if isinstance(error, (asyncio.IncompleteReadError, ConnectionError)):
            raise Unavailable("the fork server of training processes ended") from error
        raise
    return WorkerConnection(reader, writer, process_id)


logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 1.0
"""A process that still loads torch does not see the end of its input; it holds nothing that is worth waiting for."""


class TrainerFailed(Exception):
    """Say that the training process met a fault of our own."""


class Trainer:
    """Give jobs to one training process; jobs queue there, so use a second trainer to judge while training."""

    def __init__(
        self, nice: int = 0, threads: int = 1, fork_server: ForkServer | None = None, classes: Path | None = None
    ) -> None:
        self._nice, self._threads, self._fork_server = nice, threads, fork_server
        self._classes = classes or Path.home() / ".learnchain" / "classes"
        self._class: Hash32 | None = None
        self._line: WorkerConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, tuple[asyncio.Future[Any], jobs.OnProgress | None]] = {}
        self._training: set[int] = set()
        self._last_id = 0
        self._starting = asyncio.Lock()

    @property
    def process_id(self) -> int | None:
        """Return the id of the running process, for status pages."""
        return None if self._line is None else self._line.process_id

    async def start(self) -> None:
        """Start the process if it does not run and return once torch is loaded: the first job need not wait for it."""
        await self.run(jobs.ReadyJob())

    async def _spawn(self) -> None:
        """Start the process if it does not run."""
        async with self._starting:
            if self._line is not None and not self._line.ended:
                return
            await self._reap()
            self._line = await self._open_connection()
            self._reader = asyncio.create_task(self._read(self._line))

    async def _open_connection(self) -> WorkerConnection:
        if self._fork_server is not None and self._threads == THREADS:
            with suppress(Unavailable):
                return await forked_worker(self._fork_server, self._nice)
        return await start_worker(self._nice, self._threads)

    async def machine_class(self) -> Hash32:
        """Return the reproducibility class of this trainer's process: measured once a machine, then read."""
        if self._class is None:
            try:
                self._class = await self.run(jobs.ClassJob(str(self._classes)))
            except TrainerFailed as error:
                # A machine on which the probe fails may still train; nobody compares bits with it.
                logger.warning("the probe of the reproducibility class failed: %s", error)
                self._class = UNDECLARED_CLASS
        return self._class

    async def run(self, job: jobs.Job[jobs.Answer], on_progress: jobs.OnProgress | None = None) -> jobs.Answer:
        """Return the process's answer; a caller that is cancelled has its job dropped."""
        await self._spawn()
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, on_progress)
        if isinstance(job, jobs.TrainingJob):
            self._training.add(number)
        try:
            await self._send({"id": number, **job.request()})
            return job.read_answer(await future)
        except asyncio.CancelledError:
            with suppress(Unavailable):
                await self._send({"id": number, "method": "cancel"})
            raise
        finally:
            self._waiting.pop(number, None)
            self._training.discard(number)

    async def finish_early(self) -> None:
        """End running training after its present epoch; its result is that of the finished epochs."""
        for number in tuple(self._training):
            await self._send({"id": number, "method": "finish"})

    async def close(self) -> None:
        """End the process: its input closes, and it does not outlive that."""
        if self._line is not None and self._reader is not None:
            self._line.end_input()
            done, _ = await asyncio.wait((self._reader,), timeout=_CLOSE_SECONDS)
            if not done:
                self._line.kill()
        await self._reap()

    async def _send(self, message: dict[str, Any]) -> None:
        if self._line is None or self._line.ended:
            raise Unavailable("the training process does not run")
        try:
            self._line.writer.write(jobs.pack_frame(message))
            await self._line.writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise Unavailable("the training process ended") from error

    async def _read(self, line: WorkerConnection) -> None:
        """Hand answers to their callers until the process ends, then fail whoever still waits."""
        try:
            while True:
                head = await line.reader.readexactly(4)
                self._deliver(jobs.unpack_body(await line.reader.readexactly(jobs.frame_length(head))))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Rejected:
            line.kill()
        await line.wait()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the training process ended"))

    def _deliver(self, message: dict[str, Any]) -> None:
        future, on_progress = self._waiting.get(message.get("id", 0), (None, None))
        if future is None or future.done():
            return
        if "progress" in message:
            if on_progress is not None:
                on_progress(jobs.TrainingProgress(**message["progress"]))
        elif "error" in message:
            future.set_exception(_failure(**message["error"]))
        else:
            future.set_result(message["result"])

    async def _reap(self) -> None:
        if self._reader is not None:
            await self._reader
        self._line, self._reader = None, None


def _failure(reason: str, detail: str) -> Exception:
    if reason in set(RejectionReason):
        return Rejected(RejectionReason(reason), detail)
    return Unavailable(detail) if reason == jobs.UNAVAILABLE else TrainerFailed(detail)
