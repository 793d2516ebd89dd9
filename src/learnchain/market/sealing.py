"""Hand a model's key to one account through the public chain: ECIES over the account's own secp256k1 key.

An ephemeral key is agreed with the recipient's, the shared secret opens one AES-256-GCM box, and the box is bound to
what it is for, so that it cannot be replayed for another model.
"""

from coincurve import PrivateKey, PublicKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from learnchain.primitives.ciphers import KEY_BYTES
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.rejection import Rejected, RejectionReason

PUBLIC_KEY_BYTES = 64
_POINT_BYTES = 33
_SEALED_BYTES = _POINT_BYTES + KEY_BYTES + 16
_NONCE = b"\0" * 12
"""One nonce is enough: every box has an ephemeral key, and so an encryption key, of its own."""


def public_key(private_key: bytes) -> bytes:
    """Return the 64 bytes that an account registers; their Keccak-256 ends in its address."""
    return PrivateKey(private_key).public_key.format(compressed=False)[1:]


def seal_key(key: bytes, recipient: bytes, purpose: bytes, ephemeral: bytes) -> bytes:
    """Return a data key that only the recipient opens; `ephemeral` are 32 fresh random bytes."""
    if len(key) != KEY_BYTES:
        raise Rejected(RejectionReason.KEY_MISMATCH, f"a data key has {KEY_BYTES} bytes")
    try:
        own = PrivateKey(ephemeral)
        shared = PublicKey(b"\x04" + recipient).multiply(own.secret)
    except ValueError as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "the recipient's public key is no point") from error
    point = own.public_key.format()
    return point + _box(shared, point, purpose).encrypt(_NONCE, key, purpose)


def open_key(sealed: bytes, private_key: bytes, purpose: bytes) -> bytes:
    """Return the data key in a box; one for somebody or something else is `KEY_MISMATCH`."""
    if len(sealed) != _SEALED_BYTES:
        raise Rejected(RejectionReason.MALFORMED, f"a sealed key has {_SEALED_BYTES} bytes, not {len(sealed)}")
    point = sealed[:_POINT_BYTES]
    try:
        shared = PublicKey(point).multiply(PrivateKey(private_key).secret)
        return _box(shared, point, purpose).decrypt(_NONCE, sealed[_POINT_BYTES:], purpose)
    except (ValueError, InvalidTag) as error:
        raise Rejected(RejectionReason.KEY_MISMATCH, "the box was sealed for somebody or something else") from error


def purpose_of(task_id: bytes, place: int) -> bytes:
    """Return what a box for one model of one task is bound to."""
    return task_id + place.to_bytes(1, "big")


def _box(shared: PublicKey, point: bytes, purpose: bytes) -> AESGCM:
    return AESGCM(tagged_hash("market/sealed-key", shared.format(), point, purpose))
