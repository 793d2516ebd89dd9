"""Steps 1 to 7: a task is listed, funded, chosen, trained for, committed to, revealed and judged."""

from dataclasses import replace

from learnchain.consensus import ommers, pending_audits, pending_disputes, validity
from learnchain.consensus.blocks import admit_block
from learnchain.consensus.penalties import check_bond_cover
from learnchain.consensus.pending_evidence import select_for_block
from learnchain.consensus.round import (
    Round,
    Transition,
    add_witness,
    candidate_key,
    request_candidate_measurement,
    require_current,
    reveal_deadline,
)
from learnchain.consensus.state import add_posted_task
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.contract import JudgementCase
from learnchain.protocol import events
from learnchain.protocol.actions import ProposeBlock, ReleaseTestSet, RevealModel, SendCommitment, TrainModel
from learnchain.protocol.measurement import Finding, Measurement, MeasurementRequest
from learnchain.protocol.messages import AnyBlock, Deadline
from learnchain.protocol.state import ZERO_HASH
from learnchain.rejection import Rejected, RejectionReason, Unavailable

# --- 1 task ------------------------------------------------------------------------------------------------------


def on_task(state: Round, event: events.TaskPosted) -> Transition:
    """Admit a posted task that the engine accepts; it counts once its escrow is locked."""
    task = event.posted.task
    known = state.tree.state(event.block)
    if task.task_id in {each.task.task_id for each in (*known.queued_tasks, *known.posted_tasks, *known.ongoing_task)}:
        raise Rejected(RejectionReason.TASK_DUPLICATE, f"task {task.task_id.hex()[:16]} was posted before")
    if task.deadline_seconds * 1000 <= known.end_milliseconds:
        raise Rejected(RejectionReason.TASK_EXPIRED, f"task {task.task_id.hex()[:16]} is over before it is listed")
    state.rules.admit_task(task, event.posted.specification, state.parameters)
    unfunded = {**state.unfunded_tasks, (event.block, task.task_id): event.posted}
    return replace(state, unfunded_tasks=unfunded), (), ()


# --- 2 escrow ----------------------------------------------------------------------------------------------------


def on_escrow(state: Round, event: events.EscrowLocked) -> Transition:
    """Move an admitted task to the list once the contract holds exactly what the engine demands."""
    key = (event.block, event.escrow.task_id)
    posted = state.unfunded_tasks.get(key)
    if posted is None:
        raise Rejected(RejectionReason.TASK_UNKNOWN, f"no admitted task {event.escrow.task_id.hex()[:16]} waits")
    unfunded = {each: value for each, value in state.unfunded_tasks.items() if each != key}
    if event.escrow != state.rules.required_escrow(posted.task):
        raise Rejected(RejectionReason.ESCROW_MISMATCH, f"{event.escrow.locked_wei} wei locked is not what is due")
    tree = state.tree.with_state(add_posted_task(state.tree.state(event.block), posted))
    return replace(state, tree=tree, unfunded_tasks=unfunded), (), ()


# --- 3 selection -------------------------------------------------------------------------------------------------


def on_selection(state: Round, event: events.KeyReleaseReceived) -> Transition:
    """Open training when the publisher of the selected task releases the data key in time."""
    require_current(state, event.message.parent, event.message.height)
    if event.message == state.key_release:
        return state, (), ()
    validity.check_key_release(event.message, state.selection, state.parameters)
    state.rules.parts.check(state.selection, event.message)
    if event.at_milliseconds > state.selection.schedule.key_milliseconds:
        raise Rejected(RejectionReason.WRONG_PHASE, "the data key came after its deadline")
    if state.key_release is not None:
        # The same key under another signature: training has begun and must not begin again.
        return state, (), ()
    opened = replace(state, key_release=event.message, witnessed_deadlines=add_witness(state, Deadline.KEY))
    return opened, (TrainModel(state.selection, event.message),), ()


# --- 4 training --------------------------------------------------------------------------------------------------


def on_training(state: Round, event: events.TrainingFinished) -> Transition:
    """Commit this node's own model if it was trained inside the task's ranges and ended in time."""
    if state.key_release is None:
        raise Unavailable("the data key of the selected task")
    if event.at_milliseconds > state.selection.schedule.commitment_milliseconds:
        raise Rejected(RejectionReason.COMMITMENT_LATE, "training ended after commitments closed")
    state.selection.posted_task.specification.training.check(event.model.training.hyperparameters)
    return state, (SendCommitment(state.selection, event.model),), ()


