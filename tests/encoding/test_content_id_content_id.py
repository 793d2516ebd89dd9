import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.content_id import (
    MAXIMUM_BLOCK_BYTES,
    Codec,
    HashKind,
    check_cid,
    cid_from_text,
    cid_of_block,
    cid_text,
    parse_cid,
)
from learnchain.rejection import Rejected, RejectionReason

CIDS = st.builds(cid_of_block, st.binary(max_size=20), st.sampled_from(Codec), st.sampled_from(HashKind))
EMPTY_SHA256 = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
"""The CID of the empty raw block that every IPFS tool knows."""
FOREIGN_PREFIXES = (b"\0\x55\x12\x20", b"\1\x71\x12\x20", b"\1\x55\x13\x20", b"\1\x55\x12\x1f", b"\1\x55\x12\x20\0")


def test_known_cid() -> None:
    cid = cid_of_block(b"", Codec.RAW, HashKind.SHA2_256)
    assert cid_text(cid) == EMPTY_SHA256
    assert parse_cid(cid).digest == hashlib.sha256(b"").digest()


@given(CIDS)
def test_text_round_trip(cid: bytes) -> None:
    assert cid_from_text(cid_text(cid)) == cid


@given(CIDS, st.integers(0, 58), st.sampled_from("abz27ABZ=189 ö"))
def test_another_spelling_is_another_cid_or_malformed(cid: bytes, position: int, letter: str) -> None:
    text = cid_text(cid)
    changed = text[:position] + letter + text[position + 1 :]
    try:
        assert cid_text(cid_from_text(changed)) == changed
    except Rejected as rejected:
        assert rejected.reason is RejectionReason.MALFORMED


@pytest.mark.parametrize(
    "cid",
    [b"", b"\x01\x55\x12\x20", *(prefix + bytes(32) for prefix in FOREIGN_PREFIXES)],
)
def test_foreign_cids_are_malformed(cid: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        parse_cid(cid)
    assert caught.value.reason is RejectionReason.MALFORMED


@pytest.mark.parametrize("hash_kind", HashKind)
def test_changed_block_has_the_wrong_hash(hash_kind: HashKind) -> None:
    cid = cid_of_block(b"block", Codec.RAW, hash_kind)
    check_cid(cid, b"block")
    with pytest.raises(Rejected) as caught:
        check_cid(cid, b"blocK")
    assert caught.value.reason is RejectionReason.WRONG_HASH


def test_oversize_block_is_too_large() -> None:
    block = bytes(MAXIMUM_BLOCK_BYTES + 1)
    with pytest.raises(Rejected) as caught:
        check_cid(cid_of_block(block), block)
    assert caught.value.reason is RejectionReason.TOO_LARGE
