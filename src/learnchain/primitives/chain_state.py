"""What consensus knows after a block: small, exact, and the same on every node that holds the block."""

from dataclasses import dataclass, replace
from typing import Annotated

from learnchain.primitives.codec import Bound, Hash32
from learnchain.primitives.hashing import noun_hash
from learnchain.primitives.merkle import History
from learnchain.primitives.messages import AnyBlock, Block, Payout, consensus_root, previous_randao
from learnchain.primitives.numbers import Accuracy
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.payload import PayloadAttributes, Withdrawal
from learnchain.primitives.selection import PostedTask, Selection
from learnchain.primitives.settlement import Outcome, Settlement

MAXIMUM_MEMORY_BYTES = 4_096
"""Room for a difficulty or a handful of losers; it is kept with every state."""


@dataclass(frozen=True, slots=True)
class Reward:
    """Step 10: what a block mints, what it tells the escrow contract to do, what its engine remembers from it.

    `memory` is the engine's own; the selections on top of the block carry it.
    """

    payouts: tuple[Payout, ...]
    settlements: tuple[Settlement, ...]
    memory: Annotated[bytes, Bound(MAXIMUM_MEMORY_BYTES)] = b""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Count every coin that consensus moved: escrowed == paid + refunded + burned + still locked, at all times."""

    escrowed_wei: int = 0
    paid_wei: int = 0
    refunded_wei: int = 0
    burned_wei: int = 0
    minted_gwei: int = 0

    @property
    def locked_wei(self) -> int:
        """Return what lies in escrow for tasks that no block has settled."""
        return self.escrowed_wei - self.paid_wei - self.refunded_wei - self.burned_wei


@dataclass(frozen=True, slots=True)
class ChainState:
    """Hold the state after one block.

    `pool` is the list that the block records: tasks posted through its parent and not selected (the round, rule 5);
    `incoming` are those posted in its own payload; `reward` is what the next payload must carry. `going_on` is the
    commissioned task that the block trained and did not settle: it spans more blocks.
    """

    block_hash: Hash32
    parent: Hash32
    height: int
    end_milliseconds: int
    payload_hash: Hash32
    payload_timestamp_seconds: int
    root: Hash32
    withdrawal_count: int
    history: History
    pool: tuple[PostedTask, ...]
    incoming: tuple[PostedTask, ...]
    reward: Reward
    ledger: Ledger
    high_accuracy: bool
    going_on: tuple[PostedTask, ...] = ()

    def withdrawals(self) -> tuple[Withdrawal, ...]:
        """Return exactly what the next payload must carry, byte for byte (the round, rule 4)."""
        return tuple(
            Withdrawal(self.withdrawal_count + offset, 0, payout.recipient, payout.amount_gwei)
            for offset, payout in enumerate(self.reward.payouts)
        )

    def attributes(self, timestamp_seconds: int, fee_recipient: bytes) -> PayloadAttributes:
        """Return what the payload on top of this block must be built from; only the fee recipient is free."""
        randao = previous_randao(self.block_hash)
        return PayloadAttributes(timestamp_seconds, randao, fee_recipient, self.withdrawals(), self.root)


def genesis_state(parameters: ChainParameters, genesis_hash: Hash32, payload: Hash32, timestamp: int) -> ChainState:
    """Return the state before the first block."""
    return ChainState(
        block_hash=genesis_hash,
        parent=b"\0" * 32,
        height=0,
        end_milliseconds=parameters.genesis_milliseconds,
        payload_hash=payload,
        payload_timestamp_seconds=timestamp,
        root=genesis_hash,
        withdrawal_count=0,
        history=History(),
        pool=(),
        incoming=(),
        reward=Reward((), ()),
        ledger=Ledger(),
        high_accuracy=False,
    )


def unselected_after(parent: ChainState, selection: Selection, maximum: int) -> tuple[PostedTask, ...]:
    """Return the pool that a block on `parent` records: what was posted before and is neither selected nor too late.

    Tasks beyond the bound wait in the contract and are refunded at their deadline; the earliest posted stay.
    """
    horizon_seconds = selection.schedule.start_milliseconds // 1000
    waiting = [
        each
        for each in (*parent.pool, *parent.incoming)
        if each.task.task_id != selection.task.task_id and each.task.deadline_seconds > horizon_seconds
    ]
    waiting.sort(key=lambda each: (each.task.posted_height, each.task.task_id))
    return tuple(sorted(waiting[:maximum], key=lambda each: each.task.task_id))


def settled_history(parent: ChainState, reward: Reward, parameters: ChainParameters) -> History:
    """Return the accumulated settlements after a block."""
    history = parent.history
    for settlement in reward.settlements:
        history = history.append(settlement.leaf(parameters.chain_id, parameters.escrow))
    return history


def state_after(
    parent: ChainState, selection: Selection, block: AnyBlock, reward: Reward, parameters: ChainParameters
) -> ChainState:
    """Return the state after a checked block, before the tasks of its own payload are admitted."""
    pool = unselected_after(parent, selection, parameters.maximum_tasks)
    going_on = _going_on(selection, reward)
    stamp = payload_timestamp(parent, selection, block.end_milliseconds, isinstance(block, Block))
    return ChainState(
        block_hash=noun_hash(block),
        parent=parent.block_hash,
        height=block.height,
        end_milliseconds=block.end_milliseconds,
        payload_hash=block.payload_hash,
        payload_timestamp_seconds=stamp,
        root=consensus_root(block),
        withdrawal_count=parent.withdrawal_count + len(parent.reward.payouts),
        history=settled_history(parent, reward, parameters),
        pool=pool,
        incoming=(),
        reward=reward,
        ledger=_booked(parent.ledger, selection, reward, _dropped_wei(parent, selection, pool)),
        high_accuracy=_is_high_accuracy(block, parameters),
        going_on=going_on,
    )


def payload_timestamp(parent: ChainState, selection: Selection, end_milliseconds: int, trained: bool) -> int:
    """Return the time stamp that a payload must carry: rising, inside the height, the same for all rivals."""
    if trained:
        return selection.schedule.payload_timestamp_seconds
    return max(parent.payload_timestamp_seconds + 1, end_milliseconds // 1000)


def with_escrowed(state: ChainState, posted: PostedTask) -> ChainState:
    """Return the state with one more funded task posted in its own payload."""
    locked = posted.task.reward_wei + posted.task.bond_wei
    ledger = replace(state.ledger, escrowed_wei=state.ledger.escrowed_wei + locked)
    incoming = tuple(sorted((*state.incoming, posted), key=lambda each: each.task.task_id))
    return replace(state, incoming=incoming, ledger=ledger)


def _going_on(selection: Selection, reward: Reward) -> tuple[PostedTask, ...]:
    """Return the trained task if its block did not settle it; a standing task never is settled and needs no place."""
    settled = {each.task_id for each in reward.settlements}
    return () if selection.task.standing or selection.task.task_id in settled else (selection.posted,)


def _dropped_wei(parent: ChainState, selection: Selection, pool: tuple[PostedTask, ...]) -> int:
    """Return what expired tasks had locked: from now on anybody may have the contract refund them."""
    kept = {each.task.task_id for each in pool} | {selection.task.task_id}
    waiting = (each.task for each in (*parent.pool, *parent.incoming, *parent.going_on))
    return sum(task.reward_wei + task.bond_wei for task in waiting if task.task_id not in kept)


def _booked(ledger: Ledger, selection: Selection, reward: Reward, dropped_wei: int) -> Ledger:
    minted = ledger.minted_gwei + sum(payout.amount_gwei for payout in reward.payouts)
    paid, refunded, burned = 0, dropped_wei, 0
    task = selection.task
    for settlement in reward.settlements:
        if settlement.outcome is Outcome.PAID:
            paid, refunded = task.reward_wei, refunded + task.bond_wei
        elif settlement.outcome is Outcome.STRUCK:
            refunded, burned = refunded + task.reward_wei, task.bond_wei
        else:
            refunded += task.reward_wei + task.bond_wei
    return replace(
        ledger,
        minted_gwei=minted,
        paid_wei=ledger.paid_wei + paid,
        refunded_wei=ledger.refunded_wei + refunded,
        burned_wei=ledger.burned_wei + burned,
    )


def _is_high_accuracy(block: AnyBlock, parameters: ChainParameters) -> bool:
    """Return whether a block counts as a confirmation of those before it (DLBC IV-H, PoDL III-C)."""
    if not isinstance(block, Block):
        return False
    accuracy = Accuracy(block.verdict.correct, block.verdict.total)
    return accuracy.reaches(parameters.high_accuracy_numerator, parameters.high_accuracy_denominator)
