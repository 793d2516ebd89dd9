import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.network.multiplexer import (
    HEADER_BYTES,
    MAXIMUM_PAYLOAD_BYTES,
    Frame,
    FrameDecoder,
    FrameKind,
    encode_frame,
)
from learnchain.rejection import Rejected, RejectionReason

STREAMS = st.integers(1, 2**32 - 1)
FRAMES = st.one_of(
    st.builds(Frame, st.sampled_from([FrameKind.PING, FrameKind.PONG, FrameKind.CLOSE])),
    st.builds(Frame, st.sampled_from([FrameKind.OPEN, FrameKind.FINISH, FrameKind.RESET]), STREAMS),
    st.builds(Frame, st.just(FrameKind.DATA), STREAMS, st.binary(max_size=50)),
    st.builds(Frame, st.just(FrameKind.WINDOW), STREAMS, st.binary(min_size=4, max_size=4)),
)


@given(st.lists(FRAMES, max_size=8), st.integers(1, 40))
def test_frames_survive_any_cutting(frames: list[Frame], piece: int) -> None:
    wire = b"".join(encode_frame(frame) for frame in frames)
    decoder = FrameDecoder()
    decoded = [frame for i in range(0, len(wire), piece) for frame in decoder.feed(wire[i : i + piece])]
    assert decoded == frames
    assert decoder.held_bytes == 0


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_is_frames_or_refused_and_holds_at_most_one_frame(pieces: list[bytes]) -> None:
    decoder = FrameDecoder()
    wire = b""
    frames: list[Frame] = []
    try:
        for piece in pieces:
            frames += decoder.feed(piece)
            wire += piece
            assert decoder.held_bytes < HEADER_BYTES + MAXIMUM_PAYLOAD_BYTES
            assert b"".join(map(encode_frame, frames)) == wire[: len(wire) - decoder.held_bytes]
    except Rejected as rejected:
        assert rejected.reason in {RejectionReason.MALFORMED, RejectionReason.TOO_LARGE}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (bytes((2, 0, 0, 0, 1)) + (MAXIMUM_PAYLOAD_BYTES + 1).to_bytes(4, "big"), RejectionReason.TOO_LARGE),
        (bytes((2, 0, 0, 0, 1)) + b"\xff" * 4, RejectionReason.TOO_LARGE),
        (bytes((1, 0, 0, 0, 1, 0, 0, 0, 1)), RejectionReason.TOO_LARGE),
        (bytes((3, 0, 0, 0, 1, 0, 0, 0, 3)), RejectionReason.MALFORMED),
        (bytes((2, 0, 0, 0, 0, 0, 0, 0, 1)), RejectionReason.MALFORMED),
        (bytes((6, 0, 0, 0, 1, 0, 0, 0, 0)), RejectionReason.MALFORMED),
        (bytes((0, 0, 0, 0, 1, 0, 0, 0, 0)), RejectionReason.MALFORMED),
        (bytes((9, 0, 0, 0, 1, 0, 0, 0, 0)), RejectionReason.MALFORMED),
    ],
)
def test_bad_header_is_refused_before_its_payload(header: bytes, reason: RejectionReason) -> None:
    with pytest.raises(Rejected) as caught:
        FrameDecoder().feed(header)
    assert caught.value.reason is reason
