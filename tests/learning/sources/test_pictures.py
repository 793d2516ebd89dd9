import io

import numpy as np
import pytest

from learnchain.learning.sources.files import ImportOptions, SourceFile
from learnchain.learning.sources.pictures import import_cifar10, import_glas, import_image_classes, picture, resize
from learnchain.learning.sources.synthetic import write_bmp
from learnchain.rejection import Rejected, RejectionReason

Image = pytest.importorskip("PIL.Image", reason="Pillow opens picture files: the extra `images`")


def reason_of(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


def noise(seed=0, shape=(3, 8, 10)):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def encoded(pixels, kind="PNG"):
    target = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(target, kind)
    return target.getvalue()


def test_a_bmp_and_a_png_hold_the_pixels_that_were_drawn(tmp_path):
    pixels = noise()
    write_bmp(tmp_path / "x.bmp", pixels)
    bmp, png = SourceFile("x.bmp", (tmp_path / "x.bmp").read_bytes()), SourceFile("x.png", encoded(pixels))
    assert np.array_equal(picture(bmp, (3, 8, 10)), pixels)
    assert np.array_equal(picture(png, (3, 8, 10)), pixels)
    assert picture(png, (1, 4, 5)).shape == (1, 4, 5)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"BM" + b"\0" * 60])
def test_what_is_no_picture_is_malformed(data):
    assert reason_of(picture, SourceFile("x.png", data), (3, 4, 4)) is RejectionReason.MALFORMED


def test_a_cut_picture_is_malformed():
    whole = encoded(noise(shape=(3, 64, 64)))
    assert reason_of(picture, SourceFile("x.png", whole[: len(whole) // 2]), (3, 4, 4)) is RejectionReason.MALFORMED


def test_a_huge_picture_is_refused_before_it_is_decoded():
    target = io.BytesIO()
    Image.new("1", (9_000, 2)).save(target, "PNG")
    assert reason_of(picture, SourceFile("x.png", target.getvalue()), (3, 4, 4)) is RejectionReason.TOO_LARGE
    target = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(target, "PNG")
    assert reason_of(picture, SourceFile("x.png", target.getvalue()), (3, 4, 4)) is RejectionReason.TOO_LARGE


def test_other_formats_than_three_are_not_opened():
    target = io.BytesIO()
    Image.new("RGB", (4, 4)).save(target, "GIF")
    assert reason_of(picture, SourceFile("x.png", target.getvalue()), (3, 4, 4)) is RejectionReason.MALFORMED


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 0, 4), (3, 4), (3, 4, 10_000)])
def test_a_shape_that_no_picture_has_is_an_argument(shape):
    file = SourceFile("x.png", encoded(noise()))
    assert reason_of(picture, file, shape) is RejectionReason.ARGUMENT_INVALID


def test_nearest_values_are_chosen_in_whole_numbers():
    assert resize(np.arange(6), (3,)).tolist() == [1, 3, 5]
    assert resize(np.arange(3), (6,)).tolist() == [0, 0, 1, 1, 2, 2]
    grid = np.arange(12).reshape(3, 4)
    assert np.array_equal(resize(grid, (3, 4)), grid)


def test_cifar_batches_are_read_plane_by_plane(tmp_path):
    image = noise(1, (3, 32, 32))
    (tmp_path / "data_batch_1.bin").write_bytes(bytes([7]) + image.tobytes())
    (tmp_path / "test_batch.bin").write_bytes(bytes([2]) + image.tobytes())
    found = import_cifar10(tmp_path, ImportOptions())
    assert found.test is not None
    assert np.array_equal(found.training.inputs[0], image)
    assert (found.training.labels.tolist(), found.test.labels.tolist()) == ([7], [2])
    (tmp_path / "data_batch_2.bin").write_bytes(b"\0" * 3_072)
    assert reason_of(import_cifar10, tmp_path, ImportOptions()) is RejectionReason.MALFORMED
    (tmp_path / "data_batch_2.bin").write_bytes(bytes([10]) + image.tobytes())
    assert reason_of(import_cifar10, tmp_path, ImportOptions()) is RejectionReason.MALFORMED


def test_pickles_are_not_even_opened(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04cos\nsystem\n")
    assert reason_of(import_cifar10, tmp_path, ImportOptions()) is RejectionReason.MALFORMED


def test_class_folders_name_the_classes(tmp_path):
    for place in ("train/cat/0", "train/dog/0", "train/dog/1", "test/cat/0"):
        path = tmp_path / "top" / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(), "JPEG"))
    found = import_image_classes(tmp_path, ImportOptions(shape=(3, 8, 8)))
    assert found.class_names == ("cat", "dog")
    assert found.training.labels.tolist() == [0, 1, 1]
    assert found.test is not None
    assert found.test.labels.tolist() == [0]
    assert found.training.sample_shape == (3, 8, 8)


def test_one_class_is_no_classification(tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "0.png").write_bytes(encoded(noise()))
    assert reason_of(import_image_classes, tmp_path, ImportOptions()) is RejectionReason.MALFORMED
    (tmp_path / "0.png").write_bytes(encoded(noise()))
    assert reason_of(import_image_classes, tmp_path, ImportOptions()) is RejectionReason.MALFORMED


def glas(directory, names=("train_1", "testA_1")):
    mask = np.zeros((3, 8, 10), np.uint8)
    mask[:, 2:4, :5] = 3
    for name in names:
        write_bmp(directory / f"{name}.bmp", noise())
        write_bmp(directory / f"{name}_anno.bmp", mask)
    return mask


def test_masks_mark_every_object_as_one_class(tmp_path):
    mask = glas(tmp_path)
    found = import_glas(tmp_path, ImportOptions(shape=(3, 8, 10)))
    assert found.test is not None
    assert np.array_equal(found.training.labels[0], (mask[0] > 0).astype(np.uint8))
    assert np.array_equal(found.training.inputs[0], noise())
    small = import_glas(tmp_path, ImportOptions(shape=(3, 4, 5)))
    assert (small.training.sample_shape, small.training.labels.shape) == ((3, 4, 5), (1, 4, 5))


def test_an_image_without_its_mask_or_with_another_size_is_malformed(tmp_path):
    glas(tmp_path)
    (tmp_path / "train_1_anno.bmp").unlink()
    assert reason_of(import_glas, tmp_path, ImportOptions()) is RejectionReason.MALFORMED
    write_bmp(tmp_path / "train_1_anno.bmp", noise(shape=(3, 8, 11)))
    assert reason_of(import_glas, tmp_path, ImportOptions()) is RejectionReason.MALFORMED
