"""Bound what waits for measurements: anybody may sign blocks without ever serving what they rest on.

Steps 8 to 10: a block is checked and admitted, the head moves, what it pays is fixed.
"""

from dataclasses import replace

from learnchain.consensus import ommers, pending_audits, pending_disputes
from learnchain.consensus import pending_evidence as proofs
from learnchain.consensus.fork_choice import (
    BlockTree,
    final_block,
    heaviest,
    is_eligible,
    maximum_side_blocks,
    safe_block,
    side_blocks,
    surplus,
)
from learnchain.consensus.round import Round, Step, asked_for, candidate_of, data_keys_of
from learnchain.consensus.state import state_after
from learnchain.consensus.validity import check_block, check_facts, check_time
from learnchain.encoding.codec import Hash32
from learnchain.encoding.hashing import noun_hash
from learnchain.engines.contract import Case
from learnchain.protocol.actions import (
    Action,
    ForgetBlocks,
    MoveHead,
    OpenHeight,
    ProposeEmptyBlock,
    RefuseBlock,
    StoreBlock,
)
from learnchain.protocol.events import (
    BlockReceived,
    BondMoved,
    DeadlineMissed,
    EscrowLocked,
    Event,
    HeadOverridden,
    PayoutDue,
    TaskPosted,
    TreeGrew,
)
from learnchain.protocol.measurement import Finding, Measure, MeasureKind, PayloadFacts
from learnchain.protocol.messages import AnyBlock, Block, Deadline, EmptyBlock, Head, empty_block_ticket
from learnchain.protocol.selection import Selection
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_PENDING_BLOCKS = 64
"""Blocks that wait for measurements at one time; more are asked for again later."""


MAXIMUM_PENDING_EMPTY = 32


MAXIMUM_PENDING_EMPTY_SIBLINGS = 4
"""Anybody may sign an empty block without ever serving its payload: they never take the place of trained blocks."""


def with_room(pending: dict[Hash32, AnyBlock], block: AnyBlock) -> dict[Hash32, AnyBlock]:
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
    last = max(rivals, key=lambda key: _waiting_order(rivals[key]))
    if _waiting_order(block) >= _waiting_order(rivals[last]):
        raise Unavailable("room for one more empty block to be measured")
    return {key: each for key, each in pending.items() if key != last}


def _waiting_order(block: EmptyBlock) -> tuple[int, bytes]:
    return -block.height, empty_block_ticket(block.parent, block.proposer)


# --- 8 block -----------------------------------------------------------------------------------------------------


def on_block(state: Round, event: BlockReceived | DeadlineMissed) -> Step:
    """Check a block against its parent and its own evidence, have it measured, admit it; or end a missed height."""
    if isinstance(event, DeadlineMissed):
        return _on_missed_deadline(state, event)
    block, key = event.block, noun_hash(event.block)
    if key in state.tree or key in state.pending:
        raise Rejected(RejectionReason.BLOCK_DUPLICATE, f"block {key.hex()[:16]} is known")
    if block.height <= state.tree.state(state.tree.root).height:
        raise Rejected(RejectionReason.BELOW_FINAL, f"height {block.height} is final")
    if block.parent not in state.tree:
        raise Unavailable(f"block {block.parent.hex()}")
    if isinstance(block, Block) or (key, MeasureKind.PAYLOAD) not in state.measurements:
        # What is measured already, as the node's own is, is judged at once and needs no room to wait in.
        kept = with_room(state.pending, block)
        asked = frozenset(each for each in state.asked if each[0] in kept or each[0] not in state.pending)
        state = replace(state, pending=kept, asked=asked)
    parent = state.tree.state(block.parent)
    selection = state.rules.select_task(parent, state.parameters)
    check_block(parent, selection, block, state.rules.payouts(selection, block, state.parameters), state.parameters)
    state.rules.check_header(parent, selection, block)
    check_time(block, event.at_milliseconds, state.parameters)
    if isinstance(block, Block):
        winner = next(each for each in block.commitments if noun_hash(each) == block.verdict.winner)
        closed = min(block.release.released_milliseconds, selection.schedule.commitment_milliseconds)
        state.rules.check_commitment(selection, winner, closed, state.parameters)
        state.rules.check_reveal(selection, winner, block.reveal)
        ommers.check_ommers(state, selection, block)
    return admitted(replace(state, pending={**state.pending, key: block}), key, event.at_milliseconds)


