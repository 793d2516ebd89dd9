"""The value of a task is its reward per unit of time; the highest value is trained (PoLe 3.2, Algorithm 1 line 1).

The event-driven round of PoLe: solutions end it, the task's time limit bounds it (3.1, 3.2; reading POLE-R5).

The ten answers of PoLe, in spine order; the fields are the paper's parameters.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

from typing_extensions import override

from learnchain.encoding.codec import Hash32, encode
from learnchain.engines.contract import EngineParts, JudgementCase, LocalDurations, PartedMessage, refuse_part
from learnchain.engines.pole.judging import MAXIMUM_DEPTH, OmmerRules, has_reached_requirement, judge
from learnchain.engines.pole.mapping import MappingLayer, check_encryption, layer_shape
from learnchain.engines.pole.ommers import encode_memory, find_best_loser, list_citable_commitments, settle_losers
from learnchain.engines.pole.parts import (
    CitedLosers,
    FunctionalKey,
    MappedTraining,
    functional_key,
    is_waived,
    list_cited_losers,
    read_mapped_training,
    read_shown_model,
    training_claim,
)
from learnchain.protocol import messages
from learnchain.protocol.measurement import MeasurementRequest
from learnchain.protocol.model_specification import ModelLimits, validate
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.payload import Settlement, SettlementOutcome
from learnchain.protocol.state import Assignment, ChainState, PostedTask, Reward, Schedule, Selection
from learnchain.protocol.task_specification import Cid, Encryption, Metric, TaskSpecification
from learnchain.protocol.training_terms import TrainingTerms
from learnchain.rejection import Rejected, RejectionReason


@dataclass(frozen=True, slots=True)
class RankedSelection:
    """Name the task of a height with its value, and all that were ranked; a standing task has no value."""

    posted_task: PostedTask
    value: Fraction | None
    queue_length: int
    ranking: tuple[tuple[str, Hash32], ...]


def task_value(posted: PostedTask) -> Fraction:
    """Return the reward in wei for each second of the task's time limit: an overestimated limit lowers it (3.5)."""
    return Fraction(posted.task.reward_wei, posted.specification.time_limit_seconds)


def select_most_valuable(
    parent: ChainState, in_time: tuple[PostedTask, ...], chain: ChainParameters
) -> RankedSelection:
    """Return the most valuable recorded task, ties by task id; a standing task, in turn, when none waits (1, 3.2)."""
    scored = sorted((-task_value(each), each.task.task_id) for each in in_time)
    by_id = {each.task.task_id: each for each in in_time}
    ranking: tuple[tuple[str, Hash32], ...] = tuple((value_text(-value), task_id) for value, task_id in scored)
    if not scored:
        standing = chain.standing_tasks()
        return RankedSelection(PostedTask(*standing[(parent.height + 1) % len(standing)]), None, 0, ranking)
    return RankedSelection(by_id[scored[0][1]], -scored[0][0], len(in_time), ranking)


