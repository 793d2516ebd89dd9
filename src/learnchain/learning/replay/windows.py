"""Cut samples into the windows of a kernel, in two or three dimensions, and add windows up again, in a fixed order."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from learnchain.learning.safe_tensors import Array
from learnchain.primitives.model_specification import Shape


@dataclass(frozen=True, slots=True)
class Windows:
    """Describe a kernel over samples: its sizes, strides and padding for each dimension, and how many fit."""

    sizes: Shape
    kernel: Shape
    stride: Shape
    padding: Shape

    @property
    def counts(self) -> Shape:
        """Return the windows along each dimension."""
        return tuple(
            (size + 2 * pad - kernel) // stride + 1
            for size, kernel, stride, pad in zip(self.sizes, self.kernel, self.stride, self.padding, strict=True)
        )

    def places(self, array: Array, filling: float = 0.0) -> Iterator[Array]:
        """Yield, for each place of the kernel in order, what lies there in all windows: (N, C, *counts)."""
        padded = self._padded(array, filling)
        for place in self._offsets():
            yield padded[(..., *self._slices(place))]

    def unfold(self, array: Array) -> Array:
        """Return (C * places, N * windows) for samples of (N, C, *sizes)."""
        stacked = np.stack(list(self.places(array)), axis=2)
        rows, channels, places, *counts = stacked.shape
        flat = stacked.reshape(rows, channels * places, int(np.prod(counts)))
        return np.ascontiguousarray(flat.transpose(1, 0, 2)).reshape(channels * places, -1)

    def fold(self, columns: Array, rows: int, channels: int) -> Array:
        """Add windows of (C * places, N * windows) up into samples of (N, C, *sizes), one place after the other."""
        places = list(self._offsets())
        parts = columns.reshape(channels, len(places), rows, *self.counts).swapaxes(0, 2)
        return self.gather([parts[:, number] for number in range(len(places))])

    def gather(self, parts: list[Array]) -> Array:
        """Add what each place of the kernel contributes, (N, C, *counts) each, into samples of (N, C, *sizes)."""
        rows, channels = parts[0].shape[:2]
        outer = [size + 2 * pad for size, pad in zip(self.sizes, self.padding, strict=True)]
        samples = np.zeros((rows, channels, *outer))
        for place, part in zip(self._offsets(), parts, strict=True):
            samples[(..., *self._slices(place))] += part
        inner = tuple(slice(pad, pad + size) for size, pad in zip(self.sizes, self.padding, strict=True))
        return samples[(..., *inner)]

    def _offsets(self) -> Iterator[Shape]:
        return itertools.product(*(range(size) for size in self.kernel))

    def _slices(self, place: Shape) -> tuple[slice, ...]:
        return tuple(
            slice(start, start + stride * (count - 1) + 1, stride)
            for start, stride, count in zip(place, self.stride, self.counts, strict=True)
        )

    def _padded(self, array: Array, filling: float) -> Array:
        if not any(self.padding):
            return array
        widths = ((0, 0), (0, 0), *((pad, pad) for pad in self.padding))
        return np.pad(array, widths, constant_values=filling)
