"""DLBC: its equations, its order of judging, and its ten answers in spine order.

Equations 1 to 6 are one function each; Equation 7 is a loss term and stands in `learning/watermark.py`. Ratios are
exact fractions; logarithms and powers run in the fixed decimal context of `encoding/codec.py`. Tasks are ranked by
Equation 4, smallest score first (IV-A, IV-D, IV-G; reading DLBC-R1). Judging goes from the highest claim downwards and
stops at the first honest one (II and IV-C3, after PoDL III-B). The clock has three phases a block interval (IV-B,
Figure 5; readings DLBC-R3, R4).
"""

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

from learnchain.encoding.codec import CONTEXT, WEI_PER_GWEI, Accuracy, Hash32, encode, logarithm, power, quantise
from learnchain.engines.contract import EngineParts, JudgementCase, LocalDurations
from learnchain.protocol import messages
from learnchain.protocol.citations import equation
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.model_specification import ModelLimits, model_bytes, training_flops_per_sample, validate
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.payload import Settlement, SettlementOutcome
from learnchain.protocol.state import ZERO_HASH, Assignment, ChainState, PostedTask, Reward, Schedule, Selection
from learnchain.protocol.task_specification import TaskSpecification
from learnchain.protocol.training_terms import TrainingTerms, Watermark
from learnchain.rejection import Rejected, RejectionReason

MILLION = 1_000_000


@equation("dlbc", 1, r"q_i = \frac{\ln(k \times l_i)}{\ln L}, \quad k > 0")
def queue_index(queue_length: int, estimated_maximum: int, scale_millionths: int) -> Decimal:
    """Return q_i from l_i, L and k: above 0 the ranking punishes FLOPs, below it prefers them (DLBC-R7, R8).

    `queue_length` >= 1 and `estimated_maximum` >= 2; k is given in millionths.
    """
    scaled = CONTEXT.divide(Decimal(scale_millionths * queue_length), Decimal(MILLION))
    return CONTEXT.divide(logarithm(scaled), logarithm(Decimal(estimated_maximum)))


@equation("dlbc", 2, r"d_{ni} = \frac{\text{model size} + \text{data size}}{\text{median network bandwidth}}")
def network_difficulty(model_bytes: int, data_bytes: int, median_bytes_per_second: int) -> Decimal:
    """Return d_ni in seconds: what it takes to move model and data (DLBC-R11)."""
    return CONTEXT.divide(Decimal(model_bytes + data_bytes), Decimal(median_bytes_per_second))


@equation("dlbc", 3, r"d_{ci} = \frac{\text{FLOPs}}{\text{median computation power}}")
def computation_difficulty(flops: int, median_flops_per_second: int) -> Decimal:
    """Return d_ci in seconds: what one epoch takes at the median miner (DLBC-R11)."""
    return CONTEXT.divide(Decimal(flops), Decimal(median_flops_per_second))


@equation("dlbc", 4, r"\text{ranking score} = \frac{d_{ni} + (d_{ci})^{q_i}}{\text{task reward}}")
def ranking_score(network: Decimal, computation: Decimal, index: Decimal, reward_wei: int) -> Decimal:
    """Return the score that all miners rank by: the smallest is trained (DLBC-R1); 18 digits decide."""
    difficulty = CONTEXT.add(network, power(computation, index))
    return quantise(CONTEXT.divide(difficulty, Decimal(reward_wei)))


@equation("dlbc", 5, r"\text{block reward}_{publisher} = \max(0, 1 - (\frac{k \times l_i}{L})^2)")
def publisher_share(queue_length: int, estimated_maximum: int, scale_millionths: int) -> Fraction:
    """Return the publisher's share of the block reward: large while the list of tasks is short (DLBC-R7)."""
    filled = Fraction(scale_millionths * queue_length, MILLION * estimated_maximum)
    return max(Fraction(0), 1 - filled * filled)


@equation("dlbc", 6, r"\text{block reward}_{miner} = 1 - \text{block reward}_{publisher}")
def miner_share(publisher: Fraction) -> Fraction:
    """Return the miner's share of the block reward."""
    return 1 - publisher


