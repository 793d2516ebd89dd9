"""Free the storage of old blocks: models and traces outside the window go, the best model of each task stays.

DLBC IV-H and PoDL III-C: "we can save the storage by freeing up some earlier models with lower accuracy". Blocks,
payloads and states are never deleted, so the chain still verifies at header level.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from learnchain.encoding.content_id import Cid
from learnchain.engines.contract import Rules
from learnchain.protocol.messages import Block, Head
from learnchain.storage.archive import Archive, BestModel

logger = logging.getLogger(__name__)


class Discarding(Protocol):
    """Delete blobs for good."""

    async def discard(self, cid: Cid) -> int:
        """Delete a blob, pinned or not; return the bytes freed."""


class Retention:
    """Delete what the window of `retain_blocks` final blocks has passed; 0 keeps everything.

    What this node may still be asked for stays longer: whoever cannot show its steps loses its bond.
    """

    def __init__(
        self,
        archive: Archive,
        blobs: Discarding,
        rules: Rules,
        retain_blocks: int,
        is_needed: Callable[[int], bool] = lambda _height: False,
    ) -> None:
        self._archive, self._blobs, self._rules, self._retain_blocks = archive, blobs, rules, retain_blocks
        self._is_needed = is_needed
        self._highest = 0
        self._lock = asyncio.Lock()

    def is_over(self, height: int) -> bool:
        """Return whether the window has passed a height, so that its models need not be fetched any more."""
        return self._retain_blocks > 0 and height <= self._highest - self._retain_blocks

    async def prune(self, head: Head, needed: frozenset[Cid] = frozenset()) -> int:
        """Delete the models, traces and losing candidates of all heights that are final and outside the window.

        What is `needed` now waits: the model that the next winner is compared with may be older than the window, and no
        task's best (PODL-R1).
        """
        self._highest = max(self._highest, head.height)
        if not self._retain_blocks:
            return 0
        final = self._archive.state(head.finalized).height
        limit = min(head.height - self._retain_blocks, final) + 1
        async with self._lock:
            freed = 0
            for height, cids in sorted(self._archive.blobs.below(limit).items()):
                freed += 0 if self._is_needed(height) else await self._prune_height(head, height, cids, needed)
        if freed:
            logger.info("storage relief: %d bytes of heights below %d are freed", freed, limit)
        return freed

    async def _prune_height(self, head: Head, height: int, cids: tuple[Cid, ...], needed: frozenset[Cid]) -> int:
        kept, passed = self._rank_models(head, height)
        freed = 0
        for cid in (*cids, *passed):
            if cid in needed - kept:
                self._archive.blobs.note(self._highest, (cid,))
            elif cid not in kept:
                freed += await self._blobs.discard(cid)
        # The notes go last: a kill in between deletes again what is gone already.
        self._archive.blobs.forget(height)
        return freed

    def _rank_models(self, head: Head, height: int) -> tuple[frozenset[Cid], tuple[Cid, ...]]:
        """Return the model to keep of a height, and the one that it outdoes."""
        found = [each for each in self._archive.branch(head.finalized, height - 1)[:1] if each.height == height]
        block = self._archive.block(found[0].block_hash) if found else None
        if not isinstance(block, Block):
            return frozenset(), ()
        mine = BestModel(height, block.reveal.model_cid, block.verdict.correct, block.verdict.total)
        task_id = block.reveal.task_id
        best = self._archive.blobs.best_model(task_id)
        if best is not None and best.model_cid != mine.model_cid and not self._outdoes(block, mine, best):
            return frozenset(), ()
        self._archive.blobs.keep_best_model(task_id, mine)
        passed = (best.model_cid,) if best is not None and best.model_cid != mine.model_cid else ()
        return frozenset({mine.model_cid}), passed

    def _outdoes(self, block: Block, mine: BestModel, best: BestModel) -> bool:
        """Compare on one test set where the block does: counts of different sets say nothing (PODL-R1)."""
        correct, total = self._rules.parts.baseline_count(block.verdict)
        if total:
            return block.verdict.correct * total > correct * block.verdict.total
        return mine.beats(best)
