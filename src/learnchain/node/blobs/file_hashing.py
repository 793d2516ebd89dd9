"""Hash a file into its tree on every core: leaves are independent, and BLAKE3 lets go of the interpreter's lock."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

from learnchain.primitives.content_id import Cid, cid_of_block
from learnchain.primitives.unixfs import UNIXFS_V1_2025, FileBuilder, Layout, Link

_MAXIMUM_THREADS = 8
_LEAVES_AT_A_TIME = 256
"""Leaves whose hashes are under way together: bounds what a huge file keeps in memory."""


def tree_of_file(path: Path, layout: Layout = UNIXFS_V1_2025) -> tuple[Link, dict[Cid, bytes]]:
    """Return the root of a file and its nodes by CID, the leaves left out; the same as `FileBuilder` gives."""
    builder, nodes = FileBuilder(layout), dict[Cid, bytes]()
    descriptor = os.open(path, os.O_RDONLY)

    rooms = local()

    def leaf(offset: int) -> tuple[Cid, int]:
        # A read rather than a memory map: a file that shrinks meanwhile is an error then, not a crash. Each thread
        # reads into one room again and again, which stays in the processor's cache.
        if not hasattr(rooms, "room"):
            rooms.room = bytearray(layout.leaf_bytes)
        size = os.preadv(descriptor, [rooms.room], offset)
        return cid_of_block(memoryview(rooms.room)[:size], hash_kind=layout.hash_kind), size

    try:
        offsets = range(0, os.fstat(descriptor).st_size, layout.leaf_bytes)
        threads = min(_MAXIMUM_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(offsets), _LEAVES_AT_A_TIME):
                for cid, size in pool.map(leaf, offsets[start : start + _LEAVES_AT_A_TIME]):
                    nodes |= {block.cid: block.data for block in builder.add_hashed(cid, size)}
        # Of an empty file the one leaf is closed here: no node, and nobody asks for it by a tree.
        nodes |= {block.cid: block.data for block in builder.finish()}
    finally:
        os.close(descriptor)
    return builder.root, nodes
