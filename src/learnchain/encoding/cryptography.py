"""Hashes, signatures and encrypted files of the chain.

Hashes: SHA-256 with a domain for consensus, Keccak-256 where contracts must recompute. Two Merkle trees: a list tree
for commitments, data and traces, and an accumulating tree that contracts verify.

Signatures: secp256k1 over consensus messages, by the keys and addresses of Ethereum wallets (ROUND-16), deterministic
(RFC 6979) and low-s.

Files: chunked AES-256-GCM with a committed key, so that one released key opens them (ROUND-7). AES-GCM alone does not
commit to its key, so the header carries the key's hash. The file key is derived from the key and the header, and the
header holds a keyed digest of the plaintext: the same key never meets the same nonce with two plaintexts, although
encryption is deterministic. Files are streamed; memory stays at a few chunks.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import sha3
from blake3 import blake3
from coincurve import PrivateKey, PublicKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from learnchain.encoding.codec import Address, Hash32, encode
from learnchain.rejection import Rejected, RejectionReason

DOMAIN = b"learnchain/1/"
"""Every consensus hash starts with this and the noun's name, so that no two kinds of message share a hash."""


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """Return SHA-256 over the domain, the tag and the length-prefixed parts: unambiguous by construction."""
    digest = hashlib.sha256(DOMAIN + tag.encode() + b"\0")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def message_hash(noun: object) -> bytes:
    """Return the identity of a noun: the tagged hash of its canonical bytes under its class name."""
    return tagged_hash(type(noun).__name__, encode(noun))


def keccak256(data: bytes) -> bytes:
    """Return Keccak-256 as the EVM computes it."""
    return sha3.keccak_256(data).digest()


def shake256(tag: str, seed: bytes, length: int) -> bytes:
    """Return `length` bytes of the SHAKE-256 stream that belongs to a tag and a seed."""
    return hashlib.shake_256(DOMAIN + tag.encode() + b"\0" + len(seed).to_bytes(8, "big") + seed).digest(length)


HISTORY_DEPTH = 32
"""Depth of the accumulating tree: more settlements than any chain will see; one claim costs this many hashes."""


def list_root(leaves: tuple[bytes, ...]) -> Hash32:
    """Return the root over a list; leaves, inner nodes and the length are hashed under tags of their own."""
    return tagged_hash("merkle/root", len(leaves).to_bytes(8, "big"), _levels(leaves)[-1][0] if leaves else b"")


