"""Step 7: what the rules ask to be measured, and what the node found; rules never load torch or run a payload."""

from dataclasses import dataclass
from enum import StrEnum

from learnchain.encoding.codec import Hash32
from learnchain.protocol.messages import Escrow
from learnchain.protocol.payload import Withdrawal
from learnchain.protocol.state import BondChange, PostedTask


class MeasurementKind(StrEnum):
    """Name a measurement; an engine asks for the ones its paper needs, in the order of their cost."""

    WATERMARK = "watermark"
    PAYLOAD = "payload"
    COUNT = "count"
    EVIDENCE = "evidence"
    """Whether evidence holds; the candidate is then the hash of the evidence."""
    RESPONSE = "response"
    """Whether the files of an answer to an accusation are here and are what it names; the candidate is its hash."""
    BASELINE = "baseline"
    """The count of the selection's baseline on the test set that this candidate is judged by."""
    TRAINING = "training"
    """The exact count on the training rows, behind the mapping layer of the height."""


class Finding(StrEnum):
    """Say how a measurement ended; what is missing is never held against anybody."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class MeasurementRequest:
    """Ask the node to measure one thing of one candidate."""

    candidate: Hash32
    kind: MeasurementKind


@dataclass(frozen=True, slots=True)
class PayloadFacts:
    """Say what a valid execution payload did that consensus must know."""

    payload_hash: Hash32
    parent_hash: Hash32
    timestamp_seconds: int
    previous_randao: Hash32
    beacon_root: Hash32
    fee_recipient: bytes
    withdrawals: tuple[Withdrawal, ...]
    posted: tuple[PostedTask, ...]
    escrows: tuple[Escrow, ...]
    bonds: tuple[BondChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Report one measurement: counts for a model, facts for a payload, a reason if it was rejected."""

    candidate: Hash32
    kind: MeasurementKind
    finding: Finding
    reason: str = ""
    correct: int = 0
    total: int = 0
    facts: PayloadFacts | None = None
