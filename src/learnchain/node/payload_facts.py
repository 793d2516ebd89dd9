"""Say what an executed payload did that consensus must know: its links, its withdrawals, the tasks it posted, bonds."""

from learnchain.execution.escrow import decode_bond_change, decode_task_posted
from learnchain.node.execution.engine import ExecutionEngine
from learnchain.primitives.bonds import BondChange
from learnchain.primitives.measurement import PayloadFacts
from learnchain.primitives.messages import Escrow, Task
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.payload import ExecutionPayload, Log, PayloadVerdict
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.selection import PostedTask
from learnchain.primitives.task_specification import decode_specification, specification_hash


async def executed(
    engine: ExecutionEngine, payload: ExecutionPayload, height: int, parameters: ChainParameters
) -> PayloadFacts:
    """Run a payload and return its facts; raise `Rejected(PAYLOAD_INVALID)` when the engine refuses it."""
    status = await engine.new_payload(payload, payload.beacon_root)
    if status.status is not PayloadVerdict.VALID:
        raise Rejected(RejectionReason.PAYLOAD_INVALID, f"{status.status.value}: {status.detail}")
    posted: list[PostedTask] = []
    bonds: list[BondChange] = []
    for log in await engine.logs(payload.block_hash, parameters.escrow):
        change = decode_bond_change(log)
        if change is not None:
            bonds.append(change)
        task = _posted(log, height)
        if task is not None:
            posted.append(task)
    return PayloadFacts(
        payload_hash=payload.block_hash,
        parent_hash=payload.parent_hash,
        timestamp_seconds=payload.timestamp_seconds,
        previous_randao=payload.prev_randao,
        beacon_root=payload.beacon_root,
        fee_recipient=payload.fee_recipient,
        withdrawals=payload.withdrawals,
        posted=tuple(posted),
        escrows=tuple(_escrow(each.task) for each in posted),
        bonds=tuple(bonds),
    )


def _posted(log: Log, height: int) -> PostedTask | None:
    """Return the task that a log of the escrow contract announces; a specification nobody can read is no task."""
    event = decode_task_posted(log)
    if event is None:
        return None
    try:
        specification = decode_specification(event.specification)
    except Rejected:
        return None
    task = Task(
        task_id=event.task_id,
        publisher=event.publisher,
        specification_hash=specification_hash(specification),
        reward_wei=event.reward_wei,
        bond_wei=event.bond_wei,
        deadline_seconds=event.deadline_seconds,
        posted_height=height,
        standing=False,
    )
    return PostedTask(task, specification)


def _escrow(task: Task) -> Escrow:
    """Return what the contract's own event says it locked; the contract refuses any other value."""
    return Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)
