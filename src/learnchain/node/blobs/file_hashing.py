"""Hash a file into its tree on every core: leaves are independent, and BLAKE3 lets go of the interpreter's lock."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import local

from learnchain.primitives.content_id import Cid, cid_of_block
from learnchain.primitives.unixfs import UNIXFS_V1_2025, FileBuilder, Layout, Link

_MAXIMUM_THREADS = 8
_LEAVES_A_TURN = 16
"""Leaves that a thread hashes before it asks for more: handing them out one by one took a tenth of the time."""
_LEAVES_AT_A_TIME = 4_096
"""Leaves whose hashes are under way together: bounds what a huge file keeps in memory."""


def tree_of_file(path: Path, layout: Layout = UNIXFS_V1_2025) -> tuple[Link, dict[Cid, bytes]]:
    """Return the root of a file and its nodes by CID, the leaves left out; the same as `FileBuilder` gives."""
    builder, nodes = FileBuilder(layout), dict[Cid, bytes]()
    descriptor = os.open(path, os.O_RDONLY)

    rooms = local()

    def leaves(offsets: range) -> list[tuple[Cid, int]]:
        # A read rather than a memory map: a file that shrinks meanwhile is an error then, not a crash, and the faults
        # of a map cost as much as the copy. Each thread reads into one room again and again, which stays in the cache.
        if not hasattr(rooms, "room"):
            rooms.room = bytearray(layout.leaf_bytes)
        found: list[tuple[Cid, int]] = []
        for offset in offsets:
            size = os.preadv(descriptor, [rooms.room], offset)
            found.append((cid_of_block(memoryview(rooms.room)[:size], hash_kind=layout.hash_kind), size))
        return found

    try:
        offsets = range(0, os.fstat(descriptor).st_size, layout.leaf_bytes)
        threads = min(_MAXIMUM_THREADS, os.cpu_count() or 1)
        turn = max(1, min(_LEAVES_A_TURN, len(offsets) // threads))
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(offsets), _LEAVES_AT_A_TIME):
                part = offsets[start : start + _LEAVES_AT_A_TIME]
                turns = [part[begin : begin + turn] for begin in range(0, len(part), turn)]
                for cid, size in chain.from_iterable(pool.map(leaves, turns)):
                    nodes |= {block.cid: block.data for block in builder.add_hashed(cid, size)}
        # Of an empty file the one leaf is closed here: no node, and nobody asks for it by a tree.
        nodes |= {block.cid: block.data for block in builder.finish()}
    finally:
        os.close(descriptor)
    return builder.root, nodes
