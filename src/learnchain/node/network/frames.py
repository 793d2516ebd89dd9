"""Frames of the multiplexer: kind, stream, length, payload; decoded from hostile bytes without ever trusting a length.

kind 1 byte | stream 4 bytes | length 4 bytes | payload
"""

from dataclasses import dataclass
from enum import IntEnum

from learnchain.primitives.rejection import Rejected, RejectionReason

HEADER_BYTES = 9
MAXIMUM_PAYLOAD_BYTES = 65_536


class FrameKind(IntEnum):
    """Say what a frame does to its stream; stream 0 is the connection itself."""

    OPEN = 1
    DATA = 2
    WINDOW = 3
    """The payload is 4 bytes: how many more bytes the sender of this frame is ready to take."""
    FINISH = 4
    RESET = 5
    PING = 6
    PONG = 7
    CLOSE = 8


_CONNECTION_KINDS = frozenset({FrameKind.PING, FrameKind.PONG, FrameKind.CLOSE})
_PAYLOAD_BYTES = dict.fromkeys(FrameKind, 0) | {FrameKind.DATA: MAXIMUM_PAYLOAD_BYTES, FrameKind.WINDOW: 4}


@dataclass(frozen=True, slots=True)
class Frame:
    """Hold one frame."""

    kind: FrameKind
    stream: int = 0
    payload: bytes = b""


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    size = len(frame.payload)
    return bytes((frame.kind,)) + frame.stream.to_bytes(4, "big") + size.to_bytes(4, "big") + frame.payload


class FrameDecoder:
    """Cut a byte stream into frames; never holds more than one frame and the bytes of one read."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that these bytes complete; refuse a header before its payload has arrived."""
        self._buffer += data
        frames: list[Frame] = []
        position = 0
        while len(self._buffer) - position >= HEADER_BYTES:
            kind, stream, size = _header(self._buffer, position)
            end = position + HEADER_BYTES + size
            if len(self._buffer) < end:
                break
            frames.append(Frame(kind, stream, bytes(self._buffer[position + HEADER_BYTES : end])))
            position = end
        del self._buffer[:position]
        return frames

    @property
    def held_bytes(self) -> int:
        """Return how many bytes wait for the rest of their frame."""
        return len(self._buffer)


def _header(buffer: bytearray, position: int) -> tuple[FrameKind, int, int]:
    try:
        kind = FrameKind(buffer[position])
    except ValueError as error:
        raise Rejected(RejectionReason.MALFORMED, f"no frame has the kind {buffer[position]}") from error
    stream = int.from_bytes(buffer[position + 1 : position + 5], "big")
    size = int.from_bytes(buffer[position + 5 : position + HEADER_BYTES], "big")
    if size > _PAYLOAD_BYTES[kind]:
        raise Rejected(RejectionReason.TOO_LARGE, f"a {kind.name} frame of {size} bytes")
    if (stream == 0) != (kind in _CONNECTION_KINDS) or (kind is FrameKind.WINDOW and size != 4):
        raise Rejected(RejectionReason.MALFORMED, f"a {kind.name} frame on stream {stream} with {size} bytes")
    return kind, stream, size