@dataclass(frozen=True, slots=True)
class Ranking:
    """Hold what Eq. 1-4 take from the chain: L, k in millionths, and the two medians (reading DLBC-R11)."""

    estimated_maximum: int = 32
    scale_millionths: int = 1_000_000
    median_bytes_per_second: int = 12_500_000
    median_flops_per_second: int = 10_000_000_000

    def score(self, posted: PostedTask, queue_length: int) -> Decimal:
        """Return the ranking score of a publisher's task in a list of `queue_length` tasks."""
        network, computation = _compute_difficulties(posted.specification, self)
        index = queue_index(max(1, queue_length), self.estimated_maximum, self.scale_millionths)
        return ranking_score(network, computation, index, posted.task.reward_wei)

    def select(self, parent: ChainState, schedule: Schedule, horizon_seconds: int, chain: ChainParameters) -> Selection:
        """Return the task with the smallest score; a standing task, in turn, when no publisher's task waits.

        Tasks whose deadline lies before `horizon_seconds` could not be settled in time and are passed over.
        """
        waiting = [each for each in parent.queued_tasks if each.task.deadline_seconds > horizon_seconds]
        scored = sorted((self.score(each, len(waiting)), each.task.task_id) for each in waiting)
        by_id = {each.task.task_id: each for each in waiting}
        height = parent.height + 1
        if not scored:
            standing = chain.standing_tasks()
            chosen, score = PostedTask(*standing[height % len(standing)]), ""
        else:
            chosen, score = by_id[scored[0][1]], str(scored[0][0])
        ranking: tuple[tuple[str, Hash32], ...] = tuple((str(value), task_id) for value, task_id in scored)
        return Selection(height, parent.block_hash, (Assignment(chosen),), score, len(waiting), schedule, ranking)


@lru_cache(maxsize=4_096)
def _compute_difficulties(specification: TaskSpecification, ranking: Ranking) -> tuple[Decimal, Decimal]:
    """Return d_n and d_c; they depend on the task alone, so only the power is computed anew at every block."""
    data = specification.data
    moved = data.training.ciphertext_bytes + data.test.ciphertext_bytes
    network = network_difficulty(model_bytes(specification.model), moved, ranking.median_bytes_per_second)
    flops = training_flops_per_sample(specification.model) * data.training.rows
    return network, computation_difficulty(flops, ranking.median_flops_per_second)


KINDS = (MeasurementKind.PAYLOAD, MeasurementKind.WATERMARK, MeasurementKind.COUNT)
"""What a candidate must pass, cheapest first; a model without the miner's mark is pruned unmeasured (IV-C3)."""


def judge(case: JudgementCase) -> MeasurementRequest | messages.Verdict | None:
    """Ask for the next measurement, give the verdict, or wait for reveals that may still come."""
    if not case.reveals_closed and len(case.reveals) < len(case.commitments):
        return None
    refused: dict[Hash32, str] = {}
    missing: set[Hash32] = set()
    for key in order_by_claim(case):
        finding = _examine(case, key)
        if isinstance(finding, MeasurementRequest):
            return finding
        if finding is None:
            return _build_verdict(case, key, refused, missing)
        if finding == Finding.UNAVAILABLE:
            missing.add(key)
        else:
            refused[key] = finding
    return _build_verdict(case, ZERO_HASH, refused, missing)


def order_by_claim(case: JudgementCase) -> list[Hash32]:
    """Return the revealed candidates, highest claim first; ties go to the lower commitment hash (ROUND-1)."""
    return sorted(case.reveals, key=lambda key: (-case.reveals[key].claim().share, key))


def _examine(case: JudgementCase, key: Hash32) -> MeasurementRequest | str | None:
    """Return what to measure next, why the candidate is out, or None when it passed everything."""
    for kind in KINDS:
        measured = case.measurements.get((key, kind))
        if measured is None:
            return MeasurementRequest(key, kind)
        if measured.finding is Finding.UNAVAILABLE:
            return Finding.UNAVAILABLE.value
        if kind is MeasurementKind.COUNT:
            return _compare_count(case, key, measured)
        if measured.finding is Finding.REJECTED:
            return measured.reason
    return None


