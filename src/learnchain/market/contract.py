"""Speak with `CooperativeTask`: call data, return values and events; pure, for any EVM chain."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.content_id import Cid, parse_cid
from learnchain.encoding.hashing import keccak256
from learnchain.market.terms import ModelStatus, Terms
from learnchain.protocol.payload import Log, address_bytes, address_text, decode_values, encode_call

_TERMS = "(uint64,uint32,uint32,uint32,uint16,uint16,uint8,uint8,uint8,uint8,uint96,uint96,uint96,uint96)"
MODEL = "(address,uint8,uint8,uint8,uint8,uint64,uint64,uint64,bytes32,bytes32)"
VOTE = "(bytes32,uint8,bool,bool,uint8,uint32)"


@dataclass(frozen=True, slots=True)
class ContractEvent:
    """Hold one event of the contract by name: its task, the indexed values after it, and the others."""

    name: str
    task_id: Hash32
    indexed: tuple[Hash32, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class TaskState:
    """Show how far a task is."""

    initiator: Address
    announced: int
    judged_count: int
    accepted: int
    closed: bool
    held_wei: int


@dataclass(frozen=True, slots=True)
class ModelState:
    """Show whose a model is and where its judgement stands; times are the chain's seconds."""

    contributor: Address
    status: ModelStatus
    attempts: int
    commits: int
    reveals: int
    drawable_after: int
    commit_until: int
    reveal_until: int
    key_hash: Hash32
    content: Hash32


@dataclass(frozen=True, slots=True)
class VoteState:
    """Show one verifier's vote on one model; `attempt` says for which drawing it counts."""

    commitment: Hash32
    attempt: int
    drawn: bool
    revealed: bool
    refusal: int
    correct: int


_EVENTS: Mapping[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "TaskAnnounced": (2, ("bytes32", "address"), (_TERMS, "bytes", "bytes")),
    "VerifierEnrolled": (2, ("bytes32", "address"), ("bytes",)),
    "VerifierResigned": (2, ("bytes32", "address"), ()),
    "ModelAnnounced": (3, ("bytes32", "uint8", "address"), ("bytes", "bytes32", "bytes")),
    "CommitteeDrawn": (2, ("bytes32", "uint8"), ("address[]",)),
    "KeySealed": (3, ("bytes32", "uint8", "address"), ("address", "bytes")),
    "VoteCommitted": (3, ("bytes32", "uint8", "address"), ()),
    "VoteRevealed": (3, ("bytes32", "uint8", "address"), ("uint32", "uint8")),
    "ModelJudged": (2, ("bytes32", "uint8"), ("uint8", "uint32", "uint8")),
    "TaskClosed": (1, ("bytes32",), ("uint256",)),
}
"""Every event: how many values are indexed, their types, the types of the others."""


def _topic(name: str) -> Hash32:
    _, indexed, others = _EVENTS[name]
    return keccak256(f"{name}({','.join((*indexed, *others))})".encode())


TOPICS: Mapping[Hash32, str] = {_topic(name): name for name in _EVENTS}
"""The first topic of every event."""


@cache
def artifact() -> dict[str, Any]:
    """Return what the pinned compiler made of `contracts/CooperativeTask.sol`."""
    path = files("learnchain.execution").joinpath("artifacts", "CooperativeTask.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def creation_code() -> bytes:
    """Return the bytes that deploy the contract; it has no constructor arguments."""
    return bytes.fromhex(artifact()["bytecode"].removeprefix("0x"))


_METHODS: Mapping[str, tuple[str, ...]] = {
    "announceModel": ("bytes32", "bytes", "bytes32", "bytes"),
    "close": ("bytes32",),
    "commitVote": ("bytes32", "uint8", "bytes32"),
    "committeeOf": ("bytes32", "uint8"),
    "draw": ("bytes32", "uint8"),
    "enrol": ("bytes32", "bytes"),
    "judge": ("bytes32", "uint8"),
    "modelOf": ("bytes32", "uint8"),
    "resign": ("bytes32",),
    "revealVote": ("bytes32", "uint8", "uint32", "uint8", "bytes32"),
    "sealKey": ("bytes32", "uint8", "address", "bytes"),
    "taskOf": ("bytes32",),
    "voteOf": ("bytes32", "uint8", "address"),
    "withdraw": (),
    "withdrawable": ("address",),
}
"""The types of each method's arguments: task, place of a model, then what is said or asked."""


def calldata(method: str, *arguments: Any) -> bytes:
    """Return the call of a method; addresses are given as their 20 bytes."""
    types = _METHODS[method]
    pairs = zip(types, arguments, strict=True)
    values = tuple(address_text(value) if kind == "address" else value for kind, value in pairs)
    return encode_call(f"{method}({','.join(types)})", types, values)


def announce_calldata(terms: Terms, public_key: bytes, description: bytes) -> bytes:
    """Return the call that announces a task; its value is `terms.value_wei`."""
    terms.check()
    values = tuple(int(getattr(terms, each.name)) for each in fields(terms))
    return encode_call(f"announce({_TERMS},bytes,bytes)", (_TERMS, "bytes", "bytes"), (values, public_key, description))


def announce_model_calldata(task_id: Hash32, cid: Cid, key_hash: Hash32, public_key: bytes) -> bytes:
    """Return the call that announces an encrypted model; its value is the bond."""
    parse_cid(cid)
    return calldata("announceModel", task_id, cid, key_hash, public_key)


def decode_task(data: bytes) -> TaskState:
    """Return the task in an answer."""
    initiator, *others = decode_values(("address", "uint8", "uint8", "uint32", "bool", "uint256"), data)
    return TaskState(address_bytes(initiator), *others)


def decode_event(log: Log, contract: Address) -> ContractEvent | None:
    """Return the event that a log reports; None for another contract's or an unknown one."""
    name = TOPICS.get(log.topics[0]) if log.topics and log.address == contract else None
    if name is None or len(log.topics) != _EVENTS[name][0] + 1:
        return None
    return ContractEvent(name, log.topics[1], tuple(log.topics[2:]), decode_values(_EVENTS[name][2], log.data))
