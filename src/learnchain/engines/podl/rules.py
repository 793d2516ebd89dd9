"""PoDL: its order of judging and its ten answers in spine order; the fields are the paper's parameters.

Judging goes in decreasing order of the claimed accuracy and accepts the first claim that is true (III-A, III-B).
Phase 2 of a block overlaps Phase 1 of the next (III-B; reading PODL-R5).
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from typing_extensions import override

from learnchain.encoding.codec import Address, Hash32, encode
from learnchain.engines import contract
from learnchain.engines.podl.multi_block_progress import MultiBlockProgress, StoppingRule, decode_memory, encode_memory
from learnchain.engines.podl.parts import baseline_count, encode_baseline
from learnchain.protocol import messages, state
from learnchain.protocol.measurement import Finding, MeasurementKind, MeasurementRequest
from learnchain.protocol.model_specification import ModelLimits, validate
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.payload import Settlement, SettlementOutcome
from learnchain.protocol.task_specification import Cid, TaskSpecification
from learnchain.protocol.training_terms import FULL_BITS, QUANTISED_BITS, FreeTraining, TrainingTerms
from learnchain.rejection import Rejected, RejectionReason

KINDS = (MeasurementKind.PAYLOAD, MeasurementKind.COUNT)
"""What a candidate must pass, cheapest first."""


def judge(case: contract.JudgementCase) -> MeasurementRequest | messages.Verdict | None:
    """Ask for the next measurement, give the verdict, or wait for reveals that may still come."""
    if not case.reveals_closed and len(case.reveals) < len(case.commitments):
        return None
    out: dict[Hash32, str] = {}
    for key in order_by_claim(case):
        found = _examine(case, key)
        if isinstance(found, MeasurementRequest):
            return found
        if found == "":
            return _accept_winner(case, key, out)
        out[key] = found
    return _build_verdict(case, state.ZERO_HASH, out, (0, 0))


def order_by_claim(case: contract.JudgementCase) -> list[Hash32]:
    """Return the revealed candidates, highest claim first; ties go to the lower commitment hash (ROUND-1)."""
    return sorted(case.reveals, key=lambda key: (-case.reveals[key].claim().share, key))


def _examine(case: contract.JudgementCase, key: Hash32) -> MeasurementRequest | str:
    """Return what to measure next, why the candidate is out, or nothing when its claim is true."""
    for kind in KINDS:
        measured = case.measurements.get((key, kind))
        if measured is None:
            return MeasurementRequest(key, kind)
        if measured.finding is Finding.UNAVAILABLE:
            return Finding.UNAVAILABLE.value
        inexact = RejectionReason.CLAIM_NOT_EXACT.value
        if measured.finding is Finding.REJECTED and measured.reason != inexact:
            return measured.reason
        # A miner may have shown others an opening with another claim: only the one at hand is compared.
        reveal = case.reveals[key]
        claimed = (reveal.claim_correct, reveal.claim_total)
        if kind is MeasurementKind.COUNT and (measured.correct, measured.total) != claimed:
            return inexact
    return ""


def _accept_winner(
    case: contract.JudgementCase, key: Hash32, out: dict[Hash32, str]
) -> MeasurementRequest | messages.Verdict | None:
    """Count the champion on the winner's test set, where there is one, and close the verdict (PODL-R1)."""
    if decode_memory(case.selection.memory) is None:
        return _build_verdict(case, key, out, (0, 0))
    measured = case.measurements.get((key, MeasurementKind.BASELINE))
    if measured is None:
        return MeasurementRequest(key, MeasurementKind.BASELINE)
    if measured.finding is Finding.UNAVAILABLE:
        # Without the champion nobody can say what was gained; whoever has it proposes the block.
        return None
    return _build_verdict(case, key, out, (measured.correct, measured.total))