def _compare_count(case: JudgementCase, key: Hash32, measured: Measurement) -> str | None:
    """Compare the count with the claim at hand: a miner may have shown others an opening with another claim."""
    inexact = RejectionReason.CLAIM_NOT_EXACT.value
    if measured.finding is Finding.REJECTED and measured.reason != inexact:
        return measured.reason
    reveal = case.reveals[key]
    exact = (measured.correct, measured.total) == (reveal.claim_correct, reveal.claim_total)
    return None if exact else inexact


def _build_verdict(
    case: JudgementCase, winner: Hash32, refused: dict[Hash32, str], missing: set[Hash32]
) -> messages.Verdict:
    entries = tuple(
        _build_entry(case, key, miner, winner=winner, refused=refused, missing=missing)
        for key, miner in ((key, commitment.miner) for key, commitment in case.commitments)
    )
    won = case.reveals.get(winner)
    correct, total = (won.claim_correct, won.claim_total) if won else (0, 0)
    return messages.Verdict(winner, correct, total, entries)


def _build_entry(
    case: JudgementCase, key: Hash32, miner: bytes, *, winner: Hash32, refused: dict[Hash32, str], missing: set[Hash32]
) -> messages.VerdictEntry:
    reveal = case.reveals.get(key)
    claim, total = (reveal.claim_correct, reveal.claim_total) if reveal else (0, 0)
    if key == winner:
        return messages.VerdictEntry(key, miner, messages.CandidateOutcome.WINNER, claim, "", total)
    if key in refused:
        return messages.VerdictEntry(key, miner, messages.CandidateOutcome.REJECTED, claim, refused[key], total)
    if reveal is None or key in missing:
        return messages.VerdictEntry(key, miner, messages.CandidateOutcome.UNREVEALED, 0, "")
    return messages.VerdictEntry(key, miner, messages.CandidateOutcome.LOWER_CLAIM, claim, "", total)


