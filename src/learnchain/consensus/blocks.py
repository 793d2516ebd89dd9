"""Bound what waits for measurements: anybody may sign blocks without ever serving what they rest on.

Steps 8 to 10: a block is checked and admitted, the head moves, what it pays is fixed.
"""

from dataclasses import replace

from learnchain.consensus import fork_choice, ommers, pending_audits, pending_disputes
from learnchain.consensus import pending_evidence as proofs
from learnchain.consensus.round import Round, Transition, candidate_key, data_keys_of, request_candidate_measurement
from learnchain.consensus.state import apply_block
from learnchain.consensus.validity import check_block, check_engine_parts, check_payload_facts, check_time
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.contract import JudgementCase
from learnchain.protocol import events
from learnchain.protocol.actions import (
    Action,
    ForgetBlocks,
    MoveHead,
    OpenHeight,
    ProposeEmptyBlock,
    RefuseBlock,
    StoreBlock,
)
from learnchain.protocol.measurement import Finding, MeasurementKind, MeasurementRequest, PayloadFacts
from learnchain.protocol.messages import AnyBlock, Block, Deadline, EmptyBlock, Head, empty_block_tie_breaker
from learnchain.protocol.state import ChainState, Selection
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_PENDING_BLOCKS = 64
"""Blocks that wait for measurements at one time; more are asked for again later."""

MAXIMUM_PENDING_EMPTY = 32

MAXIMUM_PENDING_EMPTY_SIBLINGS = 4
"""Anybody may sign an empty block without ever serving its payload: they never take the place of trained blocks."""


def make_room(pending: dict[Hash32, AnyBlock], block: AnyBlock) -> dict[Hash32, AnyBlock]:
    """Return who goes on waiting beside a block: of empty siblings the lowest lots stay, of all the highest."""
    if isinstance(block, EmptyBlock):
        empty = {key: each for key, each in pending.items() if isinstance(each, EmptyBlock)}
        siblings = {key: each for key, each in empty.items() if each.parent == block.parent}
        if len(siblings) >= MAXIMUM_PENDING_EMPTY_SIBLINGS:
            return _replace_last_rival(pending, block, siblings)
        if len(empty) >= MAXIMUM_PENDING_EMPTY:
            return _replace_last_rival(pending, block, empty)
    if len(pending) >= MAXIMUM_PENDING_BLOCKS:
        raise Unavailable("room for one more block to be measured")
    return pending


def _replace_last_rival(
    pending: dict[Hash32, AnyBlock], block: EmptyBlock, rivals: dict[Hash32, EmptyBlock]
) -> dict[Hash32, AnyBlock]:
    """Drop the last of the rivals when the new block comes before it."""
    last = max(rivals, key=lambda key: _rank_in_queue(rivals[key]))
    if _rank_in_queue(block) >= _rank_in_queue(rivals[last]):
        raise Unavailable("room for one more empty block to be measured")
    return {key: each for key, each in pending.items() if key != last}


def _rank_in_queue(block: EmptyBlock) -> tuple[int, bytes]:
    return -block.height, empty_block_tie_breaker(block.parent, block.proposer)


# --- 8 block -----------------------------------------------------------------------------------------------------


