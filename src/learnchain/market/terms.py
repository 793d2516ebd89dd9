"""What an initiator fixes when it announces a task: the terms that the contract enforces, and the description.

What BaaS leaves open or says twice, and what the marketplace does about it.

Votes as pure functions: commitments, the majority, the median, and who is paid; the contract computes the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from eth_abi import encode as abi_encode

from learnchain.encoding.codec import Address, Bound, Hash32, decode, encode
from learnchain.encoding.content_id import Cid
from learnchain.encoding.cryptography import keccak256
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

MEASURED = 0

UNAVAILABLE = 1
"""The refusal of a model whose bytes or key did not come in time: only its contributor can bring them."""

REFUSALS: Mapping[RejectionReason, int] = {
    RejectionReason.MALFORMED: 2,
    RejectionReason.TOO_LARGE: 3,
    RejectionReason.WRONG_HASH: 4,
    RejectionReason.KEY_MISMATCH: 5,
    RejectionReason.PLAINTEXT_MISMATCH: 6,
    RejectionReason.MODEL_LAYER_UNKNOWN: 7,
    RejectionReason.MODEL_SHAPE_MISMATCH: 8,
    RejectionReason.MODEL_TOO_LARGE: 9,
    RejectionReason.WEIGHTS_MALFORMED: 10,
    RejectionReason.WEIGHTS_NOT_FINITE: 11,
    RejectionReason.TASK_NUMBER_OUT_OF_RANGE: 12,
}
"""Why a model cannot be measured, as votes say it on chain."""

_OTHER_REFUSAL = 255


class ModelStatus(IntEnum):
    """Say how a model stands, in the contract's codes."""

    UNKNOWN = 0
    ANNOUNCED = 1
    DRAWN = 2
    ACCEPTED = 3
    BELOW = 4
    REFUSED = 5
    UNDECIDED = 6


@dataclass(frozen=True, slots=True)
class Vote:
    """Hold one verifier's measurement: right answers of the fusion with the model, or why there is none."""

    correct: int
    refusal: int = MEASURED


@dataclass(frozen=True, slots=True)
class Ballot:
    """Name what a vote is about, so that it counts for nothing else."""

    chain_id: int
    contract: Address
    task_id: Hash32
    model_index: int


@dataclass(frozen=True, slots=True)
class ModelDecision:
    """Hold the outcome: status, median count, and for every drawn verifier whether it is paid and whether fined."""

    status: ModelStatus
    median: int
    paid: tuple[bool, ...]
    fined: tuple[bool, ...]


def refusal_code(reason: RejectionReason) -> int:
    """Return the code under which a reason is voted."""
    return REFUSALS.get(reason, _OTHER_REFUSAL)


def refusal_text(code: int) -> str:
    """Return the reason that a code stands for."""
    names = {value: reason.value for reason, value in REFUSALS.items()} | {UNAVAILABLE: "unavailable"}
    return names.get(code, "other")


def vote_commitment(ballot: Ballot, verifier: Address, vote: Vote, salt: bytes) -> Hash32:
    """Return what a verifier commits to; it covers the verifier, so copying a commitment gains nothing."""
    if len(salt) != 32:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "a salt has 32 bytes")
    types = ("uint256", "address", "bytes32", "uint8", "address", "uint32", "uint8", "bytes32")
    text = ("0x" + ballot.contract.hex(), "0x" + verifier.hex())
    values = (ballot.chain_id, text[0], ballot.task_id, ballot.model_index, text[1], vote.correct, vote.refusal, salt)
    return keccak256(abi_encode(types, values))


def is_approval(vote: Vote, terms: Terms, accepted: int) -> bool:
    """Return whether a vote is for the model (BAAS-R3), in whole numbers."""
    needed = terms.fitness * terms.rows + (
        accepted * BASIS_POINTS if terms.interpretation is VoteInterpretation.GAIN else 0
    )
    return vote.refusal == MEASURED and vote.correct * BASIS_POINTS >= needed


def decide_model(votes: Sequence[Vote | None], terms: Terms, accepted: int) -> ModelDecision:
    """Return the majority's decision over a committee's votes; None is a verifier who did not reveal.

    Half a committee that stays silent decides nothing (`ANNOUNCED`: it is drawn for again).
    """
    revealed = [vote for vote in votes if vote is not None]
    silent = tuple(vote is None for vote in votes)
    if 2 * len(revealed) <= len(votes):
        return ModelDecision(ModelStatus.ANNOUNCED, 0, (False,) * len(votes), silent)
    counts = sorted(vote.correct for vote in revealed if vote.refusal == MEASURED)
    if 2 * len(counts) <= len(revealed):
        status, median = ModelStatus.REFUSED, 0
    else:
        median = counts[(len(counts) - 1) // 2]
        approving = sum(is_approval(vote, terms, accepted) for vote in revealed)
        status = ModelStatus.ACCEPTED if 2 * approving > len(revealed) else ModelStatus.BELOW
    paid = tuple(vote is not None and _is_paid(vote, terms, status, median) for vote in votes)
    return ModelDecision(status, median, paid, tuple(not each for each in paid))


def _is_paid(vote: Vote, terms: Terms, status: ModelStatus, median: int) -> bool:
    if terms.payment is Payment.ALL:
        return True
    if (vote.refusal != MEASURED) != (status is ModelStatus.REFUSED):
        return False
    distance = abs(vote.correct - median) * BASIS_POINTS
    return status is ModelStatus.REFUSED or distance <= terms.tolerance * terms.rows
