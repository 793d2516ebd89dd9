"""Tell programs from web pages: whoever visits a page lets it call any port of this machine.

Serve the same interface on WebSocket, with `eth_subscribe`: new heads, logs and waiting transactions are pushed.
"""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from learnchain.api import chain_feed
from learnchain.rejection import Rejected, RejectionReason, Unavailable

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""A page that had its own name resolved to this machine is of one origin with us, but still asks for that name."""


def is_web_page(request: web.Request) -> bool:
    """Return whether a request comes from a browser, or names a host that this machine does not have by itself."""
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        return True
    name = request.headers.get("Host", "127.0.0.1").lower()
    name = name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
    return name not in LOCAL_NAMES


logger = logging.getLogger(__name__)
MAXIMUM_CONNECTIONS = 64
MAXIMUM_SUBSCRIPTIONS = 64

MAXIMUM_WAITING_EVENTS = 1_024
"""A reader that falls behind by more is cut off: its events must not fill the memory."""

_HEARTBEAT_SECONDS = 30.0
Handler = Callable[..., Awaitable[Any]]


class Answering(Protocol):
    """Answer one JSON-RPC text."""

    @property
    def maximum_body_bytes(self) -> int:
        """Return the bytes that one request may have."""
        ...

    async def answer_text(self, body: bytes, from_browser: bool, methods: Mapping[str, Handler]) -> str | None:
        """Return the JSON text that answers a request or a batch."""
        ...


class WebSockets:
    """Accept connections, so many at once."""

    __slots__ = ("_answering", "_caller", "_feed", "_open")

    def __init__(self, answering: Answering, feed: chain_feed.ChainFeed, caller: chain_feed.Caller) -> None:
        self._answering = answering
        self._feed = feed
        self._caller = caller
        self._open: set[web.WebSocketResponse] = set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Speak with one client until it leaves; a plain GET is told what is spoken here."""
        socket = web.WebSocketResponse(max_msg_size=self._answering.maximum_body_bytes, heartbeat=_HEARTBEAT_SECONDS)
        if not socket.can_prepare(request):
            return web.Response(status=405, headers={"Allow": "POST, OPTIONS"}, text="POST JSON-RPC 2.0 here\n")
        if len(self._open) >= MAXIMUM_CONNECTIONS:
            return web.Response(status=503, text="too many connections\n")
        await socket.prepare(request)
        self._open.add(socket)
        connection = _Connection(socket, self._feed, self._caller)
        try:
            await connection.speak(self._answering, from_browser=is_web_page(request))
        finally:
            self._open.discard(socket)
            await connection.close()
        return socket

    async def close(self) -> None:
        """End all connections."""
        for socket in tuple(self._open):
            await socket.close(code=1001, message=b"the node stops")


class _Connection:
    """Hold one client's subscriptions and push their events in order."""

    def __init__(self, socket: web.WebSocketResponse, feed: chain_feed.ChainFeed, caller: chain_feed.Caller) -> None:
        self._socket = socket
        self._feed = feed
        self._caller = caller
        self._subscriptions: dict[str, tuple[str, dict[str, Any]]] = {}
        self._events: asyncio.Queue[chain_feed.Event] = asyncio.Queue(MAXIMUM_WAITING_EVENTS)
        self._pushing: asyncio.Task[None] | None = None
        self._methods: dict[str, Handler] = {"eth_subscribe": self._subscribe, "eth_unsubscribe": self._unsubscribe}

    async def speak(self, answering: Answering, from_browser: bool) -> None:
        """Answer messages one after the other; web3.py sends its text in binary frames."""
        self._feed.listeners.add(self._on_event)
        self._pushing = asyncio.create_task(self._push(), name="subscriptions")
        async for message in self._socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            body = message.data if isinstance(message.data, bytes) else str(message.data).encode()
            answer = await answering.answer_text(body, from_browser, self._methods)
            if answer is not None:
                await self._send(answer)

    async def close(self) -> None:
        """Forget the subscriptions."""
        self._feed.listeners.discard(self._on_event)
        if self._pushing is not None:
            self._pushing.cancel()
            await asyncio.gather(self._pushing, return_exceptions=True)

    async def _subscribe(self, kind: Any, criteria: Any = None) -> str:
        if kind not in ("newHeads", "logs", "newPendingTransactions"):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"there is no subscription {str(kind)[:40]!r}")
        if len(self._subscriptions) >= MAXIMUM_SUBSCRIPTIONS:
            detail = f"{MAXIMUM_SUBSCRIPTIONS} subscriptions a connection are allowed"
            raise Rejected(RejectionReason.RATE_LIMITED, detail)
        checked = await chain_feed.check_criteria(self._caller, criteria or {}) if kind == "logs" else {}
        identity = hex(1 << 127 | secrets.randbits(127))
        self._subscriptions[identity] = (kind, checked)
        return identity

    async def _unsubscribe(self, identity: Any) -> bool:
        return isinstance(identity, str) and self._subscriptions.pop(identity, None) is not None

    def _on_event(self, event: chain_feed.Event) -> None:
        if not self._subscriptions:
            return
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            logger.info("a subscriber reads too slowly and is cut off")
            if self._pushing is not None:
                self._pushing.cancel()

    async def _push(self) -> None:
        try:
            while True:
                event = await self._events.get()
                for identity, (kind, criteria) in tuple(self._subscriptions.items()):
                    for result in await self._results(event, kind, criteria):
                        params = {"subscription": identity, "result": result}
                        await self._send(json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params}))
        except asyncio.CancelledError:
            with contextlib.suppress(ConnectionError):
                await self._socket.close(code=1008, message=b"too slow")
            raise

    async def _results(self, event: chain_feed.Event, kind: str, criteria: dict[str, Any]) -> list[Any]:
        if isinstance(event, chain_feed.TransactionEvent):
            return [event.hash] if kind == "newPendingTransactions" else []
        if kind == "newHeads":
            return [] if event.removed else [_header(event)]
        if kind != "logs":
            return []
        try:
            return list(await chain_feed.matching_logs(self._caller, event, criteria))
        except (Rejected, Unavailable) as error:
            logger.info("logs of a subscription are not to be had: %s", error)
            return []

    async def _send(self, text: str) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_str(text)


def _header(event: chain_feed.BlockEvent) -> dict[str, Any]:
    """Return a block without its body."""
    body = ("transactions", "uncles", "withdrawals", "size", "totalDifficulty")
    return {name: value for name, value in event.block.items() if name not in body}
