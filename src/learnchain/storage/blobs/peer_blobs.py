"""Hand what a node adds to the store elsewhere, in the background: whoever adds a blob does not wait for it.

The embedded blob engine: files on disk, blocks from peers, over the connections that the network has anyway.

A store elsewhere (`origin`) is one more source of what is fetched, and gets what is added here.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from learnchain.encoding.content_id import CID_BYTES, Cid, Codec, parse_cid
from learnchain.network.network import Network
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.blobs.blob_files import BlobFiles, chunks_of_bytes
from learnchain.storage.blobs.blob_store import BlobStat, Progress
from learnchain.storage.blobs.fetching import METHOD_LEAF, METHOD_TREE, BlobFetcher, too_large
from learnchain.storage.blobs.origins import BlobOrigin

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

    async def wait_until_delivered(self) -> None:
        """Wait until nothing is owed; raise `Unavailable` when the origin does not take it."""
        await asyncio.shield(self._start())
        if owed := self._files.list_undelivered():
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
        while waiting := [each for each in self._list_undelivered() if each not in tried]:
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

    def _list_undelivered(self) -> list[tuple[Cid, bool]]:
        return [(cid, self._files.is_pinned(cid)) for cid in self._files.list_undelivered()]


SMALL_BYTES = 1 << 16
_TREE_CHUNK_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Turn:
    """Let one fetch of a CID run at a time; the others find its file."""

    lock: asyncio.Lock
    users: int = 0


class PeerBlobs:
    """Keep blobs and exchange them with peers; a `BlobStore`. Without a network it is a local store.

    `quota_bytes` bounds what unpinned blobs may take beside the pinned ones; None keeps everything.
    """

    def __init__(
        self,
        directory: Path,
        network: Network | None = None,
        quota_bytes: int | None = None,
        origin: BlobOrigin | None = None,
    ) -> None:
        self._files = BlobFiles(directory)
        self._fetcher = BlobFetcher(self._files, network, origin)
        self._delivery = None if origin is None else Delivery(self._files, origin)
        self._quota_bytes = quota_bytes
        self._fetching: dict[Cid, _Turn] = {}
        if network is not None:
            network.on_request(METHOD_TREE, self._serve_tree)
            network.on_request(METHOD_LEAF, self._serve_leaf)

    async def add(self, path: Path) -> Cid:
        """Take a copy of a file; return its CID."""
        cid = await asyncio.to_thread(self._files.add_file, path)
        self._deliver(cid)
        await self._respect_quota(cid)
        return cid

    async def add_bytes(self, data: bytes) -> Cid:
        """Take bytes; return their CID."""
        cid = await asyncio.to_thread(self._files.add, chunks_of_bytes(data))
        self._deliver(cid)
        await self._respect_quota(cid)
        return cid

    async def stat(self, cid: Cid) -> BlobStat:
        """Say what is here, without asking anybody."""
        tree = self._files.tree(cid)
        size = None if tree is None else tree.size_bytes
        return BlobStat(cid, size, self._files.path(cid) is not None, self._files.is_pinned(cid))

    def path(self, cid: Cid) -> Path | None:
        """Return the file of a blob that is here, else None."""
        return self._files.path(cid)

    async def read(self, cid: Cid, max_bytes: int) -> bytes:
        """Return the bytes of a blob, fetched if need be."""
        return await content_of(await self.fetch(cid, max_bytes=max_bytes))

    async def pin(self, cid: Cid) -> None:
        """Keep a blob whatever the quota says, whether it is here yet or not."""
        self._files.pin(cid)
        if self._files.path(cid) is not None:
            self._deliver(cid)

    async def unpin(self, cid: Cid) -> None:
        """Let the quota decide again."""
        self._files.unpin(cid)
        if self._delivery is not None:
            await self._delivery.unpin(cid)
        await self._respect_quota(cid)

    async def discard(self, cid: Cid) -> int:
        """Delete a blob, pinned or not; return the bytes freed."""
        if cid in self._fetching:
            return 0
        return await asyncio.to_thread(self._files.discard, cid)

    def used_bytes(self) -> int:
        """Return the bytes that blobs take on this disk."""
        return self._files.used_bytes()

    def pins(self) -> tuple[Cid, ...]:
        """Return every pinned blob."""
        return self._files.pins()

    async def verify(self, cid: Cid) -> None:
        """Hash a stored blob again; a damaged one is deleted and `WRONG_HASH`."""
        await asyncio.to_thread(self._files.verify, cid)

    async def collect_garbage(self, quota_bytes: int) -> int:
        """Delete unpinned blobs, least recently used first, until all fit the quota; return the bytes freed."""
        return await asyncio.to_thread(self._files.collect, quota_bytes, frozenset(self._fetching))

    async def handed_over(self) -> None:
        """Wait until the store elsewhere has all that was added; raise `Unavailable` when it does not take it."""
        if self._delivery is not None:
            await self._delivery.wait_until_delivered()

    async def close(self) -> None:
        """End what runs for the store elsewhere; what it has to get still it gets after the next start."""
        if self._delivery is not None:
            await self._delivery.close()

    async def fetch(
        self, cid: Cid, *, max_bytes: int, sources: Sequence[bytes] = (), progress: Progress | None = None
    ) -> Path:
        """Return a file that holds the blob: from disk, else from `sources` and whoever else is connected.

        Raise `Unavailable` when nobody has it all (what has arrived stays for the next try), `TOO_LARGE` when it has
        more than `max_bytes`, `MALFORMED` when the CID names no file.
        """
        turn = self._fetching.setdefault(cid, _Turn(asyncio.Lock()))
        turn.users += 1
        try:
            async with turn.lock:
                path = self._files.path(cid)
                if path is None:
                    path = await self._fetcher.fetch(cid, max_bytes, self._fetcher.candidates(sources), progress)
                elif path.stat().st_size > max_bytes:
                    raise too_large(path.stat().st_size, max_bytes)
        finally:
            turn.users -= 1
            if not turn.users:
                del self._fetching[cid]
        await self._respect_quota(cid)
        return path

    def _deliver(self, cid: Cid) -> None:
        if self._delivery is not None:
            self._delivery.owe(cid)

    async def _respect_quota(self, just_used: Cid) -> None:
        if self._quota_bytes is not None:
            keep = frozenset({just_used, *self._fetching, *self._files.list_undelivered()})
            await asyncio.to_thread(self._files.collect, self._quota_bytes, keep)

    # --- serving -----------------------------------------------------------------------------------------------------

    async def _serve_tree(self, peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        written = self._files.tree_bytes(body) if parse_cid(body).codec is Codec.DAG_PB else None
        if written is None:
            raise Unavailable("no tree of this blob is here")
        for start in range(0, len(written), _TREE_CHUNK_BYTES):
            yield written[start : start + _TREE_CHUNK_BYTES]

    async def _serve_leaf(self, peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        cid, index = body[:CID_BYTES], int.from_bytes(body[CID_BYTES:], "big")
        if len(body) != CID_BYTES + 4:
            raise Rejected(RejectionReason.MALFORMED, "a question for a leaf is a CID and four bytes")
        tree = self._files.tree(cid)
        if tree is None:
            raise Unavailable("nothing of this blob is here")
        if index >= len(tree.leaves):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the blob has {len(tree.leaves)} leaves")
        # Hashed again before it leaves: a damaged disk must not cost us our standing.
        data = await asyncio.to_thread(self._files.read_leaf, cid, tree.leaves[index])
        if data is None:
            raise Unavailable("this leaf is not here")
        yield data


async def content_of(path: Path) -> bytes:
    """Return a file's bytes; handing a small one to a thread would cost more than reading it."""
    if path.stat().st_size <= SMALL_BYTES:
        return path.read_bytes()
    return await asyncio.to_thread(path.read_bytes)
