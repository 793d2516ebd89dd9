import io

import pytest

from learnchain.learning.jobs import MAXIMUM_FRAME_BYTES, frame_length, pack_frame, read_frame, unpack_body
from learnchain.rejection import Rejected, RejectionReason


def test_frames_are_bounded_before_they_are_read():
    assert unpack_body(pack_frame({"id": 1})[4:]) == {"id": 1}
    for action, argument, reason in (
        (frame_length, (MAXIMUM_FRAME_BYTES + 1).to_bytes(4, "big"), RejectionReason.TOO_LARGE),
        (pack_frame, {"x": "y" * MAXIMUM_FRAME_BYTES}, RejectionReason.TOO_LARGE),
        (unpack_body, b"[1]", RejectionReason.MALFORMED),
        (unpack_body, b"\xff", RejectionReason.MALFORMED),
        (unpack_body, b"[" * 100_000, RejectionReason.MALFORMED),
    ):
        with pytest.raises(Rejected) as caught:
            action(argument)
        assert caught.value.reason is reason


def test_a_stream_is_read_frame_by_frame_until_it_ends():
    stream = io.BytesIO(pack_frame({"id": 1}) + pack_frame({"id": 2}) + b"\0\0")
    assert [read_frame(stream), read_frame(stream), read_frame(stream)] == [{"id": 1}, {"id": 2}, None]
