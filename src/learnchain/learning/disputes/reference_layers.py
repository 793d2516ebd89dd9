"""The reference of layers that do not multiply by weights: normalisation, activations, pooling and what moves numbers.

Where a tie or a sign is in doubt inside the bounds (a rectifier near zero, the maximum of a window), the gradient may
honestly go either way, and the bound covers both.
"""

import itertools
from collections.abc import Mapping
from math import prod

import numpy as np

from learnchain.learning.disputes.bounds import (
    UNIT,
    Bounded,
    added,
    between,
    either,
    exponential,
    growth,
    joined,
    negated,
    scaled,
    summed,
    times,
    total,
)
from learnchain.learning.disputes.reference_products import Backward, Gradients, Windows
from learnchain.learning.safe_tensors import Array
from learnchain.protocol.model_specification import Shape

EPSILON = 1e-5
"""torch's constant in batch normalisation."""

_FUNCTION_UNITS = 16 * UNIT
"""Error of a library's exponential or hyperbolic tangent, relative to one."""


def rectifier(received: Bounded) -> tuple[Bounded, Backward]:
    """Return max(x, 0)."""
    certain, possible = received.value > received.radius, received.value > -received.radius
    output = Bounded(np.maximum(received.value, 0.0), np.where(possible, received.radius, 0.0))
    return output, lambda gradient: ((either(gradient, certain, possible),), {})


def saturation(received: Bounded, kind: str) -> tuple[Bounded, Backward]:
    """Return the logistic function or the hyperbolic tangent."""
    is_tangent = kind == "Tanh"
    decay = exponential(-np.abs(received.value) * (2.0 if is_tangent else 1.0))
    if is_tangent:
        value = np.sign(received.value) * (1.0 - decay) / (1.0 + decay)
    else:
        value = np.where(received.value >= 0, 1.0, decay) / (1.0 + decay)
    slope = 1.0 if is_tangent else 0.25
    output = Bounded(value, np.minimum(slope * received.radius, 2.0) + _FUNCTION_UNITS)

    def backward(gradient: Bounded) -> Gradients:
        ones = Bounded(np.ones_like(value), np.zeros_like(value))
        if is_tangent:
            square = times(output, output)
            derivative = added(ones, negated(square))
        else:
            derivative = times(output, added(ones, negated(output)))
        return (times(gradient, derivative),), {}

    return output, backward


def maximum_pooling(received: Bounded, windows: Windows) -> tuple[Bounded, Backward]:
    """Return the largest of each window; several places may hold it where they lie within their bounds."""
    lower = list(windows.places(received.value - received.radius, -np.inf))
    upper = list(windows.places(received.value + received.radius, -np.inf))
    floor, ceiling = np.maximum.reduce(lower), np.maximum.reduce(upper)
    # Windows that overlap add up their gradients.
    gamma = growth(len(upper)) if windows.stride < windows.kernel else 0.0

    def backward(gradient: Bounded) -> Gradients:
        possible = _contenders(lower, upper, floor)
        number = np.maximum(np.add.reduce([each.astype(np.float64) for each in possible]), 1.0)
        found = [either(gradient, each & (number == 1), each, 1 / number) for each in possible]
        return (_gathered(windows, found, gamma),), {}

    return between(floor, ceiling), backward


def _contenders(lower: list[Array], upper: list[Array], floor: Array) -> list[Array]:
    """Return for each place of the window where it may be the maximum.

    Of places that are equal to the bit the first is taken: such ties come from equal samples (the background of
    pictures), so whichever is taken hands the same numbers on.
    """
    possible = [each >= floor for each in upper]
    for later in range(1, len(possible)):
        for earlier in range(later):
            equal = (lower[later] == lower[earlier]) & (upper[later] == upper[earlier])
            possible[later] = possible[later] & ~(equal & possible[earlier])
    return possible


def _gathered(windows: Windows, parts: list[Bounded], gamma: float) -> Bounded:
    """Add up what each place of the windows hands back; `gamma` is the rounding of their sum."""
    value = windows.gather([each.value for each in parts])
    radius = windows.gather([each.radius + gamma * each.reach for each in parts])
    if all(each.doubt is None for each in parts):
        return Bounded(value, radius)
    zeros = np.zeros_like(parts[0].value)
    return Bounded(value, radius, windows.gather([zeros if each.doubt is None else each.doubt for each in parts]))


def average_pooling(received: Bounded, windows: Windows) -> tuple[Bounded, Backward]:
    """Return the mean of each window."""
    places = prod(windows.kernel)
    radii = list(windows.places(received.radius + growth(places) * received.reach))
    value = sum(windows.places(received.value), np.zeros(())) / places
    output = Bounded(value, sum(radii, np.zeros(())) / places)

    def backward(gradient: Bounded) -> Gradients:
        return (_gathered(windows, [scaled(gradient, 1 / places)] * places, growth(places)),), {}

    return output, backward


