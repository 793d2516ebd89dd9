"""Blobs in a directory that several nodes of one machine, or of one file server, share: the layout of `s3`."""

import asyncio
import shutil
import uuid
from pathlib import Path

from learnchain.node.blobs.tree import Leaf, Tree, maximum_tree_bytes
from learnchain.node.storage.files import disk_refused
from learnchain.primitives.content_id import Cid, cid_text
from learnchain.primitives.rejection import Unavailable


class Folder:
    """Keep blobs as `trees/CID` and `files/CID`, moved into place when they are whole; `pins/CID` marks some."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def tree(self, cid: Cid, max_bytes: int) -> bytes | None:
        """Return the written tree."""
        return await asyncio.to_thread(_read, self._place("trees", cid), 0, None, maximum_tree_bytes(max_bytes))

    async def leaf(self, root: Cid, leaf: Leaf, limit_bytes: int) -> bytes | None:
        """Return one leaf: a part of the file, or all of a file that is one leaf."""
        size = None if leaf.size < 0 else leaf.size
        return await asyncio.to_thread(_read, self._place("files", root), leaf.offset, size, limit_bytes)

    async def put(self, tree: Tree, written: bytes, path: Path) -> None:
        """Store the file, then its tree: whoever finds the tree finds the leaves."""
        await asyncio.to_thread(self._put, tree, written, path)

    async def pin(self, cid: Cid) -> None:
        """Mark a blob as to be kept."""
        await asyncio.to_thread(self._write, self._place("pins", cid), b"")

    async def unpin(self, cid: Cid) -> None:
        """Take the mark away."""
        self._place("pins", cid).unlink(missing_ok=True)

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    def _put(self, tree: Tree, written: bytes, path: Path) -> None:
        self._write(self._place("files", tree.root), path)
        if written:
            self._write(self._place("trees", tree.root), written)

    def _write(self, place: Path, content: bytes | Path) -> None:
        temporary = place.with_name(f".{uuid.uuid4().hex}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                shutil.copyfile(content, temporary)
            temporary.replace(place)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise disk_refused(place, error) from error

    def _place(self, kind: str, cid: Cid) -> Path:
        return self._directory / kind / cid_text(cid)


def _read(path: Path, offset: int, size: int | None, limit_bytes: int) -> bytes | None:
    try:
        whole = path.stat().st_size
        if size is None and whole > limit_bytes:
            raise Unavailable(f"the blob folder: {path.name} has {whole} bytes where {limit_bytes} are allowed")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit_bytes if size is None else size)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"the blob folder: {error}") from error
