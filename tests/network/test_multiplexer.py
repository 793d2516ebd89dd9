"""What a hostile peer can do with frames: lose its connection for the right reason, and fill no memory."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from learnchain.network.multiplexer import (
    MAXIMUM_PAYLOAD_BYTES,
    MAXIMUM_STREAMS,
    WINDOW_BYTES,
    ConnectionLimits,
    Frame,
    FrameKind,
    MultiplexedConnection,
    Remote,
    encode_frame,
)
from learnchain.network.transport import ConnectionLost
from learnchain.rejection import RejectionReason
from learnchain.simulation.simulated_network import run_simulated


class ScriptedPipe:
    """Hand over scripted bytes; keep what is written as if the other side never read it."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.written = bytearray()
        self.closed = False

    async def read(self) -> bytes:
        return await self.incoming.get()

    def write(self, data: bytes) -> None:
        self.written += data

    def unsent_bytes(self) -> int:
        return len(self.written)

    async def drain(self) -> None:
        return

    async def close(self) -> None:
        self.closed = True
        self.incoming.put_nowait(b"")


def frames(*list_of_frames: Frame) -> bytes:
    return b"".join(encode_frame(frame) for frame in list_of_frames)


def opened(number: int) -> Frame:
    return Frame(FrameKind.OPEN, number)


async def after(pipe: ScriptedPipe, *pieces: bytes) -> MultiplexedConnection:
    """Return an accepting connection once it has read these bytes."""
    limits = ConnectionLimits(maximum_unsent_bytes=1_000_000)
    connection = MultiplexedConnection(pipe, Remote(bytes(32), "host", dialled=False), limits)
    for piece in pieces:
        pipe.incoming.put_nowait(piece)
    for _ in range(10 + len(pieces)):
        await asyncio.sleep(0)
    return connection


def run(scenario: Callable[[ScriptedPipe], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await scenario(ScriptedPipe())

    run_simulated(whole())


FULL_WINDOW = [Frame(FrameKind.DATA, 1, bytes(MAXIMUM_PAYLOAD_BYTES))] * (WINDOW_BYTES // MAXIMUM_PAYLOAD_BYTES)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", RejectionReason.MALFORMED),
        (b"\x02\0\0\0\1\xff\xff\xff\xff", RejectionReason.TOO_LARGE),
        (frames(Frame(FrameKind.DATA, 1, b"x")), RejectionReason.MALFORMED),
        (frames(Frame(FrameKind.DATA, 2, b"x")), RejectionReason.MALFORMED),
        (frames(opened(2)), RejectionReason.MALFORMED),
        (frames(opened(1), opened(1)), RejectionReason.MALFORMED),
        (frames(opened(3), opened(1)), RejectionReason.MALFORMED),
        (frames(opened(1), Frame(FrameKind.DATA, 1)), RejectionReason.MALFORMED),
        (frames(opened(1), Frame(FrameKind.FINISH, 1), Frame(FrameKind.DATA, 1, b"x")), RejectionReason.MALFORMED),
        (frames(opened(1), *FULL_WINDOW, Frame(FrameKind.DATA, 1, b"x")), RejectionReason.TOO_LARGE),
        (frames(*(opened(2 * n + 1) for n in range(MAXIMUM_STREAMS + 1))), RejectionReason.RATE_LIMITED),
        (
            frames(*(f for n in range(99) for f in (opened(2 * n + 1), Frame(FrameKind.RESET, 2 * n + 1)))),
            RejectionReason.RATE_LIMITED,
        ),
        (frames(*[Frame(FrameKind.PING)] * 200_000), RejectionReason.RATE_LIMITED),
    ],
)
def test_attack_ends_the_connection_for_its_reason(attack: bytes, reason: RejectionReason) -> None:
    async def scenario(pipe: ScriptedPipe) -> None:
        connection = await after(pipe, attack)
        assert connection.fault is not None
        assert connection.fault.reason is reason
        assert pipe.closed
        with pytest.raises(ConnectionLost):
            await connection.open_stream()

    run(scenario)


def test_full_window_is_no_attack() -> None:
    async def scenario(pipe: ScriptedPipe) -> None:
        connection = await after(pipe, frames(opened(1), *FULL_WINDOW, Frame(FrameKind.FINISH, 1)))
        stream = await connection.accept_stream()
        assert await stream.read_exactly(WINDOW_BYTES) == bytes(WINDOW_BYTES)
        assert await stream.read(1) == b""
        assert connection.fault is None
        await connection.close()

    run(scenario)


def test_frames_for_an_ended_stream_are_late_and_harmless() -> None:
    async def scenario(pipe: ScriptedPipe) -> None:
        connection = await after(pipe, frames(opened(1)))
        await (await connection.accept_stream()).reset()
        pipe.incoming.put_nowait(frames(Frame(FrameKind.DATA, 1, b"late"), Frame(FrameKind.FINISH, 1)))
        await asyncio.sleep(1)
        assert connection.fault is None
        await connection.close()

    run(scenario)


def test_claimed_credit_never_exceeds_the_window() -> None:
    async def scenario(pipe: ScriptedPipe) -> None:
        credit = frames(opened(1), *[Frame(FrameKind.WINDOW, 1, b"\xff\xff\xff\xff")] * 3)
        connection = await after(pipe, credit)
        stream = await connection.accept_stream()
        writing = asyncio.create_task(stream.write(bytes(3 * WINDOW_BYTES)))
        await asyncio.sleep(1)
        assert not writing.done()
        assert len(pipe.written) < WINDOW_BYTES + 1_000
        await connection.close()
        with pytest.raises(ConnectionLost):
            await writing

    run(scenario)
