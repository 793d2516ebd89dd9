"""Hash a file into its tree on every core: leaves are independent, and BLAKE3 lets go of the interpreter's lock.

Blobs on the local disk, safe against a kill at any moment.

    files/CID     whole blobs, renamed into place after they were written and synced
    trees/CID     their nodes (see `tree`), absent for blobs of one leaf
    partial/CID   leaves that have arrived so far, each at its offset
    pins/CID      empty: keep this blob
    owed/CID      empty: the store elsewhere has to get this blob still

What lies in `partial` is believed only leaf by leaf, by hash: so a resumed fetch needs no journal.
"""

import contextlib
import errno
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import local

from learnchain.encoding import content_id
from learnchain.encoding.files import storage_error, sync_file
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.blobs.blob_store import Leaf, Tree, read_tree, write_tree

_MAXIMUM_THREADS = 8
_LEAVES_A_TURN = 16
"""Leaves that a thread hashes before it asks for more: handing them out one by one took a tenth of the time."""
_LEAVES_AT_A_TIME = 4_096
"""Leaves whose hashes are under way together: bounds what a huge file keeps in memory."""


def tree_of_file(
    path: Path, layout: content_id.Layout = content_id.UNIXFS_V1_2025
) -> tuple[content_id.Link, dict[content_id.Cid, bytes]]:
    """Return the root of a file and its nodes by CID, the leaves left out; the same as `FileBuilder` gives."""
    builder, nodes = content_id.FileBuilder(layout), dict[content_id.Cid, bytes]()
    descriptor = os.open(path, os.O_RDONLY)

    rooms = local()

    def leaves(offsets: range) -> list[tuple[content_id.Cid, int]]:
        # A read rather than a memory map: a file that shrinks meanwhile is an error then, not a crash, and the faults
        # of a map cost as much as the copy. Each thread reads into one room again and again, which stays in the cache.
        if not hasattr(rooms, "room"):
            rooms.room = bytearray(layout.leaf_bytes)
        found: list[tuple[content_id.Cid, int]] = []
        for offset in offsets:
            size = os.preadv(descriptor, [rooms.room], offset)
            found.append((content_id.cid_of_block(memoryview(rooms.room)[:size], hash_kind=layout.hash_kind), size))
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


_FOLDERS = ("files", "trees", "partial", "pins", "owed", "temporary")
_LOCAL_BYTES = 1 << 50
"""Trees that lie here were bounded when they came; size does not matter any more."""
_CACHED_TREES = 64


