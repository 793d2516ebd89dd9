"""Ask an execution client over HTTP; the Engine API wants a fresh HS256 token (JWT, RFC 7519) with every request."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from learnchain.encoding.numbers import parse_json
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_ANSWER_BYTES = 64 << 20
SECRET_BYTES = 32
MAXIMUM_SECRET_FILE_BYTES = 1_024


class ClientError(Exception):
    """Carry the JSON-RPC error that an execution client answered."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.data = data


class ClientCaller(Protocol):
    """Ask an execution client; raise `ClientError` for its errors and `Unavailable` when it cannot be reached."""

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Return the result of one call."""

    async def close(self) -> None:
        """End the connections."""


def load_secret(path: Path) -> bytes:
    """Return the 32 bytes that client and node share, written in hex as every client writes them."""
    try:
        if path.stat().st_size > MAXIMUM_SECRET_FILE_BYTES:
            raise ValueError("the file is too large")
        secret = bytes.fromhex(path.read_text().strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} holds no secret in hex: {error}") from error
    if len(secret) != SECRET_BYTES:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} holds {len(secret)} bytes, not {SECRET_BYTES}")
    return secret


def token(secret: bytes, now_seconds: int) -> str:
    """Return the token that says: made now by somebody who knows the secret."""
    header = _base64({"alg": "HS256", "typ": "JWT"})
    signed = f"{header}.{_base64({'iat': now_seconds})}"
    return f"{signed}.{_base64_bytes(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _base64(content: dict[str, Any]) -> str:
    return _base64_bytes(json.dumps(content, separators=(",", ":")).encode())


def _base64_bytes(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class HttpCaller:
    """Hold one client's address; connections are opened with the first call."""

    __slots__ = ("_identity", "_now_seconds", "_secret", "_session", "_timeout_seconds", "_url")

    def __init__(
        self, url: str, secret: bytes | None, now_seconds: Callable[[], int], timeout_seconds: float = 60.0
    ) -> None:
        self._url = url
        self._secret = secret
        self._now_seconds = now_seconds
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self._identity = 0

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Return the result of one call."""
        self._identity += 1
        request = {"jsonrpc": "2.0", "id": self._identity, "method": method, "params": list(params)}
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_seconds))
        headers = {"Content-Type": "application/json"}
        if self._secret is not None:
            headers["Authorization"] = f"Bearer {token(self._secret, self._now_seconds())}"
        try:
            async with self._session.post(self._url, data=json.dumps(request), headers=headers) as response:
                body = await _read_bounded(response)
                if response.status in (401, 403):
                    raise Unavailable(f"{self._url} refuses the token; node and client must share one secret")
            answer = parse_json(body)
        except (TimeoutError, aiohttp.ClientError, ValueError, RecursionError) as error:
            raise Unavailable(f"the execution client at {self._url}: {type(error).__name__} {error}") from error
        return _result(answer)

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        body += piece
        if len(body) > MAXIMUM_ANSWER_BYTES:
            raise ValueError(f"an answer above {MAXIMUM_ANSWER_BYTES} bytes")
    return bytes(body)


def _result(answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise Unavailable("the execution client answers no JSON-RPC")
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        raise ClientError(0, str(error)[:256])
    code = error.get("code")
    raise ClientError(code if isinstance(code, int) else 0, str(error.get("message"))[:1_024], error.get("data"))
