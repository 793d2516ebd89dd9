"""The reference of layers that do not multiply by weights: normalisation, activations, pooling and what moves numbers.

Where a tie or a sign is in doubt inside the bounds (a rectifier near zero, the maximum of a window), the gradient may
honestly go either way, and the bound covers both.
"""

import itertools
from collections.abc import Mapping
from math import prod

import numpy as np

from learnchain.learning.disputes import bounds
from learnchain.learning.disputes.bounds import joined
from learnchain.learning.disputes.reference_products import Backward, Gradients, Windows
from learnchain.learning.safe_tensors import Array
from learnchain.protocol.model_specification import Shape

EPSILON = 1e-5
"""torch's constant in batch normalisation."""

_FUNCTION_UNITS = 16 * bounds.UNIT
"""Error of a library's exponential or hyperbolic tangent, relative to one."""


def rectifier(received: bounds.Bounded) -> tuple[bounds.Bounded, Backward]:
    """Return max(x, 0)."""
    certain, possible = received.value > received.radius, received.value > -received.radius
    output = bounds.Bounded(np.maximum(received.value, 0.0), np.where(possible, received.radius, 0.0))
    return output, lambda gradient: ((bounds.either(gradient, certain, possible),), {})


def saturation(received: bounds.Bounded, kind: str) -> tuple[bounds.Bounded, Backward]:
    """Return the logistic function or the hyperbolic tangent."""
    is_tangent = kind == "Tanh"
    decay = bounds.exponential(-np.abs(received.value) * (2.0 if is_tangent else 1.0))
    if is_tangent:
        value = np.sign(received.value) * (1.0 - decay) / (1.0 + decay)
    else:
        value = np.where(received.value >= 0, 1.0, decay) / (1.0 + decay)
    slope = 1.0 if is_tangent else 0.25
    output = bounds.Bounded(value, np.minimum(slope * received.radius, 2.0) + _FUNCTION_UNITS)

    def backward(gradient: bounds.Bounded) -> Gradients:
        ones = bounds.Bounded(np.ones_like(value), np.zeros_like(value))
        if is_tangent:
            square = bounds.times(output, output)
            derivative = bounds.added(ones, bounds.negated(square))
        else:
            derivative = bounds.times(output, bounds.added(ones, bounds.negated(output)))
        return (bounds.times(gradient, derivative),), {}

    return output, backward


def maximum_pooling(received: bounds.Bounded, windows: Windows) -> tuple[bounds.Bounded, Backward]:
    """Return the largest of each window; several places may hold it where they lie within their bounds."""
    lower = list(windows.places(received.value - received.radius, -np.inf))
    upper = list(windows.places(received.value + received.radius, -np.inf))
    floor, ceiling = np.maximum.reduce(lower), np.maximum.reduce(upper)
    # Windows that overlap add up their gradients.
    gamma = bounds.growth(len(upper)) if windows.stride < windows.kernel else 0.0

    def backward(gradient: bounds.Bounded) -> Gradients:
        possible = _contenders(lower, upper, floor)
        number = np.maximum(np.add.reduce([each.astype(np.float64) for each in possible]), 1.0)
        found = [bounds.either(gradient, each & (number == 1), each, 1 / number) for each in possible]
        return (_gathered(windows, found, gamma),), {}

    return bounds.between(floor, ceiling), backward


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


def _gathered(windows: Windows, parts: list[bounds.Bounded], gamma: float) -> bounds.Bounded:
    """Add up what each place of the windows hands back; `gamma` is the rounding of their sum."""
    value = windows.gather([each.value for each in parts])
    radius = windows.gather([each.radius + gamma * each.reach for each in parts])
    if all(each.doubt is None for each in parts):
        return bounds.Bounded(value, radius)
    zeros = np.zeros_like(parts[0].value)
    return bounds.Bounded(
        value, radius, windows.gather([zeros if each.doubt is None else each.doubt for each in parts])
    )


