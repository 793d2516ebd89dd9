import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.content_id import (
    MAXIMUM_BLOCK_BYTES,
    Codec,
    FileBuilder,
    Layout,
    Link,
    cid_of_block,
    encode_node,
)
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.blobs.blob_store import maximum_leaves, read_tree, write_tree

LEAF = cid_of_block(b"leaf")


def built(data: bytes, layout: Layout) -> tuple[Link, bytes]:
    builder = FileBuilder(layout)
    blocks = []
    for start in range(0, len(data), layout.leaf_bytes):
        blocks += builder.add(data[start : start + layout.leaf_bytes])
    blocks += builder.finish()
    return builder.root, write_tree(builder.root, {block.cid: block.data for block in blocks})


def node(*links: Link) -> tuple[bytes, bytes]:
    data = encode_node(links)
    return cid_of_block(data, Codec.DAG_PB), len(data).to_bytes(4, "big") + data


def refusal(root: bytes, written: bytes, max_bytes: int = 1_000_000) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        read_tree(root, written, max_bytes)
    return caught.value.reason


@given(st.integers(8, 500), st.integers(3, 9), st.integers(4, 9))
def test_tree_places_every_leaf(size: int, leaf_bytes: int, width: int) -> None:
    data = bytes(i % 251 for i in range(size))
    layout = Layout(leaf_bytes * 3, width)
    root, written = built(data, layout)
    if not written:
        return
    tree = read_tree(root.cid, written, size)
    assert tree.size_bytes == size
    for leaf in tree.leaves:
        assert cid_of_block(data[leaf.offset : leaf.offset + leaf.size]) == leaf.cid
    assert sum(leaf.size for leaf in tree.leaves) == size
    assert refusal(root.cid, written, size - 1) is RejectionReason.TOO_LARGE


@given(st.binary(max_size=30), st.integers(0, 400))
def test_other_bytes_than_the_tree_are_the_senders_fault(change: bytes, position: int) -> None:
    root, written = built(bytes(100), Layout(10, 3))
    position %= len(written)
    changed = written[:position] + change + written[position + len(change) :]
    if changed == written:
        return
    with pytest.raises(Rejected) as caught:
        read_tree(root.cid, changed, 1_000)
    assert caught.value.reason in {RejectionReason.WRONG_HASH, RejectionReason.TOO_LARGE}


def test_truncated_and_prolonged_trees_are_the_senders_fault() -> None:
    root, written = built(bytes(100), Layout(10, 3))
    for wrong in (b"", written[:-1], written + b"x", written[:3]):
        assert refusal(root.cid, wrong) is RejectionReason.WRONG_HASH


def test_bombs_are_too_large_before_anything_is_fetched() -> None:
    cid, written = node(*(Link(LEAF, 1, 1),) * 1_024)
    assert refusal(cid, written, 1_024) is RejectionReason.TOO_LARGE
    assert maximum_leaves(1_024) < 1_024
    cid, written = node(Link(LEAF, MAXIMUM_BLOCK_BYTES + 1, 1))
    assert refusal(cid, written, 1 << 40) is RejectionReason.TOO_LARGE
    cid, written = node(Link(LEAF, 4, 4))
    for _ in range(6):
        cid, upper = node(Link(cid, 4, 4))
        written = upper + written
    assert refusal(cid, written) is RejectionReason.TOO_LARGE


def test_lying_sizes_are_malformed() -> None:
    inner, inner_bytes = node(Link(LEAF, 4, 4))
    outer, outer_bytes = node(Link(inner, 5, 5))
    assert refusal(outer, outer_bytes + inner_bytes) is RejectionReason.MALFORMED
    empty, empty_bytes = node(Link(LEAF, 0, 0))
    assert refusal(empty, empty_bytes) is RejectionReason.MALFORMED
