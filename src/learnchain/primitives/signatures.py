"""Secp256k1 signatures over consensus messages, by the keys and addresses of Ethereum wallets (ROUND-16).

Signatures are deterministic (RFC 6979) and low-s, so that a signer cannot grind the seeds drawn from them.
"""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from coincurve import PrivateKey, PublicKey

from learnchain.primitives.codec import Address, encode
from learnchain.primitives.hashing import keccak256, tagged_hash
from learnchain.primitives.rejection import Rejected, RejectionReason

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
