"""What can happen to a round, from the wire, the clock, the node's own workers, or as the effect of an earlier step."""

from dataclasses import dataclass

from learnchain.encoding.codec import Hash32
from learnchain.protocol import messages
from learnchain.protocol.audit_messages import AuditMessage, DisputeMessage
from learnchain.protocol.measurement import Measurement
from learnchain.protocol.state import BondChange, PostedTask


@dataclass(frozen=True, slots=True)
class TaskPosted:
    """Step 1: an accepted block's payload logged a task."""

    block: Hash32
    posted: PostedTask


@dataclass(frozen=True, slots=True)
class EscrowLocked:
    """Step 2: an accepted block's payload locked coins for a task."""

    block: Hash32
    escrow: messages.Escrow


@dataclass(frozen=True, slots=True)
class KeyReleaseReceived:
    """Step 3: the publisher opened the training data."""

    message: messages.KeyRelease
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class TrainingFinished:
    """Step 4: this node's own training ended with a model."""

    model: messages.TrainedModel
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class CommitmentReceived:
    """Step 5: a miner committed."""

    message: messages.Commitment
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class ReleaseDue:
    """Step 6: the clock says that commitments close."""

    parent: Hash32
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class ReleaseReceived:
    """Step 6: the publisher opened the test set."""

    message: messages.ReleaseAnnouncement
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class RevealReceived:
    """Step 6: a miner opened its commitment."""

    message: messages.Reveal
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class RevealsClosed:
    """Step 7: the clock says that no reveal counts any more."""

    parent: Hash32
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class MeasurementFinished:
    """Step 7: the node finished a measurement."""

    measurement: Measurement
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class BlockReceived:
    """Step 8: a block or an empty block arrived."""

    block: messages.AnyBlock
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class EvidenceReported:
    """Step 8: somebody proves that a rule was broken on a recent height."""

    evidence: messages.Evidence
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class AuditMessageReceived:
    """Step 8: an auditor bound itself to a report, or opened it."""

    message: AuditMessage
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class DisputeMessageReceived:
    """Step 8: somebody asks for the steps of a segment, or shows them."""

    message: DisputeMessage
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class BondMoved:
    """Step 2: an accepted block's payload moved a bond."""

    block: Hash32
    change: BondChange


@dataclass(frozen=True, slots=True)
class DeadlineMissed:
    """Step 8: the clock says that a deadline and one window have passed."""

    parent: Hash32
    missed: messages.Deadline
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class TreeGrew:
    """Step 9: a complete block entered the tree, so that the head may change."""

    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class HeadOverridden:
    """Step 9: the operator accepts a branch across a release that this node saw in time."""

    tip: Hash32
    at_milliseconds: int


@dataclass(frozen=True, slots=True)
class PayoutDue:
    """Step 10: a block was accepted; what it mints and settles is now fixed."""

    block: Hash32


Event = (
    TaskPosted
    | EscrowLocked
    | KeyReleaseReceived
    | TrainingFinished
    | CommitmentReceived
    | ReleaseDue
    | ReleaseReceived
    | RevealReceived
    | RevealsClosed
    | MeasurementFinished
    | BlockReceived
    | EvidenceReported
    | AuditMessageReceived
    | DisputeMessageReceived
    | BondMoved
    | DeadlineMissed
    | TreeGrew
    | HeadOverridden
    | PayoutDue
)
