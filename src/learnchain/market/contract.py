"""The contract `CooperativeTask` on any EVM chain: our own node, our engine in this process, anvil, geth.

Call data, return values and events are pure functions; the client speaks `eth_*` methods. A task is what its contract's
events tell: a late reader reads the same story from the start.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

import aiohttp

from learnchain.encoding.codec import Address, Hash32, parse_json
from learnchain.encoding.content_id import Cid, parse_cid
from learnchain.encoding.cryptography import keccak256
from learnchain.execution.wallet import Wallet
from learnchain.market.terms import Description, ModelStatus, Payment, Terms, VoteInterpretation, decode_description
from learnchain.protocol.payload import Log, address_bytes, address_text, decode_values, encode_call
from learnchain.rejection import Rejected, RejectionReason, Unavailable

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


RpcPort = Callable[[str, list[Any]], Awaitable[Any]]
"""Answer one JSON-RPC method; raise `Rejected` for a refused call."""

MAXIMUM_ANSWER_BYTES = 16 << 20
RECEIPT_POLLS = 120
_GAS_MARGIN = (5, 4)
_REVERTED = 3


class ContractClient:
    """Send transactions and wait for them, call contracts, read events."""

    def __init__(self, rpc: RpcPort, pause: Callable[[], Awaitable[None]]) -> None:
        self._rpc = rpc
        self._pause = pause
        self._chain_id: int | None = None
        self.fees_wei = 0
        """What all transactions sent through here cost."""

    async def chain_id(self) -> int:
        """Return the chain's id, asked for once."""
        if self._chain_id is None:
            self._chain_id = _number(await self._rpc("eth_chainId", []))
        return self._chain_id

    async def send(self, wallet: Wallet, to: Address | None, data: bytes, value_wei: int = 0) -> dict[str, Any]:
        """Sign, send and wait for one transaction; a revert is `EXECUTION_REVERTED`, silence is `Unavailable`."""
        call: dict[str, Any] = {"from": _hex(wallet.address), "data": _hex(data), "value": hex(value_wei)}
        if to is not None:
            call["to"] = _hex(to)
        gas = _number(await self._rpc("eth_estimateGas", [call]))
        price = _number(await self._rpc("eth_gasPrice", []))
        fields = {
            "chainId": await self.chain_id(),
            "nonce": _number(await self._rpc("eth_getTransactionCount", [_hex(wallet.address), "pending"])),
            "gas": gas * _GAS_MARGIN[0] // _GAS_MARGIN[1],
            "maxFeePerGas": 2 * price + 10**9,
            "maxPriorityFeePerGas": 10**9,
            "to": to,
            "value": value_wei,
            "data": data,
        }
        name = await self._rpc("eth_sendRawTransaction", [_hex(wallet.sign_transaction(fields))])
        receipt = await self._receipt(name)
        self.fees_wei += _number(receipt["gasUsed"]) * _number(receipt["effectiveGasPrice"])
        if _number(receipt["status"]) != 1:
            raise Rejected(RejectionReason.EXECUTION_REVERTED, f"transaction {name} reverted")
        return receipt

    async def deploy(self, wallet: Wallet, code: bytes) -> Address:
        """Create a contract; return its address."""
        receipt = await self.send(wallet, None, code)
        return _bytes(receipt["contractAddress"])

    async def call(self, to: Address, data: bytes) -> bytes:
        """Return what a contract answers at the head."""
        return _bytes(await self._rpc("eth_call", [{"to": _hex(to), "data": _hex(data)}, "latest"]))

    async def balance(self, account: Address) -> int:
        """Return a balance in wei at the head."""
        return _number(await self._rpc("eth_getBalance", [_hex(account), "latest"]))

    async def head(self) -> tuple[int, int]:
        """Return number and time in seconds of the newest block."""
        block = await self._rpc("eth_getBlockByNumber", ["latest", False])
        return _number(block["number"]), _number(block["timestamp"])

    async def logs(self, address: Address, first: int, last: int) -> tuple[Log, ...]:
        """Return a contract's events in a range of blocks, in their order."""
        query = {"address": _hex(address), "fromBlock": hex(first), "toBlock": hex(last)}
        return tuple(_log(each) for each in await self._rpc("eth_getLogs", [query]))

    async def _receipt(self, name: str) -> dict[str, Any]:
        for _ in range(RECEIPT_POLLS):
            receipt = await self._rpc("eth_getTransactionReceipt", [name])
            if receipt is not None:
                return dict(receipt)
            await self._pause()
        raise Unavailable(f"a receipt of {name}: it is not in a block yet")


