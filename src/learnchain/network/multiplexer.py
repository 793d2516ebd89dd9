"""Frames of the multiplexer: kind, stream, length, payload; decoded from hostile bytes without ever trusting a length.

kind 1 byte | stream 4 bytes | length 4 bytes | payload

Many streams over one byte pipe: what gives TLS and the simulation the same `Connection`.

Each direction of a stream has a window, so a reader that does not read stops its writer and nobody else; what one
connection can make us hold is `MAXIMUM_STREAMS` windows and one frame. Whoever breaks the framing loses the connection,
and `fault` says why.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from learnchain.network.transport import ConnectionLost, StreamEnded
from learnchain.rejection import Rejected, RejectionReason

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


MAXIMUM_STREAMS = 32
"""Streams that one side may hold open at a time; part of the protocol, so that neither side has to say no."""
WINDOW_BYTES = 256 * 1024
"""Bytes that may be under way to a stream's reader before it has read any; part of the protocol."""


class Pipe(Protocol):
    """Carry bytes in order both ways, as a socket does."""

    async def read(self) -> bytes:
        """Return some bytes; nothing once the pipe has ended, for whatever reason."""

    def write(self, data: bytes) -> None:
        """Take bytes to send; silently none after the end."""

    def unsent_bytes(self) -> int:
        """Return how many bytes wait in memory for the other side."""

    async def drain(self) -> None:
        """Return when few bytes wait, or the pipe has ended."""

    async def close(self) -> None:
        """Send what waits if that goes quickly, then end."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bound how long silence may last and how much a peer that does not read may pile up."""

    keepalive_seconds: float = 10.0
    idle_seconds: float = 30.0
    maximum_unsent_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Remote:
    """Describe the other end of a connection."""

    peer_id: bytes
    host: str
    dialled: bool


