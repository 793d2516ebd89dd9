"""Name content by its hash: IPFS CIDv1 in the one binary form (36 bytes) and the one text form (base32) that we use.

The only link format of the chain. New blobs take BLAKE3, which kubo allows too and which hashes ten
times faster; SHA-256 stays readable. Every varint of such a CID fits one byte, so the form has no second spelling.

Turn a file into a tree of blocks and back: UnixFS in dag-pb, profile `unixfs-v1-2025` (IPIP-499).

The builder streams: it holds one open node a level, never the file. The parser is strict and bounded: one spelling of a
node, no names, no inline data, at most `MAXIMUM_LINKS` links, `MAXIMUM_DEPTH` levels. Trees of other widths and leaf
sizes are read, because kubo's older profiles write them.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from blake3 import blake3

from learnchain.encoding.codec import Exact
from learnchain.rejection import Rejected, RejectionReason

CID_BYTES = 36
Cid = Annotated[bytes, Exact(CID_BYTES)]
"""A CIDv1 in binary: version 1, codec, hash kind, length 32, digest."""
MAXIMUM_BLOCK_BYTES = 2 * 1024 * 1024
"""No block is larger, leaf or node: what IPFS peers agree to exchange."""
_VERSION = 1
_DIGEST_BYTES = 32
_TEXT_LENGTH = 1 + (8 * CID_BYTES + 4) // 5


class Codec(IntEnum):
    """Say how the bytes of a block are to be read."""

    RAW = 0x55
    DAG_PB = 0x70


class HashKind(IntEnum):
    """Say which hash function made the digest (multihash table)."""

    SHA2_256 = 0x12
    BLAKE3 = 0x1E


@dataclass(frozen=True, slots=True)
class CidParts:
    """Hold what a CID says about its block."""

    codec: Codec
    hash_kind: HashKind
    digest: bytes


def cid_of_block(block: bytes | memoryview, codec: Codec = Codec.RAW, hash_kind: HashKind = HashKind.BLAKE3) -> Cid:
    """Return the CID of one block."""
    return bytes((_VERSION, codec, hash_kind, _DIGEST_BYTES)) + _digest(block, hash_kind)


def parse_cid(cid: bytes) -> CidParts:
    """Return the parts of a CID; another version, codec, hash or length is `MALFORMED`."""
    if len(cid) != CID_BYTES or cid[0] != _VERSION or cid[3] != _DIGEST_BYTES:
        raise Rejected(RejectionReason.MALFORMED, "not a CIDv1 with a digest of 32 bytes")
    try:
        return CidParts(Codec(cid[1]), HashKind(cid[2]), cid[4:])
    except ValueError as error:
        raise Rejected(RejectionReason.MALFORMED, f"a CID of codec {cid[1]} and hash {cid[2]} is not in use") from error


def cid_text(cid: Cid) -> str:
    """Return the text form: multibase `b`, lower-case base32 without padding."""
    return "b" + base64.b32encode(cid).decode().rstrip("=").lower()


def cid_from_text(text: str) -> Cid:
    """Return the CID that a text spells; any other spelling of the same bytes is `MALFORMED`."""
    if len(text) != _TEXT_LENGTH or not text.isascii():
        raise Rejected(RejectionReason.MALFORMED, f"a CID is {_TEXT_LENGTH} ASCII characters long")
    encoded = text[1:].upper()
    try:
        cid = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
    except ValueError as error:
        raise Rejected(RejectionReason.MALFORMED, "a CID is written in base32") from error
    parse_cid(cid)
    if cid_text(cid) != text:
        raise Rejected(RejectionReason.MALFORMED, "the CID is not in its canonical spelling")
    return cid


def check_cid(cid: Cid, block: bytes) -> None:
    """Refuse a block that does not hash to its CID."""
    parts = parse_cid(cid)
    if len(block) > MAXIMUM_BLOCK_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a block of {len(block)} bytes")
    if _digest(block, parts.hash_kind) != parts.digest:
        raise Rejected(RejectionReason.WRONG_HASH, f"the block does not hash to {cid_text(cid)}")


def _digest(block: bytes | memoryview, hash_kind: HashKind) -> bytes:
    if hash_kind is HashKind.BLAKE3:
        return blake3(block).digest()
    return hashlib.sha256(block).digest()


MAXIMUM_LINKS = 1_024
MAXIMUM_DEPTH = 4
"""Levels of nodes above the leaves: two hold a tebibyte at full width, four allow for narrow trees of other tools."""
MAXIMUM_FILE_BYTES = 1 << 50
_FILE_TYPE = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """Fix how a file is cut and hashed; equal layouts give equal CIDs everywhere."""

    leaf_bytes: int = 1024 * 1024
    width: int = MAXIMUM_LINKS
    hash_kind: HashKind = HashKind.BLAKE3


UNIXFS_V1_2025 = Layout()
"""What we write: leaves of 1 MiB, 1,024 links a node, BLAKE3."""


@dataclass(frozen=True, slots=True)
class Link:
    """Point to a child: its CID, the bytes of file below it, the bytes of all its blocks together."""

    cid: Cid
    file_bytes: int
    tree_bytes: int


@dataclass(frozen=True, slots=True)
class IpldBlock:
    """Pair a CID with the bytes that hash to it."""

    cid: Cid
    data: bytes


class FileBuilder:
    """Build the tree of one file, chunk by chunk: every call returns the blocks that it closed."""

    def __init__(self, layout: Layout = UNIXFS_V1_2025) -> None:
        if not (2 <= layout.width <= MAXIMUM_LINKS and 1 <= layout.leaf_bytes <= MAXIMUM_BLOCK_BYTES):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"no tree has the layout {layout}")
        self._layout = layout
        self._levels: list[list[Link]] = [[]]
        self._short_leaf = False
        self._leaves = 0

    def add(self, chunk: bytes) -> list[IpldBlock]:
        """Append one leaf; only the last may be shorter than the layout's leaf."""
        self._admit(len(chunk))
        return self._leaf(chunk)

    def add_hashed(self, cid: Cid, size: int) -> list[IpldBlock]:
        """Append one leaf that somebody hashed already, as `cid_of_block` does; return the nodes that it closed."""
        self._admit(size)
        self._leaves += 1
        return self._push(0, Link(cid, size, size))

    def finish(self) -> list[IpldBlock]:
        """Close what is open; the last block ever returned, here or by `add`, is the root."""
        closed: list[IpldBlock] = [] if self._leaves else self._leaf(b"")
        level = 0
        while level < len(self._levels):
            top = level == len(self._levels) - 1
            if self._levels[level] and not (top and len(self._levels[level]) == 1):
                closed += self._close(level)
            level += 1
        return closed

    @property
    def root(self) -> Link:
        """Return the link to the root of the finished file."""
        return self._levels[-1][0]

    def _admit(self, size: int) -> None:
        if self._short_leaf or not 0 < size <= self._layout.leaf_bytes:
            detail = f"every chunk but the last has {self._layout.leaf_bytes} bytes; the last has at least one"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
        self._short_leaf = size < self._layout.leaf_bytes

    def _leaf(self, chunk: bytes) -> list[IpldBlock]:
        block = IpldBlock(cid_of_block(chunk, Codec.RAW, self._layout.hash_kind), chunk)
        self._leaves += 1
        return [block, *self._push(0, Link(block.cid, len(chunk), len(chunk)))]

    def _push(self, level: int, link: Link) -> list[IpldBlock]:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(link)
        return self._close(level) if len(self._levels[level]) == self._layout.width else []

    def _close(self, level: int) -> list[IpldBlock]:
        links = tuple(self._levels[level])
        self._levels[level].clear()
        node = encode_node(links)
        block = IpldBlock(cid_of_block(node, Codec.DAG_PB, self._layout.hash_kind), node)
        file_bytes = sum(link.file_bytes for link in links)
        tree_bytes = len(node) + sum(link.tree_bytes for link in links)
        return [block, *self._push(level + 1, Link(block.cid, file_bytes, tree_bytes))]


