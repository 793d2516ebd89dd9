"""Hand a model's key to one account through the public chain: ECIES over the account's own secp256k1 key.

An ephemeral key is agreed with the recipient's, the shared secret opens one AES-256-GCM box, and the box is bound to
what it is for, so that it cannot be replayed for another model.

A contributor's model as one file: a bounded manifest, then safetensors; checked before anything is loaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from coincurve import PrivateKey, PublicKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from learnchain.encoding.codec import Bound, decode, encode
from learnchain.encoding.cryptography import KEY_BYTES, tagged_hash
from learnchain.market.terms import Description
from learnchain.protocol.model_specification import ModelLimits, ModelSpecification, model_bytes, output_shape, validate
from learnchain.rejection import Rejected, RejectionReason

PUBLIC_KEY_BYTES = 64
_POINT_BYTES = 33
_SEALED_BYTES = _POINT_BYTES + KEY_BYTES + 16

_NONCE = b"\0" * 12
"""One nonce is enough: every box has an ephemeral key, and so an encryption key, of its own."""


def derive_public_key(private_key: bytes) -> bytes:
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
    return point + _derive_box_cipher(shared, point, purpose).encrypt(_NONCE, key, purpose)


def open_key(sealed: bytes, private_key: bytes, purpose: bytes) -> bytes:
    """Return the data key in a box; one for somebody or something else is `KEY_MISMATCH`."""
    if len(sealed) != _SEALED_BYTES:
        raise Rejected(RejectionReason.MALFORMED, f"a sealed key has {_SEALED_BYTES} bytes, not {len(sealed)}")
    point = sealed[:_POINT_BYTES]
    try:
        shared = PublicKey(point).multiply(PrivateKey(private_key).secret)
        return _derive_box_cipher(shared, point, purpose).decrypt(_NONCE, sealed[_POINT_BYTES:], purpose)
    except (ValueError, InvalidTag) as error:
        raise Rejected(RejectionReason.KEY_MISMATCH, "the box was sealed for somebody or something else") from error


def seal_purpose(task_id: bytes, model_index: int) -> bytes:
    """Return what a box for one model of one task is bound to."""
    return task_id + model_index.to_bytes(1, "big")


def _derive_box_cipher(shared: PublicKey, point: bytes, purpose: bytes) -> AESGCM:
    return AESGCM(tagged_hash("market/sealed-key", shared.format(), point, purpose))


MAXIMUM_MANIFEST_BYTES = 64 * 1024
_LENGTH_BYTES = 4
_HEADER_ALLOWANCE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PackageManifest:
    """Say what the weights belong to and which labels the model's private data had."""

    specification: ModelSpecification
    labels: Annotated[tuple[int, ...], Bound(256)]


def write_package(manifest: PackageManifest, weights: Path, package: Path) -> None:
    """Write manifest and weights as one file."""
    head = encode(manifest)
    if len(head) > MAXIMUM_MANIFEST_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a manifest of {len(head)} bytes")
    with package.open("wb") as target, weights.open("rb") as source:
        target.write(len(head).to_bytes(_LENGTH_BYTES, "big") + head)
        while chunk := source.read(_CHUNK_BYTES):
            target.write(chunk)


def read_package(package: Path, description: Description, weights: Path) -> PackageManifest:
    """Check a package against the task and write its weights to a file of their own; return the manifest."""
    if package.stat().st_size > description.maximum_model_bytes:
        raise Rejected(RejectionReason.TOO_LARGE, f"a package of {package.stat().st_size} bytes")
    with package.open("rb") as source:
        length = int.from_bytes(source.read(_LENGTH_BYTES), "big")
        if not 0 < length <= MAXIMUM_MANIFEST_BYTES:
            raise Rejected(RejectionReason.MALFORMED, f"a manifest of {length} bytes")
        manifest = decode(PackageManifest, source.read(length))
        check_manifest(manifest, description)
        if package.stat().st_size > model_bytes(manifest.specification) + length + _HEADER_ALLOWANCE_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, "the package is larger than the model it describes")
        with weights.open("wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
    return manifest


def check_manifest(manifest: PackageManifest, description: Description) -> None:
    """Refuse a model that does not fit the task, or another one than the initiator recommended."""
    validate(manifest.specification, ModelLimits(parameters=description.maximum_model_bytes // 4 + 1))
    shape, classes = tuple(manifest.specification.input_shape), len(description.labels)
    if shape != tuple(description.sample_shape) or tuple(output_shape(manifest.specification)) != (classes,):
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, f"the task has samples {shape} and {classes} labels")
    if description.recommended and manifest.specification != description.recommended[0]:
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, "the initiator recommends another architecture")
    own = list(manifest.labels)
    if not own or own != sorted(set(own)) or own[-1] >= classes:
        raise Rejected(RejectionReason.MALFORMED, f"labels {own} of {classes}")
