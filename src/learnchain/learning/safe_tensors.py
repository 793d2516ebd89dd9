"""Read and write safetensors files as suspiciously as anything from a peer; without torch, never with pickle.

The header is bounded, parsed and compared with what is expected before one byte of a tensor is read; offsets must
be contiguous and end at the end of the file, so that a file holds nothing that nobody looks at.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from learnchain.encoding.codec import parse_json
from learnchain.rejection import Rejected, RejectionReason

Array = npt.NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I64": np.dtype("<i8"),
}
"""The element types we read; the names are those of the format."""

MAXIMUM_HEADER_BYTES = 1 << 20
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """Describe one tensor of a file: its element type, shape and place after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def write_tensors(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays in the given order; equal arrays give equal bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, array in arrays.items():
        end = position + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(raw_bytes(array))


def raw_bytes(array: Array) -> memoryview:
    """Return an array's elements in order as bytes, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def read_header(path: Path, maximum_bytes: int, reason: RejectionReason) -> dict[str, Entry]:
    """Return the checked entries in file order; a file above the bound is `TOO_LARGE`, another fault is `reason`."""
    size = path.stat().st_size
    if size > maximum_bytes:
        raise Rejected(RejectionReason.TOO_LARGE, f"the file has {size} bytes, allowed are {maximum_bytes}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAXIMUM_HEADER_BYTES, size - 8):
            raise Rejected(reason, "the header's length is wrong")
        text = file.read(length)
    try:
        header = parse_json(text, object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("the header is no object")
        header.pop("__metadata__", None)
        entries = sorted(((name, _entry(value)) for name, value in header.items()), key=lambda item: item[1].start)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Rejected(reason, f"the header is wrong: {error}") from error
    position = 0
    for name, entry in entries:
        if entry.start != position:
            raise Rejected(reason, f"{name} does not start where the tensor before it ends")
        position = entry.end
    if position != size - 8 - length:
        raise Rejected(reason, f"{size - 8 - length} bytes follow the header, its tensors have {position}")
    return dict(entries)


def read_tensor(path: Path, entry: Entry, mapped: bool = False) -> Array:
    """Return one tensor of a file whose header was checked; a mapped one stays in the file, read-only."""
    with path.open("rb") as file:
        header_bytes = 8 + int.from_bytes(file.read(8), "little")
        count = math.prod(entry.shape)
        if mapped and count and path.stat().st_size >= header_bytes + entry.end:
            return np.memmap(file, DTYPES[entry.dtype], "r", header_bytes + entry.start, entry.shape)
        file.seek(header_bytes + entry.start)
        array = np.fromfile(file, dtype=DTYPES[entry.dtype], count=count)
    if array.size != count:
        raise Rejected(RejectionReason.MALFORMED, "the file became shorter while it was read")
    return array.reshape(entry.shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _entry(value: Any) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("an entry has dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in DTYPES:
        raise ValueError(f"the element type {dtype!r} is none of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > 8 or not isinstance(offsets, list) or len(offsets) != 2:
        raise ValueError("shape and data_offsets are short lists")
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (*shape, *offsets)):
        raise ValueError("sizes and offsets are whole numbers")
    start, end = offsets
    if end - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError("an entry's offsets do not fit its shape")
    return Entry(dtype, tuple(shape), start, end)
