"""A task over many blocks: what is remembered from block to block, and when the requester stops (III-B; PODL-R1, R4).

Two accuracies are compared only on the same test set. The champion is the best model so far; every later winner meets
it on the winner's own fresh test set, so the comparison needs no set twice.
"""

from dataclasses import dataclass

from learnchain.encoding.codec import Address, Hash32, decode, encode
from learnchain.encoding.numbers import Accuracy
from learnchain.protocol.messages import Block
from learnchain.protocol.selection import Selection
from learnchain.protocol.task_specification import Cid, TaskSpecification

TEN_THOUSAND = 10_000


@dataclass(frozen=True, slots=True)
class Progress:
    """Hold what a block leaves to the next one of the same task: it travels in the engine's memory.

    `champion_*` name the best model, its miner and its count on the newest test set; `dull` counts the blocks in a row
    that gained nothing significant.
    """

    task_id: Hash32
    turn: int
    origin: Hash32
    champion_cid: Cid
    champion_miner: Address
    champion_correct: int
    champion_total: int
    dull: int

    def reaches(self, specification: TaskSpecification) -> bool:
        """Return whether the champion was as accurate on the newest test set as the task requires."""
        accuracy = Accuracy(self.champion_correct, self.champion_total)
        return accuracy.reaches(specification.required_numerator, specification.required_denominator)


def remembered(memory: bytes) -> Progress | None:
    """Return what the parent block left, or None when no task goes on."""
    return decode(Progress, memory) if memory else None


def memory_of(progress: Progress) -> bytes:
    """Return the bytes that the engine remembers."""
    return encode(progress)


@dataclass(frozen=True, slots=True)
class Stopping:
    """Say when accuracy "does not increase significantly after multiple blocks" (III-B; reading PODL-R4).

    `gain_ten_thousandths` of accuracy are significant; so many blocks in a row without it end the task.
    """

    gain_ten_thousandths: int = 50
    blocks: int = 2

    def progress(self, selection: Selection, block: Block) -> Progress:
        """Return how the task stands after a block."""
        before, verdict, reveal = remembered(selection.memory), block.verdict, block.reveal
        course = selection.course
        won = (reveal.model_cid, reveal.miner, verdict.correct, verdict.total)
        place = (selection.task.task_id, course.turn, course.origin)
        if before is None or not verdict.baseline_total:
            return Progress(*place, *won, 0)
        won_share = Accuracy(verdict.correct, verdict.total).share
        gain = TEN_THOUSAND * (won_share - Accuracy(verdict.baseline_correct, verdict.baseline_total).share)
        dull = 0 if gain >= self.gain_ten_thousandths else before.dull + 1
        if gain > 0:
            return Progress(*place, *won, dull)
        kept = (before.champion_cid, before.champion_miner, verdict.baseline_correct, verdict.baseline_total)
        return Progress(*place, *kept, dull)

    def is_over(self, progress: Progress, specification: TaskSpecification) -> bool:
        """Return whether the requester collects the model: nothing is gained any more, or no fresh test set is left."""
        return progress.dull >= self.blocks or progress.turn + 1 >= len(specification.data.tests)