@dataclass(frozen=True, slots=True)
class Phases:
    """Hold the fixed lengths: P1 key, decryption, probe; P2 training; P3 release, reveal, judgement.

    `release_*` and `reveal_*` count from the start of Phase 3 and lie inside it.
    """

    key_milliseconds: int = 60_000
    training_milliseconds: int = 540_000
    judging_milliseconds: int = 60_000
    release_milliseconds: int = 15_000
    reveal_milliseconds: int = 35_000

    def check(self) -> None:
        """Refuse phases that do not follow each other."""
        ordered = (0, self.release_milliseconds, self.reveal_milliseconds, self.judging_milliseconds)
        rising = all(left < right for left, right in pairwise(ordered))
        if (
            not rising
            or min(self.key_milliseconds, self.training_milliseconds) <= 0
            or self.interval_milliseconds < 1_000
        ):
            detail = f"phases {self} must be positive, rise inside Phase 3 and last at least a second together"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    @property
    def interval_milliseconds(self) -> int:
        """Return the length of a block interval."""
        return self.key_milliseconds + self.training_milliseconds + self.judging_milliseconds

    def schedule_height(self, parent: ChainState) -> Schedule:
        """Return the deadlines of the height after `parent`; the interval is fixed, whatever arrives early."""
        start = parent.end_milliseconds
        commitment = start + self.key_milliseconds + self.training_milliseconds
        return Schedule(
            start_milliseconds=start,
            key_milliseconds=start + self.key_milliseconds,
            release_opens_milliseconds=commitment,
            commitment_milliseconds=commitment,
            release_milliseconds=commitment + self.release_milliseconds,
            reveal_after_milliseconds=self.reveal_milliseconds - self.release_milliseconds,
            block_after_milliseconds=self.judging_milliseconds - self.release_milliseconds,
            is_clocked=True,
            payload_timestamp_seconds=max(parent.payload_timestamp_seconds + 1, commitment // 1000),
            training_milliseconds=start + self.key_milliseconds,
        )


def build_local_phases(times: LocalDurations) -> Phases:
    """Return the phases that tasks ask for on one machine: they are DLBC's own three."""
    phases = (times.key_milliseconds, times.training_milliseconds, times.judging_milliseconds)
    return Phases(*phases, times.release_milliseconds, times.reveal_milliseconds)


BURN_ADDRESS = b"\0" * 20
"""The recipient of a burned bond."""


@dataclass(frozen=True, slots=True)
class Dlbc:
    """Train for a fixed time; the best honest model of the task with the smallest score wins (DLBC, Li et al. 2020).

    `watermark_strength_millionths` is lambda of Eq. 7 and `watermark_threshold_millionths` the 0.9999 of IV-C2.
    """

    phases: Phases = field(default_factory=Phases)
    ranking: Ranking = field(default_factory=Ranking)
    watermark_strength_millionths: int = 100_000
    watermark_threshold_millionths: int = 999_900
    score_formula: ClassVar[str] = (
        "score = (d_n + d_c^q) / reward, the smallest is trained: Eq. 1-4 (`learnchain explain dlbc 4`)"
    )
    reward_formula: ClassVar[str] = "publisher's share: Eq. 5, miner's share: Eq. 6 (`learnchain explain dlbc 5`)"

    @property
    def name(self) -> str:
        """Name the consensus."""
        return "dlbc"

    @property
    def parts(self) -> EngineParts:
        """Add nothing to any message."""
        return EngineParts()

    def check_parameters(self, parameters: ChainParameters) -> None:
        """Refuse L < 2, a k or a median that is not positive, and phases too short to judge in (DLBC-R7; ROUND-14)."""
        self.phases.check()
        parameters.check_last_phase(self.phases.judging_milliseconds)
        numbers = (
            self.ranking.estimated_maximum - 1,
            self.ranking.scale_millionths,
            self.ranking.median_bytes_per_second,
            self.ranking.median_flops_per_second,
        )
        if min(numbers) < 1:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self.ranking}: L must be at least 2, the rest positive")

    def encode_parameters(self) -> bytes:
        """Return the engine's parameters for the genesis hash."""
        return b"dlbc" + encode(self)

    def admit_task(self, task: messages.Task, specification: TaskSpecification, parameters: ChainParameters) -> None:
        """Require publisher, reward, model and data links; numbers and graph are checked before it queues (IV-D)."""
        specification.check_numbers()
        validate(specification.model, ModelLimits(parameters=parameters.maximum_model_parameters))
        specification.check_model_fits()
        if not task.is_standing and task.reward_wei < parameters.minimum_reward_wei:
            detail = f"{task.reward_wei} wei are below the minimum of {parameters.minimum_reward_wei}"
            raise Rejected(RejectionReason.REWARD_TOO_LOW, detail)
        if not task.is_standing and task.bond_wei < parameters.minimum_task_bond_wei:
            detail = f"a bond of {task.bond_wei} wei is below the minimum of {parameters.minimum_task_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def required_escrow(self, task: messages.Task) -> messages.Escrow:
        """Lock the whole reward and the publisher's bond in the contract of Figure 8."""
        return messages.Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)

    def select_task(self, parent: ChainState, parameters: ChainParameters) -> Selection:
        """Select the smallest ranking score of the list recorded in the parent (Eq. 1-4, IV-G; DLBC-R1)."""
        longest = self.phases.interval_milliseconds + parameters.empty_window_milliseconds
        horizon = (parent.end_milliseconds + longest) // 1000 + parameters.claim_window_seconds
        return self.ranking.select(parent, self.phases.schedule_height(parent), horizon, parameters)

    def training_terms(self, selection: Selection, work: Hash32) -> TrainingTerms:
        """Embed the bits of the work identity as watermark (IV-C1, Eq. 7; DLBC-R6)."""
        return Watermark(work, self.watermark_strength_millionths, self.watermark_threshold_millionths)

    def check_commitment(
        self, selection: Selection, commitment: messages.Commitment, at_milliseconds: int, parameters: ChainParameters
    ) -> None:
        """Require the commitment before Phase 3 begins (IV-H; DLBC-R4)."""
        if at_milliseconds > selection.schedule.commitment_milliseconds:
            raise Rejected(RejectionReason.COMMITMENT_LATE, "the commitment arrived after Phase 3 began")
        if commitment.bond_wei < parameters.minimum_commitment_bond_wei:
            detail = f"a bond of {commitment.bond_wei} wei is below {parameters.minimum_commitment_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def check_reveal(self, selection: Selection, commitment: messages.Commitment, reveal: messages.Reveal) -> None:
        """Require a claim over the whole released test set and parameters the task allows (IV-B, Phase 3)."""
        specification = selection.posted_task.specification
        specification.check_claim(reveal.claim())
        specification.training.check(reveal.training.hyperparameters)

    def judge(self, case: JudgementCase) -> MeasurementRequest | messages.Verdict | None:
        """Measure in decreasing order of claims, watermark first; take the first honest one (II, IV-B, IV-C3)."""
        return judge(case)

    def check_header(self, parent: ChainState, selection: Selection, block: messages.AnyBlock) -> None:
        """Require the block to end where Phase 3 ends: the length of all phases is fixed (IV-B)."""
        if isinstance(block, messages.Block) and block.end_milliseconds != selection.schedule.deadline(
            messages.Deadline.BLOCK
        ):
            raise Rejected(RejectionReason.TIMESTAMP_WRONG, "the block does not end where Phase 3 ends")

    def weigh(self, block: messages.AnyBlock, siblings: tuple[messages.AnyBlock, ...]) -> int:
        """Count the highest-accuracy models: 1 for the best verified candidate of a release (IV-F; DLBC-R9)."""
        if not isinstance(block, messages.Block):
            return 0
        rivals = (each for each in siblings if isinstance(each, messages.Block) and each.release == block.release)
        best = min(rivals, key=lambda each: (-each.reveal.claim().share, each.verdict.winner))
        return int(best.verdict.winner == block.verdict.winner)

    def compute_reward(self, selection: Selection, block: messages.AnyBlock, parameters: ChainParameters) -> Reward:
        """Split the block reward by Eq. 5 and 6; settle the escrow by accuracy or by whoever failed (DLBC-R7, R13)."""
        if not isinstance(block, messages.Block):
            return Reward((), self._compute_settlements(selection, block))
        minted = parameters.block_reward_gwei
        publisher = self._publisher_gwei(selection, minted)
        payouts = [messages.Payout(block.proposer, minted - publisher, "block reward")]
        if publisher:
            payouts.append(messages.Payout(selection.task.publisher, publisher, "publisher share"))
        return Reward(tuple(payouts), self._compute_settlements(selection, block))

    def _publisher_gwei(self, selection: Selection, minted_gwei: int) -> int:
        """Return the publisher's minted share, capped by what it escrowed (ROUND-12)."""
        if selection.task.is_standing:
            return 0
        share = publisher_share(selection.queue_length, self.ranking.estimated_maximum, self.ranking.scale_millionths)
        miner_gwei = -(-miner_share(share) * minted_gwei // 1)
        return min(minted_gwei - int(miner_gwei), selection.task.reward_wei // WEI_PER_GWEI)

    def _compute_settlements(self, selection: Selection, block: messages.AnyBlock) -> tuple[Settlement, ...]:
        task = selection.task
        if task.is_standing:
            return ()
        recipient, outcome = task.publisher, SettlementOutcome.REFUNDED
        if not isinstance(block, messages.Block):
            if block.missed in (messages.Deadline.KEY, messages.Deadline.RELEASE):
                recipient, outcome = BURN_ADDRESS, SettlementOutcome.STRUCK
        else:
            wanted = selection.posted_task.specification
            accuracy = Accuracy(block.verdict.correct, block.verdict.total)
            if accuracy.has_reached(wanted.required_numerator, wanted.required_denominator):
                recipient, outcome = block.proposer, SettlementOutcome.PAID
        return (Settlement(task.task_id, block.height, recipient, outcome),)
