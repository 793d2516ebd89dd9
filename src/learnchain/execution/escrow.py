"""Speak with `TaskEscrow`: call data for its functions, and its events as nouns."""

from dataclasses import dataclass
from typing import Any

from eth_abi import encode as abi_encode

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import HISTORY_DEPTH, keccak256
from learnchain.execution.genesis import ESCROW_ADDRESS, escrow_artifact
from learnchain.protocol import payload
from learnchain.protocol.state import BondChange, BondMove
from learnchain.rejection import Rejected, RejectionReason

TIP_WEI = 500_000_000_000_000
"""What the claimer of a settlement earns (0.0005 ether); the publisher pays it with the posting."""
MAXIMUM_SPECIFICATION_BYTES = 16_384
STATUS_OPEN = 4
BOND_DELAY_SECONDS = 86_400
"""How long a bond stays slashable after its owner asks for it."""
_SETTLE_TYPES = ("(bytes32,uint64,address,uint8,uint256)", "uint64", f"bytes32[{HISTORY_DEPTH}]", "bytes32", "uint64")
_POST_TYPES = ("bytes", "uint256", "uint256", "uint64")
TASK_POSTED_TOPIC: Hash32 = keccak256(b"TaskPosted(bytes32,address,uint256,uint256,uint64,bytes)")
TASK_SETTLED_TOPIC: Hash32 = keccak256(b"TaskSettled(bytes32,uint8,address,uint256)")
BOND_SLASHED_TOPIC: Hash32 = keccak256(b"BondSlashed(bytes32,uint64,address,uint256)")

BOND_TOPICS: dict[Hash32, BondMove] = {
    keccak256(b"BondDeposited(address,uint256)"): BondMove.DEPOSITED,
    keccak256(b"BondLeaving(address,uint256)"): BondMove.LEAVING,
    keccak256(b"BondWithdrawn(address,uint256)"): BondMove.WITHDRAWN,
}


@dataclass(frozen=True, slots=True)
class Claim:
    """Prove a settlement: its place and branch in the history, the block it belongs to, and where the root is read."""

    settlement: payload.Settlement
    index: int
    branch: tuple[Hash32, ...]
    block_hash: Hash32
    timestamp_seconds: int


@dataclass(frozen=True, slots=True)
class TaskPostedLog:
    """Report a posted task; the specification is not yet checked."""

    task_id: Hash32
    publisher: Address
    reward_wei: int
    bond_wei: int
    deadline_seconds: int
    specification: bytes


@dataclass(frozen=True, slots=True)
class TaskSettled:
    """Report a settled or refunded task and what its recipient got."""

    task_id: Hash32
    outcome: payload.SettlementOutcome
    recipient: Address
    amount_wei: int


@dataclass(frozen=True, slots=True)
class Stake:
    """Show a pot: what is staked, what is leaving, and when that may be paid out."""

    active_wei: int
    leaving_wei: int
    leaves_seconds: int


@dataclass(frozen=True, slots=True)
class EscrowedTask:
    """Show what the contract holds for a task; status 0 is unknown, 4 open, the others are outcomes."""

    publisher: Address
    reward_wei: int
    bond_wei: int
    deadline_seconds: int
    status: int


def escrow_abi() -> list[dict[str, Any]]:
    """Return the contract's ABI, for web3 libraries."""
    abi: list[dict[str, Any]] = escrow_artifact()["abi"]
    return abi


def error_text(data: bytes) -> str:
    """Return the name and values of the error that a reverted call gave back; empty for bytes that are none of ours."""
    for entry in escrow_abi():
        types = tuple(each["type"] for each in entry.get("inputs", ()))
        if entry["type"] == "error" and data[:4] == payload.selector(f"{entry['name']}({','.join(types)})"):
            try:
                values = payload.decode_values(types, data[4:])
            except Rejected:
                return ""
            texts = ("0x" + value.hex() if isinstance(value, bytes) else str(value) for value in values)
            shown = (f"{each['name']} {text}" for each, text in zip(entry["inputs"], texts, strict=True))
            return " ".join((entry["name"], ", ".join(shown))).strip()
    return ""


def posting_value_wei(reward_wei: int, bond_wei: int) -> int:
    """Return the value that a posting must carry."""
    return reward_wei + bond_wei + TIP_WEI


def post_calldata(specification: bytes, reward_wei: int, bond_wei: int, deadline_seconds: int) -> bytes:
    """Return the call data that post a task."""
    if not 0 < len(specification) <= MAXIMUM_SPECIFICATION_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a specification of {len(specification)} bytes")
    values = (specification, reward_wei, bond_wei, deadline_seconds)
    return payload.encode_call("post(bytes,uint256,uint256,uint64)", _POST_TYPES, values)