def admitted(state: Round, key: Hash32, at_milliseconds: int) -> Step:
    """Admit a pending block once everything it rests on is measured; drop it with the reason if it fails."""
    block = state.pending[key]
    parent = state.tree.state(block.parent)
    selection = state.rules.select_task(parent, state.parameters)
    answer = _examine_block(state, selection, block)
    if isinstance(answer, Measure):
        known = state.measurements.get((answer.candidate, answer.kind))
        if known is not None and known.finding is Finding.UNAVAILABLE:
            state = replace(state, asked=state.asked - {(answer.candidate, answer.kind)})
        subject = block.reveal if isinstance(block, Block) else block
        keys = data_keys_of(block) if isinstance(block, Block) else (b"", b"", b"")
        return asked_for(state, answer, selection, subject, keys)
    if not isinstance(answer, str):
        beside = _examine_attachments(state, parent, block)
        if isinstance(beside, tuple):
            return beside
        answer = beside or answer
    if not isinstance(answer, str) and isinstance(block, Block):
        cited = ommers.examined(state, selection, block)
        if isinstance(cited, tuple):
            return cited
        answer = cited or answer
    left = {each: value for each, value in state.pending.items() if each != key}
    state = replace(state, pending=left)
    if isinstance(answer, str):
        return state, (RefuseBlock(key, answer),), ()
    reward = state.rules.payouts(selection, block, state.parameters)
    after = state_after(parent, selection, block, reward, state.parameters)
    state = replace(state, tree=state.tree.with_block(block, after))
    posted = tuple(TaskPosted(key, each) for each in answer.posted)
    locked = tuple(EscrowLocked(key, each) for each in answer.escrows)
    bonds = tuple(BondMoved(key, each) for each in answer.bonds)
    return state, (), (*posted, *locked, *bonds, PayoutDue(key), TreeGrew(at_milliseconds))


def _examine_block(state: Round, selection: Selection, block: AnyBlock) -> Measure | str | PayloadFacts:
    """Return what to measure next, the reason to refuse, or the facts of the payload of a good block."""
    candidate = candidate_of(block)
    paid = state.measurements.get((candidate, MeasureKind.PAYLOAD))
    if paid is None or paid.finding is Finding.UNAVAILABLE:
        return Measure(candidate, MeasureKind.PAYLOAD)
    if paid.finding is not Finding.ACCEPTED or paid.facts is None:
        return paid.reason or RejectionReason.PAYLOAD_INVALID.value
    try:
        check_facts(state.tree.state(block.parent), selection, block, paid.facts)
    except Rejected as error:
        return error.reason.value
    if isinstance(block, Block):
        winner = next(each for each in block.commitments if noun_hash(each) == candidate)
        present = {key: value for key, value in state.measurements.items() if value.finding is not Finding.UNAVAILABLE}
        released = block.release.released_milliseconds
        case = Case(selection, ((candidate, winner),), {candidate: block.reveal}, present, True, released)
        answer = state.rules.judge(case)
        if isinstance(answer, Measure):
            return answer
        if answer is None or answer.winner != candidate:
            reason = answer.entries[0].reason if answer is not None else ""
            return reason or RejectionReason.VERDICT_WRONG.value
        counted, stated = answer, block.verdict
        if counted.baseline_total and (counted.baseline_correct, counted.baseline_total) != (
            stated.baseline_correct,
            stated.baseline_total,
        ):
            return RejectionReason.BASELINE_NOT_EXACT.value
    return paid.facts


def _examine_attachments(state: Round, parent: ChainState, block: AnyBlock) -> Step | str | None:
    """Return what a block's evidence and answers still need, why one of them does not stand, or None."""
    evidence = proofs.unmeasured(state, parent, block.evidence)
    if evidence is not None:
        return proofs.asked(state, parent, evidence)
    answer = pending_disputes.unmeasured(state, block.answers)
    if answer is not None:
        return pending_disputes.asked(state, parent, answer)
    return proofs.refused(state, block) or pending_disputes.refused(state, block)


def _on_missed_deadline(state: Round, event: DeadlineMissed) -> Step:
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
    proposal = ProposeEmptyBlock(*height, listed, proofs.offered(state), *pending_disputes.offered(state))
    return state, (proposal,), ()


# --- 9 fork choice -----------------------------------------------------------------------------------------------