def on_block(state: Round, event: events.BlockReceived | events.DeadlineMissed) -> Transition:
    """Check a block against its parent and its own evidence, have it measured, admit it; or end a missed height."""
    if isinstance(event, events.DeadlineMissed):
        return _on_missed_deadline(state, event)
    block, key = event.block, message_hash(event.block)
    if key in state.tree or key in state.pending_blocks:
        raise Rejected(RejectionReason.BLOCK_DUPLICATE, f"block {key.hex()[:16]} is known")
    if block.height <= state.tree.state(state.tree.root).height:
        raise Rejected(RejectionReason.BELOW_FINAL, f"height {block.height} is final")
    if block.parent not in state.tree:
        raise Unavailable(f"block {block.parent.hex()}")
    if isinstance(block, Block) or (key, MeasurementKind.PAYLOAD) not in state.measurements:
        # What is measured already, as the node's own is, is judged at once and needs no room to wait in.
        kept = make_room(state.pending_blocks, block)
        asked = frozenset(
            each for each in state.requested_measurements if each[0] in kept or each[0] not in state.pending_blocks
        )
        state = replace(state, pending_blocks=kept, requested_measurements=asked)
    parent = state.tree.state(block.parent)
    selection = state.rules.select_task(parent, state.parameters)
    check_block(
        parent, selection, block, state.rules.compute_reward(selection, block, state.parameters), state.parameters
    )
    check_engine_parts(state.rules, selection, block)
    state.rules.check_header(parent, selection, block)
    check_time(block, event.at_milliseconds, state.parameters)
    if isinstance(block, Block):
        winner = next(each for each in block.commitments if message_hash(each) == block.verdict.winner)
        closed = min(block.release.released_milliseconds, selection.schedule.commitment_milliseconds)
        state.rules.check_commitment(selection, winner, closed, state.parameters)
        state.rules.check_reveal(selection, winner, block.reveal)
        ommers.check_ommers(state, selection, block)
    return admit_block(replace(state, pending_blocks={**state.pending_blocks, key: block}), key, event.at_milliseconds)


def admit_block(state: Round, key: Hash32, at_milliseconds: int) -> Transition:
    """Admit a pending block once everything it rests on is measured; drop it with the reason if it fails."""
    block = state.pending_blocks[key]
    parent = state.tree.state(block.parent)
    selection = state.rules.select_task(parent, state.parameters)
    answer = _examine_block(state, selection, block)
    if isinstance(answer, MeasurementRequest):
        known = state.measurements.get((answer.candidate, answer.kind))
        if known is not None and known.finding is Finding.UNAVAILABLE:
            state = replace(
                state, requested_measurements=state.requested_measurements - {(answer.candidate, answer.kind)}
            )
        subject = block.reveal if isinstance(block, Block) else block
        keys = data_keys_of(state.rules, block) if isinstance(block, Block) else (b"", b"", b"")
        return request_candidate_measurement(state, answer, selection, subject, keys)
    if not isinstance(answer, str):
        beside = _examine_attachments(state, parent, block)
        if isinstance(beside, tuple):
            return beside
        answer = beside or answer
    if not isinstance(answer, str) and isinstance(block, Block):
        cited = ommers.examine_cited(state, selection, block)
        if isinstance(cited, tuple):
            return cited
        answer = cited or answer
    left = {each: value for each, value in state.pending_blocks.items() if each != key}
    state = replace(state, pending_blocks=left)
    if isinstance(answer, str):
        return state, (RefuseBlock(key, answer),), ()
    reward = state.rules.compute_reward(selection, block, state.parameters)
    after = apply_block(parent, selection, block, reward, state.parameters)
    state = replace(state, tree=state.tree.with_block(block, after))
    posted = tuple(events.TaskPosted(key, each) for each in answer.posted)
    locked = tuple(events.EscrowLocked(key, each) for each in answer.escrows)
    bonds = tuple(events.BondMoved(key, each) for each in answer.bonds)
    return state, (), (*posted, *locked, *bonds, events.PayoutDue(key), events.TreeGrew(at_milliseconds))