# --- 5 commitment ------------------------------------------------------------------------------------------------


def on_commitment(state: Round, event: events.CommitmentReceived) -> Transition:
    """Count a miner's one commitment if it came in time."""
    message = event.message
    require_current(state, message.parent, message.height)
    key = message_hash(message)
    if key in state.commitments:
        return state, (), ()
    validity.check_message(message, state.selection, message.miner, state.parameters)
    check_bond_cover(state.parent.bonds, message, state.parameters.bond_from_reward)
    state.rules.parts.check(state.selection, message)
    state.rules.check_commitment(state.selection, message, event.at_milliseconds, state.parameters)
    if state.announcement is not None:
        raise Rejected(RejectionReason.COMMITMENT_LATE, "the publisher has closed the list of commitments")
    if any(each.miner == message.miner for each in state.commitments.values()):
        raise Rejected(RejectionReason.COMMITMENT_DOUBLE, f"0x{message.miner.hex()} committed to another model")
    if len(state.commitments) >= state.parameters.maximum_commitments:
        raise Rejected(RejectionReason.COMMITMENTS_FULL, "this height holds as many commitments as it may")
    commitments = {**state.commitments, key: message}
    state = replace(state, commitments=commitments, witnessed_deadlines=add_witness(state, Deadline.COMMITMENT))
    return _on_release_due(state, events.ReleaseDue(message.parent, event.at_milliseconds))


# --- 6 reveal ----------------------------------------------------------------------------------------------------


def on_reveal(state: Round, event: events.ReleaseDue | events.ReleaseReceived | events.RevealReceived) -> Transition:
    """Open the test set, then the models: first the publisher's release, then each miner's reveal."""
    if isinstance(event, events.ReleaseDue):
        return _on_release_due(state, event)
    if isinstance(event, events.ReleaseReceived):
        return _on_release(state, event)
    return _on_reveal_received(state, event)


def _on_release_due(state: Round, event: events.ReleaseDue) -> Transition:
    due = state.selection.schedule.is_release_due(len(state.commitments), event.at_milliseconds)
    if event.parent != state.selection.parent or state.announcement is not None or not due:
        return state, (), ()
    listed = tuple(state.commitments[key] for key in sorted(state.commitments))
    return state, (ReleaseTestSet(state.selection, listed),), ()


def _on_release(state: Round, event: events.ReleaseReceived) -> Transition:
    release = event.message.release
    require_current(state, release.parent, release.height)
    if event.message == state.announcement:
        return state, (), ()
    validity.check_release(event.message, state.selection, state.parameters)
    for commitment in event.message.commitments:
        state.rules.parts.check(state.selection, commitment)
    if state.announcement is not None:
        raise Rejected(RejectionReason.RELEASE_DOUBLE, "the publisher signed two releases for one height")
    validity.check_arrival(release, state.selection, event.at_milliseconds, state.parameters)
    commitments = {message_hash(each): each for each in event.message.commitments}
    released = replace(
        state,
        announcement=event.message,
        commitments=commitments,
        witnessed_deadlines=add_witness(state, Deadline.RELEASE),
    )
    return released, (RevealModel(state.selection, event.message),), ()


def _on_reveal_received(state: Round, event: events.RevealReceived) -> Transition:
    message = event.message
    require_current(state, message.parent, message.height)
    if state.announcement is None:
        raise Unavailable("the release that the reveal belongs to")
    found = [key for key, each in state.commitments.items() if each.miner == message.miner]
    if not found:
        raise Rejected(RejectionReason.COMMITMENT_NOT_RELEASED, f"0x{message.miner.hex()} is not under the release")
    key = found[0]
    if message == state.reveals.get(key):
        return state, (), ()
    validity.check_opening(state.commitments[key], message, state.selection, state.parameters)
    state.rules.parts.check(state.selection, message.training)
    state.rules.check_reveal(state.selection, state.commitments[key], message)
    if key in state.reveals:
        raise Rejected(RejectionReason.REVEAL_DOUBLE, "the miner opened its commitment with two claims")
    if state.reveals_closed or event.at_milliseconds > reveal_deadline(state):
        raise Rejected(RejectionReason.WRONG_PHASE, "the reveal came after its deadline")
    witnessed = add_witness(state, Deadline.REVEAL)
    return _judge_candidates(replace(state, reveals={**state.reveals, key: message}, witnessed_deadlines=witnessed))


