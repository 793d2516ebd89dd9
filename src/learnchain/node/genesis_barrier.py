"""Start nodes before their network is founded: the genesis of a local network is dated when everybody is warm.

Loading torch and the execution engine takes a busy machine longer than the first phases last. A genesis that was dated
in advance then gave empty heights first, and struck the task that was selected for them.
"""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from learnchain.encoding.files import write_whole
from learnchain.learning.jobs import Training
from learnchain.network.concurrency import Clock
from learnchain.node.settings import NodeSettings
from learnchain.rejection import Unavailable

AWAIT_GENESIS_FLAG = "--await-genesis"
"""Tells a node process that its genesis may still have to be written."""
AWAIT_GENESIS_SECONDS = 180.0
_READY_NAME = "ready"
_LOOK_SECONDS = 0.05


async def await_genesis(
    settings: NodeSettings, trainings: Iterable[Training | None], stopping: asyncio.Event, clock: Clock
) -> bool:
    """Return true once the genesis lies there, having warmed up and said so; false if the node is stopped before."""
    genesis, mark = Path(settings.genesis), Path(settings.data_directory) / _READY_NAME
    if genesis.is_file():
        return True
    limit, used = clock.monotonic_seconds() + AWAIT_GENESIS_SECONDS, [each for each in trainings if each is not None]
    try:
        await asyncio.gather(*(each.start() for each in used))
        write_whole(mark, str(os.getpid()).encode())
        while not genesis.is_file() and not stopping.is_set():
            if clock.monotonic_seconds() > limit:
                raise Unavailable(f"{genesis}: nobody founded the network within {AWAIT_GENESIS_SECONDS:.0f} s")
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        mark.unlink(missing_ok=True)
        if not genesis.is_file():
            await asyncio.gather(*(each.close() for each in used))
    return genesis.is_file()


def is_ready(directory: Path, process_id: int | None) -> bool:
    """Return whether this very process has said that it only waits for the genesis."""
    try:
        return (directory / _READY_NAME).read_text() == str(process_id)
    except OSError:
        return False