class MultiplexedConnection:
    """Run streams over a pipe; a `Connection`. Must be made inside a running loop: it starts reading at once."""

    def __init__(self, pipe: Pipe, remote: Remote, limits: ConnectionLimits | None = None) -> None:
        self._pipe = pipe
        self._remote = remote
        self._limits = limits or ConnectionLimits()
        self._streams: dict[int, MultiplexedStream] = {}
        self._accepted: asyncio.Queue[MultiplexedStream | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(MAXIMUM_STREAMS)
        self._next_stream = 1 if remote.dialled else 2
        self._highest_accepted = 0
        self._closed = asyncio.Event()
        self._fault: Rejected | None = None
        self._receiver = asyncio.create_task(self._receive())
        self._keeper = asyncio.create_task(self._keep_alive())

    @property
    def peer_id(self) -> bytes:
        """Return the proven identity of the other side."""
        return self._remote.peer_id

    @property
    def is_dialled(self) -> bool:
        """Return whether this side dialled."""
        return self._remote.dialled

    @property
    def remote_host(self) -> str:
        """Return the network address of the other side."""
        return self._remote.host

    @property
    def fault(self) -> Rejected | None:
        """Return the rule that the other side broke, if that closed the connection."""
        return self._fault

    async def open_stream(self) -> "MultiplexedStream":
        """Open a stream; wait while the protocol's number of them is open."""
        await self._slots.acquire()
        if self._closed.is_set():
            self._slots.release()
            raise ConnectionLost("the connection has ended")
        stream = MultiplexedStream(self, self._next_stream)
        self._streams[self._next_stream] = stream
        self._next_stream += 2
        self.send(Frame(FrameKind.OPEN, stream.number))
        return stream

    async def accept_stream(self) -> "MultiplexedStream":
        """Return the next stream that the other side opens."""
        stream = None if self._closed.is_set() else await self._accepted.get()
        if stream is None:
            raise ConnectionLost("the connection has ended")
        return stream

    async def close(self) -> None:
        """End every stream and the connection."""
        if not self._closed.is_set():
            self.send(Frame(FrameKind.CLOSE))
            self._end()
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
        await self._pipe.close()

    async def wait_until_closed(self) -> None:
        """Return when the connection has ended."""
        await self._closed.wait()

    def send(self, frame: Frame) -> None:
        """Queue a frame; for streams of this connection."""
        if not self._closed.is_set():
            self._pipe.write(encode_frame(frame))

    async def drain(self) -> None:
        """Wait until the pipe takes more; for streams of this connection."""
        await self._pipe.drain()

    def forget(self, number: int) -> None:
        """Drop a stream that has ended on both sides; for streams of this connection."""
        if self._streams.pop(number, None) is not None and self._is_ours(number):
            self._slots.release()

    def _is_ours(self, number: int) -> bool:
        return number % 2 == self._next_stream % 2

    async def _receive(self) -> None:
        decoder = FrameDecoder()
        try:
            while data := await self._read_in_time():
                for frame in decoder.feed(data):
                    self._handle(frame)
                if self._pipe.unsent_bytes() > self._limits.maximum_unsent_bytes:
                    raise Rejected(RejectionReason.RATE_LIMITED, "the peer sends and does not read")
        except Rejected as rejected:
            self._fault = rejected
        finally:
            self._end()
        await self._pipe.close()

    async def _read_in_time(self) -> bytes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.idle_seconds):
                return await self._pipe.read()
        return b""

    async def _keep_alive(self) -> None:
        while not self._closed.is_set():
            await asyncio.sleep(self._limits.keepalive_seconds)
            self.send(Frame(FrameKind.PING))

    def _handle(self, frame: Frame) -> None:
        if self._closed.is_set():
            return
        match frame.kind:
            case FrameKind.PING:
                self.send(Frame(FrameKind.PONG))
            case FrameKind.PONG:
                pass
            case FrameKind.CLOSE:
                self._end()
            case FrameKind.OPEN:
                self._accept(frame.stream)
            case _:
                self._route(frame)

    def _accept(self, number: int) -> None:
        if self._is_ours(number) or number <= self._highest_accepted:
            raise Rejected(RejectionReason.MALFORMED, f"stream {number} cannot be opened by the other side")
        theirs = sum(1 for known in self._streams if not self._is_ours(known))
        if theirs >= MAXIMUM_STREAMS or self._accepted.qsize() >= MAXIMUM_STREAMS:
            raise Rejected(RejectionReason.RATE_LIMITED, f"more than {MAXIMUM_STREAMS} streams at a time")
        self._highest_accepted = number
        stream = MultiplexedStream(self, number)
        self._streams[number] = stream
        self._accepted.put_nowait(stream)

    def _route(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        if stream is not None:
            stream.handle(frame)
            return
        opened = frame.stream < self._next_stream if self._is_ours(frame.stream) else True
        if not opened or (not self._is_ours(frame.stream) and frame.stream > self._highest_accepted):
            raise Rejected(RejectionReason.MALFORMED, f"stream {frame.stream} was never opened")

    def _end(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._keeper.cancel()
        for stream in list(self._streams.values()):
            stream.lose()
        self._streams.clear()
        self._slots.release()
        self._accepted.put_nowait(None)


class MultiplexedStream:
    """Carry one stream of a `MultiplexedConnection`; a `Stream`."""

    def __init__(self, connection: MultiplexedConnection, number: int) -> None:
        self.number = number
        self._connection = connection
        self._received = bytearray()
        self._credit = WINDOW_BYTES
        self._open_window = WINDOW_BYTES
        self._read_unreported = 0
        self._remote_finished = False
        self._finished = False
        self._lost = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    async def read(self, maximum_bytes: int) -> bytes:
        """Return what has arrived, at most `maximum_bytes`; nothing at the end."""
        while not self._received:
            if self._remote_finished:
                return b""
            if self._lost:
                raise ConnectionLost("the stream was reset")
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._received[:maximum_bytes])
        del self._received[:maximum_bytes]
        self._report_read(len(data))
        return data

    async def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        parts: list[bytes] = []
        missing = size
        while missing:
            part = await self.read(missing)
            if not part:
                raise StreamEnded(f"the stream ended {missing} bytes early")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    async def write(self, data: bytes) -> None:
        """Send bytes in frames, each within the other side's window."""
        position = 0
        while position < len(data):
            if self._lost or self._finished:
                raise ConnectionLost("the stream is closed for writing")
            size = min(len(data) - position, self._credit, MAXIMUM_PAYLOAD_BYTES)
            if size == 0:
                self._writable.clear()
                await self._writable.wait()
                continue
            self._credit -= size
            self._connection.send(Frame(FrameKind.DATA, self.number, data[position : position + size]))
            position += size
            await self._connection.drain()

    async def finish(self) -> None:
        """Close our direction."""
        if not self._finished and not self._lost:
            self._finished = True
            self._connection.send(Frame(FrameKind.FINISH, self.number))
            self._forget_if_over()

    async def reset(self) -> None:
        """Give the stream up."""
        if not self._lost and not (self._finished and self._remote_finished):
            self._connection.send(Frame(FrameKind.RESET, self.number))
            self.lose()
        self._received.clear()
        self._connection.forget(self.number)

    def lose(self) -> None:
        """End the stream without telling the other side; for its connection."""
        self._lost = True
        self._readable.set()
        self._writable.set()

    def handle(self, frame: Frame) -> None:
        """Take a frame of the other side; for its connection."""
        match frame.kind:
            case FrameKind.DATA:
                self._take(frame.payload)
            case FrameKind.WINDOW:
                self._credit = min(self._credit + int.from_bytes(frame.payload, "big"), WINDOW_BYTES)
                self._writable.set()
            case FrameKind.FINISH:
                self._remote_finished = True
                self._readable.set()
                self._forget_if_over()
            case _:
                self._received.clear()
                self.lose()
                self._connection.forget(self.number)

    def _take(self, payload: bytes) -> None:
        if self._remote_finished or not payload:
            raise Rejected(RejectionReason.MALFORMED, f"stream {self.number} sends nothing, or after its end")
        if len(payload) > self._open_window:
            raise Rejected(RejectionReason.TOO_LARGE, f"stream {self.number} overruns its window")
        self._open_window -= len(payload)
        self._received += payload
        self._readable.set()

    def _report_read(self, size: int) -> None:
        self._read_unreported += size
        if self._read_unreported >= WINDOW_BYTES // 2 and not self._remote_finished and not self._lost:
            self._open_window += self._read_unreported
            self._connection.send(
                Frame(FrameKind.WINDOW, self.number, self._read_unreported.to_bytes(4, "big")),
            )
            self._read_unreported = 0

    def _forget_if_over(self) -> None:
        if self._finished and self._remote_finished:
            self._connection.forget(self.number)