def _build_verdict(
    case: contract.JudgementCase, winner: Hash32, out: dict[Hash32, str], baseline: tuple[int, int]
) -> messages.Verdict:
    entries = tuple(_build_entry(case, key, commitment, winner, out) for key, commitment in case.commitments)
    won = case.reveals.get(winner)
    correct, total = (won.claim_correct, won.claim_total) if won else (0, 0)
    return messages.Verdict(winner, correct, total, entries, encode_baseline(*baseline))


def _build_entry(
    case: contract.JudgementCase, key: Hash32, commitment: messages.Commitment, winner: Hash32, out: dict[Hash32, str]
) -> messages.VerdictEntry:
    reveal, reason = case.reveals.get(key), out.get(key, "")
    if reveal is None or reason == Finding.UNAVAILABLE:
        return messages.VerdictEntry(key, commitment.miner, messages.CandidateOutcome.UNREVEALED, 0, "")
    claim = (reveal.claim_correct, reveal.claim_total)
    outcome = (
        messages.CandidateOutcome.WINNER
        if key == winner
        else messages.CandidateOutcome.REJECTED
        if reason
        else messages.CandidateOutcome.LOWER_CLAIM
    )
    return messages.VerdictEntry(key, commitment.miner, outcome, claim[0], reason, claim[1])