def blocks_of_chunks(chunks: Iterable[bytes], layout: Layout = UNIXFS_V1_2025) -> Iterator[IpldBlock]:
    """Yield every block of a file as soon as it is complete: children before parents, the root last."""
    builder = FileBuilder(layout)
    for chunk in chunks:
        yield from builder.add(chunk)
    yield from builder.finish()


def cid_of_chunks(chunks: Iterable[bytes], layout: Layout = UNIXFS_V1_2025) -> Cid:
    """Return the CID of a file that is given as chunks of the layout's leaf size."""
    builder = FileBuilder(layout)
    for chunk in chunks:
        builder.add(chunk)
    builder.finish()
    return builder.root.cid


def cid_of_bytes(data: bytes, layout: Layout = UNIXFS_V1_2025) -> Cid:
    """Return the CID of a file that is held in memory."""
    return cid_of_chunks((data[i : i + layout.leaf_bytes] for i in range(0, len(data), layout.leaf_bytes)), layout)


# --- dag-pb: PBNode {Data = 1, Links = 2}, links first; UnixFS {Type = 1, Data = 2, filesize = 3, blocksizes = 4} -----


def encode_node(links: tuple[Link, ...]) -> bytes:
    """Return the one dag-pb encoding of a file node with these children."""
    body, sizes = bytearray(), bytearray()
    for link in links:
        child = _field_bytes(1, link.cid) + _field_bytes(2, b"") + _field_number(3, link.tree_bytes)
        body += _field_bytes(2, child)
        sizes += _field_number(4, link.file_bytes)
    file = _field_number(1, _FILE_TYPE) + _field_number(3, sum(link.file_bytes for link in links)) + bytes(sizes)
    return bytes(body) + _field_bytes(1, file)


