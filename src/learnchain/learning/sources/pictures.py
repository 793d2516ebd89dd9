"""Read data sets in the IDX format of MNIST; known ones are recognised by the SHA-256 of their plain bytes.

Read pictures: CIFAR-10 in its binary form, class folders, and image-mask pairs in the layout of GlaS.

Pillow opens picture files (the extra `pictures`); only JPEG, PNG and BMP, and only after their sizes were checked.
"""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.files import (
    ImportedData,
    ImportOptions,
    SourceFile,
    digests,
    malformed_error,
    read_files,
    stack_rows,
    stack_rows_or_none,
)
from learnchain.rejection import Rejected, RejectionReason, Unavailable

if TYPE_CHECKING:
    from PIL.Image import Image


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


def _import(
    path: Path, options: ImportOptions, expected_digests: dict[str, str], class_names: tuple[str, ...]
) -> ImportedData:
    files = read_files(path, lambda name: _part(name) is not None, options.progress)
    by_part: dict[str, SourceFile] = {}
    for file in files:
        part = _part(file.name) or ""
        if part in by_part:
            raise malformed_error(f"{by_part[part].name} and {file.name} are both the {part}")
        by_part[part] = file
        expected = expected_digests.get(part) or options.sha256.get(file.stem)
        check_digest(file, expected)
    missing = [part for part in PARTS if part not in by_part]
    if missing:
        raise malformed_error(f"{path} lacks {', '.join(f'{each}-idx?-ubyte' for each in missing)}")
    training = _data(by_part["train-images"], by_part["train-labels"])
    test = _data(by_part["t10k-images"], by_part["t10k-labels"])
    if training.sample_shape != test.sample_shape:
        raise malformed_error(f"training images have shape {training.sample_shape}, test images {test.sample_shape}")
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
        raise malformed_error(f"{file.name} is no IDX file of unsigned bytes in {dimensions} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, 4))
    if math.prod(shape) != len(data) - header_bytes:
        raise malformed_error(f"{file.name} promises {shape} and holds {len(data) - header_bytes} bytes")
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape)


def _part(name: str) -> str | None:
    stem = name.rpartition("/")[2]
    return next((part for part in PARTS if stem.startswith(part) and "idx" in stem), None)


def _data(images: SourceFile, labels: SourceFile) -> DataSet:
    return DataSet(read_idx(images, 3)[:, np.newaxis], read_idx(labels, 1))


MAXIMUM_SIDE = 8_192
CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GLAS_SHAPE = (3, 64, 96)
_CIFAR_ROW_BYTES = 1 + 3 * 32 * 32
_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")
_GLAS = re.compile(r"^(train|testA|testB|test)_(\d+)(_anno)?\.(bmp|png)$")


def import_cifar10(path: Path, options: ImportOptions) -> ImportedData:
    """Return CIFAR-10 from its binary batches; its Python form holds pickles, which are never loaded."""
    pattern = re.compile(r"(^|/)(data_batch_\d|test_batch)\.bin$")
    files = read_files(path, lambda name: pattern.search(name) is not None, options.progress)
    if not files:
        raise malformed_error(f"{path} holds no data_batch_*.bin; take the binary version, never the one with pickles")
    for file in files:
        check_digest(file, options.sha256.get(file.stem))
    training = _cifar_rows(file for file in files if file.stem.startswith("data"))
    test = [file for file in files if file.stem.startswith("test")]
    return ImportedData(training, _cifar_rows(test) if test else None, CIFAR_NAMES, digests(path, files))


def _cifar_rows(files: Iterable[SourceFile]) -> DataSet:
    parts: list[Array] = []
    for file in files:
        if not file.data or len(file.data) % _CIFAR_ROW_BYTES:
            raise malformed_error(f"{file.name} has {len(file.data)} bytes, which are no rows of {_CIFAR_ROW_BYTES}")
        parts.append(np.frombuffer(file.data, np.uint8).reshape(-1, _CIFAR_ROW_BYTES))
    if not parts:
        raise malformed_error("there are no training batches")
    rows = np.concatenate(parts)
    if rows[:, 0].max() >= len(CIFAR_NAMES):
        raise malformed_error(f"a label is {rows[:, 0].max()}, CIFAR-10 has ten classes")
    return DataSet(np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32), rows[:, 0].copy())