def _examine_block(state: Round, selection: Selection, block: AnyBlock) -> MeasurementRequest | str | PayloadFacts:
    """Return what to measure next, the reason to refuse, or the facts of the payload of a good block."""
    candidate = candidate_key(block)
    paid = state.measurements.get((candidate, MeasurementKind.PAYLOAD))
    if paid is None or paid.finding is Finding.UNAVAILABLE:
        return MeasurementRequest(candidate, MeasurementKind.PAYLOAD)
    if paid.finding is not Finding.ACCEPTED or paid.facts is None:
        return paid.reason or RejectionReason.PAYLOAD_INVALID.value
    try:
        check_payload_facts(state.tree.state(block.parent), selection, block, paid.facts)
    except Rejected as error:
        return error.reason.value
    if isinstance(block, Block):
        winner = next(each for each in block.commitments if message_hash(each) == candidate)
        present = {key: value for key, value in state.measurements.items() if value.finding is not Finding.UNAVAILABLE}
        released = block.release.released_milliseconds
        case = JudgementCase(selection, ((candidate, winner),), {candidate: block.reveal}, present, True, released)
        answer = state.rules.judge(case)
        if isinstance(answer, MeasurementRequest):
            return answer
        if answer is None or answer.winner != candidate:
            reason = answer.entries[0].reason if answer is not None else ""
            return reason or RejectionReason.VERDICT_WRONG.value
        counted = state.rules.parts.baseline_count(answer)
        if counted[1] and counted != state.rules.parts.baseline_count(block.verdict):
            return RejectionReason.BASELINE_NOT_EXACT.value
    return paid.facts


def _examine_attachments(state: Round, parent: ChainState, block: AnyBlock) -> Transition | str | None:
    """Return what a block's evidence and answers still need, why one of them does not stand, or None."""
    evidence = proofs.first_unmeasured(state, parent, block.evidence)
    if evidence is not None:
        return proofs.request_measurement(state, parent, evidence)
    answer = pending_disputes.first_unmeasured(state, block.responses)
    if answer is not None:
        return pending_disputes.request_measurement(state, parent, answer)
    return proofs.rejection_reason(state, block) or pending_disputes.rejection_reason(state, block)


def _on_missed_deadline(state: Round, event: events.DeadlineMissed) -> Transition:
    """Offer an empty block when what the deadline asked for has not come; a height never hangs (ROUND-3)."""
    schedule, window = state.selection.schedule, state.parameters.empty_window_milliseconds
    if event.parent != state.selection.parent:
        return state, (), ()
    # An empty block carries no release, so its deadlines count from the latest moment at which one could come.
    earliest = schedule.deadline(event.missed) + window
    if event.at_milliseconds < earliest:
        raise Rejected(
            RejectionReason.EMPTY_BLOCK_EARLY, f"{event.missed} has {earliest - event.at_milliseconds} ms left"
        )
    came = {
        Deadline.KEY: state.key_release is not None,
        Deadline.COMMITMENT: bool(state.commitments),
        Deadline.RELEASE: state.announcement is not None,
        Deadline.REVEAL: bool(state.reveals),
    }
    if came.get(event.missed, False):
        return state, (), ()
    end = event.at_milliseconds - (event.at_milliseconds - earliest) % window
    listed = tuple(state.commitments[key] for key in sorted(state.commitments))
    height = (state.selection, state.parent, event.missed, end)
    proposal = ProposeEmptyBlock(
        *height, listed, proofs.select_for_block(state), *pending_disputes.select_for_block(state)
    )
    return state, (proposal,), ()


# --- 9 fork choice -----------------------------------------------------------------------------------------------


def on_head(state: Round, event: events.TreeGrew | events.HeadOverridden) -> Transition:
    """Move to the heaviest eligible branch, and open the next height on it."""
    weigh, tree, here = state.rules.weigh, state.tree, state.head.block
    if isinstance(event, events.HeadOverridden):
        state = replace(state, accepted_branches=state.accepted_branches | {tree.state(event.tip).block_hash})
    best = fork_choice.find_heaviest(
        tree, weigh, (here, *(tip for tip in tree.leaves() if tip != here and _can_lead(state, tip)))
    )
    return _prune_empty_blocks(*((state, (), ()) if best == here else _open_height_on(state, best)), before=tree)