# --- 7 verification ----------------------------------------------------------------------------------------------


def on_verification(state: Round, event: events.RevealsClosed | events.MeasurementFinished) -> Transition:
    """Judge as far as the measurements reach; ask for the next one, and admit blocks that waited for this one."""
    if isinstance(event, events.RevealsClosed):
        if event.parent != state.selection.parent or state.announcement is None:
            return state, (), ()
        return _judge_candidates(replace(state, reveals_closed=True))
    found = event.measurement
    if found.finding is Finding.UNAVAILABLE and found.candidate not in state.reveals:
        # A pending block waits; the node asks again. Nothing is held against anybody. An empty block makes room and
        # comes again with whoever builds on it.
        asked = state.requested_measurements - {(found.candidate, found.kind)}
        left = {key: each for key, each in state.pending_blocks.items() if key != found.candidate}
        return replace(state, requested_measurements=asked, pending_blocks=left), (), ()
    measurements = {**state.measurements, (found.candidate, found.kind): _reject_unlinked_payload(state, found)}
    if found.finding is Finding.REJECTED and found.candidate in state.evidence:
        state = replace(state, evidence={key: each for key, each in state.evidence.items() if key != found.candidate})
    if found.finding is Finding.REJECTED and found.candidate in state.disputes:
        state = replace(state, disputes={key: each for key, each in state.disputes.items() if key != found.candidate})
    state, actions, later = _judge_candidates(replace(state, measurements=measurements))
    if found.candidate in state.losers:
        state, more, _ = ommers.request_all(state)
        actions = (*actions, *more)
    for key in sorted(state.pending_blocks):
        if key in state.pending_blocks and _is_waiting_for(state, state.pending_blocks[key], found.candidate):
            state, more, after = admit_block(state, key, event.at_milliseconds)
            actions, later = (*actions, *more), (*later, *after)
    return state, actions, later


def _judge_candidates(state: Round) -> Transition:
    """Put the case to the engine: a measurement to make, a verdict, or nothing yet."""
    announcement, opened = state.announcement, state.key_release
    if announcement is None or opened is None or state.verdict is not None:
        return state, (), ()
    listed = tuple(state.commitments.items())
    released = announcement.release.released_milliseconds
    case = JudgementCase(state.selection, listed, state.reveals, state.measurements, state.reveals_closed, released)
    answer = state.rules.judge(case)
    if answer is None:
        return state, (), ()
    if isinstance(answer, MeasurementRequest):
        keys = (opened.key, state.rules.parts.functional_key(opened), announcement.release.key)
        return request_candidate_measurement(state, answer, state.selection, state.reveals[answer.candidate], keys)
    state = replace(state, verdict=answer)
    if answer.winner == ZERO_HASH:
        return state, (), ()
    winner = state.reveals[answer.winner]
    committed, reports = pending_audits.select_for_block(state)
    accusations, answers = pending_disputes.select_for_block(state)
    proposal = ProposeBlock(
        state.selection,
        state.parent,
        opened,
        announcement,
        winner,
        answer,
        evidence=select_for_block(state),
        audits=committed,
        audit_reports=reports,
        challenges=accusations,
        responses=answers,
        engine=state.rules.parts.block_part(ommers.select_for_block(state)),
    )
    return state, (proposal,), ()


def _is_waiting_for(state: Round, block: AnyBlock, candidate: Hash32) -> bool:
    """Return whether a pending block rests on a measurement of this candidate or piece of evidence."""
    beside = {
        *(message_hash(each) for each in block.evidence),
        *pending_disputes.measurement_keys(block),
        *ommers.measurement_keys(state, block),
    }
    return candidate in {candidate_key(block), *beside}


def _reject_unlinked_payload(state: Round, measurement: Measurement) -> Measurement:
    """Turn a payload that does not follow from its parent into a rejection, before the engine sees it."""
    if measurement.facts is None or measurement.candidate not in state.commitments:
        return measurement
    reveal = state.reveals.get(measurement.candidate)
    try:
        if reveal is not None and reveal.payload_hash != measurement.facts.payload_hash:
            raise Rejected(RejectionReason.PAYLOAD_INVALID, "another payload was measured")
        validity.check_payload_links(
            state.parent, measurement.facts, state.selection.schedule.payload_timestamp_seconds
        )
    except Rejected as error:
        return replace(measurement, finding=Finding.REJECTED, reason=error.reason.value)
    return measurement