def average_pooling(received: bounds.Bounded, windows: Windows) -> tuple[bounds.Bounded, Backward]:
    """Return the mean of each window."""
    places = prod(windows.kernel)
    radii = list(windows.places(received.radius + bounds.growth(places) * received.reach))
    value = sum(windows.places(received.value), np.zeros(())) / places
    output = bounds.Bounded(value, sum(radii, np.zeros(())) / places)

    def backward(gradient: bounds.Bounded) -> Gradients:
        return (_gathered(windows, [bounds.scaled(gradient, 1 / places)] * places, bounds.growth(places)),), {}

    return output, backward


def normalisation(
    received: bounds.Bounded, parameters: Mapping[str, Array]
) -> tuple[bounds.Bounded, Backward, dict[str, bounds.Bounded]]:
    """Return batch normalisation by the batch's own mean and variance, and the running statistics after it."""
    axes = (0, *range(2, received.value.ndim))
    terms = received.value.size // received.value.shape[1]
    shape = (1, -1, *(1,) * (received.value.ndim - 2))
    mean = bounds.scaled(bounds.summed(received, axes, terms), 1 / terms)
    wide_mean = mean.reshape(*shape)
    centred = bounds.Bounded(received.value - wide_mean.value, received.radius + wide_mean.radius)
    centred = bounds.Bounded(centred.value, centred.radius + 2 * bounds.UNIT * (received.reach + wide_mean.reach))
    squared = bounds.times(centred, centred)
    variance = bounds.scaled(bounds.summed(squared, axes, terms), 1 / terms)
    inverse = _inverse_root(variance).reshape(*shape)
    gain = parameters["weight"].reshape(shape)
    normal = bounds.times(centred, inverse)
    # Some libraries fold mean and gain into one scale and one shift, which rounds at the size of both.
    folded = 4 * bounds.UNIT * (received.reach + wide_mean.reach) * inverse.reach * np.abs(gain)
    output = bounds.scaled(normal, gain)
    bias = parameters["bias"].reshape(shape)
    output = bounds.Bounded(
        output.value + bias, output.radius + folded + 2 * bounds.UNIT * (np.abs(output.value) + np.abs(bias))
    )

    def backward(gradient: bounds.Bounded) -> Gradients:
        gains, shifts = bounds.summed(bounds.times(gradient, normal), axes, terms), bounds.summed(gradient, axes, terms)
        pull = bounds.times(normal, bounds.scaled(gains, 1 / terms).reshape(*shape))
        level = bounds.scaled(shifts, 1 / terms).reshape(*shape)
        inner = bounds.added(gradient, bounds.negated(level), bounds.negated(pull))
        back = bounds.scaled(bounds.times(inner, inverse), gain)
        back = bounds.Bounded(back.value, back.radius + bounds.growth(0) * np.abs(back.value), back.doubt)
        return (back,), {"weight": gains, "bias": shifts}

    return output, backward, _running(parameters, mean, bounds.scaled(variance, terms / (terms - 1)))


def _inverse_root(variance: bounds.Bounded) -> bounds.Bounded:
    upper = 1 / np.sqrt(np.maximum(variance.value - variance.radius, 0.0) + EPSILON)
    lower = 1 / np.sqrt(variance.value + variance.radius + EPSILON)
    found = bounds.between(lower, upper)
    return bounds.Bounded(found.value, found.radius + 8 * bounds.UNIT * found.value)


def _running(
    parameters: Mapping[str, Array], mean: bounds.Bounded, variance: bounds.Bounded
) -> dict[str, bounds.Bounded]:
    """Return torch's moving averages with its constant of a tenth."""
    return {
        name: bounds.added(bounds.scaled(_known(parameters[name]), 0.9), bounds.scaled(new, 0.1))
        for name, new in (("running_mean", mean), ("running_var", variance))
    }


