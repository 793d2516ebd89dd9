"""Ask one peer one question: a stream for each, chunks as the answer, a refusal with its reason as the other end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from learnchain.node.network.transport import Connection, ConnectionLost, Stream
from learnchain.node.network.wire import (
    MAXIMUM_CHUNK_BYTES,
    UNAVAILABLE,
    MessageKind,
    Refusal,
    Request,
    message_bytes,
    raw_message,
    read_message,
)
from learnchain.primitives.codec import decode
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

Handle = Callable[[bytes, bytes], AsyncIterator[bytes]]
"""(peer id, body) -> chunks, each of at most `MAXIMUM_CHUNK_BYTES`."""
WRITE_SECONDS = 30.0
"""How long a peer may take to read one chunk of its answer."""
_ANSWERS = frozenset({MessageKind.CHUNK, MessageKind.DONE, MessageKind.REFUSAL})
_log = logging.getLogger(__name__)


class PeerRefused(Unavailable):
    """Say that a peer refused our request, and why: ask another, and count it against nobody."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(f"the peer refuses: {reason.value}: {detail}")
        self.reason = reason


async def ask(
    connection: Connection, question: bytes, timeout_seconds: float, limit_bytes: int
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of the answer; raise `PeerRefused`, `Unavailable`, or `Rejected` when it breaks bounds."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    left = limit_bytes
    stream: Stream | None = None
    try:
        async with _until(deadline):
            stream = await connection.open_stream()
            await stream.write(question)
            await stream.finish()
        while True:
            async with _until(deadline):
                kind, body = await read_message(stream, _ANSWERS, left)
            if kind is MessageKind.DONE:
                return
            if kind is MessageKind.REFUSAL:
                raise _refused(decode(Refusal, body))
            left -= len(body)
            yield body
    finally:
        if stream is not None:
            await stream.reset()


async def serve(stream: Stream, peer_id: bytes, body: bytes, handlers: dict[str, Handle]) -> Rejected | None:
    """Answer one request; return the rule that the peer broke with it, if any."""
    try:
        request = decode(Request, body)
        handle = handlers.get(request.method)
        if handle is None:
            raise Rejected(RejectionReason.METHOD_UNKNOWN, f"there is no method {request.method!r}")
        async for chunk in handle(peer_id, request.body):
            if len(chunk) > MAXIMUM_CHUNK_BYTES:
                raise ValueError(f"{request.method} yields {len(chunk)} bytes at a time")
            await _write(stream, raw_message(MessageKind.CHUNK, chunk))
        await _write(stream, raw_message(MessageKind.DONE, b""))
        await stream.finish()
    except ConnectionLost:
        return None
    except Rejected as rejected:
        await _refuse(stream, rejected.reason.value, rejected.detail)
        return rejected
    except Unavailable as unavailable:
        await _refuse(stream, UNAVAILABLE, unavailable.what)
    except Exception:  # noqa: BLE001 - a handler's bug must not end the node, nor leave the asker waiting
        _log.exception("answering a request failed: this is a bug")
        await _refuse(stream, UNAVAILABLE, "the node failed to answer")
    return None


async def _refuse(stream: Stream, reason: str, detail: str) -> None:
    shortened = detail.encode()[:1_000].decode(errors="ignore")
    try:
        await _write(stream, message_bytes(MessageKind.REFUSAL, Refusal(reason, shortened)))
        await stream.finish()
    except ConnectionLost:
        pass


async def _write(stream: Stream, message: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await stream.write(message)
    except TimeoutError as error:
        await stream.reset()
        raise ConnectionLost("the peer does not read its answer") from error


@contextlib.asynccontextmanager
async def _until(deadline: float) -> AsyncGenerator[None, None]:
    """Turn a missed deadline into `Unavailable`; around every wait, never around a yield to the asker."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise Unavailable("no answer in time") from error


def _refused(refusal: Refusal) -> Exception:
    if refusal.reason == UNAVAILABLE:
        return Unavailable(f"the peer says: {refusal.detail}")
    try:
        return PeerRefused(RejectionReason(refusal.reason), refusal.detail)
    except ValueError:
        return Rejected(RejectionReason.MALFORMED, "the peer refuses for a reason that does not exist")
