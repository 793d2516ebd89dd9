"""Hash functions of the chain: SHA-256 with a domain for consensus, Keccak-256 where contracts must recompute."""

import hashlib

import sha3

from learnchain.primitives.codec import encode

DOMAIN = b"learnchain/1/"
"""Every consensus hash starts with this and the noun's name, so that no two kinds of message share a hash."""


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """Return SHA-256 over the domain, the tag and the length-prefixed parts: unambiguous by construction."""
    digest = hashlib.sha256(DOMAIN + tag.encode() + b"\0")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def noun_hash(noun: object) -> bytes:
    """Return the identity of a noun: the tagged hash of its canonical bytes under its class name."""
    return tagged_hash(type(noun).__name__, encode(noun))


def keccak256(data: bytes) -> bytes:
    """Return Keccak-256 as the EVM computes it."""
    return sha3.keccak_256(data).digest()


def shake256(tag: str, seed: bytes, length: int) -> bytes:
    """Return `length` bytes of the SHAKE-256 stream that belongs to a tag and a seed."""
    return hashlib.shake_256(DOMAIN + tag.encode() + b"\0" + len(seed).to_bytes(8, "big") + seed).digest(length)
