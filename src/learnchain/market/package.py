"""A contributor's model as one file: a bounded manifest, then safetensors; checked before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from learnchain.market.terms import Description
from learnchain.primitives.codec import Bound, decode, encode
from learnchain.primitives.model_costs import model_bytes, validate
from learnchain.primitives.model_specification import ModelLimits, ModelSpecification, output_shape
from learnchain.primitives.rejection import Rejected, RejectionReason

MAXIMUM_MANIFEST_BYTES = 64 * 1024
_LENGTH_BYTES = 4
_HEADER_ALLOWANCE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """Say what the weights belong to and which labels the model's private data had."""

    specification: ModelSpecification
    labels: Annotated[tuple[int, ...], Bound(256)]


def write_package(manifest: Manifest, weights: Path, package: Path) -> None:
    """Write manifest and weights as one file."""
    head = encode(manifest)
    if len(head) > MAXIMUM_MANIFEST_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a manifest of {len(head)} bytes")
    with package.open("wb") as target, weights.open("rb") as source:
        target.write(len(head).to_bytes(_LENGTH_BYTES, "big") + head)
        while chunk := source.read(_CHUNK_BYTES):
            target.write(chunk)


def read_package(package: Path, description: Description, weights: Path) -> Manifest:
    """Check a package against the task and write its weights to a file of their own; return the manifest."""
    if package.stat().st_size > description.maximum_model_bytes:
        raise Rejected(RejectionReason.TOO_LARGE, f"a package of {package.stat().st_size} bytes")
    with package.open("rb") as source:
        length = int.from_bytes(source.read(_LENGTH_BYTES), "big")
        if not 0 < length <= MAXIMUM_MANIFEST_BYTES:
            raise Rejected(RejectionReason.MALFORMED, f"a manifest of {length} bytes")
        manifest = decode(Manifest, source.read(length))
        check_manifest(manifest, description)
        if package.stat().st_size > model_bytes(manifest.specification) + length + _HEADER_ALLOWANCE_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, "the package is larger than the model it describes")
        with weights.open("wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
    return manifest


def check_manifest(manifest: Manifest, description: Description) -> None:
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
