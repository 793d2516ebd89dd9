"""The one door to execution: build, judge and choose payloads, and ask about accounts; everything in it is synchronous.

The vocabulary is Ethereum's Engine API, so that a stock client can stand behind the same door. Clock, disk and
threads stay outside: a payload's time comes with its attributes, its bytes go to an injected store.

Tell whoever listens that the engine's head moved or that a transaction waits; engines call, interfaces listen.

The asynchronous engine protocol, and `WorkerEngine`, which runs a synchronous door in one thread of its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

from learnchain.encoding.codec import Address, Hash32
from learnchain.protocol.payload import ExecutionPayload, Log, PayloadAttributes, PayloadStatus, PayloadStatusCode
from learnchain.rejection import Rejected, RejectionReason, Unavailable


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Describe an engine and where it stands."""

    name: str
    version: str
    fork: str
    chain_id: int
    genesis_hash: Hash32
    head: Hash32
    head_number: int
    gas_limit: int


class Reverted(Rejected):
    """Say that a call was executed and reverted; `data` are the bytes that the contract gave as its reason."""

    def __init__(self, data: bytes, detail: str) -> None:
        super().__init__(RejectionReason.EXECUTION_REVERTED, detail)
        self.data = data


class BlockingEngine(Protocol):
    """Do what every execution engine does for consensus."""

    def capabilities(self) -> EngineInfo:
        """Return the engine's name, rules, chain and head."""

    def build(
        self, parent_hash: Hash32, attributes: PayloadAttributes, transactions: tuple[bytes, ...] = ()
    ) -> ExecutionPayload:
        """Build on any known payload: the given transactions first, then the pool's; what cannot run is left out.

        Raises `Unavailable` when the parent is unknown and `Rejected` when the attributes break a rule.
        """

    def new_payload(self, payload: ExecutionPayload, beacon_root: Hash32) -> PayloadStatus:
        """Execute a payload in full and keep it when it is valid; a second time changes nothing."""

    def set_head(self, head: Hash32, safe: Hash32, finalized: Hash32) -> PayloadStatus:
        """Make a known payload the head, on whatever branch; transactions of left blocks return to the pool."""

    def logs(self, block_hash: Hash32, address: Address) -> tuple[Log, ...]:
        """Return the events of one contract in one known payload; raise `Unavailable` for an unknown one."""

    def balance(self, block_hash: Hash32, address: Address) -> int:
        """Return a balance in wei after one known payload; raise `Unavailable` for an unknown one."""

    def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one `eth_*`, `net_*` or `web3_*` call with JSON values; raise `Rejected` for a wrong one."""


@dataclass(frozen=True, slots=True)
class EngineSignals:
    """Hold the listeners; a listener must return at once and must not raise."""

    head_listeners: list[Callable[[Hash32], None]] = field(default_factory=list)
    transaction_listeners: list[Callable[[str], None]] = field(default_factory=list)

    def notify_head(self, head: Hash32) -> None:
        """Report the payload that is now the head."""
        for listener in self.head_listeners:
            listener(head)

    def transaction_waits(self, transaction_hash: str) -> None:
        """Report the 0x-hash of a transaction that the pool has taken."""
        for listener in self.transaction_listeners:
            listener(transaction_hash)


Result = TypeVar("Result")


class ExecutionEngine(Protocol):
    """Do what every execution engine does for consensus; the vocabulary is Ethereum's Engine API."""

    @property
    def signals(self) -> EngineSignals:
        """Return where to listen for moves of the head and for waiting transactions."""

    async def capabilities(self) -> EngineInfo:
        """Return the engine's name, rules, chain and head."""

    async def build(
        self, parent: Hash32, attributes: PayloadAttributes, transactions: tuple[bytes, ...] = ()
    ) -> ExecutionPayload:
        """Build on any known payload: the given transactions first, then the pool's; what cannot run is left out."""

    async def new_payload(self, payload: ExecutionPayload, beacon_root: Hash32) -> PayloadStatus:
        """Execute a payload in full and keep it when it is valid; a second time changes nothing."""

    async def set_head(self, head: Hash32, safe: Hash32, finalized: Hash32) -> PayloadStatus:
        """Make a known payload the head, on whatever branch."""

    async def logs(self, block_hash: Hash32, address: Address) -> tuple[Log, ...]:
        """Return the events of one contract in one known payload."""

    async def balance(self, block_hash: Hash32, address: Address) -> int:
        """Return a balance in wei after one known payload."""

    async def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one `eth_*`, `net_*` or `web3_*` call."""

    async def close(self) -> None:
        """Stop cleanly."""


MAXIMUM_WAITING_CALLS = 256
"""Interface calls that may wait; a flood of them, from a web page for instance, must not fill the memory."""
SWITCH_SECONDS = 0.001
"""How long the engine's thread may keep the interpreter from the event loop, which needs it several times for one
request; Python's own 5 ms are felt by every wallet while a block is executed (benchmark execution-latency)."""

