"""Messages between two nodes: one kind byte, four bytes of length, canonical bytes of a noun."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from learnchain.node.network.transport import Stream
from learnchain.primitives.codec import Bound, Hash32, encode
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.rejection import Rejected, RejectionReason

MAXIMUM_GOSSIP_BYTES = 65_536
"""Anything larger travels as a CID."""
MAXIMUM_IDENTIFIERS = 256
MAXIMUM_BODY_BYTES = 1024 * 1024
MAXIMUM_CHUNK_BYTES = 2 * 1024 * 1024 + 1024
MAXIMUM_METHOD_BYTES = 64
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
    `version` is that of the messages (ROUND-15).
    """

    version: int
    network_id: Hash32
    session: Hash32
    host: Annotated[str, Bound(253)]
    port: int


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
