"""What consensus knows after a block: small, exact, and the same on every node that holds the block."""

from dataclasses import replace

from learnchain.consensus.penalties import PenaltyResult, add_height_record, apply_penalties
from learnchain.encoding.codec import Accuracy, Hash32
from learnchain.encoding.cryptography import History, message_hash
from learnchain.protocol.messages import AnyBlock, Block, Deadline, EmptyBlock, block_consensus_root
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.payload import Settlement, SettlementOutcome
from learnchain.protocol.state import (
    BondChange,
    BondMove,
    ChainState,
    Ledger,
    PostedTask,
    Reward,
    Selection,
    build_height_record,
)


def outage_milliseconds(selection: Selection) -> int:
    """Return when a height that nobody ended counts as slept through: a whole round after its last deadline."""
    return 2 * selection.schedule.deadline(Deadline.BLOCK) - selection.schedule.start_milliseconds


def can_requeue(selection: Selection) -> bool:
    """Return whether the tasks of a height can go back into the list: commissioned ones that have no model yet.

    A task in the middle of its blocks was interrupted and is settled by its engine (PODL-R6).
    """
    return not selection.task.is_standing and not any(each.position.block_index for each in selection.assignments)


def is_task_requeued(selection: Selection, block: AnyBlock) -> bool:
    """Return whether an empty block puts its task back into the list: nobody was there, so nobody failed (ROUND-18).

    ROUND-3 strikes and refunds what was missed, so that a silent publisher or an impossible task costs the
    chain one height. What nobody ended for a whole round more was missed by the network itself; on a living chain no
    such block is ever due. What was committed to is settled all the same: its test set may be known.
    """
    if not isinstance(block, EmptyBlock) or block.commitments:
        return False
    return can_requeue(selection) and block.end_milliseconds >= outage_milliseconds(selection)


def compute_queued_tasks(
    parent: ChainState, selection: Selection, maximum: int, *, returned: bool = False
) -> tuple[PostedTask, ...]:
    """Return the pool that a block on `parent` records: what was posted before and is neither selected nor too late.

    The selected task joins it where the block returns it. Tasks beyond the bound wait in the contract and are refunded
    at their deadline; the earliest posted stay.
    """
    horizon_seconds = selection.schedule.start_milliseconds // 1000
    waiting = [
        each
        for each in (*parent.queued_tasks, *parent.posted_tasks)
        if (returned or each.task.task_id not in selection.tasks) and each.task.deadline_seconds > horizon_seconds
    ]
    waiting.sort(key=lambda each: (each.task.posted_height, each.task.task_id))
    return tuple(sorted(waiting[:maximum], key=lambda each: each.task.task_id))


def settle_block(
    parent: ChainState, selection: Selection, block: AnyBlock, reward: Reward, parameters: ChainParameters
) -> PenaltyResult:
    """Return what a block comes to: its engine's answer, and what bonds and evidence add and take."""
    return apply_penalties(
        parent.bonds, selection, block, (reward.payouts, _list_due_settlements(selection, block, reward)), parameters
    )


def _list_due_settlements(selection: Selection, block: AnyBlock, reward: Reward) -> tuple[Settlement, ...]:
    """Return what an engine settles, less what nobody is to blame for: no publisher owes a release to no commitment."""
    if is_task_requeued(selection, block):
        return ()
    if not isinstance(block, EmptyBlock) or block.missed is not Deadline.RELEASE or block.commitments:
        return reward.settlements
    return tuple(
        replace(each, recipient=selection.tasks[each.task_id].task.publisher, outcome=SettlementOutcome.REFUNDED)
        if each.outcome is SettlementOutcome.STRUCK
        else each
        for each in reward.settlements
    )


def append_settlements(parent: ChainState, settlements: tuple[Settlement, ...], parameters: ChainParameters) -> History:
    """Return the accumulated settlements after a block."""
    history = parent.history
    for settlement in settlements:
        history = history.append(settlement.leaf(parameters.chain_id, parameters.escrow))
    return history


def compute_settlement_root(
    parent: ChainState, selection: Selection, block: AnyBlock, reward: Reward, parameters: ChainParameters
) -> Hash32:
    """Return the root that a block must name: the parent's history with what this block settles."""
    return append_settlements(
        parent, settle_block(parent, selection, block, reward, parameters).settlements, parameters
    ).root()


def apply_block(
    parent: ChainState, selection: Selection, block: AnyBlock, reward: Reward, parameters: ChainParameters
) -> ChainState:
    """Return the state after a checked block, before its payload's tasks and bonds; `reward` is the engine's answer."""
    result, block_hash = settle_block(parent, selection, block, reward, parameters), message_hash(block)
    returned = is_task_requeued(selection, block)
    pool = compute_queued_tasks(parent, selection, parameters.maximum_tasks, returned=returned)
    going_on = () if returned else _ongoing_tasks(selection, reward)
    decided = frozenset() if returned else frozenset(selection.tasks)
    stamp = payload_timestamp(parent, selection, block.end_milliseconds, isinstance(block, Block))
    return ChainState(
        block_hash=block_hash,
        parent=parent.block_hash,
        height=block.height,
        end_milliseconds=block.end_milliseconds,
        payload_hash=block.payload_hash,
        payload_timestamp_seconds=stamp,
        root=block_consensus_root(block),
        withdrawal_count=parent.withdrawal_count + len(parent.reward.payouts),
        history=append_settlements(parent, result.settlements, parameters),
        queued_tasks=pool,
        posted_tasks=(),
        reward=Reward(result.payouts, result.settlements, reward.memory),
        ledger=_update_ledger(parent.ledger, selection, result, _sum_expired_wei(parent, pool, decided)),
        high_accuracy=_is_high_accuracy(block, parameters),
        bonds=add_height_record(result.registry, build_height_record(selection, block, block_hash), parameters),
        ongoing_task=going_on,
    )


