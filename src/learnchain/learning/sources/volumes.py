"""Read NIfTI-1 volumes, and image-label pairs in the layout of MM-WHS: `*_image.nii.gz` beside `*_label.nii.gz`."""

import math
import re
import struct
from pathlib import Path

import numpy as np

from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.files import (
    ImportedData,
    ImportOptions,
    SourceFile,
    digests,
    malformed_error,
    read_files,
    stack_rows,
)
from learnchain.learning.sources.pictures import resize
from learnchain.rejection import Rejected, RejectionReason

HEADER_BYTES = 348
MAXIMUM_VOXELS = 1 << 28
MAXIMUM_SIDE = 2_048
VOLUME_SHAPE = (1, 16, 32, 32)

HEART_LABELS = {0: 0, 500: 1, 600: 2, 420: 3, 421: 3, 550: 4, 205: 5, 820: 6, 850: 7}
"""Grey values of MM-WHS and our classes; 421 is a slip of the published files for 420."""

HEART_NAMES = (
    *("background", "left ventricle", "right ventricle", "left atrium", "right atrium"),
    *("myocardium", "aorta", "pulmonary artery"),
)

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
_PAIR = re.compile(r"_(image|label)\.nii(\.gz)?$")
_LOW_PERCENT, _HIGH_PERCENT = 1, 99


def read_nifti(file: SourceFile) -> Array:
    """Return the voxels of a single-file NIfTI-1 volume, scaled as its header says; three dimensions only."""
    data = file.data
    if len(data) < HEADER_BYTES + 4:
        raise malformed_error(f"{file.name} is shorter than a NIfTI header")
    order = next((each for each in "<>" if struct.unpack_from(f"{each}i", data)[0] == HEADER_BYTES), None)
    if order is None or data[344:348] not in (b"n+1\0",):
        raise malformed_error(f"{file.name} is no single-file NIfTI-1 volume")
    rank, *sizes = struct.unpack_from(f"{order}8h", data, 40)
    code, bits = struct.unpack_from(f"{order}2h", data, 70)
    offset, slope, intercept = struct.unpack_from(f"{order}3f", data, 108)
    shape = tuple(sizes[:3])
    if not 3 <= rank <= 7 or any(size != 1 for size in sizes[3:rank]):
        raise malformed_error(f"{file.name} has {rank} dimensions {sizes}; volumes have three")
    if not all(1 <= size <= MAXIMUM_SIDE for size in shape) or math.prod(shape) > MAXIMUM_VOXELS:
        raise Rejected(RejectionReason.TOO_LARGE, f"{file.name} has {shape} voxels")
    if code not in _TYPES or bits != 8 * np.dtype(_TYPES[code]).itemsize:
        raise malformed_error(f"{file.name} holds elements of type {code} with {bits} bits")
    kind = np.dtype(order + _TYPES[code])
    expected = math.prod(shape) * kind.itemsize
    if not math.isfinite(offset) or not HEADER_BYTES + 4 <= offset <= len(data) or offset != int(offset):
        raise malformed_error(f"{file.name} puts its voxels at {offset}")
    if len(data) - int(offset) != expected:
        raise malformed_error(f"{file.name} has {len(data) - int(offset)} bytes of voxels, its header says {expected}")
    voxels = np.frombuffer(data, kind, offset=int(offset)).reshape(shape, order="F")
    return _scale_voxels(voxels, slope, intercept, file.name)


def _scale_voxels(voxels: Array, slope: float, intercept: float, name: str) -> Array:
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise malformed_error(f"{name} is scaled by {slope} and {intercept}")
    if slope in (0.0, 1.0) and intercept == 0.0:
        return voxels
    return voxels.astype(np.float64) * slope + intercept


def import_mmwhs(path: Path, options: ImportOptions) -> ImportedData:
    """Return heart volumes and their labels; the published test set has no labels, so a split is drawn later."""
    shape = options.shape or VOLUME_SHAPE
    if len(shape) != 4 or shape[0] != 1 or not all(1 <= side <= MAXIMUM_SIDE for side in shape[1:]):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{shape} is no shape of volumes: 1, depth, height, width")
    files = read_files(path, lambda name: _PAIR.search(f"{name}") is not None, options.progress)
    by_name = {file.name.removesuffix(".gz"): file for file in files}
    rows: list[tuple[Array, Array | int]] = []
    for name, file in by_name.items():
        if not name.endswith("_image.nii"):
            continue
        labels = by_name.get(name.removesuffix("_image.nii") + "_label.nii")
        if labels is None:
            raise malformed_error(f"{file.name} has no label volume beside it")
        rows.append(_pair(file, labels, shape[1:]))
    return ImportedData(stack_rows(rows), None, HEART_NAMES, digests(path, files))


def _pair(image: SourceFile, labels: SourceFile, shape: tuple[int, ...]) -> tuple[Array, Array]:
    voxels, marked = read_nifti(image), read_nifti(labels)
    if voxels.shape != marked.shape:
        raise malformed_error(f"{image.name} has shape {voxels.shape}, its labels {marked.shape}")
    # Files run along x, y, z; models read z, y, x.
    small, classes = resize(voxels.transpose(2, 1, 0), shape), resize(marked.transpose(2, 1, 0), shape)
    found = set(np.unique(classes).tolist())
    if not found <= set(HEART_LABELS):
        raise malformed_error(
            f"{labels.name} holds the labels {sorted(found - set(HEART_LABELS))[:5]}, which MM-WHS lacks"
        )
    mapped = np.zeros(shape, np.uint8)
    for grey, number in HEART_LABELS.items():
        mapped[classes == grey] = number
    return scale_to_bytes(small, image.name)[np.newaxis], mapped


def scale_to_bytes(voxels: Array, name: str) -> Array:
    """Return voxels as bytes: the 1st percentile is 0 and the 99th is 255; elementwise, so the same everywhere."""
    values = voxels.astype(np.float64)
    if not np.isfinite(values).all():
        raise malformed_error(f"{name} holds a voxel that is not finite")
    ordered = np.sort(values, axis=None)
    low = ordered[(len(ordered) - 1) * _LOW_PERCENT // 100]
    high = ordered[(len(ordered) - 1) * _HIGH_PERCENT // 100]
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.floor(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
