"""The spine: one round of consensus as a pure function, `advance(round, event) -> (round, actions)`.

Ten handlers in the order of the ten steps: task, escrow, selection, training, commitment, reveal, verification,
block, fork choice, reward. The node, the simulator, the vectors and the property tests all drive this one function.
An event that breaks a rule raises `Rejected` and changes nothing; one that comes before what it refers to raises
`Unavailable`. The engine (`rules/`) answers what the papers decide; what is the same for all is decided here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from learnchain.primitives.actions import (
    Action,
    MeasureCandidate,
    MoveHead,
    OpenHeight,
    ProposeBlock,
    ProposeEmptyBlock,
    RefuseBlock,
    RefuseTask,
    ReleaseTestSet,
    RevealModel,
    SendCommitment,
    StoreBlock,
    TrainModel,
)
from learnchain.primitives.block_checks import (
    NOBODY,
    check_block,
    check_facts,
    check_key_release,
    check_message,
    check_opening,
    check_payload_links,
    check_release,
    check_time,
)
from learnchain.primitives.block_tree import BlockRecord, BlockTree, heaviest, is_eligible, safe_block
from learnchain.primitives.chain_state import ChainState, state_after, with_escrowed
from learnchain.primitives.codec import Hash32
from learnchain.primitives.events import (
    BlockReceived,
    Committed,
    DeadlineMissed,
    EscrowLocked,
    Event,
    HeadOverridden,
    KeyReleased,
    Measured,
    PayoutDue,
    Released,
    ReleaseDue,
    Revealed,
    RevealsClosed,
    TaskPosted,
    Trained,
    TreeGrew,
)
from learnchain.primitives.hashing import noun_hash
from learnchain.primitives.measurement import Finding, Measure, MeasureKind, Measurement, PayloadFacts
from learnchain.primitives.messages import (
    AnyBlock,
    Block,
    Commitment,
    Deadline,
    EmptyBlock,
    Head,
    KeyRelease,
    ReleaseAnnouncement,
    Reveal,
    Verdict,
)
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.pending_blocks import with_room
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable
from learnchain.primitives.selection import PostedTask, Selection
from learnchain.rules.contract import Case, Rules

Stored = tuple[tuple[AnyBlock, ChainState], ...]


@dataclass(frozen=True, slots=True)
class Round:
    """Hold one node's view: the tree of complete blocks, the head, and the height that is being decided on it.

    `root_weight` is what lies below the tree's root. `witnessed` names what arrived in time on which parent,
    `overridden` the branches the operator accepted in spite of it. `measurements` and `asked` are keyed by
    commitment, or by an empty block's hash.
    """

    rules: Rules
    parameters: ChainParameters
    tree: BlockTree
    head: Head
    selection: Selection
    root_weight: int = 0
    key_release: KeyRelease | None = None
    commitments: dict[Hash32, Commitment] = field(default_factory=dict)
    announcement: ReleaseAnnouncement | None = None
    reveals: dict[Hash32, Reveal] = field(default_factory=dict)
    reveals_closed: bool = False
    verdict: Verdict | None = None
    measurements: dict[tuple[Hash32, MeasureKind], Measurement] = field(default_factory=dict)
    asked: frozenset[tuple[Hash32, MeasureKind]] = frozenset()
    pending: dict[Hash32, AnyBlock] = field(default_factory=dict)
    unfunded: dict[tuple[Hash32, Hash32], PostedTask] = field(default_factory=dict)
    witnessed: frozenset[tuple[Hash32, Deadline]] = frozenset()
    overridden: frozenset[Hash32] = frozenset()

    @property
    def parent(self) -> ChainState:
        """Return the state after the head, on which the current height is decided."""
        return self.tree.state(self.head.block)


Step = tuple[Round, tuple[Action, ...], tuple[Event, ...]]
"""A handler's answer: the new round, what the node must do, and which later steps follow at once."""


def begin(rules: Rules, parameters: ChainParameters, final: ChainState) -> tuple[Round, tuple[Action, ...]]:
    """Open the first round on a final state: genesis, or a trusted checkpoint not older than D."""
    tree = BlockTree(final.block_hash, {final.block_hash: BlockRecord(final, None)})
    head = Head(final.block_hash, final.height, 0, final.block_hash, final.block_hash)
    selection = rules.select_task(final, parameters)
    opened = Round(rules, parameters, tree, head, selection)
    return opened, (MoveHead(head, final), OpenHeight(selection))


