"""Votes as pure functions: commitments, the majority, the median, and who is paid; the contract computes the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from eth_abi import encode as abi_encode

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.hashing import keccak256
from learnchain.market.terms import BASIS_POINTS, Payment, Terms, VoteInterpretation
from learnchain.rejection import Rejected, RejectionReason

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
    place: int


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
    values = (ballot.chain_id, text[0], ballot.task_id, ballot.place, text[1], vote.correct, vote.refusal, salt)
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
