"""A node's identity: one ed25519 key in a file that only its owner reads, made once and kept for good."""

import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from learnchain.node.storage.files import write_whole
from learnchain.primitives.rejection import Rejected, RejectionReason

IDENTITY_NAME = "identity.key"
_KEY_BYTES = 32


def load_identity(path: Path) -> bytes:
    """Return the node's ed25519 private key, made on the first call; a file of another length is `MALFORMED`."""
    if not path.exists():
        write_whole(path, secrets.token_bytes(_KEY_BYTES))
    with path.open("rb") as file:
        key = file.read(_KEY_BYTES + 1)
    if len(key) != _KEY_BYTES:
        raise Rejected(RejectionReason.MALFORMED, f"{path} does not hold a key of {_KEY_BYTES} bytes")
    return key


def peer_id_of(identity: bytes) -> bytes:
    """Return the public key by which peers know this identity."""
    return Ed25519PrivateKey.from_private_bytes(identity).public_key().public_bytes_raw()


def signature_of(identity: bytes, message: bytes) -> bytes:
    """Return the ed25519 signature of a message."""
    return Ed25519PrivateKey.from_private_bytes(identity).sign(message)


def is_signed_by(peer_id: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the signature is the peer's; a `peer_id` that is no key has signed nothing."""
    try:
        Ed25519PublicKey.from_public_bytes(peer_id).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
