"""The tree of a blob as one byte string: its nodes breadth first, each behind four bytes of length.

It is what a peer sends before the leaves and what lies beside the file. Reading it checks every node against its CID
and bounds size, leaves and depth before anything of the file itself is fetched.

What the node asks of a blob store, whichever engine stands behind it.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from learnchain.encoding import content_id
from learnchain.rejection import Rejected, RejectionReason, Unavailable

_SMALLEST_USUAL_LEAF_BYTES = 65_536
_FREE_LEAVES = 64
_TREE_BYTES_PER_LEAF = 160
REQUEST_SECONDS = 20
"""How long a store elsewhere may take to answer one request."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Place one raw block in the file."""

    cid: content_id.Cid
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Tree:
    """List the leaves of a blob in the order in which its nodes name them."""

    root: content_id.Cid
    size_bytes: int
    leaves: tuple[Leaf, ...]


def maximum_leaves(max_bytes: int) -> int:
    """Return how many leaves a file of at most `max_bytes` may be cut into."""
    return _FREE_LEAVES + max_bytes // _SMALLEST_USUAL_LEAF_BYTES


def maximum_tree_bytes(max_bytes: int) -> int:
    """Return how long the tree of such a file may be."""
    return 65_536 + _TREE_BYTES_PER_LEAF * maximum_leaves(max_bytes)


def write_tree(root: content_id.Link, nodes: Mapping[content_id.Cid, bytes]) -> bytes:
    """Return the tree below a root whose nodes are at hand; nothing for a blob of one raw leaf."""
    written = bytearray()
    waiting = deque([root])
    while waiting:
        link = waiting.popleft()
        if content_id.parse_cid(link.cid).codec is content_id.Codec.DAG_PB:
            node = nodes[link.cid]
            written += len(node).to_bytes(4, "big") + node
            waiting.extend(content_id.decode_node(link.cid, node))
    return bytes(written)


def nodes_of_tree(root: content_id.Cid, written: bytes) -> list[content_id.IpldBlock]:
    """Return the nodes of a tree that `read_tree` has found right, in the order in which they were written."""
    position = 0
    nodes: list[content_id.IpldBlock] = []
    waiting = deque([root])
    while waiting:
        cid = waiting.popleft()
        if content_id.parse_cid(cid).codec is content_id.Codec.DAG_PB:
            node, position = _next_node(written, position)
            nodes.append(content_id.IpldBlock(cid, node))
            waiting.extend(link.cid for link in content_id.decode_node(cid, node))
    return nodes


def read_tree(root: content_id.Cid, written: bytes, max_bytes: int) -> Tree:
    """Return the tree that `written` spells.

    `WRONG_HASH` means that these are not the bytes of this CID: blame who sent them. Any other reason is a property of
    the CID itself: no source can give anything better.
    """
    position = 0
    leaves: list[Leaf] = []
    waiting: deque[tuple[content_id.Link, int, int]] = deque([(content_id.Link(root, -1, 0), 0, 0)])
    size_bytes = -1
    while waiting:
        link, offset, depth = waiting.popleft()
        if content_id.parse_cid(link.cid).codec is content_id.Codec.RAW:
            leaves.append(_leaf(link, offset))
            continue
        node, position = _next_node(written, position)
        links = content_id.decode_node(link.cid, node)
        total = sum(child.file_bytes for child in links)
        size_bytes = total if size_bytes < 0 else size_bytes
        if depth >= content_id.MAXIMUM_DEPTH or total > max_bytes:
            detail = f"a blob of {total} bytes or too many levels; {max_bytes} allowed"
            raise Rejected(RejectionReason.TOO_LARGE, detail)
        if link.file_bytes not in {-1, total}:
            raise Rejected(RejectionReason.MALFORMED, "a node holds another size than its parent says")
        if len(leaves) + len(waiting) + len(links) > maximum_leaves(max_bytes):
            raise Rejected(RejectionReason.TOO_LARGE, "the blob is cut into too many leaves")
        for child in links:
            waiting.append((child, offset, depth + 1))
            offset += child.file_bytes
    if position != len(written):
        raise Rejected(RejectionReason.WRONG_HASH, "bytes follow the tree")
    return Tree(root, size_bytes, tuple(leaves))


