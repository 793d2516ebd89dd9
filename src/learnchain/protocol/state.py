"""What consensus keeps after a block, and what it selects from it for the next height.

State: bonds, audits, disputes, coins, and the tasks that wait. Selection (step 3): the selected task, its rank and the
deadlines of the height; recomputed by every node, never sent.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated

from learnchain.encoding.codec import Address, Bound, Hash32
from learnchain.encoding.cryptography import History
from learnchain.protocol import messages
from learnchain.protocol.parameters import MAXIMUM_AUDIT_BLOCKS, ChainParameters
from learnchain.protocol.payload import PayloadAttributes, Settlement, Withdrawal
from learnchain.protocol.task_specification import DataPart, TaskSpecification, TrainingMode


@dataclass(frozen=True, slots=True)
class PostedTask:
    """Join a task with its specification, which came in the same transaction."""

    task: messages.Task
    specification: TaskSpecification


@dataclass(frozen=True, slots=True)
class Schedule:
    """Name every deadline of one height as data: clock-driven and event-driven rounds differ only here.

    Commitments are in time up to `commitment_milliseconds`, or up to an earlier release: from
    `release_opens_milliseconds` on, `enough_commitments` of them end the wait; 0 means that only the clock does.
    `reveal_*` and `block_*` are offsets: from the release deadline when `clocked`, from the actual release else.
    `training_milliseconds` is the end of a phase that belongs to key, decryption and probe (DLBC IV-B); without one, 0,
    training begins with the key.
    With a `time_limit_milliseconds` training ends as soon as the required accuracy is reached on the training rows, at
    the latest at the limit; who has not reached it commits after that, and the list then stays open for all up to
    `commitment_milliseconds`. 0: training ends with its deadline.
    """

    start_milliseconds: int
    key_milliseconds: int
    release_opens_milliseconds: int
    commitment_milliseconds: int
    release_milliseconds: int
    reveal_after_milliseconds: int
    block_after_milliseconds: int
    is_clocked: bool
    payload_timestamp_seconds: int
    sufficient_commitments: int = 0
    time_limit_milliseconds: int = 0
    training_milliseconds: int = 0

    def is_release_due(self, commitments: int, at_milliseconds: int) -> bool:
        """Return whether the publisher should close the list now."""
        if at_milliseconds >= self.commitment_milliseconds:
            return commitments > 0
        if 0 < self.time_limit_milliseconds <= at_milliseconds:
            # Everybody commits now: the best of all is to win, not the best of those whose messages were fast.
            return False
        return at_milliseconds >= self.release_opens_milliseconds and 0 < self.sufficient_commitments <= commitments

    def deadline(self, which: messages.Deadline, released_milliseconds: int | None = None) -> int:
        """Return the time of a deadline; reveal and block follow the release in event-driven rounds."""
        if which is messages.Deadline.KEY:
            return self.key_milliseconds
        if which is messages.Deadline.COMMITMENT:
            return self.commitment_milliseconds
        if which is messages.Deadline.RELEASE:
            return self.release_milliseconds
        origin = self.release_milliseconds
        if not self.is_clocked and released_milliseconds is not None:
            origin = released_milliseconds
        after = self.reveal_after_milliseconds if which is messages.Deadline.REVEAL else self.block_after_milliseconds
        return origin + after


@dataclass(frozen=True, slots=True)
class MultiBlockPosition:
    """Say where a task stands that spans several blocks, and which blocks seed its training (ROUND-9).

    `block_index` counts its blocks from 0 and names the test set of the height. Empty seeds are the parent: the task
    starts and ends in one block.
    """

    block_index: int = 0
    initialisation_seed: bytes = b""
    batch_order_seed: bytes = b""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Name a task and who may train it at a height: the listed miners, or everybody where none is listed (ASSIGN-1)."""

    posted_task: PostedTask
    miners: Annotated[tuple[Address, ...], Bound(messages.MAXIMUM_COMMITMENTS)] = ()
    position: MultiBlockPosition = MultiBlockPosition()


