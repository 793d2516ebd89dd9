"""PoLe: who wins a height, what the losers earn, and the header that the paper lists.

Sort by test accuracy, verify one after the other, take the first that stands (3.2, Algorithms 1 and 2). Of Algorithm 1
the miner's own lines 2 to 25 run in its node: collect, map, train until the required accuracy or the time limit,
broadcast once (POLE-R6, R7). Line 1 is `ranking.most_valuable`; lines 26 to 35 stand here. Losers share Equation 2
(3.5; readings POLE-R3, R17). The header of 3.3 is read off a block of the spine.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction

from learnchain.encoding.codec import Address, Hash32, encode
from learnchain.encoding.cryptography import message_hash, tagged_hash
from learnchain.engines.contract import JudgementCase
from learnchain.engines.pole.parts import Waiver, list_cited_losers, read_mapped_training, training_claim
from learnchain.protocol.citations import algorithm, equation
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import Block, CandidateOutcome, Reveal, Verdict, VerdictEntry
from learnchain.protocol.state import ZERO_HASH
from learnchain.protocol.task_specification import Cid, TaskSpecification
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_DEPTH = 6
"""Heights after which an ommer is too old to be cited."""

REFERRER_DIVISOR = 32
"""Who cites an ommer earns this part of the block reward."""

THOUSAND = 1_000


class OmmerFormula(StrEnum):
    """Choose how Equation 2 is read: its printed form grows with the height of the chain (POLE-R3)."""

    FRACTION = "fraction"
    LITERAL = "literal"


class OmmerFunding(StrEnum):
    """Choose who pays an ommer: the winner of its own height, or everybody by new coins (POLE-R17)."""

    WINNER = "winner"
    MINTED = "minted"


@equation("pole", 2, r"R_r = R_w H_w - H_o * O_{num}")
def ommer_reward(
    block_reward_gwei: int,
    winning_height: int,
    ommer_height: int,
    ommers: int,
    formula: OmmerFormula = OmmerFormula.FRACTION,
) -> int:
    """Return R_r from R_w, H_w, H_o and O_num: a broken fraction by default, the printed line as variant (POLE-R3).

    The fraction R_w / ((H_w - H_o) * O_num) is floored and always below R_w for two ommers, at most R_w for one.
    """
    distance = winning_height - ommer_height
    if not 1 <= distance <= MAXIMUM_DEPTH or ommers < 1:
        detail = f"{ommers} ommers at height {ommer_height}, cited at {winning_height}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    if formula is OmmerFormula.LITERAL:
        return max(0, block_reward_gwei * winning_height - ommer_height * ommers)
    return block_reward_gwei // (distance * ommers)


@dataclass(frozen=True, slots=True)
class OmmerShares:
    """Say where the coins of a cited ommer go: to the loser, and to who cites it."""

    loser_gwei: int
    referrer_gwei: int


@dataclass(frozen=True, slots=True)
class OmmerRules:
    """Hold how ommers are paid; `pool_thousandths` of the block reward is what Eq. 2 divides when the winner pays.

    A quarter keeps the winner's part above every ommer's, so that losing never pays better than winning.
    """

    formula: OmmerFormula = OmmerFormula.FRACTION
    funding: OmmerFunding = OmmerFunding.WINNER
    pool_thousandths: int = 250

    def check(self) -> None:
        """Refuse a pool that leaves the winner less than an ommer."""
        if not 0 <= self.pool_thousandths <= THOUSAND // 3:
            detail = f"{self.pool_thousandths} thousandths of the block reward for ommers: choose 0 to 333"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def withheld_gwei(self, block_reward_gwei: int) -> int:
        """Return what a winner that others committed beside does not get: the pool and the referrer's bonus."""
        if self.funding is OmmerFunding.MINTED:
            return 0
        return self._pool(block_reward_gwei) + block_reward_gwei // REFERRER_DIVISOR

    def shares(self, block_reward_gwei: int, winning_height: int, ommer_height: int, ommers: int) -> OmmerShares:
        """Return who gets what when an ommer is cited; what nobody earns of what a winner paid is never minted.

        Minted shares stay below one more block reward; shares that the winner pays stay within what it was withheld, so
        a height never mints more than R_w, whoever the identities belong to (POLE-R17).
        """
        bonus = block_reward_gwei // REFERRER_DIVISOR
        divided, most = block_reward_gwei, max(0, block_reward_gwei - bonus - 1)
        if self.funding is OmmerFunding.WINNER:
            divided = most = self._pool(block_reward_gwei)
        paid = min(ommer_reward(divided, winning_height, ommer_height, ommers, self.formula), most)
        return OmmerShares(paid, bonus)

    def _pool(self, block_reward_gwei: int) -> int:
        return block_reward_gwei * self.pool_thousandths // THOUSAND


