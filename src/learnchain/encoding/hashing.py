"""Hash functions of the chain: SHA-256 with a domain for consensus, Keccak-256 where contracts must recompute.

Two Merkle trees: a list tree for commitments, data and traces, and an accumulating tree that contracts verify.
"""

import hashlib
from dataclasses import dataclass, replace
from itertools import accumulate

import sha3

from learnchain.encoding.codec import Hash32, encode
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