def on_head(state: Round, event: TreeGrew | HeadOverridden) -> Step:
    """Move to the heaviest eligible branch, and open the next height on it."""
    weigh, tree, here = state.rules.weigh, state.tree, state.head.block
    if isinstance(event, HeadOverridden):
        state = replace(state, overridden=state.overridden | {tree.state(event.tip).block_hash})
    best = heaviest(tree, weigh, (here, *(tip for tip in tree.leaves() if tip != here and _can_lead(state, tip))))
    return _prune_empty_blocks(*((state, (), ()) if best == here else _open_height_on(state, best)), before=tree)


def _prune_empty_blocks(state: Round, actions: tuple[Action, ...], later: tuple[Event, ...], before: BlockTree) -> Step:
    """Forget the empty blocks that lost and are too many, or that lie below what is final now."""
    kept = (state.head.block, *(each for each in state.overridden if each in state.tree))
    gone = surplus(state.tree, kept, maximum_side_blocks(state.parameters.finality_depth))
    over = ()
    if state.tree.root != before.root:
        over = tuple(each for each in side_blocks(before, (state.head.block,)) if each not in state.tree)
    found = (before.records.get(each) or state.tree.records[each] for each in (*over, *gone))
    blocks = tuple(each.block for each in found if isinstance(each.block, EmptyBlock))
    if not blocks:
        return state, actions, later
    tree = state.tree.without(frozenset(gone))
    pending = {key: each for key, each in state.pending.items() if each.parent in tree}
    unfunded = {key: each for key, each in state.unfunded.items() if key[0] in tree}
    state = replace(state, tree=tree, pending=pending, unfunded=unfunded)
    return state, (*actions, ForgetBlocks(blocks)), later


def _can_lead(state: Round, tip: Hash32) -> bool:
    """Return whether a branch contradicts nothing that was seen in time, or the operator accepted it anyway."""
    if not state.overridden.isdisjoint(each.state.block_hash for each in state.tree.branch(tip)):
        return True
    return is_eligible(state.tree, state.rules.weigh, state.head.block, tip, state.witnessed)


def _open_height_on(state: Round, tip: Hash32) -> Step:
    branch = state.tree.branch(tip)
    final = final_block(state.tree, tip, state.rules.weigh, state.parameters.finality_depth)
    weight = state.root_weight + state.tree.weight(tip, state.rules.weigh)
    tree = state.tree.pruned(final)
    head = Head(tip, branch[-1].state.height, weight, safe_block(branch, final), final)
    selection = state.rules.select_task(branch[-1].state, state.parameters)
    alive = {key: block for key, block in state.pending.items() if block.parent in tree}
    reported = proofs.kept(state, branch[-1].state)
    disputed = pending_disputes.kept(state, branch[-1].state)
    needed = {candidate_of(block) for block in alive.values()} | set(reported) | set(disputed)
    needed |= {key for block in alive.values() for key in (*map(noun_hash, block.evidence), *ommers.keys_of(block))}
    needed |= {key for block in alive.values() for key in pending_disputes.keys_of(block)}
    needed |= set(state.losers)
    opened = Round(
        state.rules,
        state.parameters,
        tree,
        head,
        selection,
        root_weight=state.root_weight + state.tree.weight(final, state.rules.weigh),
        measurements={key: value for key, value in state.measurements.items() if key[0] in needed},
        asked=frozenset(key for key in state.asked if key[0] in needed),
        pending=alive,
        unfunded={key: value for key, value in state.unfunded.items() if key[0] in tree},
        witnessed=frozenset(each for each in state.witnessed if each[0] in tree),
        overridden=frozenset(each for each in state.overridden if each in tree),
        evidence=reported,
        audits=pending_audits.kept(state, branch[-1].state),
        disputes=disputed,
    )
    losers = ommers.kept(opened, (*state.losers.values(), *state.reveals.values()))
    opened, asked, _ = ommers.ask_all(replace(opened, losers=losers))
    opened, fetched, _ = pending_disputes.ask_all(opened)
    return opened, (MoveHead(head, branch[-1].state), OpenHeight(selection), *asked, *fetched), ()


# --- 10 reward ---------------------------------------------------------------------------------------------------


def on_payout(state: Round, event: PayoutDue) -> Step:
    """Fix what the accepted block mints and settles; the next payload must carry exactly that (ROUND-4)."""
    record = state.tree.records[event.block]
    if record.block is None:
        return state, (), ()
    if record.state.ledger.locked_wei < 0:
        raise AssertionError(f"block {event.block.hex()} settles more than was escrowed")
    return state, (StoreBlock(record.block, record.state),), ()
