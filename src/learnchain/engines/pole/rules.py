"""The ten answers of PoLe, in spine order; the fields are the paper's parameters."""

from dataclasses import dataclass, field

from learnchain.primitives.chain_state import ChainState, Reward
from learnchain.primitives.codec import Hash32, encode
from learnchain.primitives.measurement import Measure
from learnchain.primitives.messages import (
    AnyBlock,
    Block,
    Commitment,
    Deadline,
    Escrow,
    Payout,
    Reveal,
    Task,
    Verdict,
    work_id,
)
from learnchain.primitives.model_costs import validate
from learnchain.primitives.model_specification import ModelLimits
from learnchain.primitives.numbers import Accuracy
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.selection import Selection
from learnchain.primitives.settlement import Outcome, Settlement
from learnchain.primitives.task_specification import Metric, TaskSpecification
from learnchain.primitives.training_terms import TrainingTerms
from learnchain.rules.contract import Case
from learnchain.rules.pole.equations import MAXIMUM_DEPTH, OmmerRules
from learnchain.rules.pole.judging import judge, reaches_requirement
from learnchain.rules.pole.layer import MappingLayer, check_encryption, layer_shape
from learnchain.rules.pole.ommers import best_loser, citable, memory_of, settled
from learnchain.rules.pole.ranking import most_valuable, value_text
from learnchain.rules.pole.schedule import Times

NOBODY_ADDRESS = b"\0" * 20
"""The recipient of a burned bond."""
MOST_SHOWN = 64
"""Commitments that show their model are almost twice as long; a block lists all of them in one gossip message."""