def import_image_classes(path: Path, options: ImportOptions) -> ImportedData:
    """Return pictures from folders named after their classes, below `train` and `test` if there are such folders."""
    files = read_files(path, lambda name: name.lower().endswith(_ENDINGS), options.progress)
    placed = [(file, *_class_of(file)) for file in files]
    names = tuple(sorted({name for _, _, name in placed}))
    if not 2 <= len(names) <= 256:
        raise malformed_error(f"{path} has {len(names)} class folders; a classifier needs 2 to 256")
    shape = options.shape or (3, 32, 32)
    rows: dict[str, list[tuple[Array, Array | int]]] = {"train": [], "test": []}
    for file, part, name in placed:
        rows[part].append((picture(file, shape), names.index(name)))
    return ImportedData(stack_rows(rows["train"]), stack_rows_or_none(rows["test"]), names, digests(path, files))


def _class_of(file: SourceFile) -> tuple[str, str]:
    folders = file.name.split("/")[:-1]
    if not folders:
        raise malformed_error(f"{file.name} lies in no class folder")
    above = folders[-2] if len(folders) > 1 else ""
    return "test" if above == "test" else "train", folders[-1]


def import_glas(path: Path, options: ImportOptions) -> ImportedData:
    """Return image-mask pairs as GlaS publishes them: `train_1.bmp` beside `train_1_anno.bmp`, `testA_*` to test."""
    files = read_files(path, lambda name: _GLAS.match(name.rpartition("/")[2]) is not None, options.progress)
    shape = options.shape or GLAS_SHAPE
    by_stem = {file.stem.rpartition(".")[0]: file for file in files}
    if len(by_stem) != len(files):
        raise malformed_error(f"{path} holds two files of one name")
    rows: dict[bool, list[tuple[Array, Array | int]]] = {True: [], False: []}
    for stem, file in by_stem.items():
        if stem.endswith("_anno"):
            continue
        mask = by_stem.get(f"{stem}_anno")
        if mask is None:
            raise malformed_error(f"{file.name} has no annotation beside it")
        rows[stem.startswith("train")].append((picture(file, shape), _mask(mask, file, shape)))
    names = ("background", "gland")
    return ImportedData(stack_rows(rows[True]), stack_rows_or_none(rows[False]), names, digests(path, files))


def _mask(mask: SourceFile, image: SourceFile, shape: tuple[int, ...]) -> Array:
    """Return 1 wherever the annotation names any object; the objects' numbers are not classes."""
    with _open_picture(mask) as annotation, _open_picture(image) as original:
        if annotation.size != original.size:
            raise malformed_error(f"{mask.name} has size {annotation.size}, its image {original.size}")
        plain = annotation if annotation.mode in ("L", "P", "I;16", "I", "1") else annotation.convert("L")
        objects = np.asarray(plain)
    return (resize(objects, shape[1:]) > 0).astype(np.uint8)


def picture(file: SourceFile, shape: tuple[int, ...]) -> Array:
    """Return a picture file as uint8 of a shape: channels (1 grey, 3 colours), height, width."""
    if len(shape) != 3 or shape[0] not in (1, 3) or not all(1 <= side <= MAXIMUM_SIDE for side in shape[1:]):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{shape} is no shape of pictures: 1 or 3, height, width")
    channels, height, width = shape
    with _open_picture(file) as opened:
        image = opened.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            # Pillow resamples bytes with fixed-point sums: the same bytes on any machine.
            image = image.resize((width, height), resample=2)
        pixels = np.asarray(image, dtype=np.uint8)
    return pixels[np.newaxis] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resize(values: Array, shape: tuple[int, ...]) -> Array:
    """Return the nearest values on another grid, in whole numbers: place i of n reads (2i + 1) size // 2n."""
    for axis, target in enumerate(shape):
        size = values.shape[axis]
        values = np.take(values, (2 * np.arange(target) + 1) * size // (2 * target), axis=axis)
    return values


def _open_picture(file: SourceFile) -> "Image":
    """Return a picture whose format and size were checked before a pixel is decoded."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise Unavailable("Pillow, which opens picture files: pip install 'learnchain[pictures]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(file.data), formats=("JPEG", "PNG", "BMP"))
        if max(image.size) > MAXIMUM_SIDE:
            raise Rejected(RejectionReason.TOO_LARGE, f"{file.name} has {image.size} pixels")
        image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Rejected(RejectionReason.TOO_LARGE, f"{file.name}: {error}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, IndexError, OverflowError) as error:
        raise malformed_error(f"{file.name} is no JPEG, PNG or BMP: {error}") from error
    return image
