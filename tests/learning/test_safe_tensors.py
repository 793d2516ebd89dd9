import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from learnchain.learning.safe_tensors import MAXIMUM_HEADER_BYTES, read_header, read_tensor, write_tensors
from learnchain.rejection import Rejected, RejectionReason

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1, 2], dtype=np.int64)}


def refusal(path, maximum=1 << 20):
    with pytest.raises(Rejected) as caught:
        read_header(path, maximum, RejectionReason.WEIGHTS_MALFORMED)
    return caught.value.reason


def written(path, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_our_files_are_read_by_the_reference_library_and_the_reverse(tmp_path):
    write_tensors(tmp_path / "ours", ARRAYS)
    for name, array in load_file(tmp_path / "ours").items():
        assert np.array_equal(array, ARRAYS[name])
    save_file(ARRAYS, tmp_path / "theirs")
    entries = read_header(tmp_path / "theirs", 1 << 20, RejectionReason.MALFORMED)
    assert all(np.array_equal(read_tensor(tmp_path / "theirs", entries[name]), ARRAYS[name]) for name in ARRAYS)


def test_equal_arrays_give_equal_bytes(tmp_path):
    write_tensors(tmp_path / "one", ARRAYS)
    write_tensors(tmp_path / "two", {name: array.copy() for name, array in ARRAYS.items()})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"x": entry()}, b"123"),
        ({"x": entry()}, b"12345"),
        ({"x": entry(offsets=(4, 8))}, b"12345678"),
        ({"x": entry(), "y": entry(offsets=(2, 6))}, b"123456"),
        ({"x": entry(shape=(2,))}, b"1234"),
        ({"x": entry(shape=(-1,), offsets=(0, -4))}, b""),
        ({"x": entry(shape=(1.0,))}, b"1234"),
        ({"x": entry(shape=(True,))}, b"1234"),
        ({"x": entry(dtype="BF16")}, b"12"),
        ({"x": entry(dtype="F64", offsets=(0, 8))}, b"12345678"),
        ({"x": {**entry(), "extra": 1}}, b"1234"),
        ({"x": [1, 2]}, b""),
        (
            b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}',
            b"1234",
        ),
        (b"[1,2]", b""),
        (b"\xff\xfe", b""),
        (b"[" * 5_000, b""),
        ([], b""),
    ],
)
def test_a_header_that_does_not_describe_its_file_is_refused(tmp_path, header, body):
    assert refusal(written(tmp_path / "file", header, body)) is RejectionReason.WEIGHTS_MALFORMED


@pytest.mark.parametrize(
    "head", [b"", b"\1\0\0", b"\0" * 8, b"\xff" * 8, (MAXIMUM_HEADER_BYTES + 1).to_bytes(8, "little")]
)
def test_a_header_length_beyond_the_file_or_the_bound_is_refused(tmp_path, head):
    (tmp_path / "file").write_bytes(head + b"{}")
    assert refusal(tmp_path / "file") is RejectionReason.WEIGHTS_MALFORMED


def test_a_file_above_its_bound_is_too_large_before_it_is_read(tmp_path):
    write_tensors(tmp_path / "file", ARRAYS)
    assert refusal(tmp_path / "file", 16) is RejectionReason.TOO_LARGE