def payload_timestamp(parent: ChainState, selection: Selection, end_milliseconds: int, trained: bool) -> int:
    """Return the time stamp that a payload must carry: rising, inside the height, the same for all rivals."""
    if trained:
        return selection.schedule.payload_timestamp_seconds
    return max(parent.payload_timestamp_seconds + 1, end_milliseconds // 1000)


def add_posted_task(state: ChainState, posted: PostedTask) -> ChainState:
    """Return the state with one more funded task posted in its own payload."""
    locked = posted.task.reward_wei + posted.task.bond_wei
    ledger = replace(state.ledger, escrowed_wei=state.ledger.escrowed_wei + locked)
    incoming = tuple(sorted((*state.posted_tasks, posted), key=lambda each: each.task.task_id))
    return replace(state, posted_tasks=incoming, ledger=ledger)


def _ongoing_tasks(selection: Selection, reward: Reward) -> tuple[PostedTask, ...]:
    """Return what was trained and not settled by its block; a standing task never is settled and needs no place."""
    settled = {each.task_id for each in reward.settlements}
    left = (each for task_id, each in selection.tasks.items() if task_id not in settled)
    return tuple(each for each in left if not each.task.is_standing)


def apply_bond_change(state: ChainState, change: BondChange) -> ChainState:
    """Return the state after one move of a bond in its own payload; the ledger counts what really moved."""
    bonds, ledger = state.bonds.apply(change), state.ledger
    moved_wei = bonds.deposit(change.owner).total_wei - state.bonds.deposit(change.owner).total_wei
    if change.move is BondMove.DEPOSITED:
        ledger = replace(ledger, bonded_wei=ledger.bonded_wei + moved_wei)
    elif change.move is BondMove.WITHDRAWN:
        ledger = replace(ledger, unbonded_wei=ledger.unbonded_wei - moved_wei)
    return replace(state, bonds=bonds, ledger=ledger)


def _sum_expired_wei(parent: ChainState, pool: tuple[PostedTask, ...], decided: frozenset[Hash32]) -> int:
    """Return what expired tasks had locked: from now on anybody may have the contract refund them."""
    kept = {each.task.task_id for each in pool} | decided
    waiting = (each.task for each in (*parent.queued_tasks, *parent.posted_tasks, *parent.ongoing_task))
    return sum(task.reward_wei + task.bond_wei for task in waiting if task.task_id not in kept)


def _update_ledger(ledger: Ledger, selection: Selection, result: PenaltyResult, dropped_wei: int) -> Ledger:
    book = replace(ledger, refunded_wei=ledger.refunded_wei + dropped_wei)
    minted = book.minted_gwei + sum(payout.amount_gwei for payout in result.payouts)
    for each in result.settlements:
        if each.outcome is SettlementOutcome.SLASHED:
            # What is taken out of a struck task's bond was counted with its striking.
            taken = 0 if each.task_id in selection.tasks else each.amount_wei
            book = replace(book, slashed_wei=book.slashed_wei + taken)
            continue
        task = selection.tasks[each.task_id].task
        if each.outcome is SettlementOutcome.STRUCK:
            book = replace(
                book,
                refunded_wei=book.refunded_wei + task.reward_wei,
                burned_wei=book.burned_wei + task.bond_wei - each.amount_wei,
                compensated_wei=book.compensated_wei + each.amount_wei,
            )
        else:
            paid = task.reward_wei if each.outcome is SettlementOutcome.PAID else 0
            refunded = book.refunded_wei + task.reward_wei - paid + task.bond_wei
            bonded = book.bonded_wei + task.bond_wei
            book = replace(book, paid_wei=book.paid_wei + paid, refunded_wei=refunded, bonded_wei=bonded)
    return replace(
        book,
        minted_gwei=minted,
        forfeited_gwei=book.forfeited_gwei + result.burned_gwei,
        audited_gwei=book.audited_gwei + result.audited_gwei,
    )


def _is_high_accuracy(block: AnyBlock, parameters: ChainParameters) -> bool:
    """Return whether a block counts as a confirmation of those before it (DLBC IV-H, PoDL III-C)."""
    if not isinstance(block, Block):
        return False
    accuracy = Accuracy(block.verdict.correct, block.verdict.total)
    return accuracy.has_reached(parameters.high_accuracy_numerator, parameters.high_accuracy_denominator)