@dataclass(frozen=True, slots=True)
class TwoPhases:
    """Hold the fixed lengths: Phase 1 trains and is the block interval, Phase 2 releases, reveals and judges.

    `key_*` counts from the parent's end: time to open the training data. `release_*` and `reveal_*` count from the
    start of Phase 2 and lie inside it.
    """

    training_milliseconds: int = 600_000
    judging_milliseconds: int = 60_000
    key_milliseconds: int = 60_000
    release_milliseconds: int = 15_000
    reveal_milliseconds: int = 35_000

    def check(self) -> None:
        """Refuse phases that do not follow each other, and a Phase 2 that outlasts the Phase 1 it overlaps."""
        ordered = (0, self.release_milliseconds, self.reveal_milliseconds, self.judging_milliseconds)
        rising = all(left < right for left, right in pairwise(ordered))
        apart = self.training_milliseconds - self.judging_milliseconds
        if not rising or not 0 < self.key_milliseconds < apart or self.training_milliseconds < 1_000:
            detail = f"phases {self} must rise inside Phase 2, and what is left of Phase 1 must outlast the key"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def schedule_height(self, parent: state.ChainState, turn: int) -> state.Schedule:
        """Return the deadlines after `parent`; Phase 1 of a task that goes on began with the parent's Phase 2."""
        start = parent.end_milliseconds - (self.judging_milliseconds if turn else 0)
        commitment = start + self.training_milliseconds
        return state.Schedule(
            start_milliseconds=start,
            key_milliseconds=parent.end_milliseconds + self.key_milliseconds,
            release_opens_milliseconds=commitment,
            commitment_milliseconds=commitment,
            release_milliseconds=commitment + self.release_milliseconds,
            reveal_after_milliseconds=self.reveal_milliseconds - self.release_milliseconds,
            block_after_milliseconds=self.judging_milliseconds - self.release_milliseconds,
            is_clocked=True,
            payload_timestamp_seconds=max(parent.payload_timestamp_seconds + 1, commitment // 1000),
        )

    def is_late(self, task: messages.Task, end_milliseconds: int, parameters: ChainParameters) -> bool:
        """Return whether a task could not be settled in time after one more block on an end (ROUND-5)."""
        longest = self.training_milliseconds + self.judging_milliseconds + parameters.empty_window_milliseconds
        return task.deadline_seconds <= (end_milliseconds + longest) // 1000 + parameters.claim_window_seconds


def build_local_phases(times: contract.LocalDurations) -> TwoPhases:
    """Return the phases for one machine: all that comes before judging is Phase 1, which judging overlaps."""
    training = times.key_milliseconds + times.training_milliseconds
    key = min(times.key_milliseconds, (training - times.judging_milliseconds) // 2)
    inside = (times.release_milliseconds, times.reveal_milliseconds)
    return TwoPhases(training, times.judging_milliseconds, key, *inside)


BURN_ADDRESS = b"\0" * 20
"""The recipient of a burned bond."""


@dataclass(frozen=True, slots=True)
class Podl:
    """Train one task over many blocks, each with a fresh test set, until it gains no more (PoDL, Chenli et al. 2019).

    `model_bits` 8 makes miners commit to models of eight-bit weights, a quarter of the size (III-C, storage burden).
    """

    phases: TwoPhases = field(default_factory=TwoPhases)
    stopping: StoppingRule = field(default_factory=StoppingRule)
    model_bits: int = FULL_BITS
    score_formula: ClassVar[str] = (
        "no number ranks tasks: the earliest posted is trained to its end, block by block (III-B; PODL-R4)"
    )
    reward_formula: ClassVar[str] = (
        "the block's miner takes the block reward; the task pays the best miner of its blocks when it ends (III-B)"
    )

    @property
    def name(self) -> str:
        """Name the consensus."""
        return "podl"

    @property
    def parts(self) -> "PodlParts":
        """Answer for runs ahead, and for the best model so far that a verdict counts."""
        return PodlParts(self.phases)

    def check_parameters(self, parameters: ChainParameters) -> None:
        """Refuse phases that do not overlap as III-B says, a Phase 2 too short to judge in, and odd weights."""
        self.phases.check()
        parameters.check_last_phase(self.phases.judging_milliseconds)
        if self.stopping.stalled_blocks < 1 or self.model_bits not in (QUANTISED_BITS, FULL_BITS):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self}: at least one block; 8 or 32 bits a weight")

    def encode_parameters(self) -> bytes:
        """Return the engine's parameters for the genesis hash."""
        return b"podl" + encode(self)

    def admit_task(self, task: messages.Task, specification: TaskSpecification, parameters: ChainParameters) -> None:
        """Require training data, a model and a fresh test set for every block, all committed to at posting (III-B)."""
        specification.check_numbers()
        validate(specification.model, ModelLimits(parameters=parameters.maximum_model_parameters))
        specification.check_model_fits()
        if task.is_standing:
            return
        if task.reward_wei < parameters.minimum_reward_wei:
            detail = f"{task.reward_wei} wei are below the minimum of {parameters.minimum_reward_wei}"
            raise Rejected(RejectionReason.REWARD_TOO_LOW, detail)
        if task.bond_wei < parameters.minimum_task_bond_wei:
            detail = f"a bond of {task.bond_wei} wei is below the minimum of {parameters.minimum_task_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def required_escrow(self, task: messages.Task) -> messages.Escrow:
        """Lock the reward and the requester's bond until the model is collected (PODL-R4)."""
        return messages.Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)

    def select_task(self, parent: state.ChainState, parameters: ChainParameters) -> state.Selection:
        """Go on with the task of the last block until its requester collects; then take the earliest posted (III-B)."""
        waiting = [
            each
            for each in parent.queued_tasks
            if not self.phases.is_late(each.task, parent.end_milliseconds, parameters)
        ]
        before = self._find_ongoing_progress(parent, waiting)
        turn = before.block_index + 1 if before else 0
        chosen = (
            self._find_ongoing_task(before, parent, parameters)
            if before
            else self._select_next(waiting, parent, parameters)
        )
        origin = before.initialisation_seed if before else parent.block_hash
        position = state.MultiBlockPosition(turn, origin, parent.parent)
        return state.Selection(
            height=parent.height + 1,
            parent=parent.block_hash,
            assignments=(state.Assignment(chosen, position=position),),
            score=f"block {turn + 1} of at most {len(chosen.specification.data.test_sets)}",
            queue_length=len(waiting),
            schedule=self.phases.schedule_height(parent, turn),
            ranking=(),
            memory=parent.reward.memory if before else b"",
        )

    def training_terms(self, selection: state.Selection, work: Hash32) -> TrainingTerms:
        """Train freely until Phase 1 ends, on from the miner's own last model; publish how to repeat it (III-A)."""
        return FreeTraining(self.model_bits)

    def check_commitment(
        self,
        selection: state.Selection,
        commitment: messages.Commitment,
        at_milliseconds: int,
        parameters: ChainParameters,
    ) -> None:
        """Require the header with the model's hash by the end of Phase 1 (III-A, III-B; PODL-R7)."""
        if at_milliseconds > selection.schedule.commitment_milliseconds:
            raise Rejected(RejectionReason.COMMITMENT_LATE, "the commitment arrived after Phase 1 ended")
        if commitment.bond_wei < parameters.minimum_commitment_bond_wei:
            detail = f"a bond of {commitment.bond_wei} wei is below {parameters.minimum_commitment_bond_wei}"
            raise Rejected(RejectionReason.BOND_TOO_LOW, detail)

    def check_reveal(
        self, selection: state.Selection, commitment: messages.Commitment, reveal: messages.Reveal
    ) -> None:
        """Require a claim over the whole fresh test set and hyper-parameters the task allows (III-A, III-B)."""
        specification = selection.posted_task.specification
        specification.check_claim(reveal.claim(), selection.position.block_index)
        specification.training.check(reveal.training.hyperparameters)

    def judge(self, case: contract.JudgementCase) -> MeasurementRequest | messages.Verdict | None:
        """Validate in decreasing order of claimed accuracy; accept the first true claim (III-A, III-B; PODL-R1)."""
        return judge(case)

    def check_header(self, parent: state.ChainState, selection: state.Selection, block: messages.AnyBlock) -> None:
        """Require the block to end with Phase 2, and a verdict that compares with the champion if there is one."""
        if not isinstance(block, messages.Block):
            return
        if block.end_milliseconds != selection.schedule.deadline(messages.Deadline.BLOCK):
            raise Rejected(RejectionReason.TIMESTAMP_WRONG, "the block does not end where Phase 2 ends")
        correct, total = baseline_count(block.verdict)
        if bool(total) != bool(self.parts.baseline_model(selection)) or correct > total:
            raise Rejected(RejectionReason.VERDICT_WRONG, "the champion is not counted, or there is none to count")

    def weigh(self, block: messages.AnyBlock, siblings: tuple[messages.AnyBlock, ...]) -> int:
        """Count 1 for the most accurate honest model of a release (III-C, block reversibility; PODL-R2)."""
        if not isinstance(block, messages.Block):
            return 0
        rivals = (each for each in siblings if isinstance(each, messages.Block) and each.release == block.release)
        best = min(rivals, key=lambda each: (-each.reveal.claim().share, each.verdict.winner))
        return int(best.verdict.winner == block.verdict.winner)

    def compute_reward(
        self, selection: state.Selection, block: messages.AnyBlock, parameters: ChainParameters
    ) -> state.Reward:
        """Mint for the block's miner; pay the champion's miner when the requester collects (II-A, III-B; PODL-R4)."""
        if not isinstance(block, messages.Block):
            return state.Reward((), self._settle_interrupted(selection, block))
        minted = (messages.Payout(block.proposer, parameters.block_reward_gwei, "block reward"),)
        progress = self.stopping.advance_progress(selection, block)
        task, specification = selection.task, selection.posted_task.specification
        over = self.stopping.is_over(progress, specification)
        if not over and (task.is_standing or not self.phases.is_late(task, block.end_milliseconds, parameters)):
            return state.Reward(minted, (), encode_memory(progress))
        winner = progress.best_miner if progress.has_reached_requirement(specification) else b""
        return state.Reward(minted, _settle_task(selection, block, winner))

    def _find_ongoing_progress(
        self, parent: state.ChainState, waiting: list[state.PostedTask]
    ) -> MultiBlockProgress | None:
        """Return how the task of the parent stands if it goes on; a standing one makes room for whoever pays."""
        before = decode_memory(parent.reward.memory)
        return before if parent.ongoing_task or not waiting else None

    def _find_ongoing_task(
        self, before: MultiBlockProgress, parent: state.ChainState, parameters: ChainParameters
    ) -> state.PostedTask:
        """Return the task that the last block trained and did not settle."""
        standing = (state.PostedTask(*each) for each in parameters.standing_tasks())
        return next(each for each in (*parent.ongoing_task, *standing) if each.task.task_id == before.task_id)

    def _select_next(
        self, waiting: list[state.PostedTask], parent: state.ChainState, parameters: ChainParameters
    ) -> state.PostedTask:
        """Return the earliest posted task, or a standing one in turn; the paper knows one requester only (PODL-R4)."""
        if waiting:
            return min(waiting, key=lambda each: (each.task.posted_height, each.task.task_id))
        standing = parameters.standing_tasks()
        return state.PostedTask(*standing[(parent.height + 1) % len(standing)])

    def _settle_interrupted(self, selection: state.Selection, block: messages.AnyBlock) -> tuple[Settlement, ...]:
        """Settle a task whose height was missed: its champion is paid, else whoever failed bears it (PODL-R6)."""
        before = decode_memory(selection.memory)
        if before is not None and before.has_reached_requirement(selection.posted_task.specification):
            return _settle_task(selection, block, before.best_miner)
        silent = not isinstance(block, messages.Block) and block.missed in (
            messages.Deadline.KEY,
            messages.Deadline.RELEASE,
        )
        return _settle_task(selection, block, b"", SettlementOutcome.STRUCK if silent else SettlementOutcome.REFUNDED)


