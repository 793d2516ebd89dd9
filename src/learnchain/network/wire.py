"""Messages between two nodes: one kind byte, four bytes of length, canonical bytes of a noun.

Ask one peer one question: a stream for each, chunks as the answer, a refusal with its reason as the other end.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from learnchain.encoding.codec import FORMAT_VERSION, Bound, Hash32, decode, decode_prefix, encode
from learnchain.encoding.cryptography import tagged_hash
from learnchain.network.transport import Connection, ConnectionLost, Stream
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_GOSSIP_BYTES = 65_536
"""Anything larger travels as a CID."""
MAXIMUM_IDENTIFIERS = 256
MAXIMUM_BODY_BYTES = 1024 * 1024
MAXIMUM_CHUNK_BYTES = 2 * 1024 * 1024 + 1024
MAXIMUM_METHOD_BYTES = 64
_LARGEST_VERSION = 0xFFFF_FFFF
UNAVAILABLE = "unavailable"
"""The reason in a refusal that accuses nobody."""
Topic = Annotated[str, Bound(64)]


class MessageKind(IntEnum):
    """Say what follows; the first message on a stream says what the stream is for."""

    HELLO = 1
    FULL = 2
    HAVE = 3
    WANT = 4
    REQUEST = 5
    CHUNK = 6
    DONE = 7
    REFUSAL = 8


@dataclass(frozen=True, slots=True)
class Hello:
    """Introduce a node: which network it is on and where it listens; opens the one gossip stream of a side.

    `session` is drawn anew at every start: a peer that comes back under another one has lost all its connections.
    `version` is that of all formats (ROUND-15) and stays the first field, whatever follows it in later versions.
    """

    version: int
    network_id: Hash32
    session: Hash32
    host: Annotated[str, Bound(253)]
    port: int


@dataclass(frozen=True, slots=True)
class _HelloVersion:
    version: int


@dataclass(frozen=True, slots=True)
class Full:
    """Carry a whole gossip message."""

    topic: Topic
    payload: Annotated[bytes, Bound(MAXIMUM_GOSSIP_BYTES)]


@dataclass(frozen=True, slots=True)
class Have:
    """Announce messages by their identifiers."""

    identifiers: Annotated[tuple[Hash32, ...], Bound(MAXIMUM_IDENTIFIERS)]


@dataclass(frozen=True, slots=True)
class Want:
    """Ask for announced messages."""

    identifiers: Annotated[tuple[Hash32, ...], Bound(MAXIMUM_IDENTIFIERS)]


@dataclass(frozen=True, slots=True)
class Request:
    """Ask one question; opens a stream of its own."""

    method: Annotated[str, Bound(MAXIMUM_METHOD_BYTES)]
    body: Annotated[bytes, Bound(MAXIMUM_BODY_BYTES)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """End an answer with the reason why there is no more of it."""

    reason: Annotated[str, Bound(64)]
    detail: Annotated[str, Bound(1_024)]


MAXIMUM_BYTES = {
    MessageKind.HELLO: 512,
    MessageKind.FULL: MAXIMUM_GOSSIP_BYTES + 128,
    MessageKind.HAVE: MAXIMUM_IDENTIFIERS * 33 + 16,
    MessageKind.WANT: MAXIMUM_IDENTIFIERS * 33 + 16,
    MessageKind.REQUEST: MAXIMUM_BODY_BYTES + 128,
    MessageKind.CHUNK: MAXIMUM_CHUNK_BYTES,
    MessageKind.DONE: 0,
    MessageKind.REFUSAL: 1_200,
}


def decode_hello(body: bytes) -> Hello:
    """Return a peer's introduction; nothing behind the version is read unless the version is ours (ROUND-15)."""
    version = decode_prefix(_HelloVersion, body).version
    if version > _LARGEST_VERSION:
        raise Rejected(RejectionReason.MALFORMED, "the introduction names no format version")
    if version != FORMAT_VERSION:
        detail = f"the peer speaks format {version}, this node {FORMAT_VERSION}: run the same version on both sides"
        raise Rejected(RejectionReason.FORMAT_UNSUPPORTED, detail)
    return decode(Hello, body)


def message_id(full: Full) -> Hash32:
    """Return the identifier under which a gossip message is announced and remembered."""
    return tagged_hash("gossip", full.topic.encode(), full.payload)


def message_bytes(kind: MessageKind, noun: object) -> bytes:
    """Return a message as it goes over a stream."""
    return raw_message(kind, encode(noun))


def raw_message(kind: MessageKind, body: bytes) -> bytes:
    """Return a message whose body is bytes of somebody else."""
    return bytes((kind,)) + len(body).to_bytes(4, "big") + body


async def read_message(
    stream: Stream, allowed: frozenset[MessageKind], limit_bytes: int | None = None
) -> tuple[MessageKind, bytes]:
    """Return the next message; refuse its kind or size before its body is read."""
    header = await stream.read_exactly(5)
    size = int.from_bytes(header[1:], "big")
    kind = next((kind for kind in allowed if kind == header[0]), None)
    if kind is None:
        raise Rejected(RejectionReason.MALFORMED, f"a message of kind {header[0]} does not belong here")
    maximum = MAXIMUM_BYTES[kind]
    if kind is MessageKind.CHUNK and limit_bytes is not None:
        maximum = min(maximum, limit_bytes)
    if size > maximum:
        raise Rejected(RejectionReason.TOO_LARGE, f"a {kind.name} message of {size} bytes")
    return kind, await stream.read_exactly(size)


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
                raise build_refusal_error(body)
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
        await refuse(stream, rejected.reason.value, rejected.detail)
        return rejected
    except Unavailable as unavailable:
        await refuse(stream, UNAVAILABLE, unavailable.what)
    except Exception:  # noqa: BLE001 - a handler's bug must not end the node, nor leave the asker waiting
        _log.exception("answering a request failed: this is a bug")
        await refuse(stream, UNAVAILABLE, "the node failed to answer")
    return None


async def refuse(stream: Stream, reason: str, detail: str) -> None:
    """Send the reason why nothing more follows on a stream; a peer that is gone already need not know."""
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


def build_refusal_error(body: bytes) -> Exception:
    """Return what a refusal means to us: `PeerRefused`, `Unavailable`, or `Rejected` for a reason that is none."""
    refusal = decode(Refusal, body)
    if refusal.reason == UNAVAILABLE:
        return Unavailable(f"the peer says: {refusal.detail}")
    try:
        return PeerRefused(RejectionReason(refusal.reason), refusal.detail)
    except ValueError:
        return Rejected(RejectionReason.MALFORMED, "the peer refuses for a reason that does not exist")