def resume(
    rules: Rules, parameters: ChainParameters, final: ChainState, later: Stored, head: Head
) -> tuple[Round, tuple[Action, ...]]:
    """Open a round on what this node itself stored: blocks above the final state were checked before they were kept.

    `head` is the stored head; its weight tells what lies below the final state.
    """
    state, actions = begin(rules, parameters, final)
    tree = state.tree
    for block, after in sorted(later, key=lambda each: (each[1].height, each[1].block_hash)):
        if block.parent in tree and after.block_hash not in tree:
            tree = tree.with_block(block, after)
    below = head.weight - tree.weight(head.block, rules.weigh) if head.block in tree else 0
    start = replace(state, tree=tree, root_weight=below, head=replace(state.head, weight=below))
    state, more, _ = on_head(start, TreeGrew(final.end_milliseconds))
    return state, more or actions


def advance(state: Round, event: Event) -> tuple[Round, tuple[Action, ...]]:
    """Apply one event and all steps that follow from it; raise `Rejected` or `Unavailable` and change nothing."""
    state, actions, waiting = _HANDLERS[type(event)](state, event)
    queue = list(waiting)
    while queue:
        follower = queue.pop(0)
        try:
            state, more, later = _HANDLERS[type(follower)](state, follower)
        except Rejected as error:
            # A bad task in a good block is the publisher's loss, not the block's.
            more, later = (_refusal(follower, error),), ()
        actions, queue = (*actions, *more), [*later, *queue]
    return state, actions


# --- 1 task ------------------------------------------------------------------------------------------------------


def on_task(state: Round, event: TaskPosted) -> Step:
    """Admit a posted task that the engine accepts; it counts once its escrow is locked."""
    task = event.posted.task
    known = state.tree.state(event.block)
    if task.task_id in {each.task.task_id for each in (*known.pool, *known.incoming)}:
        raise Rejected(RejectionReason.TASK_DUPLICATE, f"task {task.task_id.hex()[:16]} was posted before")
    if task.deadline_seconds * 1000 <= known.end_milliseconds:
        raise Rejected(RejectionReason.TASK_EXPIRED, f"task {task.task_id.hex()[:16]} is over before it is listed")
    state.rules.admit_task(task, event.posted.specification, state.parameters)
    unfunded = {**state.unfunded, (event.block, task.task_id): event.posted}
    return replace(state, unfunded=unfunded), (), ()


# --- 2 escrow ----------------------------------------------------------------------------------------------------


def on_escrow(state: Round, event: EscrowLocked) -> Step:
    """Move an admitted task to the list once the contract holds exactly what the engine demands."""
    key = (event.block, event.escrow.task_id)
    posted = state.unfunded.get(key)
    if posted is None:
        raise Rejected(RejectionReason.TASK_UNKNOWN, f"no admitted task {event.escrow.task_id.hex()[:16]} waits")
    unfunded = {each: value for each, value in state.unfunded.items() if each != key}
    if event.escrow != state.rules.escrow(posted.task):
        raise Rejected(RejectionReason.ESCROW_MISMATCH, f"{event.escrow.locked_wei} wei locked is not what is due")
    tree = state.tree.with_state(with_escrowed(state.tree.state(event.block), posted))
    return replace(state, tree=tree, unfunded=unfunded), (), ()


# --- 3 selection -------------------------------------------------------------------------------------------------


def on_selection(state: Round, event: KeyReleased) -> Step:
    """Open training when the publisher of the selected task releases the data key in time."""
    _require_current(state, event.message.parent, event.message.height)
    if event.message == state.key_release:
        return state, (), ()
    check_key_release(event.message, state.selection, state.parameters)
    if event.at_milliseconds > state.selection.schedule.key_milliseconds:
        raise Rejected(RejectionReason.WRONG_PHASE, "the data key came after its deadline")
    if state.key_release is not None:
        # The same key under another signature: training has begun and must not begin again.
        return state, (), ()
    opened = replace(state, key_release=event.message, witnessed=_with_witness(state, Deadline.KEY))
    return opened, (TrainModel(state.selection, event.message),), ()


# --- 4 training --------------------------------------------------------------------------------------------------


def on_training(state: Round, event: Trained) -> Step:
    """Commit this node's own model if it was trained inside the task's ranges and ended in time."""
    if state.key_release is None:
        raise Unavailable("the data key of the selected task")
    if event.at_milliseconds > state.selection.schedule.commitment_milliseconds:
        raise Rejected(RejectionReason.COMMITMENT_LATE, "training ended after commitments closed")
    state.selection.posted.specification.training.check(event.model.training.hyperparameters)
    return state, (SendCommitment(state.selection, event.model),), ()


# --- 5 commitment ------------------------------------------------------------------------------------------------


