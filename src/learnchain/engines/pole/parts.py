"""What PoLe alone adds to the messages of a round; `PoleParts` in `rules.py` says where each belongs (ROUND-23)."""

from dataclasses import dataclass
from typing import Annotated

from learnchain.encoding.codec import Accuracy, Bound, Hash32, decode
from learnchain.protocol import messages
from learnchain.protocol.task_specification import Cid


@dataclass(frozen=True, slots=True)
class FunctionalKey:
    """Locate the functional key of a height, in its key release, where rows stay encrypted (3.4, Step 3).

    The key is unique for data and query vectors, and everybody verifies it, so that its place need not be committed to.
    """

    cid: Cid


@dataclass(frozen=True, slots=True)
class MappedTraining:
    """Name in a training record the mapping layer of the run, and its exact count on the training rows (3.3)."""

    mapping: Hash32
    correct: int
    total: int


@dataclass(frozen=True, slots=True)
class Waiver:
    """Say in a verdict that the time limit passed and no model reached what the task requires (3.2; POLE-R4).

    It holds nothing: a verdict without a waiver has an empty part.
    """


@dataclass(frozen=True, slots=True)
class CitedLosers:
    """Hold what a block cites, opened by their reveals: only the best loser of one height (3.5)."""

    reveals: Annotated[tuple[messages.Reveal, ...], Bound(1)]


def functional_key(release: messages.KeyRelease) -> Cid:
    """Return where the functional key of a height lies; nothing where the release names none."""
    return decode(FunctionalKey, release.engine).cid if release.engine else b""


def read_mapped_training(record: messages.TrainingRecord) -> MappedTraining:
    """Return what a training record adds; refuse one that adds nothing."""
    return decode(MappedTraining, record.engine)


def training_claim(reveal: messages.Reveal) -> Accuracy:
    """Return the accuracy on the training rows that a header claims (3.3)."""
    part = read_mapped_training(reveal.training)
    return Accuracy(part.correct, part.total)


def read_shown_model(commitment: messages.Commitment) -> messages.TrainedModel | None:
    """Return the model that a commitment shows; refuse bytes that show none."""
    return decode(messages.TrainedModel, commitment.engine) if commitment.engine else None


def is_waived(verdict: messages.Verdict) -> bool:
    """Return whether the requirement was waived; refuse bytes that are no waiver."""
    return bool(verdict.engine) and isinstance(decode(Waiver, verdict.engine), Waiver)


def list_cited_losers(block: messages.AnyBlock | None) -> tuple[messages.Reveal, ...]:
    """Return the openings of the losers that a block cites; refuse bytes that cite none."""
    return decode(CitedLosers, block.engine).reveals if isinstance(block, messages.Block) and block.engine else ()