@dataclass(frozen=True, slots=True)
class Selection:
    """Say what is trained at a height and by whom, and what the next block must list as unselected.

    A race has one assignment, for everybody; the properties read the first, whose publisher opens data and test set for
    all. `score` is the engine's ranking number as text, for display and for the decision trace; `queue_length` is l of
    DLBC Eq. 1: publishers' tasks in the parent's list, the selected one included (reading DLBC-R7). `memory` is what
    the engine remembers from the parent block (`Reward.memory`).
    """

    height: int
    parent: Hash32
    assignments: tuple[Assignment, ...]
    score: str
    queue_length: int
    schedule: Schedule
    ranking: tuple[tuple[str, Hash32], ...]
    memory: bytes = b""

    def select_assignment(self, miner: Address) -> "Selection | None":
        """Return the selection as one miner reads it, with its own assignment alone; None: nothing is assigned to it.

        A miner is listed in one assignment at most; a race is the same for all.
        """
        own = next((each for each in self.assignments if not each.miners or miner in each.miners), None)
        if own is None or len(self.assignments) == 1:
            return self if own else None
        return replace(self, assignments=(own,))

    @property
    def posted_task(self) -> PostedTask:
        """Return the selected task with its specification."""
        return self.assignments[0].posted_task

    @property
    def task(self) -> messages.Task:
        """Name the selected task."""
        return self.posted_task.task

    @property
    def tasks(self) -> dict[Hash32, PostedTask]:
        """Return every task that is assigned at this height."""
        return {each.posted_task.task.task_id: each.posted_task for each in self.assignments}

    @property
    def position(self) -> MultiBlockPosition:
        """Say where the selected task stands."""
        return self.assignments[0].position

    @property
    def test_set(self) -> DataPart:
        """Name the test set that is released at this height."""
        return self.posted_task.specification.data.test_sets[self.position.block_index]


MAXIMUM_DEPOSITS = 16_384
"""Owners in the book. What a newcomer deposits into a full book counts for nothing until somebody leaves."""


class BondMove(StrEnum):
    """Say what an owner did with its bond in the contract."""

    DEPOSITED = "deposited"
    LEAVING = "leaving"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class BondChange:
    """Report one move of a bond, as the contract logged it in a block's payload."""

    owner: Address
    move: BondMove
    amount_wei: int


@dataclass(frozen=True, slots=True)
class Deposit:
    """Hold what one owner can lose: the active part covers commitments, the leaving part only faults of the past."""

    owner: Address
    active_wei: int
    leaving_wei: int

    @property
    def total_wei(self) -> int:
        """Return all that evidence can take."""
        return self.active_wei + self.leaving_wei


@dataclass(frozen=True, slots=True)
class WithheldReward:
    """Keep back a part of a block reward in place of the bond that the winner had not deposited."""

    miner: Address
    amount_gwei: int
    height: int


@dataclass(frozen=True, slots=True)
class HeightRecord:
    """Remember of a recent height what evidence about it and challenges to it rest on.

    `commitment` is the hash of the winner's signed commitment; it was fixed before the release key was known.
    An empty block has neither winner nor training. `is_declared`: the task asks for training that can be checked.
    """

    height: int
    parent: Hash32
    block: Hash32
    task_ids: Annotated[tuple[Hash32, ...], Bound(messages.MAXIMUM_COMMITMENTS)]
    publisher: Address
    task_bond_wei: int
    release_key: Hash32
    winner: Address
    bond_wei: int
    commitment: Hash32
    training_records: Annotated[tuple[messages.TrainingRecord, ...], Bound(1)]
    committed_miners: Annotated[tuple[Address, ...], Bound(messages.MAXIMUM_COMMITMENTS)]
    is_declared: bool = True


