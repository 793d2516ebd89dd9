"""Filters that are polled: `eth_newFilter` and its kin; each is a place in the feed, so a thousand cost little."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from learnchain.node.api.chain_feed import BlockEvent, Caller, ChainFeed, TransactionEvent, matching_logs
from learnchain.primitives.rejection import Rejected, RejectionReason

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
        checked = await checked_criteria(self._caller, criteria)
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


async def checked_criteria(caller: Caller, criteria: Any) -> dict[str, Any]:
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
