"""Fetch a blob from peers and the store elsewhere: the tree first, then leaves from every source in parallel.

Each leaf is hashed on arrival: a source is dropped at its first wrong one, and the leaves that are on disk already are
never asked for again.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from learnchain.encoding.content_id import MAXIMUM_BLOCK_BYTES, Cid, Codec, check_cid, cid_text, parse_cid
from learnchain.network.network import Network
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.blobs.blob_files import BlobFiles
from learnchain.storage.blobs.blob_store import BlobNotFound, Leaf, Progress, Tree, maximum_tree_bytes, read_tree
from learnchain.storage.blobs.origins import BlobOrigin

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
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Job:
    """Carry what the workers of one fetch share; the sets shrink while they run."""

    tree: Tree
    todo: deque[int]
    missing: set[int]
    sources: set[bytes]
    progress: Progress | None


class BlobFetcher:
    """Ask sources for what is missing on disk, and blame those that send something else."""

    def __init__(self, files: BlobFiles, network: Network | None, origin: BlobOrigin | None) -> None:
        self._files, self._network, self._origin = files, network, origin

    def candidates(self, sources: Sequence[bytes]) -> list[bytes]:
        """Return whom to ask: the named sources first, then every other peer, best score first."""
        first = [] if self._origin is None else [ORIGIN]
        if self._network is None:
            return first
        connected = {peer.peer_id: peer.score for peer in self._network.peers()}
        named = [peer_id for peer_id in dict.fromkeys(sources) if peer_id in connected]
        return first + named + sorted(connected.keys() - set(named), key=lambda peer_id: (-connected[peer_id], peer_id))

    async def fetch(self, cid: Cid, max_bytes: int, sources: list[bytes], progress: Progress | None) -> Path:
        """Return the completed file; what has arrived stays on disk when no source is left."""
        if parse_cid(cid).codec is Codec.RAW:
            tree = await self._fetch_single_leaf(cid, max_bytes, sources)
        else:
            tree = await self._find_tree(cid, max_bytes, sources)
            missing = await asyncio.to_thread(self._files.find_missing_leaves, tree)
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
            raise _not_found_error(cid, sources)
        if len(data) > max_bytes:
            raise too_large(len(data), max_bytes)
        self._files.write_leaf(cid, leaf, data)
        return Tree(cid, len(data), (Leaf(cid, 0, len(data)),))

    async def _find_tree(self, cid: Cid, max_bytes: int, sources: list[bytes]) -> Tree:
        known = self._files.tree(cid)
        if known is not None:
            if known.size_bytes > max_bytes:
                raise too_large(known.size_bytes, max_bytes)
            return known
        asked = list(sources)
        found = await _first(asked, lambda source: self._ask_tree(source, cid, max_bytes, sources))
        if found is None:
            raise _not_found_error(cid, asked)
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
                raise _not_found_error(job.tree.root, range(asked_at_first))
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
                await _cancel_tasks(running)

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
            check_cid(leaf.cid, data)
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


def _not_found_error(cid: Cid, asked: Sized) -> BlobNotFound:
    return BlobNotFound(f"no connected peer has all of the blob {cid_text(cid)}", len(asked))


def too_large(size: int, max_bytes: int) -> Rejected:
    """Return the refusal of a blob above the caller's bound."""
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
        await _cancel_tasks(running)
    return None


async def _cancel_tasks(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel and await tasks, so that none outlives its fetch."""
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