@dataclass(frozen=True, slots=True)
class PenaltyRecord:
    """Remember a fault that was punished, so that it is punished once."""

    fault_id: Hash32
    height: int


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Remember who audits a height: what it bound itself to and when, and when it opened that; 0 is not yet."""

    height: int
    parent: Hash32
    auditor: Address
    digest: Hash32
    committed_height: int
    opened_height: int = 0


class DisputeOutcome(StrEnum):
    """Say where a dispute stands, or how it ended."""

    CHALLENGED = "challenged"
    """The steps are asked for and not shown."""
    RESPONDED = "responded"
    """The steps are shown: a proof against them may come."""
    TIMED_OUT = "timed_out"
    """The accused kept silent to the end and was punished for it."""
    FRAUD_PROVEN = "fraud_proven"
    """The accused was punished by evidence before the dispute was over."""
    DEFENDED = "defended"
    """Nobody brought a proof against the answer in time: the accuser paid."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """Remember one accusation: who asks whom for which segment, since when, and what became of it; 0 is not yet.

    `answer` is the hash of the `StepAnswer` that a block carried.
    """

    height: int
    parent: Hash32
    respondent: Address
    segment: int
    challenger: Address
    challenged_height: int
    outcome: DisputeOutcome = DisputeOutcome.CHALLENGED
    responded_height: int = 0
    disclosure_hash: Hash32 = b"\0" * 32
    decided_height: int = 0

    @property
    def is_open(self) -> bool:
        """Return whether it is still to be answered or decided."""
        return self.outcome in (DisputeOutcome.CHALLENGED, DisputeOutcome.RESPONDED)


@dataclass(frozen=True, slots=True)
class BondRegistry:
    """Hold deposits in the order of their owners, and the rest in the order of their heights."""

    deposits: Annotated[tuple[Deposit, ...], Bound(MAXIMUM_DEPOSITS)] = ()
    withheld: tuple[WithheldReward, ...] = ()
    height_records: Annotated[tuple[HeightRecord, ...], Bound(MAXIMUM_AUDIT_BLOCKS)] = ()
    penalties: tuple[PenaltyRecord, ...] = ()
    audits: tuple[AuditEntry, ...] = ()
    disputes: tuple[Dispute, ...] = ()

    def deposit(self, owner: Address) -> Deposit:
        """Return what an owner has staked; nothing for a stranger."""
        return next((each for each in self.deposits if each.owner == owner), Deposit(owner, 0, 0))

    def with_deposit(self, changed: Deposit) -> "BondRegistry":
        """Return the book with one owner's deposit replaced; an empty one is dropped."""
        others = [each for each in self.deposits if each.owner != changed.owner]
        if changed.total_wei and len(others) < MAXIMUM_DEPOSITS:
            others.append(changed)
        return replace(self, deposits=tuple(sorted(others, key=lambda each: each.owner)))

    def apply(self, change: BondChange) -> "BondRegistry":
        """Return the book after a move; what consensus has taken already cannot leave a second time."""
        held = self.deposit(change.owner)
        if change.move is BondMove.DEPOSITED:
            held = replace(held, active_wei=held.active_wei + change.amount_wei)
        elif change.move is BondMove.LEAVING:
            amount_wei = min(change.amount_wei, held.active_wei)
            held = Deposit(held.owner, held.active_wei - amount_wei, held.leaving_wei + amount_wei)
        else:
            held = replace(held, leaving_wei=held.leaving_wei - min(change.amount_wei, held.leaving_wei))
        return self.with_deposit(held)

    def slash(self, owner: Address, amount_wei: int) -> "BondRegistry":
        """Return the book after a slashing: from the active part first, as the contract does."""
        held = self.deposit(owner)
        active_wei = min(amount_wei, held.active_wei)
        return self.with_deposit(
            Deposit(owner, held.active_wei - active_wei, held.leaving_wei - amount_wei + active_wei)
        )

    def height_record(self, height: int, parent: Hash32) -> HeightRecord | None:
        """Return what is remembered of a height of this branch."""
        return next((each for each in self.height_records if (each.height, each.parent) == (height, parent)), None)

    def has_cover_for(self, commitment: messages.Commitment) -> bool:
        """Return whether the miner has staked what its commitment promises."""
        return self.deposit(commitment.miner).active_wei >= commitment.bond_wei


def winning_commitment(block: messages.Block) -> messages.Commitment | None:
    """Return the commitment of the block's proposer, of which the release holds one."""
    return next((each for each in block.commitments if each.miner == block.proposer), None)


