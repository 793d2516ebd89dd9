"""Hand what a node adds to the store elsewhere, in the background: whoever adds a blob does not wait for it."""

import asyncio
import contextlib
import logging

from learnchain.node.blobs.blob_files import BlobFiles
from learnchain.node.blobs.origin import BlobOrigin
from learnchain.primitives.content_id import Cid
from learnchain.primitives.rejection import Unavailable

logger = logging.getLogger(__name__)


class Delivery:
    """Owe blobs to an origin until it has them; the debts lie on disk, so a restart goes on."""

    def __init__(self, files: BlobFiles, origin: BlobOrigin) -> None:
        self._files = files
        self._origin = origin
        self._running: asyncio.Task[None] | None = None

    def owe(self, cid: Cid) -> None:
        """Give a blob to the origin: now if it takes it, else with the next blob."""
        self._files.owe(cid)
        self._start()

    async def unpin(self, cid: Cid) -> None:
        """Let go of a blob there too; an origin that does not answer keeps it."""
        with contextlib.suppress(Unavailable):
            await self._origin.unpin(cid)

    async def done(self) -> None:
        """Wait until nothing is owed; raise `Unavailable` when the origin does not take it."""
        await asyncio.shield(self._start())
        if owed := self._files.owed():
            raise Unavailable(f"the blob store: it has not taken {len(owed)} blobs yet")

    async def close(self) -> None:
        """Stop; what is owed still is handed over after the next start."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._origin.close()

    def _start(self) -> asyncio.Task[None]:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._deliver())
        return self._running

    async def _deliver(self) -> None:
        tried = set[tuple[Cid, bool]]()
        while waiting := [each for each in self._owed() if each not in tried]:
            for cid, pinned in waiting:
                tried.add((cid, pinned))
                try:
                    await self._give(cid, pinned)
                except Unavailable as missing:
                    logger.warning("%s; it is tried again with the next blob", missing.what)
                    return

    async def _give(self, cid: Cid, pinned: bool) -> None:
        tree, path = self._files.tree(cid), self._files.path(cid)
        if tree is not None and path is not None:
            await self._origin.put(tree, self._files.tree_bytes(cid) or b"", path)
            if pinned:
                await self._origin.pin(cid)
        # Pinned meanwhile: the debt stays, and the next turn pays it.
        if pinned == self._files.is_pinned(cid):
            self._files.settle(cid)

    def _owed(self) -> list[tuple[Cid, bool]]:
        return [(cid, self._files.is_pinned(cid)) for cid in self._files.owed()]