def http_rpc(session: aiohttp.ClientSession, url: str) -> RpcPort:
    """Return the port to a JSON-RPC server; its answers are bounded and its errors are ours."""

    async def ask(method: str, params: list[Any]) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with session.post(url, json=body) as response:
                raw = await _read_bounded(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"the chain at {url}: {error}") from error
        try:
            answer = parse_json(raw)
            error = answer.get("error")
        except (ValueError, AttributeError, RecursionError) as problem:
            raise Unavailable(f"{url} does not speak JSON-RPC") from problem
        if error is None:
            return answer.get("result")
        detail = str(error.get("message", ""))
        reverted = error.get("code") == _REVERTED or "revert" in detail.lower()
        reason = RejectionReason.EXECUTION_REVERTED if reverted else RejectionReason.TRANSACTION_INVALID
        raise Rejected(reason, f"{method}: {detail[:300]}")

    return ask


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        raw += chunk
        if len(raw) > MAXIMUM_ANSWER_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"an answer above {MAXIMUM_ANSWER_BYTES} bytes")
    return bytes(raw)


def _log(entry: dict[str, Any]) -> Log:
    topics = tuple(_bytes(topic) for topic in entry["topics"])
    name: Hash32 = _bytes(entry["transactionHash"])
    return Log(_bytes(entry["address"]), topics, _bytes(entry["data"]), name, _number(entry["logIndex"]))


def _number(text: str | int) -> int:
    return text if isinstance(text, int) else int(text, 16)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


BLOCKS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class AnnouncedModel:
    """Hold what a contributor announced."""

    contributor: Address
    cid: Cid
    key_hash: Hash32


@dataclass(frozen=True, slots=True)
class SealedKey:
    """Hold a model's key as somebody sealed it for somebody; nobody knows yet whether it is the right one."""

    sender: Address
    box: bytes


@dataclass(frozen=True, slots=True)
class RevealedVote:
    """Hold one vote as it was opened on chain."""

    model_index: int
    verifier: Address
    correct: int
    refusal: int


