"""List the wrong things that others can send to the spine, each with the one reason it must be refused for.

The tests feed every one and play the height to its end; the vectors of each engine hold every one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from learnchain.protocol.audit_messages import AuditCommitment, AuditReport
from learnchain.protocol.events import (
    AuditMessageReceived,
    BlockReceived,
    CommitmentReceived,
    DeadlineMissed,
    EscrowLocked,
    Event,
    EvidenceReported,
    KeyReleaseReceived,
    ReleaseReceived,
    RevealReceived,
    TaskPosted,
    TrainingFinished,
)
from learnchain.protocol.messages import Block, Deadline, Evidence, ReleaseAnnouncement
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.model_specification import Layer, Setting
from learnchain.protocol.state import PostedTask
from learnchain.protocol.task_specification import TaskSpecification
from learnchain.rejection import RejectionReason
from learnchain.simulation.chain_builder import Candidate, alter
from learnchain.simulation.dispute_cases import build_audit_commitment, build_audit_report, run_until_seeded
from learnchain.simulation.sample_tasks import address, build_sample_specification, build_sample_task
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, build_candidates, run_height
from learnchain_conformance.bad_disputes import BAD_DISPUTES
from learnchain_conformance.evidence_cases import build_double_commitment, build_repetition, sign_again

CandidatePair = tuple[Candidate, ...]


Make = Callable[[ScenarioNode, CandidatePair], Event]


PLAN = HeightPlan({"miner-1": 95, "miner-2": 93})


STAGES = ("begun", "opened", "committed", "released", "revealed")


@dataclass(frozen=True, slots=True)
class BadInput:
    """Name a wrong event, the stage of the height at which it comes, and why it is refused."""

    name: str
    stage: str
    reason: RejectionReason
    make: Make


def prepare(node: ScenarioNode, stage: str) -> CandidatePair:
    """Play the present height up to a stage; return its two candidates, of which only the first has revealed."""
    parent, schedule = node.parent, node.round.selection.schedule
    reached = STAGES.index(stage)
    found = build_candidates(node, PLAN)
    if reached >= 1:
        node.feed(KeyReleaseReceived(node.builder.build_key_release(parent), schedule.start_milliseconds))
    if reached >= 2:
        node.feed(CommitmentReceived(found[0].commitment, schedule.start_milliseconds + 1))
    if reached >= 3:
        node.feed(ReleaseReceived(node.builder.build_announcement(parent, found), schedule.release_opens_milliseconds))
    if reached >= 4:
        node.feed(RevealReceived(node.builder.build_reveal(parent, found[0]), schedule.release_opens_milliseconds + 1))
    return found


# --- messages ----------------------------------------------------------------------------------------------------


def _make_key(signer: str = "steward", **changes: object) -> Make:
    def make(node: ScenarioNode, _found: CandidatePair) -> Event:
        message = alter(node.builder.build_key_release(node.parent), signer, **changes)
        return KeyReleaseReceived(message, node.round.selection.schedule.start_milliseconds)

    return make


def _late_key(node: ScenarioNode, _found: CandidatePair) -> Event:
    late = node.round.selection.schedule.key_milliseconds + 1
    return KeyReleaseReceived(node.builder.build_key_release(node.parent), late)


def _make_commitment(signer: str | None = None, after_milliseconds: int = 0, **changes: object) -> Make:
    def make(node: ScenarioNode, found: CandidatePair) -> Event:
        at = node.round.selection.schedule.commitment_milliseconds + after_milliseconds
        return CommitmentReceived(alter(found[1].commitment, signer, **changes), at)

    return make


def _double_commitment(node: ScenarioNode, found: CandidatePair) -> Event:
    other = node.builder.build_candidate(node.parent, found[0].miner, 99, variant="second thoughts")
    return CommitmentReceived(other.commitment, node.round.selection.schedule.start_milliseconds + 2)


def _make_release(signer: str = "steward", moved_milliseconds: int = 0, **changes: object) -> Make:
    def make(node: ScenarioNode, found: CandidatePair) -> Event:
        announcement = node.builder.build_announcement(node.parent, found, moved_milliseconds)
        release = alter(announcement.release, signer, **changes)
        return ReleaseReceived(replace(announcement, release=release), release.released_milliseconds)

    return make


def _release_of_twins(node: ScenarioNode, found: CandidatePair) -> Event:
    other = node.builder.build_candidate(node.parent, found[0].miner, 99, variant="second thoughts")
    opens = node.round.selection.schedule.release_opens_milliseconds
    return ReleaseReceived(node.builder.build_announcement(node.parent, (found[0], other)), opens)


def _release_without_one(node: ScenarioNode, found: CandidatePair) -> Event:
    announcement = node.builder.build_announcement(node.parent, found)
    shorter = ReleaseAnnouncement(announcement.release, announcement.commitments[:1])
    return ReleaseReceived(shorter, announcement.release.released_milliseconds)


def _release_unsorted(node: ScenarioNode, found: CandidatePair) -> Event:
    announcement = node.builder.build_announcement(node.parent, found)
    turned = ReleaseAnnouncement(announcement.release, announcement.commitments[::-1])
    return ReleaseReceived(turned, announcement.release.released_milliseconds)


def _late_release(node: ScenarioNode, found: CandidatePair) -> Event:
    skew = node.builder.parameters.clock_skew_milliseconds
    late = node.round.selection.schedule.release_milliseconds + skew + 1
    return ReleaseReceived(node.builder.build_announcement(node.parent, found), late)


def _release_ahead(node: ScenarioNode, found: CandidatePair) -> Event:
    announcement = node.builder.build_announcement(node.parent, found)
    early = announcement.release.released_milliseconds - node.builder.parameters.clock_skew_milliseconds - 1
    return ReleaseReceived(announcement, early)


def _make_reveal(index: int = 1, signer: str | None = None, **changes: object) -> Make:
    def make(node: ScenarioNode, found: CandidatePair) -> Event:
        reveal = alter(node.builder.build_reveal(node.parent, found[index]), signer, **changes)
        return RevealReceived(reveal, node.round.selection.schedule.release_opens_milliseconds + 2)

    return make


def _uncommitted_reveal(node: ScenarioNode, _found: CandidatePair) -> Event:
    stranger = node.builder.build_candidate(node.parent, "miner-8", 100)
    at = node.round.selection.schedule.release_opens_milliseconds + 2
    return RevealReceived(node.builder.build_reveal(node.parent, stranger), at)


def _late_reveal(node: ScenarioNode, found: CandidatePair) -> Event:
    late = node.round.selection.schedule.deadline(Deadline.REVEAL) + 1
    return RevealReceived(node.builder.build_reveal(node.parent, found[1]), late)


def _wild_training(node: ScenarioNode, found: CandidatePair) -> Event:
    record = found[0].model.training
    chosen = replace(record.hyperparameters, batch_size=65_537)
    model = replace(found[0].model, training=replace(record, hyperparameters=chosen))
    return TrainingFinished(model, node.round.selection.schedule.start_milliseconds + 1)


# --- blocks ------------------------------------------------------------------------------------------------------


def _make_block(signer: str | None = None, at_milliseconds: int | None = None, **changes: object) -> Make:
    def make(node: ScenarioNode, found: CandidatePair) -> Event:
        block = node.builder.build_block(node.parent, found)
        at = block.end_milliseconds if at_milliseconds is None else at_milliseconds
        return BlockReceived(alter(block, signer, **changes), at)

    return make


def _make_verdict(change: Callable[[Block], dict[str, object]]) -> Make:
    def make(node: ScenarioNode, found: CandidatePair) -> Event:
        block = node.builder.build_block(node.parent, found)
        verdict = replace(block.verdict, **change(block))  # type: ignore[arg-type]
        return BlockReceived(alter(block, verdict=verdict), block.end_milliseconds)

    return make


def _raise_losing_claim(block: Block) -> dict[str, object]:
    lower = next(each for each in block.verdict.entries if each.commitment != block.verdict.winner)
    wrong = replace(lower, claim_correct=block.verdict.correct + 1)
    return {"entries": tuple(wrong if each == lower else each for each in block.verdict.entries)}


def _add_unknown_reason(block: Block) -> dict[str, object]:
    return {"entries": tuple(replace(each, reason="no such reason") for each in block.verdict.entries)}


def _make_empty_block(signer: str | None = None, early: bool = False, **changes: object) -> Make:
    def make(node: ScenarioNode, _found: CandidatePair) -> Event:
        block = node.builder.build_empty_block(node.parent, Deadline.KEY)
        skew = node.builder.parameters.clock_skew_milliseconds
        at = block.end_milliseconds - (skew + 1 if early else 0)
        return BlockReceived(alter(block, signer, **changes), at)

    return make


def _empty_too_soon(node: ScenarioNode, _found: CandidatePair) -> Event:
    block = node.builder.build_empty_block(node.parent, Deadline.RELEASE, windows=-1)
    return BlockReceived(block, block.end_milliseconds)


def _second_arrival(node: ScenarioNode, _found: CandidatePair) -> Event:
    won = node.builder.build_candidate(node.round.tree.state(node.round.tree.root), "miner-1", 95)
    block = node.builder.build_block(node.round.tree.state(node.round.tree.root), (won,))
    node.receive(block)
    return BlockReceived(block, block.end_milliseconds)


def _deadline_before_window(node: ScenarioNode, _found: CandidatePair) -> Event:
    schedule = node.round.selection.schedule
    return DeadlineMissed(node.parent.block_hash, Deadline.KEY, schedule.key_milliseconds)


# --- evidence ----------------------------------------------------------------------------------------------------


def _make_evidence(make: Callable[[ScenarioNode], Evidence], **changes: object) -> Make:
    def happened(node: ScenarioNode, _found: CandidatePair) -> Event:
        won = node.builder.build_candidate(node.parent, "miner-1", 95)
        node.receive(node.builder.build_block(node.parent, (won,)))
        evidence = make(node)
        return EvidenceReported(sign_again(evidence, **changes) if changes else evidence, node.parent.end_milliseconds)

    return happened


def _penalise_twice(node: ScenarioNode, found: CandidatePair) -> Event:
    first = _make_evidence(build_double_commitment)(node, found)
    node.feed(first)
    return EvidenceReported(build_double_commitment(node, reporter="miner-3"), node.parent.end_milliseconds)


# --- audits ------------------------------------------------------------------------------------------------------


def _make_audit(make: Callable[[ScenarioNode], AuditCommitment | AuditReport]) -> Make:
    return lambda node, _found: AuditMessageReceived(make(run_until_seeded(node)), node.parent.end_milliseconds)


def _audit_too_early(node: ScenarioNode, _found: CandidatePair) -> Event:
    later = run_until_seeded(ScenarioNode(node.builder, node.round))
    run_height(node)
    return AuditMessageReceived(build_audit_commitment(build_audit_report(later)), node.parent.end_milliseconds)


def _own_audit(node: ScenarioNode) -> AuditCommitment:
    return alter(build_audit_commitment(build_audit_report(node)), "miner-1", auditor=address("miner-1"))


def _repeat_audit(node: ScenarioNode, _found: CandidatePair) -> Event:
    report = build_audit_report(run_until_seeded(node))
    node.feed(AuditMessageReceived(build_audit_commitment(report), node.parent.end_milliseconds))
    run_height(node)
    return AuditMessageReceived(build_audit_commitment(report), node.parent.end_milliseconds)


# --- tasks -------------------------------------------------------------------------------------------------------


def _make_task(posted: PostedTask) -> Make:
    return lambda node, _found: TaskPosted(node.parent.block_hash, posted)


def _build_wrong_task(**changes: object) -> PostedTask:
    specification: TaskSpecification = replace(build_sample_specification("wrong"), **changes)  # type: ignore[arg-type]
    return build_sample_task("wrong", specification=specification)


def _build_task_with_rows(rows: int) -> PostedTask:
    data = build_sample_specification("wrong").data
    return _build_wrong_task(data=replace(data, training=replace(data.training, rows=rows)))


def _unknown_layer() -> PostedTask:
    return _build_wrong_task(model=replace(mlp((16,), 4), layers=(Layer("a0", "Lambda", (), ()),)))


def _mismatched_layers() -> PostedTask:
    model = mlp((16,), 4)
    settings = (Setting("kernel_size", 3), Setting("out_channels", 4))
    return _build_wrong_task(model=replace(model, layers=(*model.layers, Layer("last", "Conv2d", (), settings))))


def _unmatched_escrow(node: ScenarioNode, _found: CandidatePair) -> Event:
    posted = build_sample_task("short of money")
    node.feed(TaskPosted(node.parent.block_hash, posted))
    escrow = node.builder.rules.required_escrow(posted.task)
    return EscrowLocked(node.parent.block_hash, replace(escrow, locked_wei=escrow.locked_wei - 1))


def _orphan_escrow(node: ScenarioNode, _found: CandidatePair) -> Event:
    return EscrowLocked(
        node.parent.block_hash, node.builder.rules.required_escrow(build_sample_task("never posted").task)
    )


def _same_task_again(node: ScenarioNode, _found: CandidatePair) -> Event:
    posted = build_sample_task("twice")
    node.feed(TaskPosted(node.parent.block_hash, posted))
    node.feed(EscrowLocked(node.parent.block_hash, node.builder.rules.required_escrow(posted.task)))
    return TaskPosted(node.parent.block_hash, posted)


_WRONG = b"\x77" * 32
_NO_PART = b"\1" * 36
"""Bytes that no engine reads as a part of its own."""


_R = RejectionReason


BAD_INPUTS: tuple[BadInput, ...] = (
    BadInput("task_rows_zero", "begun", _R.TASK_NUMBER_OUT_OF_RANGE, _make_task(_build_task_with_rows(0))),
    BadInput("task_rows_huge", "begun", _R.TASK_NUMBER_OUT_OF_RANGE, _make_task(_build_task_with_rows(2**255))),
    BadInput(
        "task_accuracy_above_one",
        "begun",
        _R.TASK_NUMBER_OUT_OF_RANGE,
        _make_task(_build_wrong_task(required_numerator=11)),
    ),
    BadInput("task_layer_unknown", "begun", _R.MODEL_LAYER_UNKNOWN, _make_task(_unknown_layer())),
    BadInput("task_shape_mismatch", "begun", _R.MODEL_SHAPE_MISMATCH, _make_task(_mismatched_layers())),
    BadInput(
        "task_model_too_large",
        "begun",
        _R.MODEL_TOO_LARGE,
        _make_task(_build_wrong_task(model=mlp((16,), 4, (30_000,) * 2))),
    ),
    BadInput("task_reward_zero", "begun", _R.REWARD_TOO_LOW, _make_task(build_sample_task("free work", 0))),
    BadInput("task_bond_zero", "begun", _R.BOND_TOO_LOW, _make_task(build_sample_task("no bond", bond_wei=0))),
    BadInput("task_twice", "begun", _R.TASK_DUPLICATE, _same_task_again),
    BadInput("escrow_short", "begun", _R.ESCROW_MISMATCH, _unmatched_escrow),
    BadInput("escrow_unknown", "begun", _R.TASK_UNKNOWN, _orphan_escrow),
    BadInput("evidence_of_nothing", "begun", _R.EVIDENCE_INVALID, _make_evidence(build_repetition)),
    BadInput("evidence_alone", "begun", _R.EVIDENCE_INVALID, _make_evidence(build_double_commitment, statements=())),
    BadInput(
        "evidence_of_another",
        "begun",
        _R.EVIDENCE_INVALID,
        _make_evidence(build_double_commitment, offender=address("miner-2")),
    ),
    BadInput(
        "evidence_garbled", "begun", _R.MALFORMED, _make_evidence(build_double_commitment, statements=(b"x", b"y"))
    ),
    BadInput(
        "evidence_of_another_branch", "begun", _R.EVIDENCE_STALE, _make_evidence(build_double_commitment, parent=_WRONG)
    ),
    BadInput("evidence_of_another_chain", "begun", _R.WRONG_CHAIN, _make_evidence(build_double_commitment, chain_id=1)),
    BadInput("evidence_twice", "begun", _R.EVIDENCE_DOUBLE, _penalise_twice),
    BadInput("audit_too_early", "begun", _R.AUDIT_CLOSED, _audit_too_early),
    BadInput(
        "audit_forged",
        "begun",
        _R.WRONG_SIGNATURE,
        _make_audit(lambda node: build_audit_commitment(build_audit_report(node), "stranger")),
    ),
    BadInput("audit_by_the_winner", "begun", _R.AUDIT_WRONG, _make_audit(_own_audit)),
    BadInput("audit_twice", "begun", _R.AUDIT_DOUBLE, _repeat_audit),
    BadInput("audit_report_without_commitment", "begun", _R.AUDIT_CLOSED, _make_audit(build_audit_report)),
    *(BadInput(name, "begun", reason, make) for name, reason, make in BAD_DISPUTES),
    BadInput("key_mismatch", "begun", _R.KEY_MISMATCH, _make_key(key=_WRONG)),
    BadInput("key_release_part_malformed", "begun", _R.MALFORMED, _make_key(engine=_NO_PART)),
    BadInput("commitment_part_malformed", "opened", _R.MALFORMED, _make_commitment(engine=_NO_PART)),
    BadInput("verdict_part_malformed", "revealed", _R.MALFORMED, _make_verdict(lambda _: {"engine": _NO_PART})),
    BadInput("block_part_malformed", "revealed", _R.MALFORMED, _make_block(engine=_NO_PART)),
    BadInput("key_signed_by_stranger", "begun", _R.WRONG_SIGNATURE, _make_key(signer="stranger")),
    BadInput("key_of_another_chain", "begun", _R.WRONG_CHAIN, _make_key(chain_id=1)),
    BadInput("key_of_another_height", "begun", _R.WRONG_HEIGHT, _make_key(height=2)),
    BadInput("key_of_another_task", "begun", _R.WRONG_TASK, _make_key(task_id=_WRONG)),
    BadInput("key_of_the_past", "begun", _R.WRONG_HEIGHT, _make_key(parent=_WRONG, height=0)),
    BadInput("key_late", "begun", _R.WRONG_PHASE, _late_key),
    BadInput("training_out_of_range", "opened", _R.HYPERPARAMETER_OUT_OF_RANGE, _wild_training),
    BadInput("commitment_late", "opened", _R.COMMITMENT_LATE, _make_commitment(after_milliseconds=1)),
    BadInput("commitment_forged", "opened", _R.WRONG_SIGNATURE, _make_commitment(signer="stranger")),
    BadInput("commitment_without_bond", "opened", _R.BOND_TOO_LOW, _make_commitment(bond_wei=0)),
    BadInput("commitment_double", "committed", _R.COMMITMENT_DOUBLE, _double_commitment),
    BadInput("release_key_mismatch", "committed", _R.KEY_MISMATCH, _make_release(key=_WRONG)),
    BadInput("release_forged", "committed", _R.WRONG_SIGNATURE, _make_release(signer="miner-1")),
    BadInput("release_root_wrong", "committed", _R.RELEASE_ROOT_WRONG, _make_release(root=_WRONG)),
    BadInput("release_list_incomplete", "committed", _R.RELEASE_ROOT_WRONG, _release_without_one),
    BadInput("release_list_unsorted", "committed", _R.RELEASE_ROOT_WRONG, _release_unsorted),
    BadInput("release_dated_ahead", "committed", _R.RELEASE_EARLY, _release_ahead),
    BadInput("release_early", "committed", _R.RELEASE_EARLY, _make_release(moved_milliseconds=-1)),
    BadInput("release_dated_late", "committed", _R.WRONG_PHASE, _make_release(moved_milliseconds=15_001)),
    BadInput("release_late", "committed", _R.WRONG_PHASE, _late_release),
    BadInput("release_of_twins", "committed", _R.COMMITMENT_DOUBLE, _release_of_twins),
    BadInput("release_double", "released", _R.RELEASE_DOUBLE, _make_release(moved_milliseconds=1)),
    BadInput("commitment_after_release", "released", _R.COMMITMENT_LATE, _double_commitment),
    BadInput("reveal_without_commitment", "released", _R.COMMITMENT_NOT_RELEASED, _uncommitted_reveal),
    BadInput("reveal_of_another_model", "released", _R.REVEAL_MISMATCH, _make_reveal(model_cid=b"\x01\x55" + _WRONG)),
    BadInput("reveal_of_another_payload", "released", _R.REVEAL_MISMATCH, _make_reveal(payload_hash=_WRONG)),
    BadInput("reveal_of_another_place", "released", _R.REVEAL_MISMATCH, _make_reveal(payload_cid=b"\x01\x55" + _WRONG)),
    BadInput("reveal_forged", "released", _R.WRONG_SIGNATURE, _make_reveal(signer="stranger")),
    BadInput("reveal_attestation_wrong", "released", _R.WRONG_SIGNATURE, _make_reveal(attestation=b"\x01" * 65)),
    BadInput("reveal_claim_above_total", "released", _R.CLAIM_OUT_OF_RANGE, _make_reveal(claim_correct=101)),
    BadInput("reveal_claim_of_other_total", "released", _R.CLAIM_OUT_OF_RANGE, _make_reveal(claim_total=1_000)),
    BadInput(
        "reveal_claim_of_nothing", "released", _R.CLAIM_OUT_OF_RANGE, _make_reveal(claim_correct=0, claim_total=0)
    ),
    BadInput("reveal_late", "released", _R.WRONG_PHASE, _late_reveal),
    BadInput("reveal_double", "revealed", _R.REVEAL_DOUBLE, _make_reveal(index=0, claim_correct=94)),
    BadInput("block_forged", "revealed", _R.WRONG_SIGNATURE, _make_block(signer="stranger")),
    BadInput("block_of_another_chain", "revealed", _R.WRONG_CHAIN, _make_block(chain_id=1)),
    BadInput("block_of_another_height", "revealed", _R.WRONG_HEIGHT, _make_block(height=2)),
    BadInput("block_below_final", "revealed", _R.BELOW_FINAL, _make_block(height=0)),
    BadInput("block_list_wrong", "revealed", _R.QUEUED_TASKS_WRONG, _make_block(queued_tasks=(_WRONG,))),
    BadInput("block_settlement_wrong", "revealed", _R.RESULT_ROOT_WRONG, _make_block(settlement_root=_WRONG)),
    BadInput("block_end_wrong", "revealed", _R.TIMESTAMP_WRONG, _make_block(end_milliseconds=1)),
    BadInput("block_from_future", "revealed", _R.RELEASE_EARLY, _make_block(at_milliseconds=1)),
    BadInput("block_twice", "begun", _R.BLOCK_DUPLICATE, _second_arrival),
    BadInput(
        "verdict_winner_unreleased", "revealed", _R.COMMITMENT_NOT_RELEASED, _make_verdict(lambda _: {"winner": _WRONG})
    ),
    BadInput("verdict_count_wrong", "revealed", _R.VERDICT_WRONG, _make_verdict(lambda _: {"correct": 96})),
    BadInput(
        "verdict_incomplete", "revealed", _R.VERDICT_WRONG, _make_verdict(lambda b: {"entries": b.verdict.entries[:1]})
    ),
    BadInput("verdict_lower_is_higher", "revealed", _R.VERDICT_WRONG, _make_verdict(_raise_losing_claim)),
    BadInput("verdict_reason_unknown", "revealed", _R.VERDICT_WRONG, _make_verdict(_add_unknown_reason)),
    BadInput("empty_block_early", "begun", _R.EMPTY_BLOCK_EARLY, _make_empty_block(early=True)),
    BadInput("empty_block_before_deadline", "begun", _R.TIMESTAMP_WRONG, _empty_too_soon),
    BadInput(
        "empty_block_between_windows",
        "begun",
        _R.TIMESTAMP_WRONG,
        _make_empty_block(end_milliseconds=1_800_000_061_500),
    ),
    BadInput("empty_block_forged", "begun", _R.WRONG_SIGNATURE, _make_empty_block(signer="stranger")),
    BadInput("deadline_not_over", "begun", _R.EMPTY_BLOCK_EARLY, _deadline_before_window),
)
"""Every wrong event that the spine itself refuses; files and weights belong to `learning/`."""
