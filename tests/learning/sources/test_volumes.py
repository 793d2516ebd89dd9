import gzip
import struct

import numpy as np
import pytest

from learnchain.learning.sources.files import ImportOptions, SourceFile
from learnchain.learning.sources.synthetic import write_nifti
from learnchain.learning.sources.volumes import HEART_NAMES, import_mmwhs, read_nifti, scale_to_bytes
from learnchain.rejection import Rejected, RejectionReason


def reason_of(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


def volume(shape=(2, 3, 4)):
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


@pytest.fixture
def data(tmp_path):
    write_nifti(tmp_path / "x.nii", volume())
    return bytearray((tmp_path / "x.nii").read_bytes())


def read(data):
    return read_nifti(SourceFile("x.nii", bytes(data)))


def test_voxels_run_along_x_first(data):
    assert np.array_equal(read(data).transpose(2, 1, 0), volume())


def test_big_endian_files_and_scaled_voxels_are_read(data):
    struct.pack_into("<2f", data, 112, 2.0, -1.0)
    assert np.array_equal(read(data).transpose(2, 1, 0), 2.0 * volume() - 1)
    big = bytearray(352)
    struct.pack_into(">i", big, 0, 348)
    struct.pack_into(">8h", big, 40, 3, 4, 3, 2, 1, 1, 1, 1)
    struct.pack_into(">2h", big, 70, 4, 16)
    struct.pack_into(">3f", big, 108, 352, 1, 0)
    big[344:348] = b"n+1\0"
    assert np.array_equal(read(big + volume().astype(">i2").tobytes()).transpose(2, 1, 0), volume())


@pytest.mark.parametrize(
    ("offset", "kind", "value", "reason"),
    [
        (0, "<i", 347, RejectionReason.MALFORMED),
        (344, "4s", b"ni1\0", RejectionReason.MALFORMED),
        (40, "<h", 2, RejectionReason.MALFORMED),
        (40, "<h", 9, RejectionReason.MALFORMED),
        (42, "<h", 5, RejectionReason.MALFORMED),
        (42, "<h", 0, RejectionReason.TOO_LARGE),
        (42, "<h", -4, RejectionReason.TOO_LARGE),
        (42, "<h", 32_767, RejectionReason.TOO_LARGE),
        (70, "<h", 128, RejectionReason.MALFORMED),
        (72, "<h", 8, RejectionReason.MALFORMED),
        (108, "<f", 0.0, RejectionReason.MALFORMED),
        (108, "<f", float("nan"), RejectionReason.MALFORMED),
        (108, "<f", 1e30, RejectionReason.MALFORMED),
        (112, "<f", float("inf"), RejectionReason.MALFORMED),
    ],
)
def test_a_header_that_lies_is_refused(data, offset, kind, value, reason):
    struct.pack_into(kind, data, offset, value)
    assert reason_of(read, data) is reason


def test_four_dimensions_are_read_when_the_fourth_is_one(data):
    struct.pack_into("<h", data, 40, 4)
    assert read(data).shape == (4, 3, 2)
    struct.pack_into("<h", data, 48, 2)
    assert reason_of(read, data) is RejectionReason.MALFORMED


@pytest.mark.parametrize("cut", [0, 100, 351, 370])
def test_a_cut_volume_is_malformed(data, cut):
    assert reason_of(read, data[:cut]) is RejectionReason.MALFORMED


def test_windowed_voxels_are_bytes_between_two_percentiles():
    values = np.arange(1_000).reshape(10, 10, 10)
    found = scale_to_bytes(values, "x")
    assert (found.min(), found.max(), found.dtype) == (0, 255, np.uint8)
    assert np.all(np.diff(found.reshape(-1).astype(int)) >= 0)
    assert scale_to_bytes(np.full((2, 2, 2), 7), "x").max() == 0
    assert reason_of(scale_to_bytes, np.full((2, 2, 2), np.nan), "x") is RejectionReason.MALFORMED


def pair(directory, labels, name="ct_train_1001"):
    write_nifti(directory / f"{name}_image.nii", volume(labels.shape))
    write_nifti(directory / f"{name}_label.nii", labels)


def test_heart_labels_become_classes(tmp_path):
    labels = np.zeros((4, 4, 4), np.int16)
    labels[0, 0], labels[1, 0], labels[2, 0], labels[3, 0] = 500, 850, 420, 421
    pair(tmp_path, labels)
    for path in list(tmp_path.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    found = import_mmwhs(tmp_path, ImportOptions(shape=(1, 4, 4, 4)))
    assert found.test is None
    assert found.class_names == HEART_NAMES
    assert found.training.labels[0, :, 0, 0].tolist() == [1, 7, 3, 3]
    assert found.training.sample_shape == (1, 4, 4, 4)


def test_labels_that_the_heart_lacks_are_malformed(tmp_path):
    pair(tmp_path, np.full((2, 2, 2), 3, np.int16))
    assert reason_of(import_mmwhs, tmp_path, ImportOptions()) is RejectionReason.MALFORMED


def test_a_volume_without_labels_or_of_another_shape_is_malformed(tmp_path):
    pair(tmp_path, np.zeros((2, 2, 2), np.int16))
    write_nifti(tmp_path / "ct_train_1001_label.nii", np.zeros((2, 2, 3), np.int16))
    assert reason_of(import_mmwhs, tmp_path, ImportOptions()) is RejectionReason.MALFORMED
    (tmp_path / "ct_train_1001_label.nii").unlink()
    assert reason_of(import_mmwhs, tmp_path, ImportOptions()) is RejectionReason.MALFORMED


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (1, 4, 4), (1, 4, 4, 5_000)])
def test_a_shape_that_no_volume_has_is_an_argument(tmp_path, shape):
    assert reason_of(import_mmwhs, tmp_path, ImportOptions(shape=shape)) is RejectionReason.ARGUMENT_INVALID