@dataclass(frozen=True, slots=True)
class PoleHeader:
    """Hold the eight entries of 3.3; `merkle_root` covers the body: tasks, data links, transactions, test set."""

    block_id: Hash32
    winner: Address
    selected_task: Hash32
    previous_hash: Hash32
    trained_model: Cid
    training_correct: int
    training_total: int
    ommer_hash: Hash32
    merkle_root: Hash32


def build_header(block: Block) -> PoleHeader:
    """Return the header of 3.3; no ommer is cited where its hash is zeros (POLE-R19)."""
    training, cited = read_mapped_training(block.reveal.training), list_cited_losers(block)
    body = (*block.queued_tasks, block.payload_hash, message_hash(block.key_release), message_hash(block.release))
    return PoleHeader(
        block_id=message_hash(block),
        winner=block.proposer,
        selected_task=block.release.task_id,
        previous_hash=block.parent,
        trained_model=block.reveal.model_cid,
        training_correct=training.correct,
        training_total=training.total,
        ommer_hash=message_hash(cited[0]) if cited else b"\0" * 32,
        merkle_root=tagged_hash("pole/body", *body, message_hash(block.verdict)),
    )


KINDS = (MeasurementKind.PAYLOAD, MeasurementKind.COUNT, MeasurementKind.TRAINING)
"""What a candidate must pass, cheapest first; most candidates have more training rows than test rows."""


@dataclass(slots=True)
class _Tally:
    """Collect what became of the candidates that were looked at."""

    refused: dict[Hash32, str] = field(default_factory=dict)
    missing: set[Hash32] = field(default_factory=set)


@algorithm("pole", 1, r"\text{sort by test accuracy; append the first } blk : VerifyBlock(blk) = True")
def judge(case: JudgementCase) -> MeasurementRequest | Verdict | None:
    """Ask for the next measurement, give the verdict, or wait for reveals that may still come.

    Who reaches the required training accuracy goes first. When the time limit has passed and none of them stands, the
    requirement is waived and the highest test accuracy wins (POLE-R4).
    """
    if not case.reveals_closed and len(case.reveals) < len(case.commitments):
        return None
    specification, tally = case.selection.posted_task.specification, _Tally()
    ordered = order_by_accuracy(case)
    able = [key for key in ordered if has_reached_requirement(case.reveals[key], specification)]
    unable = [key for key in ordered if key not in able]
    found, waived = _find_first_verified(case, able, tally), False
    if found == ZERO_HASH and case.released_milliseconds >= case.selection.schedule.time_limit_milliseconds:
        found, waived = _find_first_verified(case, unable, tally), True
    else:
        tally.refused.update(dict.fromkeys(unable, RejectionReason.TRAINING_ACCURACY_LOW.value))
    if isinstance(found, MeasurementRequest):
        return found
    verdict = _build_verdict(case, found, tally)
    return replace(verdict, engine=encode(Waiver())) if waived and found != ZERO_HASH else verdict