def upsampling(received: bounds.Bounded, factor: int) -> tuple[bounds.Bounded, Backward]:
    """Return every number repeated in each dimension."""
    dimensions = received.value.ndim - 2

    def repeated(array: Array) -> Array:
        for axis in range(2, array.ndim):
            array = array.repeat(factor, axis=axis)
        return array

    def backward(gradient: bounds.Bounded) -> Gradients:
        sizes = [size for whole in gradient.value.shape[2:] for size in (whole // factor, factor)]
        cut = gradient.reshape(*gradient.value.shape[:2], *sizes)
        axes = tuple(3 + 2 * place for place in range(dimensions))
        return (bounds.summed(cut, axes, factor**dimensions),), {}

    return received.moved(repeated), backward


def zero_padding(received: bounds.Bounded, before: int, after: int) -> tuple[bounds.Bounded, Backward]:
    """Return samples with zeros around."""
    widths = ((0, 0), (0, 0), (before, after), (before, after))
    rows, columns = received.value.shape[2:]
    inner = (..., slice(before, before + rows), slice(before, before + columns))

    def backward(gradient: bounds.Bounded) -> Gradients:
        return (gradient.moved(lambda array: array[inner]),), {}

    return received.moved(lambda array: np.pad(array, widths)), backward


def flattening(received: bounds.Bounded) -> tuple[bounds.Bounded, Backward]:
    """Return each sample as one row."""
    shape: Shape = received.value.shape
    return received.reshape(shape[0], -1), lambda gradient: ((gradient.reshape(*shape),), {})


def masking(received: bounds.Bounded, mask: Array) -> tuple[bounds.Bounded, Backward]:
    """Return the elements that a dropout keeps, scaled by its mask, which is known to the bit."""
    kept = mask.astype(np.float64)
    return bounds.scaled(received, kept), lambda gradient: ((bounds.scaled(gradient, kept),), {})


def addition(received: tuple[bounds.Bounded, ...]) -> tuple[bounds.Bounded, Backward]:
    """Return the sum of several signals."""
    return bounds.added(*received), lambda gradient: ((gradient,) * len(received), {})


def concatenation(received: tuple[bounds.Bounded, ...]) -> tuple[bounds.Bounded, Backward]:
    """Return several signals joined along the channels."""
    ends = [0, *np.cumsum([each.value.shape[1] for each in received])]

    def backward(gradient: bounds.Bounded) -> Gradients:
        cuts = [slice(*pair) for pair in itertools.pairwise(ends)]
        return tuple(gradient.moved(lambda array, cut=cut: array[:, cut]) for cut in cuts), {}

    return joined(received, 1), backward


def cross_entropy_gradient(logits: bounds.Bounded, labels: Array) -> bounds.Bounded:
    """Return the gradient of the mean cross-entropy with respect to the logits (classes on axis 1)."""
    count = labels.size
    classes = logits.value.shape[1]
    below = logits.value - logits.value.max(axis=1, keepdims=True)
    raised = bounds.exponential(below)
    share = raised / np.expand_dims(bounds.total(raised, 1), 1)
    doubt = np.minimum(2 * logits.radius.max(axis=1, keepdims=True), 1.0)
    # e**d - 1 <= 2 d up to d = 1; a larger doubt bounds nothing, and a probability lies between 0 and 1 anyway.
    relative = 2 * doubt + 4 * bounds.UNIT * (np.abs(below) + 16) + bounds.growth(classes)
    radius = np.where(doubt < 1.0, np.minimum(share * relative + 2.0**-60, 1.0), 1.0)
    wanted = np.expand_dims(labels, 1) == np.arange(classes).reshape(1, -1, *(1,) * (labels.ndim - 1))
    value = share - wanted
    return bounds.Bounded(value / count, (radius + 8 * bounds.UNIT * (share + wanted)) / count)


def _known(array: Array) -> bounds.Bounded:
    return bounds.Bounded(array, np.zeros_like(array))