def normalisation(received: Bounded, parameters: Mapping[str, Array]) -> tuple[Bounded, Backward, dict[str, Bounded]]:
    """Return batch normalisation by the batch's own mean and variance, and the running statistics after it."""
    axes = (0, *range(2, received.value.ndim))
    terms = received.value.size // received.value.shape[1]
    shape = (1, -1, *(1,) * (received.value.ndim - 2))
    mean = scaled(summed(received, axes, terms), 1 / terms)
    wide_mean = mean.reshape(*shape)
    centred = Bounded(received.value - wide_mean.value, received.radius + wide_mean.radius)
    centred = Bounded(centred.value, centred.radius + 2 * UNIT * (received.reach + wide_mean.reach))
    squared = times(centred, centred)
    variance = scaled(summed(squared, axes, terms), 1 / terms)
    inverse = _inverse_root(variance).reshape(*shape)
    gain = parameters["weight"].reshape(shape)
    normal = times(centred, inverse)
    # Some libraries fold mean and gain into one scale and one shift, which rounds at the size of both.
    folded = 4 * UNIT * (received.reach + wide_mean.reach) * inverse.reach * np.abs(gain)
    output = scaled(normal, gain)
    bias = parameters["bias"].reshape(shape)
    output = Bounded(output.value + bias, output.radius + folded + 2 * UNIT * (np.abs(output.value) + np.abs(bias)))

    def backward(gradient: Bounded) -> Gradients:
        gains, shifts = summed(times(gradient, normal), axes, terms), summed(gradient, axes, terms)
        pull = times(normal, scaled(gains, 1 / terms).reshape(*shape))
        level = scaled(shifts, 1 / terms).reshape(*shape)
        inner = added(gradient, negated(level), negated(pull))
        back = scaled(times(inner, inverse), gain)
        back = Bounded(back.value, back.radius + growth(0) * np.abs(back.value), back.doubt)
        return (back,), {"weight": gains, "bias": shifts}

    return output, backward, _running(parameters, mean, scaled(variance, terms / (terms - 1)))


def _inverse_root(variance: Bounded) -> Bounded:
    upper = 1 / np.sqrt(np.maximum(variance.value - variance.radius, 0.0) + EPSILON)
    lower = 1 / np.sqrt(variance.value + variance.radius + EPSILON)
    found = between(lower, upper)
    return Bounded(found.value, found.radius + 8 * UNIT * found.value)


def _running(parameters: Mapping[str, Array], mean: Bounded, variance: Bounded) -> dict[str, Bounded]:
    """Return torch's moving averages with its constant of a tenth."""
    return {
        name: added(scaled(_known(parameters[name]), 0.9), scaled(new, 0.1))
        for name, new in (("running_mean", mean), ("running_var", variance))
    }


def upsampling(received: Bounded, factor: int) -> tuple[Bounded, Backward]:
    """Return every number repeated in each dimension."""
    dimensions = received.value.ndim - 2

    def repeated(array: Array) -> Array:
        for axis in range(2, array.ndim):
            array = array.repeat(factor, axis=axis)
        return array

    def backward(gradient: Bounded) -> Gradients:
        sizes = [size for whole in gradient.value.shape[2:] for size in (whole // factor, factor)]
        cut = gradient.reshape(*gradient.value.shape[:2], *sizes)
        axes = tuple(3 + 2 * place for place in range(dimensions))
        return (summed(cut, axes, factor**dimensions),), {}

    return received.moved(repeated), backward


def zero_padding(received: Bounded, before: int, after: int) -> tuple[Bounded, Backward]:
    """Return samples with zeros around."""
    widths = ((0, 0), (0, 0), (before, after), (before, after))
    rows, columns = received.value.shape[2:]
    inner = (..., slice(before, before + rows), slice(before, before + columns))

    def backward(gradient: Bounded) -> Gradients:
        return (gradient.moved(lambda array: array[inner]),), {}

    return received.moved(lambda array: np.pad(array, widths)), backward


def flattening(received: Bounded) -> tuple[Bounded, Backward]:
    """Return each sample as one row."""
    shape: Shape = received.value.shape
    return received.reshape(shape[0], -1), lambda gradient: ((gradient.reshape(*shape),), {})


def masking(received: Bounded, mask: Array) -> tuple[Bounded, Backward]:
    """Return the elements that a dropout keeps, scaled by its mask, which is known to the bit."""
    kept = mask.astype(np.float64)
    return scaled(received, kept), lambda gradient: ((scaled(gradient, kept),), {})


def addition(received: tuple[Bounded, ...]) -> tuple[Bounded, Backward]:
    """Return the sum of several signals."""
    return added(*received), lambda gradient: ((gradient,) * len(received), {})


def concatenation(received: tuple[Bounded, ...]) -> tuple[Bounded, Backward]:
    """Return several signals joined along the channels."""
    ends = [0, *np.cumsum([each.value.shape[1] for each in received])]

    def backward(gradient: Bounded) -> Gradients:
        cuts = [slice(*pair) for pair in itertools.pairwise(ends)]
        return tuple(gradient.moved(lambda array, cut=cut: array[:, cut]) for cut in cuts), {}

    return joined(received, 1), backward


def cross_entropy_gradient(logits: Bounded, labels: Array) -> Bounded:
    """Return the gradient of the mean cross-entropy with respect to the logits (classes on axis 1)."""
    count = labels.size
    classes = logits.value.shape[1]
    below = logits.value - logits.value.max(axis=1, keepdims=True)
    raised = exponential(below)
    share = raised / np.expand_dims(total(raised, 1), 1)
    doubt = np.minimum(2 * logits.radius.max(axis=1, keepdims=True), 1.0)
    # e**d - 1 <= 2 d up to d = 1; a larger doubt bounds nothing, and a probability lies between 0 and 1 anyway.
    relative = 2 * doubt + 4 * UNIT * (np.abs(below) + 16) + growth(classes)
    radius = np.where(doubt < 1.0, np.minimum(share * relative + 2.0**-60, 1.0), 1.0)
    wanted = np.expand_dims(labels, 1) == np.arange(classes).reshape(1, -1, *(1,) * (labels.ndim - 1))
    value = share - wanted
    return Bounded(value / count, (radius + 8 * UNIT * (share + wanted)) / count)


def _known(array: Array) -> Bounded:
    return Bounded(array, np.zeros_like(array))
