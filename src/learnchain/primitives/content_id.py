"""Name content by its hash: IPFS CIDv1 in the one binary form (36 bytes) and the one text form (base32) that we use.

The only link format of the chain. New blobs take BLAKE3, which kubo allows too and which hashes ten
times faster; SHA-256 stays readable. Every varint of such a CID fits one byte, so the form has no second spelling.
"""

import base64
import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from blake3 import blake3

from learnchain.primitives.codec import Exact
from learnchain.primitives.rejection import Rejected, RejectionReason

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


def check_block(cid: Cid, block: bytes) -> None:
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