def settle_calldata(claim: Claim) -> bytes:
    """Return the call data that claim a settlement."""
    settlement = claim.settlement
    noun = (
        settlement.task_id,
        settlement.height,
        payload.address_text(settlement.recipient),
        settlement.outcome.code,
        settlement.amount_wei,
    )
    values = (noun, claim.index, list(claim.branch), claim.block_hash, claim.timestamp_seconds)
    return payload.encode_call(f"settle({','.join(_SETTLE_TYPES)})", _SETTLE_TYPES, values)


def refund_calldata(task_id: Hash32) -> bytes:
    """Return the call data that refund a task after its deadline."""
    return payload.encode_call("refund(bytes32)", ("bytes32",), (task_id,))


def withdraw_calldata() -> bytes:
    """Return the call data that pull what could not be paid out."""
    return payload.selector("withdraw()")


def deposit_calldata() -> bytes:
    """Return the call data that stake the value of the transaction."""
    return payload.selector("deposit()")


def unbond_calldata(amount_wei: int) -> bytes:
    """Return the call data that ask for a part of one's stake."""
    return payload.encode_call("unbond(uint256)", ("uint256",), (amount_wei,))


def release_calldata(owner: Address) -> bytes:
    """Return the call data that pay out what has waited long enough."""
    return payload.encode_call("release(address)", ("address",), (payload.address_text(owner),))


def bond_calldata(source: Hash32) -> bytes:
    """Return the call data that read a pot."""
    return payload.encode_call("bond(bytes32)", ("bytes32",), (source,))


def collected_calldata(index: int) -> bytes:
    """Return the call data that ask whether a slashing was paid."""
    return payload.encode_call("collected(uint64)", ("uint64",), (index,))


def task_calldata(task_id: Hash32) -> bytes:
    """Return the call data that read a task."""
    return payload.encode_call("task(bytes32)", ("bytes32",), (task_id,))


def withdrawable_calldata(address: Address) -> bytes:
    """Return the call data that read what an address can pull."""
    return payload.encode_call("withdrawable(address)", ("address",), (payload.address_text(address),))


def settlement_leaf(chain_id: int, escrow: Address, settlement: payload.Settlement) -> Hash32:
    """Return the leaf that the contract recomputes, through the ABI library: the check on `Settlement.leaf`."""
    types = ("uint256", "address", "bytes32", "uint64", "address", "uint8", "uint256")
    values = (
        chain_id,
        payload.address_text(escrow),
        settlement.task_id,
        settlement.height,
        payload.address_text(settlement.recipient),
        settlement.outcome.code,
        settlement.amount_wei,
    )
    return keccak256(abi_encode(types, values))


def decode_task(data: bytes) -> EscrowedTask:
    """Return the task that a call of `task` answered."""
    publisher, reward_wei, bond_wei, deadline, status = payload.decode_values(
        ("address", "uint256", "uint256", "uint64", "uint8"), data
    )
    return EscrowedTask(payload.address_bytes(publisher), reward_wei, bond_wei, deadline, status)


def decode_stake(data: bytes) -> Stake:
    """Return the pot that a call of `bond` answered."""
    return Stake(*payload.decode_values(("uint256", "uint256", "uint64"), data))


def decode_bond_change(log: payload.Log) -> BondChange | None:
    """Return the move of a bond that a log reports; None for another event or another contract's."""
    if log.address != ESCROW_ADDRESS or len(log.topics) != 2 or log.topics[0] not in BOND_TOPICS:
        return None
    (amount_wei,) = payload.decode_values(("uint256",), log.data)
    return BondChange(log.topics[1][-20:], BOND_TOPICS[log.topics[0]], amount_wei)


def decode_task_posted(log: payload.Log) -> TaskPostedLog | None:
    """Return the posting that a log reports; None for another event or another contract's."""
    if log.address != ESCROW_ADDRESS or len(log.topics) != 3 or log.topics[0] != TASK_POSTED_TOPIC:
        return None
    reward_wei, bond_wei, deadline, specification = payload.decode_values(
        ("uint256", "uint256", "uint64", "bytes"), log.data
    )
    return TaskPostedLog(log.topics[1], log.topics[2][-20:], reward_wei, bond_wei, deadline, specification)


def decode_task_settled(log: payload.Log) -> TaskSettled | None:
    """Return the settlement that a log reports; None for another event or another contract's."""
    if log.address != ESCROW_ADDRESS or len(log.topics) != 2 or log.topics[0] != TASK_SETTLED_TOPIC:
        return None
    code, recipient, amount_wei = payload.decode_values(("uint8", "address", "uint256"), log.data)
    if code not in payload.OUTCOMES_BY_CODE:
        raise Rejected(RejectionReason.MALFORMED, f"outcome {code} is unknown")
    return TaskSettled(log.topics[1], payload.OUTCOMES_BY_CODE[code], payload.address_bytes(recipient), amount_wei)