class TaskView:
    """Follow one task; what events say is kept, what changes is asked of the contract."""

    def __init__(self, ledger: ContractClient, contract: Address, task_id: Hash32, first_block: int = 0) -> None:
        self._ledger = ledger
        self._contract = contract
        self._next_block = first_block
        self.task_id = task_id
        self.public_keys: dict[Address, bytes] = {}
        self.models: dict[int, AnnouncedModel] = {}
        self.sealed: dict[tuple[int, Address], list[SealedKey]] = {}
        self.judged: dict[int, tuple[ModelStatus, int, int]] = {}
        self.votes: list[RevealedVote] = []
        self.enrolled: set[Address] = set()
        self._announced: tuple[Terms, bytes] | None = None
        self._description: Description | None = None

    @property
    def terms(self) -> Terms:
        """Return the terms; `Unavailable` until the announcement is in a block."""
        if self._announced is None:
            raise Unavailable(f"the announcement of task {self.task_id.hex()[:16]}")
        return self._announced[0]

    @property
    def description(self) -> Description:
        """Return the initiator's description; one that is malformed is refused."""
        if self._announced is None:
            raise Unavailable(f"the announcement of task {self.task_id.hex()[:16]}")
        if self._description is None:
            self._description = decode_description(self._announced[1])
        return self._description

    def list_accepted(self) -> tuple[int, ...]:
        """Return the places of the accepted models in the order of their arrival."""
        return tuple(place for place, (status, *_) in sorted(self.judged.items()) if status is ModelStatus.ACCEPTED)

    async def refresh(self) -> None:
        """Read the events of all blocks since the last time."""
        head, _ = await self._ledger.head()
        while self._next_block <= head:
            last = min(head, self._next_block + BLOCKS_AT_ONCE - 1)
            for log in await self._ledger.logs(self._contract, self._next_block, last):
                event = decode_event(log, self._contract)
                if event is not None and event.task_id == self.task_id:
                    self._take(event)
            self._next_block = last + 1

    async def task(self) -> TaskState:
        """Return how far the task is."""
        return decode_task(await self._ledger.call(self._contract, calldata("taskOf", self.task_id)))

    async def model(self, model_index: int) -> ModelState:
        """Return where the judgement of a model stands."""
        contributor, status, *others = await self._ask((MODEL,), "modelOf", self.task_id, model_index)
        return ModelState(address_bytes(contributor), ModelStatus(status), *others)

    async def vote(self, model_index: int, verifier: Address) -> VoteState:
        """Return one verifier's vote."""
        return VoteState(*await self._ask((VOTE,), "voteOf", self.task_id, model_index, verifier))

    async def committee(self, model_index: int) -> tuple[Address, ...]:
        """Return the verifiers drawn last for a model."""
        return tuple(map(address_bytes, await self._ask(("address[]",), "committeeOf", self.task_id, model_index)))

    async def withdrawable(self, account: Address) -> int:
        """Return what an account can pull."""
        return int(await self._ask(("uint256",), "withdrawable", account))

    async def _ask(self, types: tuple[str, ...], method: str, *arguments: Any) -> Any:
        """Return the one value that a method of the contract answers."""
        return decode_values(types, await self._ledger.call(self._contract, calldata(method, *arguments)))[0]

    def _take(self, event: ContractEvent) -> None:
        values: tuple[Any, ...] = event.values
        match event.name:
            case "TaskAnnounced":
                numbers = list(values[0])
                numbers[6:8] = [VoteInterpretation(numbers[6]), Payment(numbers[7])]
                self._announced = (Terms(*numbers), values[2])
                self._learn(values[1])
            case "VerifierEnrolled":
                self._learn(values[0])
                self.enrolled.add(_account(event.indexed[0]))
            case "VerifierResigned":
                self.enrolled.discard(_account(event.indexed[0]))
            case "ModelAnnounced":
                self._learn(values[2])
                contributor = _account(event.indexed[1])
                self.models[event.indexed[0][-1]] = AnnouncedModel(contributor, values[0], values[1])
            case "KeySealed":
                self.sealed.setdefault((event.indexed[0][-1], _account(event.indexed[1])), []).append(
                    SealedKey(bytes.fromhex(values[0].removeprefix("0x")), values[1])
                )
            case "VoteRevealed":
                vote = RevealedVote(event.indexed[0][-1], _account(event.indexed[1]), *values)
                self.votes.append(vote)
            case "ModelJudged":
                self.judged[event.indexed[0][-1]] = (ModelStatus(values[0]), values[1], values[2])

    def _learn(self, public_key: bytes) -> None:
        self.public_keys[keccak256(public_key)[-20:]] = public_key


def _account(topic: Hash32) -> Address:
    return topic[-20:]


async def task_exists(ledger: ContractClient, contract: Address, task_id: Hash32) -> bool:
    """Return whether a contract knows a task; another contract at the address does not."""
    try:
        return any(decode_task(await ledger.call(contract, calldata("taskOf", task_id))).initiator)
    except Rejected:
        return False
