import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.content_id import (
    MAXIMUM_LINKS,
    Codec,
    FileBuilder,
    HashKind,
    Layout,
    Link,
    blocks_of_chunks,
    cid_of_block,
    cid_of_bytes,
    cid_of_chunks,
    cid_text,
    decode_node,
    encode_node,
    parse_cid,
)
from learnchain.rejection import Rejected, RejectionReason

VECTORS = json.loads((Path(__file__).parents[2] / "src/learnchain/encoding/vectors/unixfs.json").read_text())
LEAF = cid_of_block(b"leaf")


def file_of_pattern(size: int) -> bytes:
    """Return the bytes that the vectors are made of: byte i is (7 i + i // 251) mod 256."""
    return bytes((7 * i + i // 251) % 256 for i in range(size))


@pytest.mark.parametrize("vector", VECTORS["files"], ids=lambda v: f"{v['size']}-{v['leaf_bytes']}-{v['width']}")
def test_cids_agree_with_the_js_importer(vector: dict[str, str | int]) -> None:
    layout = Layout(int(vector["leaf_bytes"]), int(vector["width"]), HashKind[str(vector["hash"])])
    assert cid_text(cid_of_bytes(file_of_pattern(int(vector["size"])), layout)) == vector["cid"]


def read_back(root: bytes, blocks: dict[bytes, bytes]) -> bytes:
    if parse_cid(root).codec is Codec.RAW:
        return blocks[root]
    return b"".join(read_back(link.cid, blocks) for link in decode_node(root, blocks[root]))


@given(st.binary(max_size=300), st.integers(1, 9), st.integers(2, 5))
def test_every_tree_reads_back(data: bytes, leaf_bytes: int, width: int) -> None:
    layout = Layout(leaf_bytes, width)
    chunks = [data[i : i + leaf_bytes] for i in range(0, len(data), leaf_bytes)]
    blocks = list(blocks_of_chunks(chunks, layout))
    assert read_back(blocks[-1].cid, {block.cid: block.data for block in blocks}) == data
    assert blocks[-1].cid == cid_of_chunks(chunks, layout)


def test_root_counts_the_file_and_its_blocks() -> None:
    builder = FileBuilder(Layout(4, 2))
    blocks = [block for chunk in (b"aaaa", b"bbbb", b"cc") for block in builder.add(chunk)] + builder.finish()
    assert builder.root.file_bytes == 10
    assert builder.root.tree_bytes == sum(len(block.data) for block in blocks)


@given(st.binary(max_size=200))
def test_garbage_is_no_node(data: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        decode_node(cid_of_block(data, Codec.DAG_PB), data)
    assert caught.value.reason in {RejectionReason.MALFORMED, RejectionReason.TOO_LARGE}


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_changed_node_is_refused_or_another_canonical_node(position: int, change: int) -> None:
    node = bytearray(encode_node((Link(LEAF, 4, 4), Link(LEAF, 300, 300))))
    node[position % len(node)] ^= change
    block = bytes(node)
    try:
        links = decode_node(cid_of_block(block, Codec.DAG_PB), block)
        assert encode_node(links) == block
    except Rejected as rejected:
        assert rejected.reason in {RejectionReason.MALFORMED, RejectionReason.TOO_LARGE}


def refusal(cid: bytes, block: bytes) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        decode_node(cid, block)
    return caught.value.reason


def test_node_bounds() -> None:
    wide = encode_node((Link(LEAF, 1, 1),) * (MAXIMUM_LINKS + 1))
    assert refusal(cid_of_block(wide, Codec.DAG_PB), wide) is RejectionReason.TOO_LARGE
    huge = encode_node((Link(LEAF, 1 << 51, 1 << 51),))
    assert refusal(cid_of_block(huge, Codec.DAG_PB), huge) is RejectionReason.TOO_LARGE
    good = encode_node((Link(LEAF, 1, 1),))
    assert refusal(cid_of_block(good + b"x", Codec.DAG_PB), good) is RejectionReason.WRONG_HASH
    assert refusal(cid_of_block(good, Codec.RAW), good) is RejectionReason.MALFORMED
    assert refusal(cid_of_block(b"", Codec.DAG_PB), b"") is RejectionReason.MALFORMED


def test_chunks_must_fit_the_layout() -> None:
    for chunks in ([b"abc", b"abcd"], [b""], [b"abcde"]):
        with pytest.raises(Rejected) as caught:
            cid_of_chunks(chunks, Layout(4, 2))
        assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
