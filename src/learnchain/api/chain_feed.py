"""Turn moves of the head into a bounded row of events: what left the chain, what joined it, what waits."""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from learnchain.node.execution.signals import EngineSignals
from learnchain.primitives.codec import Hash32
from learnchain.primitives.rejection import Rejected, Unavailable

logger = logging.getLogger(__name__)

MAXIMUM_EVENTS = 4_096
MAXIMUM_DEPTH = 256
"""Blocks that one move may add before the feed shows the new head only: a node that catches up tells no history."""


class Caller(Protocol):
    """Answer interface calls; an engine does, and so does what stands in front of one."""

    async def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one call."""
        ...

    async def close(self) -> None:
        """Stop cleanly."""
        ...


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """Say that a block joined the chosen chain, or left it when `removed`."""

    block: dict[str, Any]
    removed: bool

    @property
    def hash(self) -> str:
        """Return the block's 0x-hash."""
        return str(self.block["hash"])

    @property
    def number(self) -> int:
        """Return the block's number."""
        return int(self.block["number"], 16)


@dataclass(frozen=True, slots=True)
class TransactionEvent:
    """Say that a transaction waits."""

    hash: str


Event = BlockEvent | TransactionEvent


class ChainFeed:
    """Follow the head; keep the last events for filters and hand each one to the listeners."""

    __slots__ = ("_branch", "_caller", "_head", "_moved", "_seen", "_task", "events", "first", "listeners")

    def __init__(self, caller: Caller, signals: EngineSignals) -> None:
        self._caller = caller
        self._branch: list[BlockEvent] = []
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._head: Hash32 | None = None
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.events: deque[Event] = deque()
        self.first = 0
        self.listeners: set[Callable[[Event], None]] = set()
        signals.head_listeners.append(self._on_head)
        signals.transaction_listeners.append(self._on_transaction)

    @property
    def next(self) -> int:
        """Return the number that the next event will have."""
        return self.first + len(self.events)

    def since(self, number: int) -> tuple[Event, ...] | None:
        """Return the events from a number on; None when some of them are forgotten already."""
        if number < self.first:
            return None
        return tuple(self.events)[number - self.first :]

    def start(self) -> None:
        """Follow the head from now on."""
        self._moved.set()
        self._task = asyncio.create_task(self._follow(), name="chain feed")

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _on_head(self, head: Hash32) -> None:
        self._head = head
        self._moved.set()

    def _on_transaction(self, transaction_hash: str) -> None:
        if transaction_hash in self._seen:
            return
        self._seen[transaction_hash] = None
        if len(self._seen) > MAXIMUM_EVENTS:
            self._seen.popitem(last=False)
        self._emit(TransactionEvent(transaction_hash))

    async def _follow(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await self._catch_up()
            except (Rejected, Unavailable) as error:
                logger.info("the feed missed a move of the head: %s", error)

    async def _catch_up(self) -> None:
        """Emit what lies between the last head that was told and the present one."""
        if self._head is None:
            self._branch = [BlockEvent(await self._block("latest"), False)]
            return
        known = {event.hash for event in self._branch}
        added: list[BlockEvent] = []
        wanted = "0x" + self._head.hex()
        while wanted not in known and len(added) < MAXIMUM_DEPTH:
            block = await self._block(wanted)
            added.append(BlockEvent(block, False))
            if int(block["number"], 16) == 0:
                break
            wanted = str(block["parentHash"])
        if wanted not in known:
            self._branch.clear()
            del added[1:]
        while self._branch and self._branch[-1].hash != wanted:
            self._emit(replace(self._branch.pop(), removed=True))
        for event in reversed(added):
            self._branch.append(event)
            self._emit(event)
        del self._branch[:-MAXIMUM_DEPTH]

    async def _block(self, wanted: str) -> dict[str, Any]:
        method = "eth_getBlockByNumber" if wanted == "latest" else "eth_getBlockByHash"
        block: dict[str, Any] | None = await self._caller.rpc(method, [wanted, False])
        if block is None:
            raise Unavailable(f"block {wanted}")
        return block

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        if len(self.events) > MAXIMUM_EVENTS:
            self.events.popleft()
            self.first += 1
        for listener in tuple(self.listeners):
            listener(event)


async def matching_logs(caller: Caller, event: BlockEvent, criteria: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the logs of one event's block that match; those of a block that left the chain say so."""
    for bound, outside in (("fromBlock", 1), ("toBlock", -1)):
        limit = _number(criteria.get(bound))
        if limit is not None and (limit - event.number) * outside > 0:
            return []
    if set(event.block["logsBloom"]) <= set("0x"):
        return []
    wanted = {"blockHash": event.hash} | {key: criteria[key] for key in ("address", "topics") if key in criteria}
    found: list[dict[str, Any]] = await caller.rpc("eth_getLogs", [wanted])
    return [{**each, "removed": True} for each in found] if event.removed else found


def _number(tag: Any) -> int | None:
    return int(tag, 16) if isinstance(tag, str) and tag.startswith("0x") else None
