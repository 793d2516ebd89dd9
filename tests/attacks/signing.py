"""Sign with a nonce that the signer chose, so that one statement has as many hashes as its author wants."""

import hashlib
from dataclasses import replace
from typing import Any

from coincurve import PrivateKey

from learnchain.encoding.cryptography import message_hash, signing_hash

GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def sign_digest_with(private_key: bytes, digest: bytes, nonce: int) -> bytes:
    """Sign by ECDSA with this nonce; no verifier can tell it from the nonce that RFC 6979 names."""
    chosen = nonce % GROUP_ORDER
    x, y = PrivateKey(chosen.to_bytes(32, "big")).public_key.point()
    r = x % GROUP_ORDER
    secret, message = int.from_bytes(private_key, "big"), int.from_bytes(digest, "big")
    s = pow(chosen, -1, GROUP_ORDER) * (message + r * secret) % GROUP_ORDER
    recovery = (y & 1) | (2 if x >= GROUP_ORDER else 0)
    if s > GROUP_ORDER // 2:
        s, recovery = GROUP_ORDER - s, recovery ^ 1
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([recovery])


def sign_again(message: Any, private_key: bytes, nonce: int) -> Any:
    """Return the same statement under another valid signature of the same signer."""
    return replace(message, signature=sign_digest_with(private_key, signing_hash(message), nonce))


def sign_until_lower(message: Any, private_key: bytes, attempts: int = 10_000) -> Any:
    """Sign the same statement until its hash is lower; two attempts are needed on average."""
    for attempt in range(attempts):
        nonce = int.from_bytes(hashlib.sha256(attempt.to_bytes(8, "big")).digest(), "big")
        other = sign_again(message, private_key, nonce)
        if message_hash(other) < message_hash(message):
            return other
    raise AssertionError(f"none of {attempts} signatures lowers the hash")