@algorithm("pole", 2, r"acc_{train} \geq required \wedge blk.mapping = PHS \wedge blk.timestamp < test.timestamp")
def verify_block(case: JudgementCase, key: Hash32) -> MeasurementRequest | str | None:
    """Return what to measure next, why a block fails, or None when it is verified.

    Its time stamp is that of the release that lists it (POLE-R18), its mapping was compared when it was opened; here
    the model is counted behind this block's layer, on the training rows and on the test set.
    """
    for kind in KINDS:
        measured = case.measurements.get((key, kind))
        if measured is None:
            return MeasurementRequest(key, kind)
        if measured.finding is Finding.UNAVAILABLE:
            return Finding.UNAVAILABLE.value
        reason = _compare_count(case, key, measured)
        if reason:
            return reason
    return None


def order_by_accuracy(case: JudgementCase) -> list[Hash32]:
    """Return the revealed candidates, highest test accuracy first; ties go to the lower commitment hash (ROUND-1)."""
    return sorted(case.reveals, key=lambda key: (-case.reveals[key].claim().share, key))


def has_reached_requirement(reveal: Reveal, specification: TaskSpecification) -> bool:
    """Return whether a header's training accuracy is at least the required one (Algorithm 1, line 9)."""
    return training_claim(reveal).has_reached(specification.required_numerator, specification.required_denominator)


def _find_first_verified(case: JudgementCase, keys: list[Hash32], tally: _Tally) -> MeasurementRequest | Hash32:
    for key in keys:
        finding = verify_block(case, key)
        if isinstance(finding, MeasurementRequest):
            return finding
        if finding is None:
            return key
        if finding == Finding.UNAVAILABLE.value:
            tally.missing.add(key)
        else:
            tally.refused[key] = finding
    return ZERO_HASH


def _compare_count(case: JudgementCase, key: Hash32, measured: Measurement) -> str:
    """Compare a count with the claim at hand: a miner may have shown others an opening with another claim."""
    inexact, reveal = RejectionReason.CLAIM_NOT_EXACT.value, case.reveals[key]
    if measured.kind is MeasurementKind.PAYLOAD or (
        measured.finding is Finding.REJECTED and measured.reason != inexact
    ):
        return measured.reason if measured.finding is Finding.REJECTED else ""
    claim = reveal.claim()
    if measured.kind is MeasurementKind.TRAINING:
        claim = training_claim(reveal)
    if (measured.correct, measured.total) == (claim.correct, claim.total):
        return ""
    classes = case.selection.posted_task.specification.data.classes
    guesses = measured.total > 0 and _is_guessing(Fraction(measured.correct, measured.total), claim.share, classes)
    return RejectionReason.MAPPING_FOREIGN.value if guesses else inexact


def _is_guessing(measured: Fraction, claimed: Fraction, classes: int) -> bool:
    """Return whether a model does nearer to chance than to its claim: so do models of another layer (Table 3)."""
    return 2 * measured < claimed + Fraction(1, classes)


def _build_verdict(case: JudgementCase, winner: Hash32, tally: _Tally) -> Verdict:
    entries = tuple(_build_entry(case, key, commitment.miner, winner, tally) for key, commitment in case.commitments)
    won = case.reveals.get(winner)
    correct, total = (won.claim_correct, won.claim_total) if won else (0, 0)
    return Verdict(winner, correct, total, entries)


def _build_entry(case: JudgementCase, key: Hash32, miner: bytes, winner: Hash32, tally: _Tally) -> VerdictEntry:
    reveal = case.reveals.get(key)
    claim, total = (reveal.claim_correct, reveal.claim_total) if reveal else (0, 0)
    if key == winner:
        return VerdictEntry(key, miner, CandidateOutcome.WINNER, claim, "", total)
    if key in tally.refused:
        return VerdictEntry(key, miner, CandidateOutcome.REJECTED, claim, tally.refused[key], total)
    if reveal is None or key in tally.missing:
        return VerdictEntry(key, miner, CandidateOutcome.UNREVEALED, 0, "")
    return VerdictEntry(key, miner, CandidateOutcome.LOWER_CLAIM, claim, "", total)