@dataclass(frozen=True, slots=True)
class Pole:
    """Train until enough solutions are there; the best verified one wins, losers may be cited (PoLe, Lan et al. 2020).

    `open_broadcast` is the paper's own way: models are shown before the test set, so that anybody may copy them; by
    default a commitment stands for the broadcast and models are revealed after the release (POLE-R7).
    """

    times: Times = field(default_factory=Times)
    layer: MappingLayer = field(default_factory=MappingLayer)
    ommers: OmmerRules = field(default_factory=OmmerRules)
    open_broadcast: bool = False

    @property
    def name(self) -> str:
        """Name the consensus."""
        return "pole"

    def check_parameters(self, parameters: ChainParameters) -> None:
        """Refuse times that do not rise, a last phase too short to judge in, and finality above the ommers' depth."""
        self.times.check(parameters.maximum_commitments)
        self.layer.check()
        self.ommers.check()
        parameters.check_last_phase(self.times.block_milliseconds)
        if self.open_broadcast and parameters.maximum_commitments > MOST_SHOWN:
            detail = f"{parameters.maximum_commitments} commitments that show their models fit into no block message"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
        if parameters.finality_depth <= MAXIMUM_DEPTH:
            detail = f"finality after {parameters.finality_depth} blocks: ommers may be cited for {MAXIMUM_DEPTH}"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def canonical(self) -> bytes:
        """Return the engine's parameters for the genesis hash."""
        return b"pole" + encode(self)

    def admit_task(self, task: Task, specification: TaskSpecification, parameters: ChainParameters) -> None:
        """Require training data, a model that a mapping layer fits in front of, an accuracy, a reward (3.1)."""
        specification.check_numbers()
        validate(specification.model, ModelLimits(parameters=parameters.maximum_model_parameters))
        layer_shape(specification, self.layer)
        check_encryption(task, specification, self.layer)
        specification.check_outputs()
        if not task.standing and task.reward_wei < parameters.minimum_reward_wei:
            detail = f"{task.reward_wei} wei are below the minimum of {parameters.minimum_reward_wei}"
            raise Rejected(RejectionReason.REWARD_TOO_LOW, detail)
        if not task.standing and task.bond_wei < parameters.minimum_task_bond_wei:
            detail = f"a bond of {task.bond_wei} wei is below the minimum of {parameters.minimum_task_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def escrow(self, task: Task) -> Escrow:
        """Move the reward to the virtual reservoir account at once, with the data node's bond (3.1)."""
        return Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)

    def select_task(self, parent: ChainState, parameters: ChainParameters) -> Selection:
        """Select the highest reward per unit of time from the list of the parent (3.2, Algorithm 1 line 1)."""
        window = parameters.empty_window_milliseconds
        in_time = tuple(
            each
            for each in parent.pool
            if each.task.deadline_seconds - parameters.claim_window_seconds
            > (parent.end_milliseconds + self.times.round_milliseconds(each.specification) + window) // 1000
        )
        found, height, memory = most_valuable(parent, in_time, parameters), parent.height + 1, parent.reward.memory
        return Selection(
            height,
            parent.block_hash,
            found.posted,
            value_text(found.value),
            found.waiting,
            self.times.schedule(parent, found.posted.specification),
            found.ranking,
            memory,
            citable=citable(memory, height),
            discloses=self.open_broadcast,
        )

    def training_terms(self, selection: Selection, work: Hash32) -> TrainingTerms:
        """Fix the first layer to query vectors that follow from the previous block hash (3.4, Algorithm 3)."""
        return self.layer.terms(selection, work)

    def check_commitment(
        self, selection: Selection, commitment: Commitment, at_milliseconds: int, parameters: ChainParameters
    ) -> None:
        """Require a bonded broadcast before the test set is released, at the latest at the time limit (3.1, 3.2)."""
        if at_milliseconds > selection.schedule.commitment_milliseconds:
            raise Rejected(RejectionReason.COMMITMENT_LATE, "the commitment arrived after the time limit")
        if commitment.bond_wei < parameters.minimum_commitment_bond_wei:
            detail = f"a bond of {commitment.bond_wei} wei is below {parameters.minimum_commitment_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def check_reveal(self, selection: Selection, commitment: Commitment, reveal: Reveal) -> None:
        """Require this block's mapping layer and an exact training accuracy in the header (3.3, Algorithm 2)."""
        specification, training = selection.posted.specification, reveal.training
        specification.check_claim(reveal.claim())
        specification.training.check(training.hyperparameters)
        work = work_id(reveal.chain_id, selection.parent, selection.task.task_id, reveal.miner)
        if training.mapping != self.layer.identity(selection, work):
            detail = f"the model was trained behind mapping {training.mapping.hex()[:16]}, of another block or task"
            raise Rejected(RejectionReason.MAPPING_FOREIGN, detail)
        counted = Accuracy(training.correct, training.total)
        if specification.metric is Metric.ACCURACY and counted.total != specification.data.training.rows:
            detail = f"a count out of {counted.total}, there are {specification.data.training.rows} training rows"
            raise Rejected(RejectionReason.CLAIM_OUT_OF_RANGE, detail)

    def judge(self, case: Case) -> Measure | Verdict | None:
        """Verify in decreasing order of test accuracy; the first verified block wins (Algorithm 1, lines 26 to 35)."""
        return judge(case)

    def check_header(self, parent: ChainState, selection: Selection, block: AnyBlock) -> None:
        """Require the block to end a fixed time after the test set block that ended the height (3.1)."""
        if isinstance(block, Block):
            due = selection.schedule.deadline(Deadline.BLOCK, block.release.released_milliseconds)
            if block.end_milliseconds != due:
                raise Rejected(RejectionReason.TIMESTAMP_WRONG, "the block does not end as long after its release")
            if block.verdict.waived == _has_reached(selection, block):
                detail = "the verdict waives what its winner reaches, or does not say that it waives it"
                raise Rejected(RejectionReason.VERDICT_WRONG, detail)

    def weigh(self, block: AnyBlock, siblings: tuple[AnyBlock, ...]) -> int:
        """Count winning blocks: 1 for the best verified block of a release (3.2; POLE-R10)."""
        if not isinstance(block, Block):
            return 0
        rivals = (each for each in siblings if isinstance(each, Block) and each.release == block.release)
        best = min(rivals, key=_rank)
        return int(best.verdict.winner == block.verdict.winner)

    def payouts(self, selection: Selection, block: AnyBlock, parameters: ChainParameters) -> Reward:
        """Mint R_w, part of it for ommers by Eq. 2, and settle the reservoir by training accuracy (3.5; POLE-R3)."""
        reward, memory = parameters.block_reward_gwei, selection.memory
        trained = block if isinstance(block, Block) else None
        paid, kept = settled(self.ommers, reward, memory, block.height, trained)
        if trained is None:
            return Reward(paid, self._settlements(selection, block), memory_of(kept))
        reached = _has_reached(selection, trained)
        # How many committed is the data node's word, not the winner's: nothing is gained by hiding who lost.
        withheld = self.ommers.withheld_gwei(reward) if reached and trained.release.count > 1 else 0
        loser = best_loser(trained) if reached else None
        kept = (*kept, loser) if loser else kept
        won = Payout(trained.proposer, reward - withheld, "block reward")
        return Reward((won, *paid), self._settlements(selection, block), memory_of(kept))

    def _settlements(self, selection: Selection, block: AnyBlock) -> tuple[Settlement, ...]:
        """Pay the winner that reached the required accuracy; refund what nobody earned, strike who failed (R4)."""
        task = selection.task
        if task.standing:
            return ()
        recipient, outcome = task.publisher, Outcome.REFUNDED
        if isinstance(block, Block):
            if _has_reached(selection, block):
                recipient, outcome = block.proposer, Outcome.PAID
        elif block.missed in (Deadline.KEY, Deadline.RELEASE):
            recipient, outcome = NOBODY_ADDRESS, Outcome.STRUCK
        return (Settlement(task.task_id, block.height, recipient, outcome),)


def _has_reached(selection: Selection, block: Block) -> bool:
    return reaches_requirement(block.reveal, selection.posted.specification)


def _rank(block: Block) -> tuple[bool, object, Hash32]:
    """Order rivals of one release as the judgement does: who reached the requirement first, then by test accuracy."""
    return block.verdict.waived, -block.reveal.claim().share, block.verdict.winner
