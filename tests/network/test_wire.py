"""The version in an introduction is compared before anything else of it is read."""

import pytest

from learnchain.encoding.codec import FORMAT_VERSION, encode
from learnchain.network.wire import Hello, decode_hello
from learnchain.rejection import Rejected, RejectionReason

HELLO = Hello(FORMAT_VERSION, b"n" * 32, b"s" * 32, "10.0.0.1", 80)


def test_an_introduction_of_this_format_is_read() -> None:
    assert decode_hello(encode(HELLO)) == HELLO


@pytest.mark.parametrize(
    "rest", [b"", b"\x80", encode(HELLO), b"\xff" * 40], ids=["none", "empty", "nested", "garbage"]
)
def test_nothing_behind_another_version_is_read(rest: bytes) -> None:
    body = bytes([FORMAT_VERSION + 1]) + rest
    header = bytes([0xC0 + len(body)]) if len(body) < 56 else bytes([0xF8, len(body)])
    with pytest.raises(Rejected, match=f"speaks format {FORMAT_VERSION + 1}, this node {FORMAT_VERSION}") as refused:
        decode_hello(header + body)
    assert refused.value.reason is RejectionReason.FORMAT_UNSUPPORTED


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", RejectionReason.MALFORMED),
        (b"\xc0", RejectionReason.MALFORMED),
        (b"\xc1\xc0", RejectionReason.MALFORMED),
        (b"\xc2\x81\x02", RejectionReason.MALFORMED),
        (b"\xc3\x82\x00\x02", RejectionReason.MALFORMED),
        (b"\xc6\x85" + b"two\0\0", RejectionReason.MALFORMED),
        (b"\xe1\xa0" + b"\xff" * 32, RejectionReason.MALFORMED),
        (b"\xe2\xa1" + b"2" * 33, RejectionReason.TOO_LARGE),
    ],
    ids=["nothing", "missing", "a list", "long form", "leading zero", "text", "huge", "too wide"],
)
def test_an_introduction_without_a_version_is_refused(body: bytes, reason: RejectionReason) -> None:
    with pytest.raises(Rejected) as refused:
        decode_hello(body)
    assert refused.value.reason is reason