def _prune_empty_blocks(
    state: Round, actions: tuple[Action, ...], later: tuple[events.Event, ...], before: fork_choice.BlockTree
) -> Transition:
    """Forget the empty blocks that lost and are too many, or that lie below what is final now."""
    kept = (state.head.block, *(each for each in state.accepted_branches if each in state.tree))
    gone = fork_choice.excess_blocks(
        state.tree, kept, fork_choice.maximum_side_branches(state.parameters.finality_depth)
    )
    over = ()
    if state.tree.root != before.root:
        over = tuple(
            each for each in fork_choice.find_side_branches(before, (state.head.block,)) if each not in state.tree
        )
    found = (before.records.get(each) or state.tree.records[each] for each in (*over, *gone))
    blocks = tuple(each.block for each in found if isinstance(each.block, EmptyBlock))
    if not blocks:
        return state, actions, later
    tree = state.tree.remove_blocks(frozenset(gone))
    pending = {key: each for key, each in state.pending_blocks.items() if each.parent in tree}
    unfunded = {key: each for key, each in state.unfunded_tasks.items() if key[0] in tree}
    state = replace(state, tree=tree, pending_blocks=pending, unfunded_tasks=unfunded)
    return state, (*actions, ForgetBlocks(blocks)), later


def _can_lead(state: Round, tip: Hash32) -> bool:
    """Return whether a branch contradicts nothing that was seen in time, or the operator accepted it anyway."""
    if not state.accepted_branches.isdisjoint(each.state.block_hash for each in state.tree.branch(tip)):
        return True
    return fork_choice.is_eligible(state.tree, state.rules.weigh, state.head.block, tip, state.witnessed_deadlines)


def _open_height_on(state: Round, tip: Hash32) -> Transition:
    branch = state.tree.branch(tip)
    final = fork_choice.find_final_block(state.tree, tip, state.rules.weigh, state.parameters.finality_depth)
    weight = state.root_weight + state.tree.weight(tip, state.rules.weigh)
    tree = state.tree.prune_below(final)
    head = Head(tip, branch[-1].state.height, weight, fork_choice.find_safe_block(branch, final), final)
    selection = state.rules.select_task(branch[-1].state, state.parameters)
    alive = {key: block for key, block in state.pending_blocks.items() if block.parent in tree}
    reported = proofs.retain_valid(state, branch[-1].state)
    disputed = pending_disputes.retain_valid(state, branch[-1].state)
    needed = {candidate_key(block) for block in alive.values()} | set(reported) | set(disputed)
    needed |= {
        key
        for block in alive.values()
        for key in (*map(message_hash, block.evidence), *ommers.measurement_keys(state, block))
    }
    needed |= {key for block in alive.values() for key in pending_disputes.measurement_keys(block)}
    needed |= set(state.losers)
    opened = Round(
        state.rules,
        state.parameters,
        tree,
        head,
        selection,
        root_weight=state.root_weight + state.tree.weight(final, state.rules.weigh),
        measurements={key: value for key, value in state.measurements.items() if key[0] in needed},
        requested_measurements=frozenset(key for key in state.requested_measurements if key[0] in needed),
        pending_blocks=alive,
        unfunded_tasks={key: value for key, value in state.unfunded_tasks.items() if key[0] in tree},
        witnessed_deadlines=frozenset(each for each in state.witnessed_deadlines if each[0] in tree),
        accepted_branches=frozenset(each for each in state.accepted_branches if each in tree),
        evidence=reported,
        audits=pending_audits.retain_valid(state, branch[-1].state),
        disputes=disputed,
    )
    losers = ommers.retain_citable(opened, (*state.losers.values(), *state.reveals.values()))
    opened, asked, _ = ommers.request_all(replace(opened, losers=losers))
    opened, fetched, _ = pending_disputes.request_all(opened)
    return opened, (MoveHead(head, branch[-1].state), OpenHeight(selection), *asked, *fetched), ()


# --- 10 reward ---------------------------------------------------------------------------------------------------


def on_payout(state: Round, event: events.PayoutDue) -> Transition:
    """Fix what the accepted block mints and settles; the next payload must carry exactly that (ROUND-4)."""
    record = state.tree.records[event.block]
    if record.block is None:
        return state, (), ()
    if record.state.ledger.locked_wei < 0:
        raise AssertionError(f"block {event.block.hex()} settles more than was escrowed")
    return state, (StoreBlock(record.block, record.state),), ()
