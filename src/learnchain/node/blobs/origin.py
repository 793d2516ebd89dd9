"""Where a node's blobs lie beside its own disk: a kubo node, an IPFS gateway, an S3 bucket or a shared folder.

An origin is one more source of trees and leaves, asked before any peer. It is believed as little as they are: every
byte it sends is hashed against its CID by `PeerBlobs`, and what it sends is bounded before it is read.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from learnchain.node.blobs.tree import Leaf, Tree, maximum_tree_bytes
from learnchain.primitives.content_id import Cid, Codec, check_block, parse_cid
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.unixfs import decode_node

EMBEDDED = "embedded"
REQUEST_SECONDS = 20


class BlobOrigin(Protocol):
    """Keep whole blobs elsewhere; `Unavailable` from any method means: not now, others may have it."""

    async def tree(self, cid: Cid, max_bytes: int) -> bytes | None:
        """Return the written tree of a blob, None for one that is not there; it is checked by whoever asked."""
        ...

    async def leaf(self, root: Cid, leaf: Leaf, limit_bytes: int) -> bytes | None:
        """Return one leaf; of an answer above `limit_bytes` no more is read, and it is `Unavailable`."""
        ...

    async def put(self, tree: Tree, written: bytes, path: Path) -> None:
        """Keep a whole blob: its written tree and the file of its leaves."""
        ...

    async def pin(self, cid: Cid) -> None:
        """Keep a blob whatever the other side's garbage collection says."""
        ...

    async def unpin(self, cid: Cid) -> None:
        """Let go of a blob."""
        ...

    async def close(self) -> None:
        """End all connections."""
        ...


def open_origin(text: str) -> BlobOrigin | None:
    """Return what a setting names: `embedded`, `kubo:URL`, `gateway:URL`, `s3:[URL/]BUCKET[/PREFIX]`, `folder:PATH`."""
    kind, _, rest = text.partition(":")
    if text == EMBEDDED:
        return None
    if kind in {"kubo", "gateway"} and rest.startswith(("http://", "https://")):
        from learnchain.node.blobs.kubo import Gateway, Kubo

        return Kubo(rest) if kind == "kubo" else Gateway(rest)
    if kind == "s3" and rest:
        from learnchain.node.blobs.s3 import open_bucket

        return open_bucket(rest)
    if kind == "folder" and Path(rest).is_absolute():
        from learnchain.node.blobs.folder import Folder

        return Folder(Path(rest))
    detail = f"{text!r} is none of embedded, kubo:URL, gateway:URL, s3:[URL/]BUCKET[/PREFIX], folder:/PATH"
    raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)


async def walk_tree(root: Cid, max_bytes: int, block: Callable[[Cid], Awaitable[bytes | None]]) -> bytes | None:
    """Return the written tree of a blob whose blocks are given singly; None when one of them is not to be had.

    Each node is checked before its children are asked for, and all of them together are bounded: nobody can make us
    walk without end.
    """
    written, waiting = bytearray(), deque([root])
    while waiting:
        cid = waiting.popleft()
        if parse_cid(cid).codec is Codec.RAW:
            continue
        node = await block(cid)
        if node is None:
            return None
        check_block(cid, node)
        written += len(node).to_bytes(4, "big") + node
        if len(written) > maximum_tree_bytes(max_bytes):
            raise Rejected(RejectionReason.TOO_LARGE, f"a tree above {maximum_tree_bytes(max_bytes)} bytes")
        waiting.extend(link.cid for link in decode_node(cid, node))
    return bytes(written)
