"""Blobs in an S3 bucket: `trees/CID` and `files/CID`, written in one piece each; `pins/CID` marks what to keep.

The bucket's own rules may delete what has no pin. Credentials come from the environment (AWS_ACCESS_KEY_ID and its
kin), never from settings. Needs the extra `s3`.
"""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from learnchain.node.blobs.origin import REQUEST_SECONDS
from learnchain.node.blobs.tree import Leaf, Tree, maximum_tree_bytes
from learnchain.primitives.content_id import Cid, cid_text
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

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
        return await self._bounded(f"trees/{cid_text(cid)}", maximum_tree_bytes(max_bytes))

    async def leaf(self, root: Cid, leaf: Leaf, limit_bytes: int) -> bytes | None:
        """Return one leaf: a range of the file, or all of a file that is one leaf."""
        name = f"files/{cid_text(root)}"
        if leaf.size < 0:
            return await self._bounded(name, limit_bytes)
        if leaf.size == 0:
            return b""
        import obstore

        found = await _asked(obstore.get_range_async(self._store, name, start=leaf.offset, length=leaf.size))
        return None if found is None else bytes(found)

    async def put(self, tree: Tree, written: bytes, path: Path) -> None:
        """Store the file, then its tree: whoever finds the tree finds the leaves."""
        import obstore

        await _asked(obstore.put_async(self._store, f"files/{cid_text(tree.root)}", path))
        if written:
            await _asked(obstore.put_async(self._store, f"trees/{cid_text(tree.root)}", written))

    async def pin(self, cid: Cid) -> None:
        """Mark a blob as to be kept."""
        import obstore

        await _asked(obstore.put_async(self._store, f"pins/{cid_text(cid)}", b""))

    async def unpin(self, cid: Cid) -> None:
        """Take the mark away."""
        import obstore

        await _asked(obstore.delete_async(self._store, f"pins/{cid_text(cid)}"))

    async def close(self) -> None:
        """Do nothing: connections end by themselves."""

    async def _bounded(self, name: str, limit_bytes: int) -> bytes | None:
        """Return a whole object; its size is known, and judged, before its bytes are read."""
        import obstore

        found = await _asked(obstore.get_async(self._store, name))
        if found is None:
            return None
        size = int(found.meta["size"])
        if size > limit_bytes:
            raise Unavailable(f"the bucket: {name} has {size} bytes where {limit_bytes} are allowed")
        return bytes(await found.bytes_async())


async def _asked(request: Awaitable[_Answer]) -> _Answer | None:
    """Return what the bucket answers, None for an object that is not there."""
    from obstore.exceptions import BaseError, NotFoundError

    try:
        return await request
    except (NotFoundError, FileNotFoundError):
        return None
    except (BaseError, OSError) as error:
        raise Unavailable(f"the bucket: {str(error)[:300]}") from error
