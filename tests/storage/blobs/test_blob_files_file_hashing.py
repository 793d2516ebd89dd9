"""Hashing in parallel gives what hashing in order gives."""

from pathlib import Path

import pytest

from learnchain.encoding.content_id import FileBuilder, Layout, cid_of_block, cid_of_bytes
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.blobs.blob_files import tree_of_file
from learnchain.storage.blobs.blob_store import read_tree, write_tree

NARROW = Layout(leaf_bytes=100, width=3)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 300, 301, 2_700, 2_701, 60_000])
def test_same_root_and_nodes_as_in_order(tmp_path: Path, size: int) -> None:
    data = (b"%d" % size + bytes(range(256)) * 240)[:size]
    (tmp_path / "file").write_bytes(data)
    root, nodes = tree_of_file(tmp_path / "file", NARROW)
    assert root.cid == cid_of_bytes(data, NARROW)
    assert root.file_bytes == size
    if 100 < size <= 2_700:
        tree = read_tree(root.cid, write_tree(root, nodes), size)
        assert tree.size_bytes == size
        assert [leaf.cid for leaf in tree.leaves] == [cid_of_block(data[i : i + 100]) for i in range(0, size, 100)]


@pytest.mark.parametrize("size", [0, 101])
def test_leaf_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(Rejected) as caught:
        FileBuilder(NARROW).add_hashed(cid_of_block(b"x"), size)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