def decode_node(cid: Cid, block: bytes) -> tuple[Link, ...]:
    """Return the children of a node after checking its hash; what `encode_node` would not write is `MALFORMED`."""
    if parse_cid(cid).codec is not Codec.DAG_PB:
        raise Rejected(RejectionReason.MALFORMED, "a raw leaf has no children")
    check_cid(cid, block)
    targets, sizes = _read_links(block)
    if not targets or len(targets) != len(sizes):
        raise _malformed_error("links and block sizes do not match")
    links = tuple(Link(target, size, tree) for (target, tree), size in zip(targets, sizes, strict=True))
    if sum(sizes) > MAXIMUM_FILE_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a file of {sum(sizes)} bytes")
    if encode_node(links) != block:
        raise _malformed_error("the node is not in the one form of a file node")
    return links


def _read_links(block: bytes) -> tuple[list[tuple[Cid, int]], list[int]]:
    targets: list[tuple[Cid, int]] = []
    sizes: list[int] = []
    for number, value in _fields(block):
        if isinstance(value, int):
            raise _malformed_error("a node holds links and data only")
        if number == 2:
            targets.append(_read_link(value))
            if len(targets) > MAXIMUM_LINKS:
                raise Rejected(RejectionReason.TOO_LARGE, f"a node has more than {MAXIMUM_LINKS} links")
        else:
            sizes = [size for field, size in _fields(value) if field == 4 and isinstance(size, int)]
    return targets, sizes


def _read_link(data: bytes) -> tuple[Cid, int]:
    found = dict(_fields(data))
    cid, tree_bytes = found.get(1), found.get(3)
    if not isinstance(cid, bytes) or not isinstance(tree_bytes, int):
        raise _malformed_error("a link has no CID or no size")
    parse_cid(cid)
    return cid, tree_bytes


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        value, position = _read_varint(data, position)
        if key & 7 == 2:
            if value > len(data) - position:
                raise _malformed_error("a field runs past the end of its node")
            yield key >> 3, data[position : position + value]
            position += value
        elif key & 7 == 0:
            yield key >> 3, value
        else:
            raise _malformed_error(f"wire type {key & 7} does not occur in a node")


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        if position >= len(data):
            raise _malformed_error("a number runs past the end of its node")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _malformed_error("a number has more than 63 bits")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field_number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _field_bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _malformed_error(detail: str) -> Rejected:
    return Rejected(RejectionReason.MALFORMED, detail)
