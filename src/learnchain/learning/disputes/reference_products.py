"""Cut samples into the windows of a kernel, in two or three dimensions, and add windows up again, in a fixed order.

The reference of layers that multiply, forwards and backwards: linear, convolutions, transposed convolutions.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from learnchain.learning.disputes.bounds import Bounded, added, joined, multiplied, summed, weighted
from learnchain.learning.safe_tensors import Array
from learnchain.protocol.model_specification import Shape


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


Gradients = tuple[tuple[Bounded, ...], dict[str, Bounded]]
"""The gradients of a layer's inputs, and of its parameters by their last name."""

Backward = Callable[[Bounded], Gradients]

_UNFOLDED = 1 << 22
"""Numbers of unfolded windows held at a time; a constant, since where sums are cut decides their last bits."""


def linear(received: Bounded, parameters: Mapping[str, Array], first: bool) -> tuple[Bounded, Backward]:
    """Return x W^T + b and its backward pass; nobody asks for the gradient of what a `first` layer reads."""
    weight, bias = parameters["weight"], parameters.get("bias")
    output = _biased(_turned(weighted(weight, _turned(received))), bias)

    def backward(gradient: Bounded) -> Gradients:
        rows = len(gradient.value)
        across = _turned(gradient)
        found = {"weight": multiplied(across, received, rows)}
        if bias is not None:
            found["bias"] = summed(gradient, 0, rows)
        return () if first else (_turned(weighted(weight.T, across)),), found

    return output, backward


@dataclass(frozen=True, slots=True)
class Kernel:
    """Hold the windows and groups of a convolution; its weight is a matrix of (a, b * places) for each group.

    `apply` leads from samples to windows' sums (a convolution forwards, a transposed one backwards), `spread` is its
    transpose, `correlate` gives the gradient of the weight for both.
    """

    windows: Windows
    groups: int

    def apply(self, large: Bounded, weight: Array) -> Bounded:
        """Return W @ unfold(large) as (N, a, *counts)."""
        matrix, parts = self._matrix(weight), list[Bounded]()
        for rows in self._chunks(large, matrix.shape[2]):
            groups = [weighted(matrix[group], self._unfold(large, rows, group)) for group in range(self.groups)]
            parts.append(joined(groups, 0).moved(self._arranged))
        return joined(parts, 0)

    def spread(self, small: Bounded, weight: Array) -> Bounded:
        """Return fold(W^T @ small) as (N, b, *sizes); an element is a sum over channels and places."""
        matrix, parts = self._matrix(weight), list[Bounded]()
        channels, terms = weight.shape[1], matrix.shape[1] * prod(self.windows.kernel)
        for rows in self._chunks(small, matrix.shape[2]):
            count = rows.stop - rows.start
            groups = [
                weighted(matrix[group].T, self._flat(small, rows, group), terms).moved(
                    lambda columns, count=count: self.windows.fold(columns, count, channels)
                )
                for group in range(self.groups)
            ]
            parts.append(joined(groups, 1))
        return joined(parts, 0)

    def correlate(self, small: Bounded, large: Bounded, shape: Shape) -> Bounded:
        """Return small @ unfold(large)^T, the gradient of a weight of this shape: a sum over samples and windows."""
        terms = small.value.size // small.value.shape[1]
        found: Bounded | None = None
        for rows in self._chunks(large, prod(shape[1:])):
            groups = [
                multiplied(self._flat(small, rows, group), _turned(self._unfold(large, rows, group)), terms)
                for group in range(self.groups)
            ]
            part = joined(groups, 0)
            found = part if found is None else added(found, part)
        assert found is not None
        return found.reshape(*shape)

    def _matrix(self, weight: Array) -> Array:
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def _chunks(self, samples: Bounded, each: int) -> list[slice]:
        rows = len(samples.value)
        step = max(1, _UNFOLDED // (each * self.groups * prod(self.windows.counts)))
        return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

    def _unfold(self, samples: Bounded, rows: slice, group: int) -> Bounded:
        width = samples.value.shape[1] // self.groups
        channels = slice(group * width, (group + 1) * width)
        return samples.moved(lambda array: self.windows.unfold(array[rows, channels]))

    def _flat(self, samples: Bounded, rows: slice, group: int) -> Bounded:
        width = samples.value.shape[1] // self.groups
        channels = slice(group * width, (group + 1) * width)
        return samples.moved(
            lambda array: np.ascontiguousarray(array[rows, channels].swapaxes(0, 1)).reshape(width, -1)
        )

    def _arranged(self, flat: Array) -> Array:
        return flat.reshape(len(flat), -1, *self.windows.counts).swapaxes(0, 1)


def convolution(
    received: Bounded, parameters: Mapping[str, Array], settings: Mapping[str, int], first: bool
) -> tuple[Bounded, Backward]:
    """Return a convolution and its backward pass."""
    weight, bias = parameters["weight"], parameters.get("bias")
    kernel = Kernel(_windows(received.value.shape[2:], settings), settings.get("groups", 1))
    output = _biased(kernel.apply(received, weight), bias)

    def backward(gradient: Bounded) -> Gradients:
        found = {"weight": kernel.correlate(gradient, received, weight.shape)}
        if bias is not None:
            found["bias"] = _bias_gradient(gradient)
        return () if first else (kernel.spread(gradient, weight),), found

    return output, backward


def transposed_convolution(
    received: Bounded, parameters: Mapping[str, Array], settings: Mapping[str, int], sizes: Shape
) -> tuple[Bounded, Backward]:
    """Return a transposed convolution to samples of `sizes`, and its backward pass."""
    weight, bias = parameters["weight"], parameters.get("bias")
    kernel = Kernel(_windows(sizes, settings), 1)
    output = _biased(kernel.spread(received, weight), bias)

    def backward(gradient: Bounded) -> Gradients:
        found = {"weight": kernel.correlate(received, gradient, weight.shape)}
        if bias is not None:
            found["bias"] = _bias_gradient(gradient)
        return (kernel.apply(gradient, weight),), found

    return output, backward


def _windows(sizes: Shape, settings: Mapping[str, int]) -> Windows:
    names = ("kernel_size", "stride", "padding")
    return Windows(tuple(sizes), *((settings[name],) * len(sizes) for name in names))


def _bias_gradient(gradient: Bounded) -> Bounded:
    axes = (0, *range(2, gradient.value.ndim))
    return summed(gradient, axes, gradient.value.size // gradient.value.shape[1])


def _biased(output: Bounded, bias: Array | None) -> Bounded:
    if bias is None:
        return output
    shaped = bias.reshape(1, -1, *(1,) * (output.value.ndim - 2))
    return added(output, Bounded(shaped, np.zeros_like(shaped)))


def _turned(matrix: Bounded) -> Bounded:
    return matrix.moved(lambda array: array.T)
