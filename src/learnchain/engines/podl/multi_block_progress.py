"""A task over many blocks: what is remembered from block to block, and when the requester stops (III-B; PODL-R1, R4).

Two accuracies are compared only on the same test set. The champion is the best model so far; every later winner meets
it on the winner's own fresh test set, so the comparison needs no set twice.
"""

from dataclasses import dataclass

from learnchain.encoding.codec import Accuracy, Address, Hash32, decode, encode
from learnchain.engines.podl.parts import baseline_count
from learnchain.protocol.messages import Block
from learnchain.protocol.state import Selection
from learnchain.protocol.task_specification import Cid, TaskSpecification

TEN_THOUSAND = 10_000


@dataclass(frozen=True, slots=True)
class MultiBlockProgress:
    """Hold what a block leaves to the next one of the same task: it travels in the engine's memory.

    `champion_*` name the best model, its miner and its count on the newest test set; `stalled_blocks` counts
    the blocks in a row that gained nothing significant.
    """

    task_id: Hash32
    block_index: int
    initialisation_seed: Hash32
    best_cid: Cid
    best_miner: Address
    best_correct: int
    best_total: int
    stalled_blocks: int

    def has_reached_requirement(self, specification: TaskSpecification) -> bool:
        """Return whether the champion was as accurate on the newest test set as the task requires."""
        accuracy = Accuracy(self.best_correct, self.best_total)
        return accuracy.has_reached(specification.required_numerator, specification.required_denominator)


def decode_memory(memory: bytes) -> MultiBlockProgress | None:
    """Return what the parent block left, or None when no task goes on."""
    return decode(MultiBlockProgress, memory) if memory else None


def encode_memory(progress: MultiBlockProgress) -> bytes:
    """Return the bytes that the engine remembers."""
    return encode(progress)


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """Say when accuracy "does not increase significantly after multiple blocks" (III-B; reading PODL-R4).

    `gain_ten_thousandths` of accuracy are significant; so many blocks in a row without it end the task.
    """

    gain_ten_thousandths: int = 50
    stalled_blocks: int = 2

    def advance_progress(self, selection: Selection, block: Block) -> MultiBlockProgress:
        """Return how the task stands after a block."""
        before, verdict, reveal = decode_memory(selection.memory), block.verdict, block.reveal
        course = selection.position
        won = (reveal.model_cid, reveal.miner, verdict.correct, verdict.total)
        place = (selection.task.task_id, course.block_index, course.initialisation_seed)
        correct, total = baseline_count(verdict)
        if before is None or not total:
            return MultiBlockProgress(*place, *won, 0)
        won_share = Accuracy(verdict.correct, verdict.total).share
        gain = TEN_THOUSAND * (won_share - Accuracy(correct, total).share)
        stalled_blocks = 0 if gain >= self.gain_ten_thousandths else before.stalled_blocks + 1
        if gain > 0:
            return MultiBlockProgress(*place, *won, stalled_blocks)
        kept = (before.best_cid, before.best_miner, correct, total)
        return MultiBlockProgress(*place, *kept, stalled_blocks)

    def is_over(self, progress: MultiBlockProgress, specification: TaskSpecification) -> bool:
        """Return whether the requester collects the model: nothing is gained any more, or no fresh test set is left."""
        return progress.stalled_blocks >= self.stalled_blocks or progress.block_index + 1 >= len(
            specification.data.test_sets
        )
