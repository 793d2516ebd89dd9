"""Read the arguments of `learn_*` calls: whatever strangers send becomes a checked value or a refusal.

Serve JSON-RPC 2.0 over HTTP and WebSocket on the loopback: Ethereum's methods and the node's own register.

Wallets and web3 libraries speak it; browsers may, because CORS allows them, except to methods marked `sensitive`.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from learnchain.api.chain_feed import Caller, ChainFeed, Filters
from learnchain.api.web_socket import WebSockets, is_web_page
from learnchain.encoding.codec import Hash32, parse_json
from learnchain.execution.engine import ExecutionEngine, Reverted
from learnchain.rejection import Rejected, RejectionReason, Unavailable

_MAXIMUM_DIGITS = 20


def read_height(value: Any, what: str = "height") -> int:
    """Return a whole number, written as a number, in decimal or as 0x-hex."""
    try:
        if isinstance(value, str) and len(value) <= _MAXIMUM_DIGITS:
            return int(value, 16 if value.startswith("0x") else 10)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64:
            return value
    except ValueError:
        pass
    raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the {what} is a whole number")


def is_hash(value: Any) -> bool:
    """Say whether a value is written as 32 bytes are, with or without 0x."""
    return isinstance(value, str) and len(value.removeprefix("0x")) == 64


def read_hash(value: Any, what: str = "hash") -> Hash32:
    """Return 32 bytes written in hex, with or without 0x."""
    try:
        if is_hash(value):
            return bytes.fromhex(value.removeprefix("0x"))
    except ValueError:
        pass
    raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the {what} is 32 bytes in hex")


logger = logging.getLogger(__name__)
HOST = "127.0.0.1"

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32603,
)

SERVER_ERROR = -32000
EXECUTION_REVERTED = 3
_ENGINE_NAMESPACES = ("eth_", "net_", "web3_", "debug_")

_CODES = {
    RejectionReason.METHOD_UNKNOWN: METHOD_NOT_FOUND,
    RejectionReason.ARGUMENT_INVALID: INVALID_PARAMS,
    RejectionReason.MALFORMED: INVALID_PARAMS,
    RejectionReason.TOO_LARGE: INVALID_PARAMS,
}

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    "Access-Control-Allow-Headers": "content-type",
    "Access-Control-Max-Age": "600",
}

Handler = Callable[..., Awaitable[Any]]
TransactionHook = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class JsonRpcSettings:
    """Choose the port (0 takes a free one), what one caller may send at once, and how long an answer may take."""

    port: int = 8545
    maximum_body_bytes: int = 2 * 1024 * 1024
    maximum_batch: int = 100
    maximum_answer_bytes: int = 64 * 1024 * 1024
    maximum_seconds: float = 30.0
    maximum_requests: int = 128


@dataclass(frozen=True, slots=True)
class Origin:
    """Say whether a web page asks, and which methods the connection itself offers, as subscriptions."""

    from_browser: bool = False
    methods: Mapping[str, Handler] = field(default_factory=dict)


class RpcError(Exception):
    """Carry a JSON-RPC error to its caller."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class JsonRpcServer:
    """Answer requests one batch entry after the other; the engine orders the calls of all callers."""

    __slots__ = (
        "_caller",
        "_feed",
        "_for_pages",
        "_methods",
        "_on_transaction",
        "_open_requests",
        "_owned",
        "_pages",
        "_runner",
        "_sensitive",
        "_settings",
        "_sockets",
    )

    def __init__(
        self,
        engine: ExecutionEngine,
        settings: JsonRpcSettings | None = None,
        on_transaction: TransactionHook | None = None,
        caller: Caller | None = None,
    ) -> None:
        """Serve an engine; `caller` answers in its place and is closed with the server, as a `CallProcess` is."""
        self._caller: Caller = caller or engine
        self._owned = caller
        self._settings = settings or JsonRpcSettings()
        self._on_transaction = on_transaction
        self._feed = ChainFeed(self._caller, engine.signals)
        self._sockets = WebSockets(self, self._feed, self._caller)
        self._methods: dict[str, Handler] = Filters(self._caller, self._feed).methods()
        self._sensitive: set[str] = set()
        self._for_pages: dict[str, Handler] = {}
        self._pages: list[web.RouteDef] = []
        self._runner: web.AppRunner | None = None
        self._open_requests = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def register(self, name: str, handler: Handler, sensitive: bool = False, for_pages: Handler | None = None) -> None:
        """Add a method of the node's own; a `sensitive` one spends or reveals and is closed to web pages.

        `for_pages` answers web pages in its place, where programs may ask for more than strangers' scripts.
        """
        if name in self._methods or name.startswith(_ENGINE_NAMESPACES):
            raise ValueError(f"the method {name} exists already")
        self._methods[name] = handler
        if sensitive:
            self._sensitive.add(name)
        if for_pages is not None:
            self._for_pages[name] = for_pages

    def add_pages(self, pages: list[web.RouteDef]) -> None:
        """Serve pages beside the interface from the next start on."""
        self._pages += pages

    async def start(self) -> int:
        """Listen on the loopback and return the port; raise `Unavailable` when it is taken."""
        application = web.Application(client_max_size=self._settings.maximum_body_bytes)
        application.router.add_post("/", self._answer_http)
        application.router.add_get("/", self._sockets.serve)
        application.router.add_options("/", _answer_options)
        application.router.add_routes(self._pages)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self._settings.port).start()
        except OSError as error:
            await runner.cleanup()
            raise Unavailable(f"port {self._settings.port} on {HOST}: {error}") from error
        self._runner = runner
        self._feed.start()
        return self.port

    @property
    def port(self) -> int:
        """Return the port that the server listens on."""
        if self._runner is None:
            raise Unavailable("the JSON-RPC server has not started")
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening and end the open connections; a second time changes nothing."""
        await self._sockets.close()
        await self._feed.close()
        if self._owned is not None:
            await self._owned.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def maximum_body_bytes(self) -> int:
        """Return the bytes that one request may have."""
        return self._settings.maximum_body_bytes

    async def _answer_http(self, request: web.Request) -> web.Response:
        if self._open_requests >= self._settings.maximum_requests:
            return _response(_text(_failure(None, RpcError(SERVER_ERROR, "too many requests are open"))), 503)
        self._open_requests += 1
        try:
            body = await request.read()
            answer = await self.answer(body, Origin(from_browser=is_web_page(request)))
        except web.HTTPRequestEntityTooLarge:
            return _response(_text(_failure(None, RpcError(INVALID_REQUEST, "the request is too large"))), 413)
        finally:
            self._open_requests -= 1
        return web.Response(status=204, headers=_CORS) if answer is None else _response(answer)

    async def answer_text(self, body: bytes, from_browser: bool, methods: Mapping[str, Handler]) -> str | None:
        """Answer on a connection that offers methods of its own."""
        return await self.answer(body, Origin(from_browser, methods))

    async def answer(self, body: bytes, origin: Origin) -> str | None:
        """Return the JSON text that answers a request or a batch; None when all of it were notifications."""
        try:
            message = parse_json(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return _text(_failure(None, RpcError(PARSE_ERROR, "the request is not JSON")))
        if not isinstance(message, list):
            return _optional_text(await self._answer_one(message, origin))
        if not message:
            return _text(_failure(None, RpcError(INVALID_REQUEST, "the batch is empty")))
        if len(message) > self._settings.maximum_batch:
            text = f"the batch has {len(message)} requests, {self._settings.maximum_batch} are allowed"
            return _text(_failure(None, RpcError(INVALID_REQUEST, text)))
        return await self._answer_batch(message, origin)

    async def _answer_batch(self, batch: list[Any], origin: Origin) -> str | None:
        """Answer one entry after the other; when time or room is spent, the rest is refused."""
        ends = asyncio.get_running_loop().time() + self._settings.maximum_seconds
        answers: list[str] = []
        size_bytes = 0
        for entry in batch:
            spent = asyncio.get_running_loop().time() > ends or size_bytes > self._settings.maximum_answer_bytes
            if spent:
                error = RpcError(SERVER_ERROR, "the batch took too long or its answer is too large")
                answer: dict[str, Any] | None = _failure(_identity(entry), error)
            else:
                answer = await self._answer_one(entry, origin)
            text = _optional_text(answer)
            if text is not None:
                answers.append(text)
                size_bytes += len(text)
        return f"[{','.join(answers)}]" if answers else None

    async def _answer_one(self, message: Any, origin: Origin) -> dict[str, Any] | None:
        identity = _identity(message)
        try:
            method, params = _read_request(message)
            if origin.from_browser and method in self._sensitive:
                raise RpcError(METHOD_NOT_FOUND, "web pages may not call this method")
            methods = {**origin.methods, **self._for_pages} if origin.from_browser else origin.methods
            result = await self._call(method, params, methods)
        except RpcError as error:
            return _failure(identity, error)
        if "id" not in message:
            return None
        return {"jsonrpc": "2.0", "id": identity, "result": result}

    async def _call(self, method: str, params: list[Any], of_connection: Mapping[str, Handler]) -> Any:
        handler = of_connection.get(method) or self._methods.get(method)
        try:
            if handler is not None:
                # Who may spend our coins may also take our time: a task's data are prepared for minutes.
                limit_seconds = None if method in self._sensitive else self._settings.maximum_seconds
                async with asyncio.timeout(limit_seconds):
                    return await handler(*params)
            if not method.startswith(_ENGINE_NAMESPACES):
                raise Rejected(RejectionReason.METHOD_UNKNOWN, method[:64])
            result = await self._caller.rpc(method, params)
            if method == "eth_sendRawTransaction" and self._on_transaction is not None:
                await self._on_transaction(bytes.fromhex(params[0][2:]))
            return result
        except Reverted as error:
            raise RpcError(EXECUTION_REVERTED, error.detail, "0x" + error.data.hex()) from error
        except Rejected as error:
            code = _CODES.get(error.reason, SERVER_ERROR)
            raise RpcError(code, error.detail or error.reason.value, {"reason": error.reason.value}) from error
        except Unavailable as error:
            raise RpcError(SERVER_ERROR, f"not available: {error.what}") from error
        except TimeoutError as error:
            raise RpcError(SERVER_ERROR, "the answer took too long; ask again") from error
        except TypeError as error:
            if handler is not None and error.__traceback__ is not None and error.__traceback__.tb_next is None:
                # Raised by the call itself, not inside the handler: the arguments do not fit.
                raise RpcError(INVALID_PARAMS, f"wrong number of arguments for {method}") from error
            raise _internal(method, error) from error
        except Exception as error:
            # A bug in one call is logged and must not end the server.
            raise _internal(method, error) from error


def _internal(method: str, error: Exception) -> RpcError:
    logger.error("the call %s failed", method, exc_info=error)
    return RpcError(INTERNAL_ERROR, "internal error; the node's log has the details")


def _read_request(message: Any) -> tuple[str, list[Any]]:
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        raise RpcError(INVALID_REQUEST, "not a JSON-RPC 2.0 request")
    params: Any = message.get("params")
    if params is None:
        return message["method"], []
    if not isinstance(params, list):
        raise RpcError(INVALID_PARAMS, "params are a list")
    return message["method"], params


def _failure(identity: Any, error: RpcError) -> dict[str, Any]:
    content: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        content["data"] = error.data
    return {"jsonrpc": "2.0", "id": identity, "error": content}


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _identity(message: Any) -> Any:
    identity = message.get("id") if isinstance(message, dict) else None
    if isinstance(identity, bool) or not isinstance(identity, str | int | float | None):
        return None
    return identity


def _text(answer: Any) -> str:
    return json.dumps(answer, separators=(",", ":"))


def _optional_text(answer: Any) -> str | None:
    return None if answer is None else _text(answer)


def _response(text: str, status: int = 200) -> web.Response:
    return web.json_response(text=text, status=status, headers=_CORS)


async def _answer_options(_request: web.Request) -> web.Response:
    return web.Response(status=204, headers=_CORS)