def on_commitment(state: Round, event: Committed) -> Step:
    """Count a miner's one commitment if it came in time."""
    message = event.message
    _require_current(state, message.parent, message.height)
    key = noun_hash(message)
    if key in state.commitments:
        return state, (), ()
    check_message(message, state.selection, message.miner, state.parameters)
    state.rules.check_commitment(state.selection, message, event.at_milliseconds, state.parameters)
    if state.announcement is not None:
        raise Rejected(RejectionReason.COMMITMENT_LATE, "the publisher has closed the list of commitments")
    if any(each.miner == message.miner for each in state.commitments.values()):
        raise Rejected(RejectionReason.COMMITMENT_DOUBLE, f"0x{message.miner.hex()} committed to another model")
    if len(state.commitments) >= state.parameters.maximum_commitments:
        raise Rejected(RejectionReason.COMMITMENTS_FULL, "this height holds as many commitments as it may")
    commitments = {**state.commitments, key: message}
    state = replace(state, commitments=commitments, witnessed=_with_witness(state, Deadline.COMMITMENT))
    return _on_release_due(state, ReleaseDue(message.parent, event.at_milliseconds))


# --- 6 reveal ----------------------------------------------------------------------------------------------------


def on_reveal(state: Round, event: ReleaseDue | Released | Revealed) -> Step:
    """Open the test set, then the models: first the publisher's release, then each miner's reveal."""
    if isinstance(event, ReleaseDue):
        return _on_release_due(state, event)
    if isinstance(event, Released):
        return _on_release(state, event)
    return _on_opening(state, event)


def _on_release_due(state: Round, event: ReleaseDue) -> Step:
    due = state.selection.schedule.is_release_due(len(state.commitments), event.at_milliseconds)
    if event.parent != state.selection.parent or state.announcement is not None or not due:
        return state, (), ()
    listed = tuple(state.commitments[key] for key in sorted(state.commitments))
    return state, (ReleaseTestSet(state.selection, listed),), ()


def _on_release(state: Round, event: Released) -> Step:
    release = event.message.release
    _require_current(state, release.parent, release.height)
    if event.message == state.announcement:
        return state, (), ()
    check_release(event.message, state.selection, state.parameters)
    if state.announcement is not None:
        raise Rejected(RejectionReason.RELEASE_DOUBLE, "the publisher signed two releases for one height")
    if event.at_milliseconds > state.selection.schedule.release_milliseconds + state.parameters.clock_skew_milliseconds:
        raise Rejected(RejectionReason.WRONG_PHASE, "the release came after its deadline")
    commitments = {noun_hash(each): each for each in event.message.commitments}
    released = replace(
        state,
        announcement=event.message,
        commitments=commitments,
        witnessed=_with_witness(state, Deadline.RELEASE),
    )
    return released, (RevealModel(state.selection, event.message),), ()


def _on_opening(state: Round, event: Revealed) -> Step:
    message = event.message
    _require_current(state, message.parent, message.height)
    if state.announcement is None:
        raise Unavailable("the release that the reveal belongs to")
    found = [key for key, each in state.commitments.items() if each.miner == message.miner]
    if not found:
        raise Rejected(RejectionReason.COMMITMENT_NOT_RELEASED, f"0x{message.miner.hex()} is not under the release")
    key = found[0]
    if message == state.reveals.get(key):
        return state, (), ()
    check_opening(state.commitments[key], message, state.selection, state.parameters)
    state.rules.check_reveal(state.selection, state.commitments[key], message)
    if key in state.reveals:
        raise Rejected(RejectionReason.REVEAL_DOUBLE, "the miner opened its commitment with two claims")
    if state.reveals_closed or event.at_milliseconds > _reveal_deadline(state):
        raise Rejected(RejectionReason.WRONG_PHASE, "the reveal came after its deadline")
    witnessed = _with_witness(state, Deadline.REVEAL)
    return _judged(replace(state, reveals={**state.reveals, key: message}, witnessed=witnessed))


# --- 7 verification ----------------------------------------------------------------------------------------------


def on_verification(state: Round, event: RevealsClosed | Measured) -> Step:
    """Judge as far as the measurements reach; ask for the next one, and admit blocks that waited for this one."""
    if isinstance(event, RevealsClosed):
        if event.parent != state.selection.parent or state.announcement is None:
            return state, (), ()
        return _judged(replace(state, reveals_closed=True))
    found = event.measurement
    if found.finding is Finding.UNAVAILABLE and found.candidate not in state.reveals:
        # A pending block waits; the node asks again. Nothing is held against anybody. An empty block makes room and
        # comes again with whoever builds on it.
        asked = state.asked - {(found.candidate, found.kind)}
        left = {key: each for key, each in state.pending.items() if key != found.candidate}
        return replace(state, asked=asked, pending=left), (), ()
    measurements = {**state.measurements, (found.candidate, found.kind): _linked(state, found)}
    state, actions, later = _judged(replace(state, measurements=measurements))
    for key in sorted(state.pending):
        if _candidate_of(state.pending[key]) == found.candidate:
            state, more, after = _admitted(state, key, event.at_milliseconds)
            actions, later = (*actions, *more), (*later, *after)
    return state, actions, later


