import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from learnchain.learning.sources.files import ImportOptions
from learnchain.learning.sources.pictures import PARTS, import_idx, import_mnist
from learnchain.rejection import Rejected, RejectionReason

MNIST_PLACE = Path(os.environ.get("LEARNCHAIN_MNIST", "/nowhere"))


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def written(directory, rows=6, tests=3):
    directory.mkdir(exist_ok=True)
    images = np.arange(rows * 4, dtype=np.uint8).reshape(rows, 2, 2)
    labels = (np.arange(rows) % 3).astype(np.uint8)
    for part, array in zip(PARTS, (images, labels, images[:tests], labels[:tests]), strict=True):
        (directory / f"{part}-idx{array.ndim}-ubyte").write_bytes(idx(array))
    return images, labels


def reason_of(path, importer=import_idx, options=None):
    with pytest.raises(Rejected) as caught:
        importer(path, options or ImportOptions())
    return caught.value.reason


@pytest.mark.parametrize("compressed", [False, True])
def test_four_files_are_a_data_set(tmp_path, compressed):
    images, labels = written(tmp_path / "data")
    if compressed:
        for path in list((tmp_path / "data").iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    found = import_idx(tmp_path / "data", ImportOptions())
    assert np.array_equal(found.training.inputs[:, 0], images)
    assert np.array_equal(found.training.labels, labels)
    assert found.test is not None
    assert (len(found.test), found.class_names) == (3, ("0", "1", "2"))
    assert len(found.sources) == 4


def test_other_bytes_than_mnist_are_not_called_mnist(tmp_path):
    written(tmp_path)
    assert reason_of(tmp_path, import_mnist) is RejectionReason.WRONG_HASH


def test_a_named_digest_must_match(tmp_path):
    written(tmp_path)
    name = "train-images-idx3-ubyte"
    right = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert len(import_idx(tmp_path, ImportOptions(sha256={name: right})).training) == 6
    assert reason_of(tmp_path, options=ImportOptions(sha256={name: "0" * 64})) is RejectionReason.WRONG_HASH


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\0\0\x0d\x03" + data[4:],
        lambda data: b"\0\0\x08\x02" + data[4:],
        lambda data: data[:4] + b"\xff\xff\xff\xff" * 3 + data[16:],
        lambda data: data[:7],
        lambda data: b"",
    ],
)
def test_a_file_that_contradicts_its_header_is_malformed(tmp_path, change):
    written(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    assert reason_of(tmp_path) is RejectionReason.MALFORMED


@pytest.mark.parametrize("missing", PARTS)
def test_a_missing_file_is_malformed(tmp_path, missing):
    written(tmp_path)
    next(tmp_path.glob(f"{missing}*")).unlink()
    assert reason_of(tmp_path) is RejectionReason.MALFORMED


def test_images_and_labels_must_be_equally_many(tmp_path):
    written(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    assert reason_of(tmp_path) is RejectionReason.MALFORMED


@pytest.mark.skipif(not MNIST_PLACE.is_dir(), reason="full MNIST is not here; set LEARNCHAIN_MNIST to its folder")
def test_full_mnist_is_recognised_by_its_digests():
    found = import_mnist(MNIST_PLACE, ImportOptions())
    assert found.test is not None
    assert (len(found.training), len(found.test), found.training.sample_shape) == (60_000, 10_000, (1, 28, 28))
    assert np.bincount(found.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
