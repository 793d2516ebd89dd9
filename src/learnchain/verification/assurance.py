"""How much of a block a node checks itself, and what it then takes from signatures: stated before work starts."""

from dataclasses import dataclass
from enum import StrEnum

from learnchain.encoding.codec import Hash32
from learnchain.learning.jobs import Answer, Job, OnProgress
from learnchain.protocol.actions import MeasureCandidate
from learnchain.protocol.messages import Deadline
from learnchain.rejection import Unavailable


class Level(StrEnum):
    """Name a level; every level checks all that the levels before it check."""

    HEADERS = "headers"
    ACCURACY = "accuracy"
    REPLAY = "replay"
    FULL = "full"

    @property
    def verifies_models(self) -> bool:
        """Return whether models are measured."""
        return self is not Level.HEADERS

    @property
    def replays(self) -> bool:
        """Return whether training is done again."""
        return self in (Level.REPLAY, Level.FULL)


class Demand(StrEnum):
    """Name what a node that joins late wants of the heights before its start.

    On a network that frees old models (DLBC IV-H) `accuracy` waits at the first one that nobody has: `available` is
    the operator's word that such blocks may count at header level (ROUND-10).
    """

    HEADERS = "headers"
    AVAILABLE = "available"
    ACCURACY = "accuracy"


CHECKED: dict[Level, tuple[str, ...]] = {
    Level.HEADERS: (
        "links and signatures",
        "selection and list of unselected tasks",
        "key release and release proof by the task's publisher",
        "opening of the commitment under the release",
        "every payload executed, its state root and withdrawals",
        "settlement root and what the escrow contract paid",
    ),
    Level.ACCURACY: (
        "what the engine asks of the winner's model: its watermark, or its count behind the mapping layer",
        "the winner's exact count repeated on the released test set",
    ),
    Level.REPLAY: (
        "seeds, ranges, steps, first and last state of the winner's training",
        "randomly drawn segments of the winner's training repeated to the bit, where it is declared",
        "the same of runs that lost and that the winner's goes on from",
    ),
    Level.FULL: ("every segment of the winner's training repeated to the bit, where it is declared",),
}
"""What a block was checked for, added up from the first level."""

TRUSTED_CLAIM = "the winner's own count and watermark"
"""What header level takes from the winner's signature: a false claim shows at accuracy level only."""


def list_checks_at(level: Level) -> tuple[str, ...]:
    """Return everything that a level checks."""
    found: list[str] = []
    for each in Level:
        found.extend(CHECKED[each])
        if each is level:
            break
    return tuple(found)


@dataclass(frozen=True)
class Trust:
    """Say which measurements a node takes from the winner's claim instead of making them.

    Only those of heights that were over before `since_milliseconds`, as demanded; a node that never judges takes all.
    """

    demand: Demand = Demand.ACCURACY
    verifies_models: bool = True
    since_milliseconds: int = 0

    def is_trusted(self, action: MeasureCandidate) -> bool:
        """Return whether this measurement is taken from the claim."""
        return not self.verifies_models or (self.demand is Demand.HEADERS and self._is_past(action))

    def settles_for_claim(self, action: MeasureCandidate) -> bool:
        """Return whether the claim will do once every peer that was asked says that the model is gone."""
        return self.demand is Demand.AVAILABLE and self._is_past(action)

    def _is_past(self, action: MeasureCandidate) -> bool:
        return action.selection.schedule.deadline(Deadline.BLOCK) < self.since_milliseconds


class NoTraining:
    """Stand where a training process would be in a node that does not judge: no torch, no process."""

    async def start(self) -> None:
        """Nothing has to be loaded."""

    async def machine_class(self) -> Hash32:
        """Return no class: nothing is trained here."""
        return b"\0" * 32

    async def run(self, job: Job[Answer], on_progress: OnProgress | None = None) -> Answer:
        """Refuse: this node has no training process."""
        raise Unavailable("a training process: this node does not judge (settings: judge)")

    async def finish_early(self) -> None:
        """Nothing runs."""

    async def close(self) -> None:
        """Nothing runs."""
