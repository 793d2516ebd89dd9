"""The reference of layers that multiply, forwards and backwards: linear, convolutions, transposed convolutions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from learnchain.learning.replay.bounds import Bounded, added, multiplied, summed, weighted
from learnchain.learning.replay.windows import Windows
from learnchain.learning.safe_tensors import Array
from learnchain.primitives.model_specification import Shape

Gradients = tuple[tuple[Bounded, ...], dict[str, Bounded]]
"""The gradients of a layer's inputs, and of its parameters by their last name."""
Backward = Callable[[Bounded], Gradients]
_UNFOLDED = 1 << 22
"""Numbers of unfolded windows held at a time; a constant, since where sums are cut decides their last bits."""


def linear(received: Bounded, parameters: Mapping[str, Array]) -> tuple[Bounded, Backward]:
    """Return x W^T + b and its backward pass."""
    weight, bias = parameters["weight"], parameters.get("bias")
    output = weighted(weight, received.value.T, received.radius.T)
    output = _biased(Bounded(output.value.T, output.radius.T), bias)

    def backward(gradient: Bounded) -> Gradients:
        rows = len(gradient.value)
        across = Bounded(gradient.value.T, gradient.radius.T)
        found = {"weight": multiplied(across, received.value, received.radius, rows)}
        if bias is not None:
            found["bias"] = summed(gradient, 0, rows)
        back = weighted(weight.T, across.value, across.radius)
        return (Bounded(back.value.T, back.radius.T),), found

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
        matrix = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        parts = list[Bounded]()
        for rows in self._chunks(large, matrix.shape[2]):
            groups = [
                weighted(matrix[group], self._unfold(large.value[rows], group), self._unfold(large.radius[rows], group))
                for group in range(self.groups)
            ]
            parts.append(self._arranged(groups))
        return _joined(parts)

    def spread(self, small: Bounded, weight: Array) -> Bounded:
        """Return fold(W^T @ small) as (N, b, *sizes); an element is a sum over channels and places."""
        matrix = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        channels, terms, parts = weight.shape[1], matrix.shape[1] * prod(self.windows.kernel), list[Bounded]()
        for rows in self._chunks(small, matrix.shape[2]):
            groups = [
                weighted(
                    matrix[group].T, self._flat(small.value[rows], group), self._flat(small.radius[rows], group), terms
                )
                for group in range(self.groups)
            ]
            count = len(small.value[rows])
            values = [self.windows.fold(each.value, count, channels) for each in groups]
            radii = [self.windows.fold(each.radius, count, channels) for each in groups]
            parts.append(Bounded(np.concatenate(values, axis=1), np.concatenate(radii, axis=1)))
        return _joined(parts)

    def correlate(self, small: Bounded, large: Bounded, shape: Shape) -> Bounded:
        """Return small @ unfold(large)^T, the gradient of a weight of this shape: a sum over samples and windows."""
        terms = small.value.size // small.value.shape[1]
        value, radius = np.zeros(shape), np.zeros(shape)
        for rows in self._chunks(large, prod(shape[1:])):
            found = list[Bounded]()
            for group in range(self.groups):
                left = Bounded(self._flat(small.value[rows], group), self._flat(small.radius[rows], group))
                right = self._unfold(large.value[rows], group).T
                found.append(multiplied(left, right, self._unfold(large.radius[rows], group).T, terms))
            value += np.concatenate([each.value for each in found]).reshape(shape)
            radius += np.concatenate([each.radius for each in found]).reshape(shape)
        return Bounded(value, radius)

    def _chunks(self, samples: Bounded, each: int) -> list[slice]:
        rows = len(samples.value)
        step = max(1, _UNFOLDED // (each * self.groups * prod(self.windows.counts)))
        return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

    def _unfold(self, samples: Array, group: int) -> Array:
        width = samples.shape[1] // self.groups
        return self.windows.unfold(samples[:, group * width : (group + 1) * width])

    def _flat(self, samples: Array, group: int) -> Array:
        width = samples.shape[1] // self.groups
        return np.ascontiguousarray(samples[:, group * width : (group + 1) * width].swapaxes(0, 1)).reshape(width, -1)

    def _arranged(self, groups: list[Bounded]) -> Bounded:
        counts = self.windows.counts

        def turned(arrays: list[Array]) -> Array:
            joined = np.concatenate(arrays)
            return joined.reshape(len(joined), -1, *counts).swapaxes(0, 1)

        return Bounded(turned([each.value for each in groups]), turned([each.radius for each in groups]))


def convolution(
    received: Bounded, parameters: Mapping[str, Array], settings: Mapping[str, int]
) -> tuple[Bounded, Backward]:
    """Return a convolution and its backward pass."""
    weight, bias = parameters["weight"], parameters.get("bias")
    kernel = Kernel(_windows(received.value.shape[2:], settings), settings.get("groups", 1))
    output = _biased(kernel.apply(received, weight), bias)

    def backward(gradient: Bounded) -> Gradients:
        found = {"weight": kernel.correlate(gradient, received, weight.shape)}
        if bias is not None:
            found["bias"] = _bias_gradient(gradient)
        return (kernel.spread(gradient, weight),), found

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


def _joined(parts: list[Bounded]) -> Bounded:
    if len(parts) == 1:
        return parts[0]
    return Bounded(np.concatenate([each.value for each in parts]), np.concatenate([each.radius for each in parts]))