class BlobFiles:
    """Store, read, verify and delete blobs of one directory; synchronous."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._trees: OrderedDict[content_id.Cid, Tree] = OrderedDict()
        self._made = 0
        for folder in _FOLDERS:
            (directory / folder).mkdir(parents=True, exist_ok=True)
        for leftover in (directory / "temporary").iterdir():
            leftover.unlink()

    def path(self, cid: content_id.Cid) -> Path | None:
        """Return the file of a whole blob and note that it was used."""
        path = self._place("files", cid)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def add_file(self, source: Path) -> content_id.Cid:
        """Copy a file and hash the copy, on all cores: what is named is what lies here, whoever writes the source."""
        temporary = self._temporary()
        try:
            shutil.copyfile(source, temporary)
            root, nodes = tree_of_file(temporary)
            sync_file(temporary)
            if tree := write_tree(root, nodes):
                self.put_tree(root.cid, tree)
            self._move(temporary, self._place("files", root.cid))
        finally:
            temporary.unlink(missing_ok=True)
        return root.cid

    def add(self, chunks: Iterator[bytes]) -> content_id.Cid:
        """Write a blob from chunks of the layout's leaf size; raise `Unavailable` when the disk is full."""
        with self._writing():
            return self._add(chunks)

    def _add(self, chunks: Iterator[bytes]) -> content_id.Cid:
        builder = content_id.FileBuilder()
        nodes: dict[content_id.Cid, bytes] = {}
        temporary = self._temporary()
        try:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    nodes |= {block.cid: block.data for block in builder.add(chunk)[1:]}
                nodes |= {block.cid: block.data for block in builder.finish()}
                _sync(file.fileno())
            root = builder.root
            if tree := write_tree(root, nodes):
                self.put_tree(root.cid, tree)
            self._move(temporary, self._place("files", root.cid))
        finally:
            temporary.unlink(missing_ok=True)
        return root.cid

    def put_tree(self, cid: content_id.Cid, written: bytes) -> None:
        """Keep the tree of a blob, whole or to be fetched."""
        temporary = self._temporary()
        with self._writing():
            try:
                with temporary.open("wb") as file:
                    file.write(written)
                    _sync(file.fileno())
                self._move(temporary, self._place("trees", cid))
            finally:
                temporary.unlink(missing_ok=True)

    def tree_bytes(self, cid: content_id.Cid) -> bytes | None:
        """Return the written tree, if it is here."""
        try:
            return self._place("trees", cid).read_bytes()
        except FileNotFoundError:
            return None

    def tree(self, cid: content_id.Cid) -> Tree | None:
        """Return the tree of a blob that is here or under way; a damaged one is dropped."""
        if cid in self._trees:
            self._trees.move_to_end(cid)
            return self._trees[cid]
        tree = (
            self._single_leaf(cid) if content_id.parse_cid(cid).codec is content_id.Codec.RAW else self._read_tree(cid)
        )
        if tree is not None:
            self._trees[cid] = tree
            if len(self._trees) > _CACHED_TREES:
                self._trees.popitem(last=False)
        return tree

    def read_leaf(self, cid: content_id.Cid, leaf: Leaf) -> bytes | None:
        """Return a leaf of a whole or a partial blob, if it is here and hashes right."""
        for folder in ("files", "partial"):
            with contextlib.suppress(FileNotFoundError), self._place(folder, cid).open("rb") as file:
                file.seek(leaf.offset)
                data = file.read(leaf.size)
                with contextlib.suppress(Rejected):
                    content_id.check_cid(leaf.cid, data)
                    return data
        return None

    def write_leaf(self, cid: content_id.Cid, leaf: Leaf, data: bytes) -> None:
        """Write a checked leaf to its place in the partial file."""
        with self._writing():
            descriptor = os.open(self._place("partial", cid), os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                written = os.pwrite(descriptor, data, leaf.offset)
            finally:
                os.close(descriptor)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def find_missing_leaves(self, tree: Tree) -> list[int]:
        """Return the leaves of a partial blob that are not here, by reading and hashing what is."""
        return [index for index, leaf in enumerate(tree.leaves) if self.read_leaf(tree.root, leaf) is None]

    def complete(self, tree: Tree) -> Path:
        """Turn a partial blob, all leaves of which are here, into a whole one."""
        partial, path = self._place("partial", tree.root), self._place("files", tree.root)
        with self._writing():
            descriptor = os.open(partial, os.O_RDWR)
            try:
                os.ftruncate(descriptor, tree.size_bytes)
                _sync(descriptor)
            finally:
                os.close(descriptor)
            self._move(partial, path)
        return path

    def verify(self, cid: content_id.Cid) -> None:
        """Hash a whole blob again; what does not match is deleted and `WRONG_HASH`."""
        tree = self.tree(cid)
        if tree is None or any(self.read_leaf(cid, leaf) is None for leaf in tree.leaves):
            self.delete(cid)
            raise Rejected(
                RejectionReason.WRONG_HASH, f"the stored blob {content_id.cid_text(cid)} is damaged or incomplete"
            )

    def discard(self, cid: content_id.Cid) -> int:
        """Delete a blob and its pin; return the bytes freed."""
        freed = 0
        for folder in ("files", "partial"):
            with contextlib.suppress(FileNotFoundError):
                freed += self._place(folder, cid).stat().st_size
        self.unpin(cid)
        self.delete(cid)
        return freed

    def delete(self, cid: content_id.Cid) -> None:
        """Delete everything of a blob but its pin."""
        self._trees.pop(cid, None)
        for folder in ("files", "partial", "trees"):
            self._place(folder, cid).unlink(missing_ok=True)

    def pin(self, cid: content_id.Cid) -> None:
        """Keep a blob."""
        with self._writing():
            # Not synced: a pin that a power cut took is made again at the next start.
            self._place("pins", cid).touch()

    def unpin(self, cid: content_id.Cid) -> None:
        """Let go of a blob."""
        self._place("pins", cid).unlink(missing_ok=True)

    def is_pinned(self, cid: content_id.Cid) -> bool:
        """Return whether a blob is to be kept."""
        return self._place("pins", cid).exists()

    def pins(self) -> tuple[content_id.Cid, ...]:
        """Return every pinned blob."""
        return tuple(cid for cid, _ in self._list_blobs("pins"))

    def owe(self, cid: content_id.Cid) -> None:
        """Note that the store elsewhere has to get a blob."""
        with self._writing():
            self._place("owed", cid).touch()

    def settle(self, cid: content_id.Cid) -> None:
        """Note that it has it."""
        self._place("owed", cid).unlink(missing_ok=True)

    def list_undelivered(self) -> tuple[content_id.Cid, ...]:
        """Return every blob that the store elsewhere has to get still."""
        return tuple(cid for cid, _ in self._list_blobs("owed"))

    def used_bytes(self) -> int:
        """Return the bytes of files that blobs take, whole and partial."""
        return sum(path.stat().st_size for folder in ("files", "partial") for _, path in self._list_blobs(folder))

    def collect(self, quota_bytes: int, keep: frozenset[content_id.Cid] = frozenset()) -> int:
        """Delete unpinned blobs, least recently used first, until the rest fits; return the bytes freed."""
        excess = self.used_bytes() - quota_bytes
        found = [
            (path.stat().st_mtime_ns, cid, path)
            for folder in ("partial", "files")
            for cid, path in self._list_blobs(folder)
        ]
        freed = 0
        for _, cid, path in sorted(found):
            if freed >= excess:
                break
            if cid not in keep and not self.is_pinned(cid):
                freed += path.stat().st_size
                self.delete(cid)
        return freed

    def free_disk_bytes(self) -> int:
        """Return what the disk has left."""
        return shutil.disk_usage(self._directory).free

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what a full disk does into `Unavailable`; what was half written is never believed."""
        try:
            yield
        except OSError as error:
            raise storage_error(self._directory, error) from error

    def _list_blobs(self, folder: str) -> Iterator[tuple[content_id.Cid, Path]]:
        for path in sorted((self._directory / folder).iterdir()):
            with contextlib.suppress(Rejected):
                yield content_id.cid_from_text(path.name), path

    def _single_leaf(self, cid: content_id.Cid) -> Tree | None:
        try:
            size = self._place("files", cid).stat().st_size
        except FileNotFoundError:
            return None
        return Tree(cid, size, (Leaf(cid, 0, size),))

    def _read_tree(self, cid: content_id.Cid) -> Tree | None:
        written = self.tree_bytes(cid)
        if written is None:
            return None
        try:
            return read_tree(cid, written, _LOCAL_BYTES)
        except Rejected:
            self.delete(cid)
            return None

    def _place(self, folder: str, cid: content_id.Cid) -> Path:
        content_id.parse_cid(cid)
        return self._directory / folder / content_id.cid_text(cid)

    def _temporary(self) -> Path:
        self._made += 1
        return self._directory / "temporary" / str(self._made)

    def _move(self, source: Path, target: Path) -> None:
        source.replace(target)
        sync_file(target.parent)


def chunks_of_bytes(data: bytes) -> Iterator[bytes]:
    """Yield bytes in leaves."""
    for start in range(0, len(data), content_id.UNIXFS_V1_2025.leaf_bytes):
        yield data[start : start + content_id.UNIXFS_V1_2025.leaf_bytes]


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)
