"""The embedded blob engine: files on disk, blocks from peers, over the connections that the network has anyway.

A fetch gets the tree first, from whoever has it, and knows size and leaves before it asks for any; then every source
sends leaves in parallel. Each leaf is hashed on arrival: a source is dropped at its first wrong one, and the leaves
that are on disk already are never asked for again. A store elsewhere (`origin`) is one more source, and gets what is
added here.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from learnchain.node.blobs.blob_files import BlobFiles, chunks_of_bytes
from learnchain.node.blobs.blob_store import BlobStat, Nowhere, Progress
from learnchain.node.blobs.delivery import Delivery
from learnchain.node.blobs.origin import BlobOrigin
from learnchain.node.blobs.tree import Leaf, Tree, maximum_tree_bytes, read_tree
from learnchain.node.network.network import Network
from learnchain.primitives.content_id import (
    CID_BYTES,
    MAXIMUM_BLOCK_BYTES,
    Cid,
    Codec,
    check_block,
    cid_text,
    parse_cid,
)
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

logger = logging.getLogger(__name__)

ORIGIN = b""
"""Stands among the sources for the store elsewhere; no peer has such a name."""
METHOD_TREE = "blob/tree"
METHOD_LEAF = "blob/leaf"
TREE_SECONDS = 10.0
LEAF_SECONDS = 20.0
LEAVES_UNDER_WAY = 3
"""Leaves that one source is asked for at a time."""
HEDGE_SECONDS = 0.25
"""How long one source may stay silent before the next is asked as well."""
STRAGGLER_SECONDS = 2.0
"""How long a source that has nothing left to send waits before it is asked for what slower ones still owe."""
SMALL_BYTES = 1 << 16
_TREE_CHUNK_BYTES = 1024 * 1024
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Job:
    """Carry what the workers of one fetch share; the sets shrink while they run."""

    tree: Tree
    todo: deque[int]
    missing: set[int]
    sources: set[bytes]
    progress: Progress | None


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
        self._network = network
        self._origin = origin
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
            await self._delivery.done()

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
                    path = await self._fetch(cid, max_bytes, self._candidates(sources), progress)
                elif path.stat().st_size > max_bytes:
                    raise _too_large(path.stat().st_size, max_bytes)
        finally:
            turn.users -= 1
            if not turn.users:
                del self._fetching[cid]
        await self._respect_quota(cid)
        return path

    # --- fetching ----------------------------------------------------------------------------------------------------

    def _candidates(self, sources: Sequence[bytes]) -> list[bytes]:
        """Return whom to ask: the named sources first, then every other peer, best score first."""
        first = [] if self._origin is None else [ORIGIN]
        if self._network is None:
            return first
        connected = {peer.peer_id: peer.score for peer in self._network.peers()}
        named = [peer_id for peer_id in dict.fromkeys(sources) if peer_id in connected]
        return first + named + sorted(connected.keys() - set(named), key=lambda peer_id: (-connected[peer_id], peer_id))

    async def _fetch(self, cid: Cid, max_bytes: int, sources: list[bytes], progress: Progress | None) -> Path:
        if parse_cid(cid).codec is Codec.RAW:
            tree = await self._fetch_single_leaf(cid, max_bytes, sources)
        else:
            tree = await self._find_tree(cid, max_bytes, sources)
            missing = await asyncio.to_thread(self._files.missing, tree)
            if sum(tree.leaves[index].size for index in missing) > self._files.free_disk_bytes():
                raise Unavailable(f"the disk has no room for {tree.size_bytes} bytes; free some and try again")
            await self._fetch_leaves(_Job(tree, deque(missing), set(missing), set(sources), progress))
        if progress is not None:
            progress(tree.size_bytes, tree.size_bytes)
        return await asyncio.to_thread(self._files.complete, tree)

    async def _fetch_single_leaf(self, cid: Cid, max_bytes: int, sources: list[bytes]) -> Tree:
        leaf = Leaf(cid, 0, -1)
        data = await _first(sources, lambda source: self._ask_leaf(source, cid, 0, leaf))
        if data is None:
            raise _nobody(cid, sources)
        if len(data) > max_bytes:
            raise _too_large(len(data), max_bytes)
        self._files.write_leaf(cid, leaf, data)
        return Tree(cid, len(data), (Leaf(cid, 0, len(data)),))

    async def _find_tree(self, cid: Cid, max_bytes: int, sources: list[bytes]) -> Tree:
        known = self._files.tree(cid)
        if known is not None:
            if known.size_bytes > max_bytes:
                raise _too_large(known.size_bytes, max_bytes)
            return known
        asked = list(sources)
        found = await _first(asked, lambda source: self._ask_tree(source, cid, max_bytes, sources))
        if found is None:
            raise _nobody(cid, asked)
        tree, written = found
        await asyncio.to_thread(self._files.put_tree, cid, written)
        return tree

    async def _ask_tree(
        self, source: bytes, cid: Cid, max_bytes: int, sources: list[bytes]
    ) -> tuple[Tree, bytes] | None:
        """Return a checked tree with its bytes; a source whose nodes do not hash is blamed and asked no more."""
        try:
            if source == ORIGIN:
                written = await self._ask_origin(lambda origin: origin.tree(cid, max_bytes))
            else:
                written = await self._ask(source, METHOD_TREE, cid, TREE_SECONDS, maximum_tree_bytes(max_bytes))
            return None if written is None else (read_tree(cid, written, max_bytes), written)
        except Rejected as rejected:
            if rejected.reason is not RejectionReason.WRONG_HASH:
                raise
            self._blame(source, rejected)
            sources.remove(source)
            return None

    async def _fetch_leaves(self, job: _Job) -> None:
        """Run until nothing is missing or no source is left; a source that fails takes part no more."""
        asked_at_first = len(job.sources)
        while job.missing:
            if not job.sources:
                raise _nobody(job.tree.root, range(asked_at_first))
            job.todo.clear()
            job.todo.extend(sorted(job.missing))
            # In the order of their start, here and below: sets of futures are ordered by their place in memory.
            running: list[asyncio.Future[None]] = []
            for source in sorted(job.sources):
                asked: set[int] = set()
                running += [asyncio.ensure_future(self._work(job, source, asked)) for _ in range(LEAVES_UNDER_WAY)]
            try:
                while running and job.missing:
                    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for worker in (each for each in running if each in done):
                        worker.result()
                    running = [each for each in running if each not in done]
            finally:
                # Whoever still waits for a source that does not answer waits for what is here already.
                await _cancelled(running)

    async def _work(self, job: _Job, source: bytes, asked: set[int]) -> None:
        while source in job.sources and job.missing:
            if not job.todo:
                # Every leaf is under way. After a while ask for those of slower sources too: the last waits for nobody.
                await asyncio.sleep(STRAGGLER_SECONDS)
            index = job.todo.popleft() if job.todo else next((i for i in sorted(job.missing) if i not in asked), None)
            if index is None:
                return
            asked.add(index)
            leaf = job.tree.leaves[index]
            data = await self._ask_leaf(source, job.tree.root, index, leaf)
            if data is None:
                job.todo.appendleft(index)
                job.sources.discard(source)
                return
            if index not in job.missing:
                continue
            await asyncio.to_thread(self._files.write_leaf, job.tree.root, leaf, data)
            job.missing.discard(index)
            if job.progress is not None:
                here = job.tree.size_bytes - sum(job.tree.leaves[other].size for other in job.missing)
                job.progress(here, job.tree.size_bytes)

    async def _ask_leaf(self, source: bytes, root: Cid, index: int, leaf: Leaf) -> bytes | None:
        """Return a checked leaf; None when the source has it not, or sent something else and was blamed."""
        limit = leaf.size if leaf.size >= 0 else MAXIMUM_BLOCK_BYTES
        if source == ORIGIN:
            data = await self._ask_origin(lambda origin: origin.leaf(root, leaf, limit))
        else:
            data = await self._ask(source, METHOD_LEAF, root + index.to_bytes(4, "big"), LEAF_SECONDS, limit)
        if data is None:
            return None
        try:
            check_block(leaf.cid, data)
            if leaf.size not in {-1, len(data)}:
                raise Rejected(RejectionReason.WRONG_HASH, "the leaf has another size than its node says")
        except Rejected as rejected:
            self._blame(source, rejected)
            return None
        return data

    async def _ask(self, source: bytes, method: str, body: bytes, seconds: float, limit_bytes: int) -> bytes | None:
        if self._network is None:
            return None
        with contextlib.suppress(Unavailable):
            return await self._network.request_bytes(source, method, body, seconds, limit_bytes)
        return None

    async def _ask_origin(self, ask: Callable[[BlobOrigin], Coroutine[None, None, bytes | None]]) -> bytes | None:
        if self._origin is None:
            return None
        try:
            return await ask(self._origin)
        except Unavailable as missing:
            logger.info("%s", missing.what)
            return None

    def _blame(self, source: bytes, rejected: Rejected) -> None:
        if source == ORIGIN:
            logger.warning("the blob store sends what it was not asked for: %s", rejected)
        elif self._network is not None:
            self._network.report(source, rejected)

    def _deliver(self, cid: Cid) -> None:
        if self._delivery is not None:
            self._delivery.owe(cid)

    async def _respect_quota(self, just_used: Cid) -> None:
        if self._quota_bytes is not None:
            keep = frozenset({just_used, *self._fetching, *self._files.owed()})
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


def _nobody(cid: Cid, asked: Sized) -> Nowhere:
    return Nowhere(f"no connected peer has all of the blob {cid_text(cid)}", len(asked))


def _too_large(size: int, max_bytes: int) -> Rejected:
    return Rejected(RejectionReason.TOO_LARGE, f"the blob has {size} bytes where {max_bytes} are allowed")


async def _first(sources: list[bytes], ask: Callable[[bytes], Coroutine[None, None, _Answer | None]]) -> _Answer | None:
    """Return the first answer; the next source is asked when one fails or stays silent, so a slow one stalls nobody."""
    waiting, running = deque(sources), list[asyncio.Task[_Answer | None]]()
    try:
        while waiting or running:
            if waiting:
                running.append(asyncio.create_task(ask(waiting.popleft())))
            patience = HEDGE_SECONDS if waiting else None
            done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            finished = [task for task in running if task in done]
            running = [task for task in running if task not in done]
            for task in finished:
                answer = task.result()
                if answer is not None:
                    return answer
    finally:
        await _cancelled(running)
    return None


async def _cancelled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel and await tasks, so that none outlives its fetch."""
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