def _leaf(link: content_id.Link, offset: int) -> Leaf:
    if link.file_bytes < 1:
        raise Rejected(RejectionReason.MALFORMED, "a leaf of a tree is empty, or the root is one")
    if link.file_bytes > content_id.MAXIMUM_BLOCK_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a leaf of {link.file_bytes} bytes")
    return Leaf(link.cid, offset, link.file_bytes)


def _next_node(written: bytes, position: int) -> tuple[bytes, int]:
    begin = position + 4
    end = begin + int.from_bytes(written[position:begin], "big")
    if begin > len(written) or end > len(written):
        raise Rejected(RejectionReason.WRONG_HASH, "the tree ends early")
    return written[begin:end], end


Progress = Callable[[int, int], None]
"""(bytes that are here, bytes in all)."""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """Say how much of a blob is here; `size_bytes` is None while nothing is known of it."""

    cid: content_id.Cid
    size_bytes: int | None
    complete: bool
    pinned: bool


class BlobNotFound(Unavailable):
    """Say that none of the peers that were asked has all of a blob; a full disk or a lost peer is another matter."""

    def __init__(self, what: str, asked: int) -> None:
        super().__init__(what)
        self.asked = asked


class BlobStore(Protocol):
    """Keep blobs by their CID and find those that are elsewhere."""

    async def add(self, path: Path) -> content_id.Cid:
        """Take a copy of a file; return its CID."""

    async def add_bytes(self, data: bytes) -> content_id.Cid:
        """Take bytes; return their CID."""

    async def stat(self, cid: content_id.Cid) -> BlobStat:
        """Say what is here, without asking anybody."""

    async def fetch(
        self, cid: content_id.Cid, *, max_bytes: int, sources: Sequence[bytes] = (), progress: Progress | None = None
    ) -> Path:
        """Return a file that holds the blob; raise `Unavailable` when nobody has it, `TOO_LARGE` above `max_bytes`."""

    async def read(self, cid: content_id.Cid, max_bytes: int) -> bytes:
        """Return the bytes of a blob, fetched if need be."""

    def path(self, cid: content_id.Cid) -> Path | None:
        """Return the file of a blob that is here, else None."""

    async def handed_over(self) -> None:
        """Wait until a store elsewhere, if there is one, has all that was added; `Unavailable` if it takes it not."""

    async def pin(self, cid: content_id.Cid) -> None:
        """Keep a blob whatever the quota says, whether it is here yet or not."""

    async def unpin(self, cid: content_id.Cid) -> None:
        """Let the quota decide again."""

    async def discard(self, cid: content_id.Cid) -> int:
        """Delete a blob, pinned or not; return the bytes freed."""

    def used_bytes(self) -> int:
        """Return the bytes that blobs take on this disk."""


async def walk_tree(
    root: content_id.Cid, max_bytes: int, block: Callable[[content_id.Cid], Awaitable[bytes | None]]
) -> bytes | None:
    """Return the written tree of a blob whose blocks are given singly; None when one of them is not to be had.

    Each node is checked before its children are asked for, and all of them together are bounded: nobody can make us
    walk without end.
    """
    written, waiting = bytearray(), deque([root])
    while waiting:
        cid = waiting.popleft()
        if content_id.parse_cid(cid).codec is content_id.Codec.RAW:
            continue
        node = await block(cid)
        if node is None:
            return None
        content_id.check_cid(cid, node)
        written += len(node).to_bytes(4, "big") + node
        if len(written) > maximum_tree_bytes(max_bytes):
            raise Rejected(RejectionReason.TOO_LARGE, f"a tree above {maximum_tree_bytes(max_bytes)} bytes")
        waiting.extend(link.cid for link in content_id.decode_node(cid, node))
    return bytes(written)