def list_branch(leaves: tuple[bytes, ...], index: int) -> tuple[Hash32, ...]:
    """Return the siblings that prove leaf `index`, from the leaf upwards; an unpaired node has no sibling."""
    if not 0 <= index < len(leaves):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"there is no leaf {index} among {len(leaves)}")
    branch: list[bytes] = []
    for level in _levels(leaves)[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            branch.append(level[sibling])
        index >>= 1
    return tuple(branch)


def check_list_branch(root: Hash32, leaf: bytes, index: int, count: int, branch: tuple[Hash32, ...]) -> None:
    """Refuse a branch that does not lead from the leaf at `index` of `count` to the root."""
    if not 0 <= index < count:
        raise Rejected(RejectionReason.WRONG_HASH, f"there is no leaf {index} among {count}")
    node, width, siblings = tagged_hash("merkle/leaf", leaf), count, list(branch)
    while width > 1:
        if index ^ 1 < width:
            if not siblings:
                raise Rejected(RejectionReason.WRONG_HASH, "the branch is too short")
            sibling = siblings.pop(0)
            pair = (sibling, node) if index & 1 else (node, sibling)
            node = tagged_hash("merkle/node", *pair)
        index, width = index >> 1, (width + 1) >> 1
    if siblings or tagged_hash("merkle/root", count.to_bytes(8, "big"), node) != root:
        raise Rejected(RejectionReason.WRONG_HASH, "the branch does not lead to the root")


def _levels(leaves: tuple[bytes, ...]) -> list[list[bytes]]:
    levels = [[tagged_hash("merkle/leaf", leaf) for leaf in leaves]]
    while len(levels[-1]) > 1:
        level = levels[-1]
        pairs = [tagged_hash("merkle/node", level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        levels.append(pairs + ([level[-1]] if len(level) % 2 else []))
    return levels


ZERO_HASHES = tuple(accumulate(range(HISTORY_DEPTH), lambda node, _: keccak256(node * 2), initial=b"\0" * 32))


@dataclass(frozen=True, slots=True)
class History:
    """Accumulate settlement leaves for ever, as the deposit contract of Ethereum does: append costs 32 hashes.

    `frontier[level]` is the last full left node of a level; the root of the empty tree is `ZERO_HASHES[-1]`.
    """

    count: int = 0
    frontier: tuple[Hash32, ...] = ZERO_HASHES[:HISTORY_DEPTH]

    def append(self, leaf: Hash32) -> "History":
        """Return the history with one more leaf."""
        size, node, frontier = self.count, leaf, list(self.frontier)
        for level in range(HISTORY_DEPTH):
            if not (size >> level) & 1:
                frontier[level] = node
                return replace(self, count=self.count + 1, frontier=tuple(frontier))
            node = keccak256(frontier[level] + node)
        raise Rejected(RejectionReason.TOO_LARGE, "the history is full")

    def root(self) -> Hash32:
        """Return the root of the depth-32 tree whose missing leaves are zero."""
        node = b"\0" * 32
        for level in range(HISTORY_DEPTH):
            if (self.count >> level) & 1:
                node = keccak256(self.frontier[level] + node)
            else:
                node = keccak256(node + ZERO_HASHES[level])
        return node


def history_branch(leaves: tuple[Hash32, ...], index: int) -> tuple[Hash32, ...]:
    """Return the 32 siblings that prove leaf `index` of the history that holds exactly these leaves."""
    if not 0 <= index < len(leaves):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"there is no settlement {index} among {len(leaves)}")
    branch: list[bytes] = []
    level = list(leaves)
    for depth in range(HISTORY_DEPTH):
        sibling = index ^ 1
        branch.append(level[sibling] if sibling < len(level) else ZERO_HASHES[depth])
        if len(level) % 2:
            level.append(ZERO_HASHES[depth])
        level = [keccak256(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        index >>= 1
    return tuple(branch)


if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Signed = TypeVar("Signed", bound=DataclassInstance)


UNSIGNED = b"\0" * 65
"""The signature field of a message before it is signed; the signing hash covers the message in this form."""
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def address_of(private_key: bytes) -> Address:
    """Return the Ethereum address of a private key."""
    return _address(PrivateKey(private_key).public_key)


def sign_digest(private_key: bytes, digest: bytes) -> bytes:
    """Sign 32 bytes; return r, s and the recovery bit, 65 bytes."""
    return PrivateKey(private_key).sign_recoverable(digest, hasher=None)


def recover(digest: bytes, signature: bytes) -> Address:
    """Return the address that signed the digest; a malleable or impossible signature is `WRONG_SIGNATURE`."""
    if len(signature) != 65 or signature[64] > 3 or int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        raise Rejected(RejectionReason.WRONG_SIGNATURE, "the signature is not 65 bytes with a low s")
    try:
        return _address(PublicKey.from_signature_and_message(signature, digest, hasher=None))
    except ValueError as error:
        raise Rejected(RejectionReason.WRONG_SIGNATURE, "no key recovers from the signature") from error


def signing_hash(message: "Signed") -> bytes:
    """Return what a message's signer signs: the message with an empty signature, under its class name."""
    return tagged_hash(f"sign/{type(message).__name__}", encode(replace(message, **_signature(UNSIGNED))))


def sign(message: "Signed", private_key: bytes) -> "Signed":
    """Return the message with its `signature` field filled in."""
    if "signature" not in {field.name for field in fields(message)}:
        raise TypeError(f"{type(message).__name__} has no signature field")
    return replace(message, **_signature(sign_digest(private_key, signing_hash(message))))


def check_signature(message: "Signed", signer: Address) -> None:
    """Refuse a message whose signature does not recover to `signer`."""
    signature: bytes = getattr(message, "signature", b"")
    if recover(signing_hash(message), signature) != signer:
        raise Rejected(RejectionReason.WRONG_SIGNATURE, f"{type(message).__name__} is not signed by 0x{signer.hex()}")


def _signature(signature: bytes) -> dict[str, Any]:
    return {"signature": signature}


def _address(public_key: PublicKey) -> Address:
    return keccak256(public_key.format(compressed=False)[1:])[-20:]


KEY_BYTES = 32
CHUNK_BYTES = 1 << 20
_TAG_BYTES = 16
_MAGIC = b"learnchain-enc-1"
_HEADER_BYTES = len(_MAGIC) + 8 + 32 + 32


def key_hash(key: bytes) -> Hash32:
    """Return the commitment to a key: what a task posts and a release is checked against."""
    _check_key(key)
    return tagged_hash("data-key", key)


def ciphertext_bytes(plaintext_bytes: int) -> int:
    """Return the size of the encrypted file."""
    chunks = max(1, -(-plaintext_bytes // CHUNK_BYTES))
    return _HEADER_BYTES + plaintext_bytes + chunks * _TAG_BYTES


def encrypt_stream(source: BinaryIO, target: BinaryIO, key: bytes) -> None:
    """Encrypt a seekable source from its present position to its end."""
    _check_key(key)
    start, digest, size = source.tell(), blake3(key=key), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    source.seek(start)
    header = _MAGIC + size.to_bytes(8, "big") + key_hash(key) + digest.digest()
    cipher = _cipher(key, header)
    target.write(header)
    for index in range(max(1, -(-size // CHUNK_BYTES))):
        target.write(cipher.encrypt(_nonce(index), source.read(CHUNK_BYTES), header))


def decrypt_stream(source: BinaryIO, target: BinaryIO, key: bytes, maximum_bytes: int) -> int:
    """Decrypt, chunk by authenticated chunk; return the size of the plaintext, which `maximum_bytes` bounds."""
    header = source.read(_HEADER_BYTES)
    if len(header) != _HEADER_BYTES or not header.startswith(_MAGIC):
        raise Rejected(RejectionReason.MALFORMED, "this is no encrypted data file")
    size = int.from_bytes(header[len(_MAGIC) : len(_MAGIC) + 8], "big")
    if size > maximum_bytes:
        raise Rejected(RejectionReason.TOO_LARGE, f"the plaintext claims {size} bytes, allowed are {maximum_bytes}")
    if key_hash(key) != header[len(_MAGIC) + 8 : len(_MAGIC) + 40]:
        raise Rejected(RejectionReason.KEY_MISMATCH, "the file was encrypted under another key")
    digest, cipher = blake3(key=key), _cipher(key, header)
    remaining = size
    for index in range(max(1, -(-size // CHUNK_BYTES))):
        chunk = _open_chunk(source, cipher, header, index, min(remaining, CHUNK_BYTES))
        digest.update(chunk)
        target.write(chunk)
        remaining -= len(chunk)
    if source.read(1):
        raise Rejected(RejectionReason.MALFORMED, "bytes follow the last chunk")
    if digest.digest() != header[-32:]:
        raise Rejected(RejectionReason.PLAINTEXT_MISMATCH, "the plaintext is not the one that the header names")
    return size


def encrypt_file(source: Path, target: Path, key: bytes) -> int:
    """Encrypt a file; return the size of the ciphertext."""
    with source.open("rb") as plain, target.open("wb") as encrypted:
        encrypt_stream(plain, encrypted, key)
        return encrypted.tell()


def decrypt_file(source: Path, target: Path, key: bytes, maximum_bytes: int) -> int:
    """Decrypt a file; nothing stays at `target` when the file is refused."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        with source.open("rb") as encrypted, partial.open("wb") as plain:
            size = decrypt_stream(encrypted, plain, key, maximum_bytes)
        partial.replace(target)
        return size
    finally:
        partial.unlink(missing_ok=True)


def _open_chunk(source: BinaryIO, cipher: AESGCM, header: bytes, index: int, size: int) -> bytes:
    sealed = source.read(size + _TAG_BYTES)
    if len(sealed) != size + _TAG_BYTES:
        raise Rejected(RejectionReason.MALFORMED, f"chunk {index} is cut short")
    try:
        return cipher.decrypt(_nonce(index), sealed, header)
    except InvalidTag as error:
        raise Rejected(RejectionReason.PLAINTEXT_MISMATCH, f"chunk {index} was altered") from error


def _cipher(key: bytes, header: bytes) -> AESGCM:
    return AESGCM(tagged_hash("data-file-key", key, header))


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise Rejected(RejectionReason.KEY_MISMATCH, f"a data key has {KEY_BYTES} bytes, not {len(key)}")