_WHERE_WE_STAND: dict[str, Callable[[EngineInfo], str]] = {
    "eth_chainId": lambda info: hex(info.chain_id),
    "net_version": lambda info: str(info.chain_id),
    "eth_blockNumber": lambda info: hex(info.head_number),
}


class WorkerEngine:
    """Run a door in one worker thread, one call at a time, in the order in which they were made.

    Interface calls enter the thread's queue one by one, so that consensus never waits behind more than one of them.
    Where the head stands is answered beside the thread, which may be executing a block.
    """

    __slots__ = ("_closed", "_door", "_info", "_signals", "_turn", "_waiting", "_worker")

    def __init__(self, door: BlockingEngine) -> None:
        self._door = door
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="execution")
        self._closed = False
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._signals = EngineSignals()
        self._info: EngineInfo | None = None

    @property
    def signals(self) -> EngineSignals:
        """Return where to listen for moves of the head and for waiting transactions."""
        return self._signals

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def capabilities(self) -> EngineInfo:
        """Return the engine's name, rules, chain and head."""
        return await self._run(self._door.capabilities)

    async def build(
        self, parent: Hash32, attributes: PayloadAttributes, transactions: tuple[bytes, ...] = ()
    ) -> ExecutionPayload:
        """Build on any known payload: the given transactions first, then the pool's; what cannot run is left out."""
        return await self._run(lambda: self._door.build(parent, attributes, transactions))

    async def new_payload(self, payload: ExecutionPayload, beacon_root: Hash32) -> PayloadStatus:
        """Execute a payload in full and keep it when it is valid; a second time changes nothing."""
        return await self._run(lambda: self._door.new_payload(payload, beacon_root))

    async def set_head(self, head: Hash32, safe: Hash32, finalized: Hash32) -> PayloadStatus:
        """Make a known payload the head, on whatever branch."""
        status, self._info = await self._run(
            lambda: (self._door.set_head(head, safe, finalized), self._door.capabilities())
        )
        if status.status == PayloadStatusCode.VALID:
            self._signals.notify_head(head)
        return status

    async def logs(self, block_hash: Hash32, address: Address) -> tuple[Log, ...]:
        """Return the events of one contract in one known payload."""
        return await self._run(lambda: self._door.logs(block_hash, address))

    async def balance(self, block_hash: Hash32, address: Address) -> int:
        """Return a balance in wei after one known payload."""
        return await self._run(lambda: self._door.balance(block_hash, address))

    async def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one `eth_*`, `net_*` or `web3_*` call; raise `Unavailable` when too many wait already."""
        if self._info is not None and not params and method in _WHERE_WE_STAND:
            return _WHERE_WE_STAND[method](self._info)
        if self._waiting >= MAXIMUM_WAITING_CALLS:
            raise Unavailable("the execution engine is busy with other calls")
        self._waiting += 1
        try:
            async with self._turn:
                result = await self._run(lambda: self._door.rpc(method, params))
        finally:
            self._waiting -= 1
        if method == "eth_sendRawTransaction":
            self._signals.transaction_waits(str(result))
        return result

    async def close(self) -> None:
        """Let the running call end, refuse all later ones and stop the thread."""
        self._closed = True
        await asyncio.to_thread(self._worker.shutdown, True, cancel_futures=True)

    async def _run(self, call: Callable[[], Result]) -> Result:
        if self._closed:
            raise Unavailable("the execution engine is closed")
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)