@dataclass(frozen=True, slots=True)
class PodlParts(contract.EngineParts):
    """Answer for what only a task over several blocks asks: runs ahead, and the best earlier model."""

    phases: TwoPhases

    @override
    def check(self, selection: state.Selection, message: contract.PartedMessage) -> None:
        """Refuse a verdict that does not count in one way, and a part of any other message."""
        if isinstance(message, messages.Verdict):
            baseline_count(message)
        else:
            contract.refuse_part(message)

    @override
    def lookahead(
        self, parent: state.ChainState, selection: state.Selection, parameters: ChainParameters
    ) -> contract.Lookahead | None:
        """Let whoever has committed begin the next block, where the task goes on (III-B; PODL-R5)."""
        position, schedule = selection.position, selection.schedule
        if position.block_index + 1 == len(selection.posted_task.specification.data.test_sets):
            return None
        end = schedule.deadline(messages.Deadline.BLOCK)
        posted = (each.task for each in parent.posted_tasks)
        if selection.task.is_standing and any(not self.phases.is_late(each, end, parameters) for each in posted):
            # Somebody paid, so the standing task ends with the next block and nobody trains it on (PODL-R12).
            return None
        following = state.MultiBlockPosition(position.block_index + 1, position.initialisation_seed, selection.parent)
        return contract.Lookahead(following, schedule.commitment_milliseconds + self.phases.training_milliseconds)

    @override
    def baseline_model(self, selection: state.Selection) -> Cid:
        """Name the best model of the task so far (PODL-R1)."""
        before = decode_memory(selection.memory)
        return before.best_cid if before else b""

    @override
    def baseline_count(self, verdict: messages.Verdict) -> tuple[int, int]:
        """Return its count on the winner's fresh test set (PODL-R1)."""
        return baseline_count(verdict)


def _settle_task(
    selection: state.Selection,
    block: messages.AnyBlock,
    winner: Address,
    otherwise: SettlementOutcome = SettlementOutcome.REFUNDED,
) -> tuple[Settlement, ...]:
    """Return the one settlement of a commissioned task: its reward to the winner, or what happens without one."""
    task = selection.task
    if task.is_standing:
        return ()
    recipient = winner or (BURN_ADDRESS if otherwise is SettlementOutcome.STRUCK else task.publisher)
    return (Settlement(task.task_id, block.height, recipient, SettlementOutcome.PAID if winner else otherwise),)
