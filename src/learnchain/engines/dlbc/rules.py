"""The three phases of a DLBC block interval on the clock (IV-B, Figure 5; readings DLBC-R3, R4).

The ten answers of DLBC, in spine order; the fields are the paper's parameters.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from learnchain.encoding.codec import Hash32, encode
from learnchain.encoding.numbers import WEI_PER_GWEI, Accuracy
from learnchain.engines.contract import EngineParts, JudgementCase, LocalDurations
from learnchain.engines.dlbc.equations import Ranking, miner_share, publisher_share
from learnchain.engines.dlbc.judging import judge
from learnchain.protocol.measurement import MeasurementRequest
from learnchain.protocol.messages import AnyBlock, Block, Commitment, Deadline, Escrow, Payout, Reveal, Task, Verdict
from learnchain.protocol.model_specification import ModelLimits, validate
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.payload import Settlement, SettlementOutcome
from learnchain.protocol.selection import Schedule, Selection
from learnchain.protocol.state import ChainState, Reward
from learnchain.protocol.task_specification import TaskSpecification
from learnchain.protocol.training_terms import TrainingTerms, Watermark
from learnchain.rejection import Rejected, RejectionReason


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

    def admit_task(self, task: Task, specification: TaskSpecification, parameters: ChainParameters) -> None:
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

    def required_escrow(self, task: Task) -> Escrow:
        """Lock the whole reward and the publisher's bond in the contract of Figure 8."""
        return Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)

    def select_task(self, parent: ChainState, parameters: ChainParameters) -> Selection:
        """Select the smallest ranking score of the list recorded in the parent (Eq. 1-4, IV-G; DLBC-R1)."""
        longest = self.phases.interval_milliseconds + parameters.empty_window_milliseconds
        horizon = (parent.end_milliseconds + longest) // 1000 + parameters.claim_window_seconds
        return self.ranking.select(parent, self.phases.schedule_height(parent), horizon, parameters)

    def training_terms(self, selection: Selection, work: Hash32) -> TrainingTerms:
        """Embed the bits of the work identity as watermark (IV-C1, Eq. 7; DLBC-R6)."""
        return Watermark(work, self.watermark_strength_millionths, self.watermark_threshold_millionths)

    def check_commitment(
        self, selection: Selection, commitment: Commitment, at_milliseconds: int, parameters: ChainParameters
    ) -> None:
        """Require the commitment before Phase 3 begins (IV-H; DLBC-R4)."""
        if at_milliseconds > selection.schedule.commitment_milliseconds:
            raise Rejected(RejectionReason.COMMITMENT_LATE, "the commitment arrived after Phase 3 began")
        if commitment.bond_wei < parameters.minimum_commitment_bond_wei:
            detail = f"a bond of {commitment.bond_wei} wei is below {parameters.minimum_commitment_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def check_reveal(self, selection: Selection, commitment: Commitment, reveal: Reveal) -> None:
        """Require a claim over the whole released test set and parameters the task allows (IV-B, Phase 3)."""
        specification = selection.posted_task.specification
        specification.check_claim(reveal.claim())
        specification.training.check(reveal.training.hyperparameters)

    def judge(self, case: JudgementCase) -> MeasurementRequest | Verdict | None:
        """Measure in decreasing order of claims, watermark first; take the first honest one (II, IV-B, IV-C3)."""
        return judge(case)

    def check_header(self, parent: ChainState, selection: Selection, block: AnyBlock) -> None:
        """Require the block to end where Phase 3 ends: the length of all phases is fixed (IV-B)."""
        if isinstance(block, Block) and block.end_milliseconds != selection.schedule.deadline(Deadline.BLOCK):
            raise Rejected(RejectionReason.TIMESTAMP_WRONG, "the block does not end where Phase 3 ends")

    def weigh(self, block: AnyBlock, siblings: tuple[AnyBlock, ...]) -> int:
        """Count the highest-accuracy models: 1 for the best verified candidate of a release (IV-F; DLBC-R9)."""
        if not isinstance(block, Block):
            return 0
        rivals = (each for each in siblings if isinstance(each, Block) and each.release == block.release)
        best = min(rivals, key=lambda each: (-each.reveal.claim().share, each.verdict.winner))
        return int(best.verdict.winner == block.verdict.winner)

    def compute_reward(self, selection: Selection, block: AnyBlock, parameters: ChainParameters) -> Reward:
        """Split the block reward by Eq. 5 and 6; settle the escrow by accuracy or by whoever failed (DLBC-R7, R13)."""
        if not isinstance(block, Block):
            return Reward((), self._compute_settlements(selection, block))
        minted = parameters.block_reward_gwei
        publisher = self._publisher_gwei(selection, minted)
        payouts = [Payout(block.proposer, minted - publisher, "block reward")]
        if publisher:
            payouts.append(Payout(selection.task.publisher, publisher, "publisher share"))
        return Reward(tuple(payouts), self._compute_settlements(selection, block))

    def _publisher_gwei(self, selection: Selection, minted_gwei: int) -> int:
        """Return the publisher's minted share, capped by what it escrowed (ROUND-12)."""
        if selection.task.is_standing:
            return 0
        share = publisher_share(selection.queue_length, self.ranking.estimated_maximum, self.ranking.scale_millionths)
        miner_gwei = -(-miner_share(share) * minted_gwei // 1)
        return min(minted_gwei - int(miner_gwei), selection.task.reward_wei // WEI_PER_GWEI)

    def _compute_settlements(self, selection: Selection, block: AnyBlock) -> tuple[Settlement, ...]:
        task = selection.task
        if task.is_standing:
            return ()
        recipient, outcome = task.publisher, SettlementOutcome.REFUNDED
        if not isinstance(block, Block):
            if block.missed in (Deadline.KEY, Deadline.RELEASE):
                recipient, outcome = BURN_ADDRESS, SettlementOutcome.STRUCK
        else:
            wanted = selection.posted_task.specification
            accuracy = Accuracy(block.verdict.correct, block.verdict.total)
            if accuracy.has_reached(wanted.required_numerator, wanted.required_denominator):
                recipient, outcome = block.proposer, SettlementOutcome.PAID
        return (Settlement(task.task_id, block.height, recipient, outcome),)