def _judged(state: Round) -> Step:
    """Put the case to the engine: a measurement to make, a verdict, or nothing yet."""
    announcement, opened = state.announcement, state.key_release
    if announcement is None or opened is None or state.verdict is not None:
        return state, (), ()
    listed = tuple(state.commitments.items())
    case = Case(state.selection, listed, state.reveals, state.measurements, state.reveals_closed)
    answer = state.rules.judge(case)
    if answer is None:
        return state, (), ()
    if isinstance(answer, Measure):
        keys = (opened.key, announcement.release.key)
        return _asked(state, answer, state.selection, state.reveals[answer.candidate], keys)
    state = replace(state, verdict=answer)
    if answer.winner == NOBODY:
        return state, (), ()
    winner = state.reveals[answer.winner]
    return state, (ProposeBlock(state.selection, state.parent, opened, announcement, winner, answer),), ()


def _asked(
    state: Round, measure: Measure, selection: Selection, subject: Reveal | EmptyBlock, keys: tuple[bytes, bytes]
) -> Step:
    """Ask the node for a measurement, once."""
    if (measure.candidate, measure.kind) in state.asked:
        return state, (), ()
    action = MeasureCandidate(
        measure,
        state.tree.state(selection.parent),
        selection,
        subject if isinstance(subject, Reveal) else None,
        *keys,
        subject.payload_hash,
        subject.payload_cid,
    )
    return replace(state, asked=state.asked | {(measure.candidate, measure.kind)}), (action,), ()


def _linked(state: Round, found: Measurement) -> Measurement:
    """Turn a payload that does not follow from its parent into a rejection, before the engine sees it."""
    if found.facts is None or found.candidate not in state.commitments:
        return found
    reveal = state.reveals.get(found.candidate)
    try:
        if reveal is not None and reveal.payload_hash != found.facts.payload_hash:
            raise Rejected(RejectionReason.PAYLOAD_INVALID, "another payload was measured")
        check_payload_links(state.parent, found.facts, state.selection.schedule.payload_timestamp_seconds)
    except Rejected as error:
        return replace(found, finding=Finding.REJECTED, reason=error.reason.value)
    return found


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
    return _admitted(replace(state, pending={**state.pending, key: block}), key, event.at_milliseconds)


def _admitted(state: Round, key: Hash32, at_milliseconds: int) -> Step:
    """Admit a pending block once everything it rests on is measured; drop it with the reason if it fails."""
    block = state.pending[key]
    parent = state.tree.state(block.parent)
    selection = state.rules.select_task(parent, state.parameters)
    answer = _examined(state, selection, block)
    if isinstance(answer, Measure):
        known = state.measurements.get((answer.candidate, answer.kind))
        if known is not None and known.finding is Finding.UNAVAILABLE:
            state = replace(state, asked=state.asked - {(answer.candidate, answer.kind)})
        subject = block.reveal if isinstance(block, Block) else block
        keys = (block.key_release.key, block.release.key) if isinstance(block, Block) else (b"", b"")
        return _asked(state, answer, selection, subject, keys)
    left = {each: value for each, value in state.pending.items() if each != key}
    state = replace(state, pending=left)
    if isinstance(answer, str):
        return state, (RefuseBlock(key, answer),), ()
    reward = state.rules.payouts(selection, block, state.parameters)
    after = state_after(parent, selection, block, reward, state.parameters)
    state = replace(state, tree=state.tree.with_block(block, after))
    posted = tuple(TaskPosted(key, each) for each in answer.posted)
    locked = tuple(EscrowLocked(key, each) for each in answer.escrows)
    return state, (), (*posted, *locked, PayoutDue(key), TreeGrew(at_milliseconds))


def _examined(state: Round, selection: Selection, block: AnyBlock) -> Measure | str | PayloadFacts:
    """Return what to measure next, the reason to refuse, or the facts of the payload of a good block."""
    candidate = _candidate_of(block)
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
        case = Case(selection, ((candidate, winner),), {candidate: block.reveal}, present, True)
        answer = state.rules.judge(case)
        if isinstance(answer, Measure):
            return answer
        if answer is None or answer.winner != candidate:
            reason = answer.entries[0].reason if answer is not None else ""
            return reason or RejectionReason.VERDICT_WRONG.value
    return paid.facts


