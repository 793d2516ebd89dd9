"""Serve JSON-RPC 2.0 over HTTP on the loopback: Ethereum's methods from the engine, the node's own from a register.

Wallets and web3 libraries speak it; browsers may, because CORS allows them, except to methods marked `sensitive`.
"""

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from learnchain.execution.door import Reverted
from learnchain.node.execution.engine import ExecutionEngine
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

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
_ENGINE_NAMESPACES = ("eth_", "net_", "web3_")
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
    """Choose the port (0 takes a free one) and what one caller may send at once."""

    port: int = 8545
    maximum_body_bytes: int = 2 * 1024 * 1024
    maximum_batch: int = 100


class RpcError(Exception):
    """Carry a JSON-RPC error to its caller."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class JsonRpcServer:
    """Answer requests one batch entry after the other; the engine orders the calls of all callers."""

    __slots__ = ("_engine", "_methods", "_on_transaction", "_runner", "_sensitive", "_settings")

    def __init__(
        self,
        engine: ExecutionEngine,
        settings: JsonRpcSettings | None = None,
        on_transaction: TransactionHook | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings or JsonRpcSettings()
        self._on_transaction = on_transaction
        self._methods: dict[str, Handler] = {}
        self._sensitive: set[str] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def register(self, name: str, handler: Handler, sensitive: bool = False) -> None:
        """Add a method of the node's own; a `sensitive` one spends or reveals and is closed to web pages."""
        if name in self._methods or name.startswith(_ENGINE_NAMESPACES):
            raise ValueError(f"the method {name} exists already")
        self._methods[name] = handler
        if sensitive:
            self._sensitive.add(name)

    async def start(self) -> int:
        """Listen on the loopback and return the port; raise `Unavailable` when it is taken."""
        application = web.Application(client_max_size=self._settings.maximum_body_bytes)
        application.router.add_post("/", self._answer_http)
        application.router.add_options("/", _answer_options)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self._settings.port).start()
        except OSError as error:
            await runner.cleanup()
            raise Unavailable(f"port {self._settings.port} on {HOST}: {error}") from error
        self._runner = runner
        return self.port

    @property
    def port(self) -> int:
        """Return the port that the server listens on."""
        if self._runner is None:
            raise Unavailable("the JSON-RPC server has not started")
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening and end the open connections; a second time changes nothing."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer_http(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _response(_failure(None, RpcError(INVALID_REQUEST, "the request is too large")), 413)
        answer = await self.answer(body, from_browser="Origin" in request.headers)
        return web.Response(status=204, headers=_CORS) if answer is None else _response(answer)

    async def answer(self, body: bytes, from_browser: bool = False) -> Any:
        """Return the JSON answer to a request or a batch; None when all of it were notifications."""
        try:
            message = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return _failure(None, RpcError(PARSE_ERROR, "the request is not JSON"))
        if not isinstance(message, list):
            return await self._answer_one(message, from_browser)
        if not message:
            return _failure(None, RpcError(INVALID_REQUEST, "the batch is empty"))
        if len(message) > self._settings.maximum_batch:
            text = f"the batch has {len(message)} requests, {self._settings.maximum_batch} are allowed"
            return _failure(None, RpcError(INVALID_REQUEST, text))
        answers = [await self._answer_one(entry, from_browser) for entry in message]
        return [answer for answer in answers if answer is not None] or None

    async def _answer_one(self, message: Any, from_browser: bool) -> dict[str, Any] | None:
        identity = message.get("id") if isinstance(message, dict) else None
        if isinstance(identity, bool) or not isinstance(identity, str | int | float | None):
            identity = None
        try:
            method, params = _read_request(message)
            if from_browser and method in self._sensitive:
                raise RpcError(METHOD_NOT_FOUND, "web pages may not call this method")
            result = await self._call(method, params)
        except RpcError as error:
            return _failure(identity, error)
        if "id" not in message:
            return None
        return {"jsonrpc": "2.0", "id": identity, "result": result}

    async def _call(self, method: str, params: list[Any]) -> Any:
        try:
            if method in self._methods:
                return await self._methods[method](*params)
            if not method.startswith(_ENGINE_NAMESPACES):
                raise Rejected(RejectionReason.METHOD_UNKNOWN, method[:64])
            result = await self._engine.rpc(method, params)
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
        except TypeError as error:
            if method in self._methods and error.__traceback__ is not None and error.__traceback__.tb_next is None:
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


def _response(answer: Any, status: int = 200) -> web.Response:
    return web.json_response(answer, status=status, headers=_CORS)


async def _answer_options(_request: web.Request) -> web.Response:
    return web.Response(status=204, headers=_CORS)
