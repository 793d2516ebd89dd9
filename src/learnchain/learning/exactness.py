"""Refuse to judge on a machine whose convolutions are not exact where IEEE arithmetic says they must be.

The exact evaluation needs plain sums of products. A library that takes a shortcut (Winograd or Fourier transforms,
reduced precision) breaks that silently, so every process compares a convolution and a product whose sums come close
to 2**24 with integer arithmetic once, in a few milliseconds, before its first evaluation.
"""

from functools import cache

import numpy as np
import torch
from torch.nn import functional

from learnchain.learning.safe_tensors import Array
from learnchain.primitives.hashing import shake256
from learnchain.primitives.rejection import Unavailable

_CHANNELS, _SIDE, _KERNEL = 16, 12, 3


@cache
def check_backend() -> None:
    """Raise `Unavailable` if this machine cannot evaluate exactly."""
    samples = _integers("samples", (2, _CHANNELS, _SIDE, _SIDE), 1_023)
    weights = _integers("weights", (_CHANNELS, _CHANNELS, _KERNEL, _KERNEL), 113)
    out = _SIDE - _KERNEL + 1
    expected = np.zeros((2, _CHANNELS, out, out), dtype=np.int64)
    for row in range(_KERNEL):
        for column in range(_KERNEL):
            window = samples[:, :, row : row + out, column : column + out]
            expected += np.einsum("nchw,oc->nohw", window, weights[:, :, row, column])
    with torch.inference_mode():
        convolved = functional.conv2d(_floats(samples), _floats(weights))
        flat, matrix = samples.reshape(-1, _CHANNELS * 9), weights.reshape(_CHANNELS, -1)
        multiplied = functional.linear(_floats(flat), _floats(matrix))
    if not _equal(convolved, expected) or not _equal(multiplied, flat @ matrix.T):
        raise Unavailable("an exact evaluation: this machine's float32 sums take a shortcut (see doctor)")


def _integers(tag: str, shape: tuple[int, ...], largest: int) -> Array:
    drawn = np.frombuffer(shake256(f"exactness/{tag}", b"", 2 * int(np.prod(shape))), dtype="<u2").astype(np.int64)
    return (drawn % (2 * largest + 1) - largest).reshape(shape)


def _floats(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _equal(found: torch.Tensor, expected: Array) -> bool:
    return bool(np.array_equal(found.numpy().astype(np.int64), expected))
