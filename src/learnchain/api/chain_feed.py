"""Turn moves of the head into a bounded row of events: what left the chain, what joined it, what waits.

Filters that are polled: `eth_newFilter` and its kin; each is a place in the feed, so a thousand cost little.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from learnchain.encoding.codec import Hash32
from learnchain.execution.engine import EngineSignals
from learnchain.rejection import Rejected, RejectionReason, Unavailable

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


MAXIMUM_FILTERS = 1_024

LIFETIME_SECONDS = 300.0
"""A filter that nobody asked for this long is forgotten."""


@dataclass
class Filter:
    """Remember where its reader stands and, for logs, what it wants."""

    kind: type[BlockEvent] | type[TransactionEvent]
    criteria: dict[str, Any] | None
    position: int
    used_seconds: float


class Filters:
    """Keep the filters of all callers; identifiers are random, because whoever knows one may read or end it."""

    __slots__ = ("_caller", "_feed", "_filters")

    def __init__(self, caller: Caller, feed: ChainFeed) -> None:
        self._caller = caller
        self._feed = feed
        self._filters: dict[str, Filter] = {}

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """Return the interface's methods by name."""
        return {
            "eth_newFilter": self.new_filter,
            "eth_newBlockFilter": self.new_block_filter,
            "eth_newPendingTransactionFilter": self.new_transaction_filter,
            "eth_getFilterChanges": self.changes,
            "eth_getFilterLogs": self.logs,
            "eth_uninstallFilter": self.uninstall,
        }

    async def new_filter(self, criteria: Any) -> str:
        """Watch for logs; wrong criteria are refused now."""
        checked = await check_criteria(self._caller, criteria)
        return self._add(BlockEvent, checked)

    async def new_block_filter(self) -> str:
        """Watch for blocks."""
        return self._add(BlockEvent, None)

    async def new_transaction_filter(self) -> str:
        """Watch for waiting transactions."""
        return self._add(TransactionEvent, None)

    async def changes(self, identity: Any) -> list[Any]:
        """Return what happened since the last call; a filter that slept through too much is gone."""
        watched = self._find(identity)
        events = self._feed.since(watched.position)
        watched.position = self._feed.next
        if events is None:
            del self._filters[identity]
            raise _unknown(identity)
        chosen = [event for event in events if isinstance(event, watched.kind)]
        if watched.criteria is None:
            return [event.hash for event in chosen if isinstance(event, TransactionEvent) or not event.removed]
        found: list[Any] = []
        for event in chosen:
            if isinstance(event, BlockEvent):
                found.extend(await matching_logs(self._caller, event, watched.criteria))
        return found

    async def logs(self, identity: Any) -> Any:
        """Return everything that a log filter matches, as eth_getLogs does."""
        watched = self._find(identity)
        if watched.criteria is None:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "the filter is not one for logs")
        return await self._caller.rpc("eth_getLogs", [watched.criteria])

    async def uninstall(self, identity: Any) -> bool:
        """Forget a filter; say whether it was there."""
        return isinstance(identity, str) and self._filters.pop(identity, None) is not None

    def _add(self, kind: type[BlockEvent] | type[TransactionEvent], criteria: dict[str, Any] | None) -> str:
        now = asyncio.get_running_loop().time()
        for identity, watched in tuple(self._filters.items()):
            if now - watched.used_seconds > LIFETIME_SECONDS:
                del self._filters[identity]
        if len(self._filters) >= MAXIMUM_FILTERS:
            raise Rejected(RejectionReason.RATE_LIMITED, f"there are {MAXIMUM_FILTERS} filters already")
        identity = hex(1 << 127 | secrets.randbits(127))
        self._filters[identity] = Filter(kind, criteria, self._feed.next, now)
        return identity

    def _find(self, identity: Any) -> Filter:
        watched = self._filters.get(identity) if isinstance(identity, str) else None
        now = asyncio.get_running_loop().time()
        if watched is None or now - watched.used_seconds > LIFETIME_SECONDS:
            raise _unknown(identity)
        watched.used_seconds = now
        return watched


def _unknown(identity: Any) -> Rejected:
    return Rejected(RejectionReason.FILTER_UNKNOWN, f"filter not found: {str(identity)[:40]}")


async def check_criteria(caller: Caller, criteria: Any) -> dict[str, Any]:
    """Return the criteria of a log filter; refuse wrong ones by asking for the logs of the newest block."""
    if not isinstance(criteria, dict):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "the filter is not an object")
    chosen: dict[str, Any] = {}
    for key in ("address", "topics", "fromBlock", "toBlock"):
        if criteria.get(key) is not None:
            chosen[key] = criteria[key]
    await caller.rpc("eth_getLogs", [{key: chosen[key] for key in ("address", "topics") if key in chosen}])
    for key in ("fromBlock", "toBlock"):
        await caller.rpc("eth_getBlockTransactionCountByNumber", [chosen.get(key, "latest")])
    return chosen
