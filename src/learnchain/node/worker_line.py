"""Hold the two ends of a line to one training process, whether it was started here or forked by the fork server."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

from learnchain.node.fork_server import ID_BYTES, ForkServer
from learnchain.primitives.rejection import Unavailable


@dataclass(slots=True)
class WorkerLine:
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


async def started_worker(nice: int, threads: int) -> WorkerLine:
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
    return WorkerLine(child.stdout, child.stdin, child.pid, child)


async def forked_worker(fork_server: ForkServer, nice: int) -> WorkerLine:
    """Ask the fork server for a worker and wait for its birth; raise `Unavailable` when the server is gone."""
    reader, writer = await asyncio.open_connection(sock=fork_server.fork(nice))
    try:
        process_id = int.from_bytes(await reader.readexactly(ID_BYTES), "big")
    except BaseException as error:
        writer.close()
        if isinstance(error, (asyncio.IncompleteReadError, ConnectionError)):
            raise Unavailable("the fork server of training processes ended") from error
        raise
    return WorkerLine(reader, writer, process_id)