def build_height_record(selection: Selection, block: messages.AnyBlock, block_hash: Hash32) -> HeightRecord:
    """Return what the book remembers of a block."""
    task, nobody = selection.task, b"\0" * 20
    won = winning_commitment(block) if isinstance(block, messages.Block) else None
    return HeightRecord(
        height=block.height,
        parent=block.parent,
        block=block_hash,
        task_ids=tuple(selection.tasks),
        publisher=task.publisher,
        task_bond_wei=task.bond_wei,
        release_key=block.release.key if isinstance(block, messages.Block) else b"\0" * 32,
        winner=block.proposer if isinstance(block, messages.Block) else nobody,
        bond_wei=won.bond_wei if won is not None else 0,
        commitment=block.verdict.winner if isinstance(block, messages.Block) else b"\0" * 32,
        training_records=(block.reveal.training,) if isinstance(block, messages.Block) else (),
        committed_miners=tuple(each.miner for each in block.commitments),
        is_declared=selection.posted_task.specification.training.mode is TrainingMode.DECLARED,
    )


MAXIMUM_MEMORY_BYTES = 4_096
"""Room for a difficulty or a handful of losers; it is kept with every state."""


@dataclass(frozen=True, slots=True)
class Reward:
    """Step 10: what a block mints, what it tells the escrow contract to do, what its engine remembers from it.

    `memory` is the engine's own; the selections on top of the block carry it.
    """

    payouts: tuple[messages.Payout, ...]
    settlements: tuple[Settlement, ...]
    memory: Annotated[bytes, Bound(MAXIMUM_MEMORY_BYTES)] = b""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Count every coin that consensus moved.

    At all times
    escrowed == paid + refunded + burned + compensated + still locked,
    all deposits == bonded - unbonded - slashed, and
    what engines and audits earned == minted + still kept back + forfeited.
    """

    escrowed_wei: int = 0
    paid_wei: int = 0
    refunded_wei: int = 0
    burned_wei: int = 0
    compensated_wei: int = 0
    bonded_wei: int = 0
    unbonded_wei: int = 0
    slashed_wei: int = 0
    minted_gwei: int = 0
    forfeited_gwei: int = 0
    audited_gwei: int = 0

    @property
    def locked_wei(self) -> int:
        """Return what lies in escrow for tasks that no block has settled."""
        return self.escrowed_wei - self.paid_wei - self.refunded_wei - self.burned_wei - self.compensated_wei


@dataclass(frozen=True, slots=True)
class ChainState:
    """Hold the state after one block.

    `pool` is the list that the block records: tasks posted through its parent and not selected (ROUND-5);
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
    queued_tasks: tuple[PostedTask, ...]
    posted_tasks: tuple[PostedTask, ...]
    reward: Reward
    ledger: Ledger
    high_accuracy: bool
    ongoing_task: tuple[PostedTask, ...] = ()
    bonds: BondRegistry = field(default_factory=BondRegistry)

    def next_withdrawals(self) -> tuple[Withdrawal, ...]:
        """Return exactly what the next payload must carry, byte for byte (ROUND-4)."""
        return tuple(
            Withdrawal(self.withdrawal_count + offset, 0, payout.recipient, payout.amount_gwei)
            for offset, payout in enumerate(self.reward.payouts)
        )

    def payload_attributes(self, timestamp_seconds: int, fee_recipient: bytes) -> PayloadAttributes:
        """Return what the payload on top of this block must be built from; only the fee recipient is free."""
        randao = messages.previous_randao(self.block_hash)
        return PayloadAttributes(timestamp_seconds, randao, fee_recipient, self.next_withdrawals(), self.root)


def build_genesis_state(
    parameters: ChainParameters, genesis_hash: Hash32, payload: Hash32, timestamp: int
) -> ChainState:
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
        queued_tasks=(),
        posted_tasks=(),
        reward=Reward((), ()),
        ledger=Ledger(),
        high_accuracy=False,
    )


ZERO_HASH = b"\0" * 32
"""Stands for the winner in a verdict without one."""