def _on_missed_deadline(state: Round, event: DeadlineMissed) -> Step:
    """Offer an empty block when what the deadline asked for has not come; a height never hangs (rule 3)."""
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
    return state, (ProposeEmptyBlock(state.selection, state.parent, event.missed, end),), ()


# --- 9 fork choice -----------------------------------------------------------------------------------------------


def on_head(state: Round, event: TreeGrew | HeadOverridden) -> Step:
    """Move to the heaviest eligible branch, and open the next height on it."""
    weigh, tree, here = state.rules.weigh, state.tree, state.head.block
    if isinstance(event, HeadOverridden):
        state = replace(state, overridden=state.overridden | {tree.state(event.tip).block_hash})
    best = heaviest(tree, weigh, (here, *(tip for tip in tree.leaves() if tip != here and _may_lead(state, tip))))
    return (state, (), ()) if best == here else _opened(state, best)


def _may_lead(state: Round, tip: Hash32) -> bool:
    """Return whether a branch contradicts nothing that was seen in time, or the operator accepted it anyway."""
    if not state.overridden.isdisjoint(each.state.block_hash for each in state.tree.branch(tip)):
        return True
    return is_eligible(state.tree, state.rules.weigh, state.head.block, tip, state.witnessed)


def _opened(state: Round, tip: Hash32) -> Step:
    branch = state.tree.branch(tip)
    final, depth = state.tree.root, state.parameters.finality_depth
    if len(branch) > depth:
        final = branch[-depth - 1].state.block_hash
    weight = state.root_weight + state.tree.weight(tip, state.rules.weigh)
    tree = state.tree.pruned(final)
    head = Head(tip, branch[-1].state.height, weight, safe_block(branch, final), final)
    selection = state.rules.select_task(branch[-1].state, state.parameters)
    alive = {key: block for key, block in state.pending.items() if block.parent in tree}
    needed = {_candidate_of(block) for block in alive.values()}
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
    )
    return opened, (MoveHead(head, branch[-1].state), OpenHeight(selection)), ()


# --- 10 reward ---------------------------------------------------------------------------------------------------


def on_payout(state: Round, event: PayoutDue) -> Step:
    """Fix what the accepted block mints and settles; the next payload must carry exactly that (rule 4)."""
    record = state.tree.records[event.block]
    if record.block is None:
        return state, (), ()
    if record.state.ledger.locked_wei < 0:
        raise AssertionError(f"block {event.block.hex()} settles more than was escrowed")
    return state, (StoreBlock(record.block, record.state),), ()


# --- shared by the handlers --------------------------------------------------------------------------------------


def _require_current(state: Round, parent: Hash32, height: int) -> None:
    """Keep what belongs to a rival or a later block for when the head moves there; refuse what is over."""
    if parent == state.selection.parent:
        return
    if height >= state.selection.height:
        raise Unavailable(f"a head on block {parent.hex()}")
    raise Rejected(RejectionReason.WRONG_HEIGHT, f"height {height} is over, {state.selection.height} is decided now")


def _with_witness(state: Round, which: Deadline) -> frozenset[tuple[Hash32, Deadline]]:
    return state.witnessed | {(state.selection.parent, which)}


def _reveal_deadline(state: Round) -> int:
    released = state.announcement.release.released_milliseconds if state.announcement else None
    return state.selection.schedule.deadline(Deadline.REVEAL, released)


def _candidate_of(block: AnyBlock) -> Hash32:
    """Return the key under which a block's measurements are kept."""
    return block.verdict.winner if isinstance(block, Block) else noun_hash(block)


def _refusal(event: Event, error: Rejected) -> Action:
    if isinstance(event, TaskPosted):
        return RefuseTask(event.posted.task.task_id, error.reason, error.detail)
    if isinstance(event, EscrowLocked):
        return RefuseTask(event.escrow.task_id, error.reason, error.detail)
    raise error


_HANDLERS: dict[type, Callable[[Round, Any], Step]] = {
    TaskPosted: on_task,
    EscrowLocked: on_escrow,
    KeyReleased: on_selection,
    Trained: on_training,
    Committed: on_commitment,
    ReleaseDue: on_reveal,
    Released: on_reveal,
    Revealed: on_reveal,
    RevealsClosed: on_verification,
    Measured: on_verification,
    BlockReceived: on_block,
    DeadlineMissed: on_block,
    TreeGrew: on_head,
    HeadOverridden: on_head,
    PayoutDue: on_payout,
}
