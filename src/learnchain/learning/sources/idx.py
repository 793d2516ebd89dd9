"""Read data sets in the IDX format of MNIST; known ones are recognised by the SHA-256 of their plain bytes."""

import hashlib
import math
from pathlib import Path

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.files import SourceFile, digests, read_files
from learnchain.learning.sources.imported import ImportedData, ImportOptions, malformed
from learnchain.primitives.rejection import Rejected, RejectionReason

PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
MNIST = dict(
    zip(
        PARTS,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        strict=True,
    )
)
"""SHA-256 of the four plain files of MNIST."""
FASHION_MNIST = dict(
    zip(
        PARTS,
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        strict=True,
    )
)
"""SHA-256 of the four plain files of Fashion-MNIST, as Debian's dataset-fashion-mnist ships them."""
FASHION_NAMES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
_UNSIGNED_BYTE = 8


def import_mnist(path: Path, options: ImportOptions) -> ImportedData:
    """Return MNIST; files with other digests are refused."""
    return _import(path, options, MNIST, tuple("0123456789"))


def import_fashion(path: Path, options: ImportOptions) -> ImportedData:
    """Return Fashion-MNIST; files with other digests are refused."""
    return _import(path, options, FASHION_MNIST, FASHION_NAMES)


def import_idx(path: Path, options: ImportOptions) -> ImportedData:
    """Return any image set in four IDX files, checked against the digests that the caller names."""
    return _import(path, options, {}, ())


def _import(path: Path, options: ImportOptions, known: dict[str, str], class_names: tuple[str, ...]) -> ImportedData:
    files = read_files(path, lambda name: _part(name) is not None, options.progress)
    by_part: dict[str, SourceFile] = {}
    for file in files:
        part = _part(file.name) or ""
        if part in by_part:
            raise malformed(f"{by_part[part].name} and {file.name} are both the {part}")
        by_part[part] = file
        expected = known.get(part) or options.sha256.get(file.stem)
        check_digest(file, expected)
    missing = [part for part in PARTS if part not in by_part]
    if missing:
        raise malformed(f"{path} lacks {', '.join(f'{each}-idx?-ubyte' for each in missing)}")
    training = _data(by_part["train-images"], by_part["train-labels"])
    test = _data(by_part["t10k-images"], by_part["t10k-labels"])
    if training.sample_shape != test.sample_shape:
        raise malformed(f"training images have shape {training.sample_shape}, test images {test.sample_shape}")
    names = class_names or tuple(str(label) for label in range(int(training.labels.max()) + 1))
    return ImportedData(training, test, names, digests(path, files))


def check_digest(file: SourceFile, expected: str | None) -> None:
    """Refuse a file whose plain bytes have another SHA-256 than expected."""
    found = hashlib.sha256(file.data).hexdigest()
    if expected is not None and found != expected.lower():
        raise Rejected(RejectionReason.WRONG_HASH, f"{file.name} has SHA-256 {found}, expected {expected}")


def read_idx(file: SourceFile, dimensions: int) -> Array:
    """Return the unsigned bytes of one IDX file, whose size must be exactly what its header says."""
    data, header_bytes = file.data, 4 + 4 * dimensions
    if len(data) < header_bytes or data[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise malformed(f"{file.name} is no IDX file of unsigned bytes in {dimensions} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, 4))
    if math.prod(shape) != len(data) - header_bytes:
        raise malformed(f"{file.name} promises {shape} and holds {len(data) - header_bytes} bytes")
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape)


def _part(name: str) -> str | None:
    stem = name.rpartition("/")[2]
    return next((part for part in PARTS if stem.startswith(part) and "idx" in stem), None)


def _data(images: SourceFile, labels: SourceFile) -> DataSet:
    return DataSet(read_idx(images, 3)[:, np.newaxis], read_idx(labels, 1))
