"""What an initiator fixes when it announces a task: the terms that the contract enforces, and the description.

What BaaS leaves open or says twice, and what the marketplace does about it.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from learnchain.encoding.codec import Bound, decode, encode
from learnchain.encoding.content_id import Cid
from learnchain.protocol.citations import Interpretation
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_DESCRIPTION_BYTES = 16_384
MAXIMUM_MODELS = 16
MAXIMUM_COMMITTEE = 15
BASIS_POINTS = 10_000


class VoteInterpretation(IntEnum):
    """Say what a vote must show (BAAS-R3): a gain over the accepted fusion, or an accuracy of the fusion."""

    GAIN = 0
    ABSOLUTE = 1


class Payment(IntEnum):
    """Say which votes are paid: those within tolerance of the median, or all, as in the paper."""

    WITHIN_TOLERANCE = 0
    ALL = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """Hold the contract's terms, in the order of its struct; shares are basis points of the verification rows."""

    closes_seconds: int
    commit_seconds: int
    reveal_seconds: int
    rows: int
    fitness: int
    tolerance: int
    interpretation: VoteInterpretation
    payment: Payment
    models: int
    committee: int
    model_wei: int
    vote_wei: int
    stake_wei: int
    bond_wei: int

    def check(self) -> None:
        """Refuse terms that the contract would refuse, before gas is spent on them."""
        whole = (self.closes_seconds, self.commit_seconds, self.reveal_seconds, self.rows, self.model_wei)
        amounts = (self.model_wei, self.vote_wei, self.stake_wei, self.bond_wei)
        if min(whole) < 1 or not all(0 <= amount < 1 << 96 for amount in amounts) or self.stake_wei < self.vote_wei:
            raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, "a time, a count or an amount is out of range")
        if not 1 <= self.models <= MAXIMUM_MODELS or not 1 <= self.committee <= MAXIMUM_COMMITTEE:
            raise Rejected(
                RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{self.models} models, {self.committee} verifiers"
            )
        if not (0 <= self.fitness <= BASIS_POINTS and 0 <= self.tolerance <= BASIS_POINTS):
            raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, "shares are at most 10,000 basis points")

    @property
    def value_wei(self) -> int:
        """Return what the announcement must carry: every slot's model and all its votes."""
        return self.models * (self.model_wei + self.committee * self.vote_wei)


@dataclass(frozen=True, slots=True)
class SampleData:
    """Point to the initiator's sample for verifiers: fit the fusion, choose its epoch, judge it."""

    training: Cid
    test: Cid
    verification: Cid


@dataclass(frozen=True, slots=True)
class Description:
    """Describe the task to people and daemons: data, labels, sample, and a recommended architecture or none."""

    title: Annotated[str, Bound(128)]
    data_properties: Annotated[str, Bound(1_024)]
    sample_shape: Annotated[tuple[int, ...], Bound(4)]
    labels: Annotated[tuple[Annotated[str, Bound(64)], ...], Bound(256)]
    sample: SampleData
    recommended: Annotated[tuple[ModelSpecification, ...], Bound(1)]
    threshold: int
    """Accuracy in basis points at which a contributor publishes by itself (IV-B); 0 leaves it to the contributor."""
    strategy: Annotated[str, Bound(16)]
    outputs: Annotated[str, Bound(16)]
    maximum_model_bytes: int


def encode_description(description: Description) -> bytes:
    """Return the bytes that the announcement carries."""
    data = encode(description)
    if len(data) > MAXIMUM_DESCRIPTION_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a description of {len(data)} bytes")
    return data


def decode_description(data: bytes) -> Description:
    """Return the description that an announcement carries; anything but its one encoding is refused."""
    if len(data) > MAXIMUM_DESCRIPTION_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a description of {len(data)} bytes")
    return decode(Description, data)


INTERPRETATIONS = (
    Interpretation(
        "BAAS-R1",
        "Eq. 5 bounds the block of A that belongs to a label by 'sum |l_k| < i', where i runs over features; W_i is 'a "
        "diagonal weight matrix' of dimensions (|f_i|, |l_i|)",
        "The block of model p in Eq. 3 and Eq. 5 has the rows of p's features and the columns of p's labels, and is "
        "dense.",
        "A sum over features cannot be bounded by counts of labels, and a diagonal of a 500 x 10 matrix would read ten "
        "features of five hundred.",
        "equations/5.json",
    ),
    Interpretation(
        "BAAS-R2",
        "B_init stacks n identities of size d (Eq. 4), so every model has all d labels; the hidden layer has sum |l_i| "
        "units, and Table II gives the contributors 5 or 6 labels of 10",
        "Eq. 4 as printed is the default: n identities of size d, and |l_i| = d (`literal`). A task may ask for "
        "`by_label`: a model has units for the labels of its own data alone.",
        "All models of Table I have ten outputs; what a verifier reports is the same to a few tenths of a percent "
        "with five models, but one model by label can say only what it has seen.",
        "equations/4.json",
    ),
    Interpretation(
        "BAAS-R3",
        "A model is rewarded if it 'improves overall performance' (III-A), or if the accuracy 'exceeds the minimum "
        "acceptable fitness rate'",
        "`gain`, the default: a majority reports at least that rate above the accepted fusion; `absolute`: a majority "
        "reports at least that rate for the fusion.",
        "With a gain each model is paid for what it adds; the first model is compared with nothing.",
        "votes/interpretations.json",
    ),
)
