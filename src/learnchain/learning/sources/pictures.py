"""Read pictures: CIFAR-10 in its binary form, class folders, and image-mask pairs in the layout of GlaS.

Pillow opens picture files (the extra `pictures`); only JPEG, PNG and BMP, and only after their sizes were checked.
"""

import io
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.files import SourceFile, digests, read_files
from learnchain.learning.sources.idx import check_digest
from learnchain.learning.sources.imported import ImportedData, ImportOptions, malformed, stacked, stacked_or_none
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

if TYPE_CHECKING:
    from PIL.Image import Image

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
        raise malformed(f"{path} holds no data_batch_*.bin; take the binary version, never the one with pickles")
    for file in files:
        check_digest(file, options.sha256.get(file.stem))
    training = _cifar_rows(file for file in files if file.stem.startswith("data"))
    test = [file for file in files if file.stem.startswith("test")]
    return ImportedData(training, _cifar_rows(test) if test else None, CIFAR_NAMES, digests(path, files))


def _cifar_rows(files: Iterable[SourceFile]) -> DataSet:
    parts: list[Array] = []
    for file in files:
        if not file.data or len(file.data) % _CIFAR_ROW_BYTES:
            raise malformed(f"{file.name} has {len(file.data)} bytes, which are no rows of {_CIFAR_ROW_BYTES}")
        parts.append(np.frombuffer(file.data, np.uint8).reshape(-1, _CIFAR_ROW_BYTES))
    if not parts:
        raise malformed("there are no training batches")
    rows = np.concatenate(parts)
    if rows[:, 0].max() >= len(CIFAR_NAMES):
        raise malformed(f"a label is {rows[:, 0].max()}, CIFAR-10 has ten classes")
    return DataSet(np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32), rows[:, 0].copy())


def import_image_classes(path: Path, options: ImportOptions) -> ImportedData:
    """Return pictures from folders named after their classes, below `train` and `test` if there are such folders."""
    files = read_files(path, lambda name: name.lower().endswith(_ENDINGS), options.progress)
    placed = [(file, *_class_of(file)) for file in files]
    names = tuple(sorted({name for _, _, name in placed}))
    if not 2 <= len(names) <= 256:
        raise malformed(f"{path} has {len(names)} class folders; a classifier needs 2 to 256")
    shape = options.shape or (3, 32, 32)
    rows: dict[str, list[tuple[Array, Array | int]]] = {"train": [], "test": []}
    for file, part, name in placed:
        rows[part].append((picture(file, shape), names.index(name)))
    return ImportedData(stacked(rows["train"]), stacked_or_none(rows["test"]), names, digests(path, files))


def _class_of(file: SourceFile) -> tuple[str, str]:
    folders = file.name.split("/")[:-1]
    if not folders:
        raise malformed(f"{file.name} lies in no class folder")
    above = folders[-2] if len(folders) > 1 else ""
    return "test" if above == "test" else "train", folders[-1]


def import_glas(path: Path, options: ImportOptions) -> ImportedData:
    """Return image-mask pairs as GlaS publishes them: `train_1.bmp` beside `train_1_anno.bmp`, `testA_*` to test."""
    files = read_files(path, lambda name: _GLAS.match(name.rpartition("/")[2]) is not None, options.progress)
    shape = options.shape or GLAS_SHAPE
    by_stem = {file.stem.rpartition(".")[0]: file for file in files}
    if len(by_stem) != len(files):
        raise malformed(f"{path} holds two files of one name")
    rows: dict[bool, list[tuple[Array, Array | int]]] = {True: [], False: []}
    for stem, file in by_stem.items():
        if stem.endswith("_anno"):
            continue
        mask = by_stem.get(f"{stem}_anno")
        if mask is None:
            raise malformed(f"{file.name} has no annotation beside it")
        rows[stem.startswith("train")].append((picture(file, shape), _mask(mask, file, shape)))
    names = ("background", "gland")
    return ImportedData(stacked(rows[True]), stacked_or_none(rows[False]), names, digests(path, files))


def _mask(mask: SourceFile, image: SourceFile, shape: tuple[int, ...]) -> Array:
    """Return 1 wherever the annotation names any object; the objects' numbers are not classes."""
    with _opened(mask) as annotation, _opened(image) as original:
        if annotation.size != original.size:
            raise malformed(f"{mask.name} has size {annotation.size}, its image {original.size}")
        plain = annotation if annotation.mode in ("L", "P", "I;16", "I", "1") else annotation.convert("L")
        objects = np.asarray(plain)
    return (resized(objects, shape[1:]) > 0).astype(np.uint8)


def picture(file: SourceFile, shape: tuple[int, ...]) -> Array:
    """Return a picture file as uint8 of a shape: channels (1 grey, 3 colours), height, width."""
    if len(shape) != 3 or shape[0] not in (1, 3) or not all(1 <= side <= MAXIMUM_SIDE for side in shape[1:]):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{shape} is no shape of pictures: 1 or 3, height, width")
    channels, height, width = shape
    with _opened(file) as opened:
        image = opened.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            # Pillow resamples bytes with fixed-point sums: the same bytes on any machine.
            image = image.resize((width, height), resample=2)
        pixels = np.asarray(image, dtype=np.uint8)
    return pixels[np.newaxis] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resized(values: Array, shape: tuple[int, ...]) -> Array:
    """Return the nearest values on another grid, in whole numbers: place i of n reads (2i + 1) size // 2n."""
    for axis, target in enumerate(shape):
        size = values.shape[axis]
        values = np.take(values, (2 * np.arange(target) + 1) * size // (2 * target), axis=axis)
    return values


def _opened(file: SourceFile) -> "Image":
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
        raise malformed(f"{file.name} is no JPEG, PNG or BMP: {error}") from error
    return image
