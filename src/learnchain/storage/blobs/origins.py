"""Blobs in a directory that several nodes of one machine, or of one file server, share: the layout of `s3`.

Blobs in an S3 bucket: `trees/CID` and `files/CID`, written in one piece each; `pins/CID` marks what to keep.

The bucket's own rules may delete what has no pin. Credentials come from the environment (AWS_ACCESS_KEY_ID and its
kin), never from settings. Needs the extra `s3`.

Where a node's blobs lie beside its own disk: a kubo node, an IPFS gateway, an S3 bucket or a shared folder.

An origin is one more source of trees and leaves, asked before any peer. It is believed as little as they are: every
byte it sends is hashed against its CID by `PeerBlobs`, and what it sends is bounded before it is read.
"""

import asyncio
import shutil
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from learnchain.encoding.content_id import Cid, cid_text
from learnchain.encoding.files import storage_error
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.blobs.blob_store import REQUEST_SECONDS, Leaf, Tree, maximum_tree_bytes


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

    def _write(self, path: Path, content: bytes | Path) -> None:
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                shutil.copyfile(content, temporary)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise storage_error(path, error) from error

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


_Answer = TypeVar("_Answer")


def open_bucket(text: str) -> "Bucket":
    """Return the bucket that `BUCKET[/PREFIX]` names at AWS, or `http(s)://HOST[:PORT]/BUCKET[/PREFIX]` elsewhere."""
    try:
        from obstore.store import S3Store
    except ImportError as error:
        detail = "S3 needs the extra `s3`: pip install 'learnchain[s3]'"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail) from error
    options: dict[str, Any] = {"client_options": {"timeout": f"{REQUEST_SECONDS}s"}}
    path = text
    if text.startswith(("http://", "https://")):
        parts = urlsplit(text)
        path, options["endpoint"] = parts.path, f"{parts.scheme}://{parts.netloc}"
        options["client_options"]["allow_http"] = parts.scheme == "http"
    bucket, _, prefix = path.strip("/").partition("/")
    if not bucket:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{text!r} names no bucket")
    return Bucket(S3Store(bucket, prefix=prefix or None, **options))


class Bucket:
    """Keep blobs in one bucket."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def tree(self, cid: Cid, max_bytes: int) -> bytes | None:
        """Return the written tree."""
        return await self._read_bounded(f"trees/{cid_text(cid)}", maximum_tree_bytes(max_bytes))

    async def leaf(self, root: Cid, leaf: Leaf, limit_bytes: int) -> bytes | None:
        """Return one leaf: a range of the file, or all of a file that is one leaf."""
        name = f"files/{cid_text(root)}"
        if leaf.size < 0:
            return await self._read_bounded(name, limit_bytes)
        if leaf.size == 0:
            return b""
        import obstore

        found = await _request(obstore.get_range_async(self._store, name, start=leaf.offset, length=leaf.size))
        return None if found is None else bytes(found)

    async def put(self, tree: Tree, written: bytes, path: Path) -> None:
        """Store the file, then its tree: whoever finds the tree finds the leaves."""
        import obstore

        await _request(obstore.put_async(self._store, f"files/{cid_text(tree.root)}", path))
        if written:
            await _request(obstore.put_async(self._store, f"trees/{cid_text(tree.root)}", written))

    async def pin(self, cid: Cid) -> None:
        """Mark a blob as to be kept."""
        import obstore

        await _request(obstore.put_async(self._store, f"pins/{cid_text(cid)}", b""))

    async def unpin(self, cid: Cid) -> None:
        """Take the mark away."""
        import obstore

        await _request(obstore.delete_async(self._store, f"pins/{cid_text(cid)}"))

    async def close(self) -> None:
        """Do nothing: connections end by themselves."""

    async def _read_bounded(self, name: str, limit_bytes: int) -> bytes | None:
        """Return a whole object; its size is known, and judged, before its bytes are read."""
        import obstore

        found = await _request(obstore.get_async(self._store, name))
        if found is None:
            return None
        size = int(found.meta["size"])
        if size > limit_bytes:
            raise Unavailable(f"the bucket: {name} has {size} bytes where {limit_bytes} are allowed")
        return bytes(await found.bytes_async())


async def _request(request: Awaitable[_Answer]) -> _Answer | None:
    """Return what the bucket answers, None for an object that is not there."""
    from obstore.exceptions import BaseError, NotFoundError

    try:
        return await request
    except (NotFoundError, FileNotFoundError):
        return None
    except (BaseError, OSError) as error:
        raise Unavailable(f"the bucket: {str(error)[:300]}") from error


EMBEDDED = "embedded"


class BlobOrigin(Protocol):
    """Keep whole blobs elsewhere; `Unavailable` from any method means: not now, others may have it."""

    async def tree(self, cid: Cid, max_bytes: int) -> bytes | None:
        """Return the written tree of a blob, None for one that is not there; it is checked by whoever asked."""

    async def leaf(self, root: Cid, leaf: Leaf, limit_bytes: int) -> bytes | None:
        """Return one leaf; of an answer above `limit_bytes` no more is read, and it is `Unavailable`."""

    async def put(self, tree: Tree, written: bytes, path: Path) -> None:
        """Keep a whole blob: its written tree and the file of its leaves."""

    async def pin(self, cid: Cid) -> None:
        """Keep a blob whatever the other side's garbage collection says."""

    async def unpin(self, cid: Cid) -> None:
        """Let go of a blob."""

    async def close(self) -> None:
        """End all connections."""


def open_origin(text: str) -> BlobOrigin | None:
    """Return what a setting names: `embedded`, `kubo:URL`, `gateway:URL`, `s3:[URL/]BUCKET[/PREFIX]`, `folder:PATH`."""
    kind, _, rest = text.partition(":")
    if text == EMBEDDED:
        return None
    if kind in {"kubo", "gateway"} and rest.startswith(("http://", "https://")):
        from learnchain.storage.blobs.kubo import Gateway, Kubo

        return Kubo(rest) if kind == "kubo" else Gateway(rest)
    if kind == "s3" and rest:
        return open_bucket(rest)
    if kind == "folder" and Path(rest).is_absolute():
        return Folder(Path(rest))
    detail = f"{text!r} is none of embedded, kubo:URL, gateway:URL, s3:[URL/]BUCKET[/PREFIX], folder:/PATH"
    raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
