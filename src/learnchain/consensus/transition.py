"""Which handler answers which event, and how a round begins, resumes and advances."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from learnchain.consensus import height
from learnchain.consensus.blocks import on_block, on_head, on_payout
from learnchain.consensus.fork_choice import BlockRecord, BlockTree
from learnchain.consensus.pending_audits import on_audit
from learnchain.consensus.pending_disputes import on_dispute
from learnchain.consensus.pending_evidence import on_bond, on_evidence
from learnchain.consensus.round import Round, StoredBlocks, Transition
from learnchain.engines.contract import Rules
from learnchain.protocol import events
from learnchain.protocol.actions import Action, MoveHead, OpenHeight, RefuseTask
from learnchain.protocol.messages import Head
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected


def begin(rules: Rules, parameters: ChainParameters, final: ChainState) -> tuple[Round, tuple[Action, ...]]:
    """Open the first round on a final state: genesis, or a trusted checkpoint not older than D."""
    tree = BlockTree(final.block_hash, {final.block_hash: BlockRecord(final, None)})
    head = Head(final.block_hash, final.height, 0, final.block_hash, final.block_hash)
    selection = rules.select_task(final, parameters)
    opened = Round(rules, parameters, tree, head, selection)
    return opened, (MoveHead(head, final), OpenHeight(selection))


def resume(
    rules: Rules, parameters: ChainParameters, final: ChainState, later: StoredBlocks, head: Head
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
    state, more, _ = on_head(start, events.TreeGrew(final.end_milliseconds))
    return state, more or actions


def advance(state: Round, event: events.Event) -> tuple[Round, tuple[Action, ...]]:
    """Apply one event and all steps that follow from it; raise `Rejected` or `Unavailable` and change nothing."""
    state, actions, waiting = _HANDLERS[type(event)](state, event)
    queue = list(waiting)
    while queue:
        follower = queue.pop(0)
        try:
            state, more, later = _HANDLERS[type(follower)](state, follower)
        except Rejected as error:
            # A bad task in a good block is the publisher's loss, not the block's.
            more, later = (_build_refusal(follower, error),), ()
        actions, queue = (*actions, *more), [*later, *queue]
    return state, actions


def _build_refusal(event: events.Event, error: Rejected) -> Action:
    if isinstance(event, events.TaskPosted):
        return RefuseTask(event.posted.task.task_id, error.reason, error.detail)
    if isinstance(event, events.EscrowLocked):
        return RefuseTask(event.escrow.task_id, error.reason, error.detail)
    raise error


_HANDLERS: dict[type, Callable[[Round, Any], Transition]] = {
    events.TaskPosted: height.on_task,
    events.EscrowLocked: height.on_escrow,
    events.BondMoved: on_bond,
    events.KeyReleaseReceived: height.on_selection,
    events.TrainingFinished: height.on_training,
    events.CommitmentReceived: height.on_commitment,
    events.ReleaseDue: height.on_reveal,
    events.ReleaseReceived: height.on_reveal,
    events.RevealReceived: height.on_reveal,
    events.RevealsClosed: height.on_verification,
    events.MeasurementFinished: height.on_verification,
    events.BlockReceived: on_block,
    events.DeadlineMissed: on_block,
    events.EvidenceReported: on_evidence,
    events.AuditMessageReceived: on_audit,
    events.DisputeMessageReceived: on_dispute,
    events.TreeGrew: on_head,
    events.HeadOverridden: on_head,
    events.PayoutDue: on_payout,
}