def value_text(value: Fraction | None) -> str:
    """Return a value for people: whole wei a second."""
    return "" if value is None else str(value.numerator // value.denominator)


@dataclass(frozen=True, slots=True)
class PoleDurations:
    """Hold what bounds a height; nothing is due at a fixed time as long as solutions come.

    `minimum` passes before a release, `longest` bounds every task's own time limit, `grace` is for commitments of
    models that ran into the limit; `reveal` and `block` count from the actual release. `solutions` is the number of
    bonded commitments that a data node waits for (3.1).
    """

    key_milliseconds: int = 60_000
    minimum_milliseconds: int = 60_000
    longest_milliseconds: int = 3_600_000
    grace_milliseconds: int = 15_000
    release_milliseconds: int = 15_000
    reveal_milliseconds: int = 35_000
    block_milliseconds: int = 60_000
    sufficient_solutions: int = 2

    def check(self, maximum_commitments: int) -> None:
        """Refuse times that do not follow each other, and more solutions than a height holds."""
        times = (self.key_milliseconds, self.minimum_milliseconds, self.grace_milliseconds, self.release_milliseconds)
        first = max(self.key_milliseconds, self.minimum_milliseconds)
        ordered = first < self.longest_milliseconds and 0 < self.reveal_milliseconds < self.block_milliseconds
        if min(times) < 1 or not ordered or self.longest_milliseconds < 1_000:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self}: times must be positive and follow each other")
        if not 1 <= self.sufficient_solutions <= maximum_commitments:
            detail = f"{self.sufficient_solutions} solutions to wait for, a height holds 1 to {maximum_commitments}"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def limit_milliseconds(self, specification: TaskSpecification) -> int:
        """Return the time limit of a task's height: its own, within what the chain allows (3.1)."""
        least = max(self.key_milliseconds, self.minimum_milliseconds) + 1
        return max(least, min(specification.time_limit_seconds * 1000, self.longest_milliseconds))

    def round_milliseconds(self, specification: TaskSpecification) -> int:
        """Return how long the height of a task lasts at the most."""
        limit = self.limit_milliseconds(specification)
        return limit + self.grace_milliseconds + self.release_milliseconds + self.block_milliseconds

    def schedule_height(self, parent: ChainState, specification: TaskSpecification) -> Schedule:
        """Return the deadlines of the height after `parent`; only a missed one is ever waited for."""
        start = parent.end_milliseconds
        limit = start + self.limit_milliseconds(specification)
        return Schedule(
            start_milliseconds=start,
            key_milliseconds=start + self.key_milliseconds,
            release_opens_milliseconds=start + self.minimum_milliseconds,
            commitment_milliseconds=limit + self.grace_milliseconds,
            release_milliseconds=limit + self.grace_milliseconds + self.release_milliseconds,
            reveal_after_milliseconds=self.reveal_milliseconds,
            block_after_milliseconds=self.block_milliseconds,
            is_clocked=False,
            payload_timestamp_seconds=max(parent.payload_timestamp_seconds + 1, start // 1000),
            sufficient_commitments=self.sufficient_solutions,
            time_limit_milliseconds=limit,
        )


def build_local_durations(times: LocalDurations, miners: int) -> PoleDurations:
    """Return what bounds an event-driven height whose tasks need these phases.

    Two solutions usually end it, so bounds may be wide: only what is missed is waited for.
    """
    return PoleDurations(
        key_milliseconds=3 * times.key_milliseconds,
        minimum_milliseconds=min(1_000, times.training_milliseconds),
        longest_milliseconds=4 * (times.key_milliseconds + times.training_milliseconds),
        grace_milliseconds=2 * times.key_milliseconds,
        release_milliseconds=times.release_milliseconds,
        reveal_milliseconds=times.reveal_milliseconds,
        block_milliseconds=times.judging_milliseconds,
        sufficient_solutions=min(2, miners),
    )


@dataclass(frozen=True, slots=True)
class PoleParts(EngineParts):
    """Answer for functional keys, mapped training, models shown with their commitment, waivers and cited losers."""

    layer: MappingLayer
    open_broadcast: bool

    @override
    def check(self, selection: Selection, message: PartedMessage) -> None:
        """Refuse a part that is malformed, missing, or not asked for."""
        if isinstance(message, messages.KeyRelease):
            self._check_key_release(selection, message)
        elif isinstance(message, messages.Commitment):
            read_shown_model(message)
            if bool(message.engine) != self.open_broadcast:
                wanted = "shows no model, it must" if self.open_broadcast else "shows a model, it must not"
                raise Rejected(RejectionReason.SHOWN_MODEL_WRONG, f"the commitment {wanted}")
        elif isinstance(message, messages.Verdict):
            is_waived(message)
        elif isinstance(message, messages.TrainingRecord):
            read_mapped_training(message)
        elif not list_cited_losers(message):
            refuse_part(message)

    def _check_key_release(self, selection: Selection, message: messages.KeyRelease) -> None:
        encrypted = selection.posted_task.specification.encryption is Encryption.INNER_PRODUCT
        if bool(functional_key(message)) != encrypted or bool(message.engine) != encrypted:
            raise Rejected(RejectionReason.FUNCTIONAL_KEY_WRONG, "a functional key belongs to encrypted rows only")

    @override
    def key_release_part(self, functional_key: Cid) -> bytes:
        """Locate the functional key of the height (3.4, Step 3)."""
        return encode(FunctionalKey(functional_key)) if functional_key else b""

    @override
    def functional_key(self, release: messages.KeyRelease) -> Cid:
        """Return where the functional key of the height lies."""
        return functional_key(release)

    @override
    def training_part(self, selection: Selection, work: Hash32, correct: int, total: int) -> bytes:
        """Name this block's mapping layer, and the exact count behind it (3.3)."""
        return encode(MappedTraining(self.layer.identity(selection, work), correct, total))

    @override
    def training_count(self, record: messages.TrainingRecord) -> tuple[int, int]:
        """Return the training accuracy of the header (3.3)."""
        part = read_mapped_training(record)
        return part.correct, part.total

    @override
    def mapping_identity(self, record: messages.TrainingRecord) -> bytes:
        """Return what the layer's vectors follow from (Algorithm 2, line 5)."""
        return read_mapped_training(record).mapping

    @override
    def commitment_part(self, selection: Selection, trained: messages.TrainedModel) -> bytes:
        """Show the model at once where models are broadcast openly (Algorithm 1, line 11)."""
        return encode(trained) if self.open_broadcast else b""

    @override
    def list_citable_commitments(self, selection: Selection) -> tuple[Hash32, ...]:
        """Name the best losers of the last heights; what is about to become too old comes first (3.2)."""
        return list_citable_commitments(selection.memory, selection.height)

    @override
    def block_part(self, standing: tuple[messages.Reveal, ...]) -> bytes:
        """Cite one loser (3.5)."""
        return encode(CitedLosers(standing[:1])) if standing else b""

    @override
    def list_cited_losers(self, block: messages.AnyBlock) -> tuple[messages.Reveal, ...]:
        """Return the loser that a block cites."""
        return list_cited_losers(block)

    @override
    def is_waived(self, verdict: messages.Verdict) -> bool:
        """Return whether the requirement was waived (POLE-R4)."""
        return is_waived(verdict)


BURN_ADDRESS = b"\0" * 20
"""The recipient of a burned bond."""

MAXIMUM_RANKED_SHOWN = 64
"""Commitments that show their model are almost twice as long; a block lists all of them in one gossip message."""


@dataclass(frozen=True, slots=True)
class Pole:
    """Train until enough solutions are there; the best verified one wins, losers may be cited (PoLe, Lan et al. 2020).

    `open_broadcast` is the paper's own way: models are shown before the test set, so that anybody may copy them; by
    default a commitment stands for the broadcast and models are revealed after the release (POLE-R7).
    """

    times: PoleDurations = field(default_factory=PoleDurations)
    layer: MappingLayer = field(default_factory=MappingLayer)
    ommers: OmmerRules = field(default_factory=OmmerRules)
    open_broadcast: bool = False
    score_formula: ClassVar[str] = (
        "score = reward in wei / the task's time limit in seconds, the largest is trained (3.5)"
    )
    reward_formula: ClassVar[str] = (
        "the winner takes the block reward less the share of ommers: Eq. 2 (`learnchain explain pole 2`)"
    )

    @property
    def name(self) -> str:
        """Name the consensus."""
        return "pole"

    @property
    def parts(self) -> PoleParts:
        """Answer for functional keys, mapped training, shown models, waivers and cited losers."""
        return PoleParts(self.layer, self.open_broadcast)

    def check_parameters(self, parameters: ChainParameters) -> None:
        """Refuse times that do not rise, a last phase too short to judge in, and finality above the ommers' depth."""
        self.times.check(parameters.maximum_commitments)
        self.layer.check()
        self.ommers.check()
        parameters.check_last_phase(self.times.block_milliseconds)
        if self.open_broadcast and parameters.maximum_commitments > MAXIMUM_RANKED_SHOWN:
            detail = f"{parameters.maximum_commitments} commitments that show their models fit into no block message"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
        if parameters.finality_depth <= MAXIMUM_DEPTH:
            detail = f"finality after {parameters.finality_depth} blocks: ommers may be cited for {MAXIMUM_DEPTH}"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def encode_parameters(self) -> bytes:
        """Return the engine's parameters for the genesis hash."""
        return b"pole" + encode(self)

    def admit_task(self, task: messages.Task, specification: TaskSpecification, parameters: ChainParameters) -> None:
        """Require training data, a model that a mapping layer fits in front of, an accuracy, a reward (3.1)."""
        specification.check_numbers()
        validate(specification.model, ModelLimits(parameters=parameters.maximum_model_parameters))
        layer_shape(specification, self.layer)
        check_encryption(task, specification, self.layer)
        specification.check_outputs()
        if not task.is_standing and task.reward_wei < parameters.minimum_reward_wei:
            detail = f"{task.reward_wei} wei are below the minimum of {parameters.minimum_reward_wei}"
            raise Rejected(RejectionReason.REWARD_TOO_LOW, detail)
        if not task.is_standing and task.bond_wei < parameters.minimum_task_bond_wei:
            detail = f"a bond of {task.bond_wei} wei is below the minimum of {parameters.minimum_task_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def required_escrow(self, task: messages.Task) -> messages.Escrow:
        """Move the reward to the virtual reservoir account at once, with the data node's bond (3.1)."""
        return messages.Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)

    def select_task(self, parent: ChainState, parameters: ChainParameters) -> Selection:
        """Select the highest reward per unit of time from the list of the parent (3.2, Algorithm 1 line 1)."""
        window = parameters.empty_window_milliseconds
        in_time = tuple(
            each
            for each in parent.queued_tasks
            if each.task.deadline_seconds - parameters.claim_window_seconds
            > (parent.end_milliseconds + self.times.round_milliseconds(each.specification) + window) // 1000
        )
        found = select_most_valuable(parent, in_time, parameters)
        return Selection(
            parent.height + 1,
            parent.block_hash,
            (Assignment(found.posted_task),),
            value_text(found.value),
            found.queue_length,
            self.times.schedule_height(parent, found.posted_task.specification),
            found.ranking,
            parent.reward.memory,
        )

    def training_terms(self, selection: Selection, work: Hash32) -> TrainingTerms:
        """Fix the first layer to query vectors that follow from the previous block hash (3.4, Algorithm 3)."""
        return self.layer.terms(selection, work)

    def check_commitment(
        self, selection: Selection, commitment: messages.Commitment, at_milliseconds: int, parameters: ChainParameters
    ) -> None:
        """Require a bonded broadcast before the test set is released, at the latest at the time limit (3.1, 3.2)."""
        if at_milliseconds > selection.schedule.commitment_milliseconds:
            raise Rejected(RejectionReason.COMMITMENT_LATE, "the commitment arrived after the time limit")
        if commitment.bond_wei < parameters.minimum_commitment_bond_wei:
            detail = f"a bond of {commitment.bond_wei} wei is below {parameters.minimum_commitment_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def check_reveal(self, selection: Selection, commitment: messages.Commitment, reveal: messages.Reveal) -> None:
        """Require this block's mapping layer and an exact training accuracy in the header (3.3, Algorithm 2)."""
        specification, training = selection.posted_task.specification, reveal.training
        specification.check_claim(reveal.claim())
        specification.training.check(training.hyperparameters)
        if self.open_broadcast and read_shown_model(commitment) != messages.TrainedModel(reveal.model_cid, training):
            raise Rejected(RejectionReason.SHOWN_MODEL_WRONG, "the commitment showed another model than it binds")
        work = messages.work_id(reveal.chain_id, selection.parent, selection.task.task_id, reveal.miner)
        mapping = read_mapped_training(training).mapping
        if mapping != self.layer.identity(selection, work):
            detail = f"the model was trained behind mapping {mapping.hex()[:16]}, of another block or task"
            raise Rejected(RejectionReason.MAPPING_FOREIGN, detail)
        counted = training_claim(reveal)
        if specification.metric is Metric.ACCURACY and counted.total != specification.data.training.rows:
            detail = f"a count out of {counted.total}, there are {specification.data.training.rows} training rows"
            raise Rejected(RejectionReason.CLAIM_OUT_OF_RANGE, detail)

    def judge(self, case: JudgementCase) -> MeasurementRequest | messages.Verdict | None:
        """Verify in decreasing order of test accuracy; the first verified block wins (Algorithm 1, lines 26 to 35)."""
        return judge(case)

    def check_header(self, parent: ChainState, selection: Selection, block: messages.AnyBlock) -> None:
        """Require the block to end a fixed time after the test set block that ended the height (3.1)."""
        if isinstance(block, messages.Block):
            due = selection.schedule.deadline(messages.Deadline.BLOCK, block.release.released_milliseconds)
            if block.end_milliseconds != due:
                raise Rejected(RejectionReason.TIMESTAMP_WRONG, "the block does not end as long after its release")
            if is_waived(block.verdict) == _has_reached(selection, block):
                detail = "the verdict waives what its winner reaches, or does not say that it waives it"
                raise Rejected(RejectionReason.VERDICT_WRONG, detail)

    def weigh(self, block: messages.AnyBlock, siblings: tuple[messages.AnyBlock, ...]) -> int:
        """Count winning blocks: 1 for the best verified block of a release (3.2; POLE-R10)."""
        if not isinstance(block, messages.Block):
            return 0
        rivals = (each for each in siblings if isinstance(each, messages.Block) and each.release == block.release)
        best = min(rivals, key=_rank)
        return int(best.verdict.winner == block.verdict.winner)

    def compute_reward(self, selection: Selection, block: messages.AnyBlock, parameters: ChainParameters) -> Reward:
        """Mint R_w, part of it for ommers by Eq. 2, and settle the reservoir by training accuracy (3.5; POLE-R3)."""
        reward, memory = parameters.block_reward_gwei, selection.memory
        trained = block if isinstance(block, messages.Block) else None
        paid, kept = settle_losers(self.ommers, reward, memory, block.height, trained)
        if trained is None:
            return Reward(paid, self._compute_settlements(selection, block), encode_memory(kept))
        reached = _has_reached(selection, trained)
        # How many committed is the data node's word, not the winner's: nothing is gained by hiding who lost.
        withheld = self.ommers.withheld_gwei(reward) if reached and trained.release.count > 1 else 0
        loser = find_best_loser(trained) if reached else None
        kept = (*kept, loser) if loser else kept
        won = messages.Payout(trained.proposer, reward - withheld, "block reward")
        return Reward((won, *paid), self._compute_settlements(selection, block), encode_memory(kept))

    def _compute_settlements(self, selection: Selection, block: messages.AnyBlock) -> tuple[Settlement, ...]:
        """Pay the winner that reached the required accuracy; refund what nobody earned, strike who failed (R4)."""
        task = selection.task
        if task.is_standing:
            return ()
        recipient, outcome = task.publisher, SettlementOutcome.REFUNDED
        if isinstance(block, messages.Block):
            if _has_reached(selection, block):
                recipient, outcome = block.proposer, SettlementOutcome.PAID
        elif block.missed in (messages.Deadline.KEY, messages.Deadline.RELEASE):
            recipient, outcome = BURN_ADDRESS, SettlementOutcome.STRUCK
        return (Settlement(task.task_id, block.height, recipient, outcome),)


def _has_reached(selection: Selection, block: messages.Block) -> bool:
    return has_reached_requirement(block.reveal, selection.posted_task.specification)


def _rank(block: messages.Block) -> tuple[bool, object, Hash32]:
    """Order rivals of one release as the judgement does: who reached the requirement first, then by test accuracy."""
    return is_waived(block.verdict), -block.reveal.claim().share, block.verdict.winner
