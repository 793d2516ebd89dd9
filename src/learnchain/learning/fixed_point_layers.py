"""The exact integer operation of every layer kind; see `fixed_point` for the argument why no order matters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from math import frexp, prod

import numpy as np
import torch
from torch.nn import functional

from learnchain.encoding.codec import CONTEXT
from learnchain.learning.model import Weights
from learnchain.learning.safe_tensors import Array
from learnchain.protocol.model_specification import Layer, complete_settings
from learnchain.rejection import Rejected, RejectionReason

ACTIVATION_MAXIMUM = 1023
"""Ten bits and a sign: an image's eight bits fit, and thirteen bits are left for the weights of a channel."""

PIECE_TERMS = 144
"""Terms of one exact float32 sum, sixteen channels of 3 x 3: then an average weight keeps six to seven bits."""

WEIGHT_MAXIMUM = 32_767
_SUM_LIMIT = 1 << 24
_EXPONENT_MINIMUM, _EXPONENT_MAXIMUM = -30, 40

_SHIFT_MINIMUM, _SHIFT_MAXIMUM = -20, 40
"""Together these keep every scaled weight inside float32's normal range, where powers of two are exact."""

_LARGEST_WEIGHT, _LARGEST_BIAS = 2.0**20, 2.0**40
_BATCH_NORM_EPSILON = 1e-5
_TABLE_EXPONENT = -10
_SUMMAND_BITS = 8
Operation = Callable[[list[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """Hold float64 weights and biases with the batch normalisation multiplied in; output channels come first."""

    weight: Array
    bias: Array


def exponent_of(largest: float) -> int:
    """Return the smallest exponent, within bounds, at which `largest` fits into an activation."""
    if largest == 0:
        return 0
    mantissa, exponent = frexp(largest)
    exponent -= 10 if mantissa <= ACTIVATION_MAXIMUM / 1024 else 9
    return min(max(exponent, _EXPONENT_MINIMUM), _EXPONENT_MAXIMUM)


def fold(layer: Layer, normalisation: Layer | None, weights: Weights) -> Folded:
    """Return a layer's weights with a following batch normalisation folded in, elementwise in float64."""
    folded = _normalise_weights(layer, normalisation, weights)
    if np.abs(folded.weight).max() > _LARGEST_WEIGHT or np.abs(folded.bias).max() > _LARGEST_BIAS:
        raise Rejected(RejectionReason.WEIGHTS_NOT_FINITE, f"{layer.name} has weights beyond the fixed-point range")
    return folded


def linear_operation(
    layer: Layer, folded: Folded, exponents: tuple[int, int], rectified: bool, rounded: bool
) -> Operation:
    """Return a convolution, product or channel-wise scaling in units of the output exponent.

    The power of two between a channel's integer sums and the output is multiplied into weights and bias: sums then
    are exact multiples of it and need no further operation but rounding and clamping.
    """
    pieces, bias, wide = _quantise_weights(layer, folded, *exponents)
    apply = _application(layer)
    lower = 0.0 if rectified else -float(ACTIVATION_MAXIMUM)

    def run(received: list[torch.Tensor]) -> torch.Tensor:
        total = _sum_of_pieces(apply, received[0], pieces, bias) if wide else apply(received[0], pieces[0], bias)
        if rounded:
            return total.round_().clamp_(lower, ACTIVATION_MAXIMUM).to(torch.float32)
        return total.clamp_(min=0) if rectified else total

    return run


def average_operation(
    kind: str, settings: Mapping[str, int], received: torch.Tensor, exponent: int
) -> tuple[Operation, int]:
    """Return an average: an exact sum, then one multiplication by a float32 constant and a rounding."""
    kernel = received.shape[-1] // settings["output_size"] if kind == "AdaptiveAvgPool2d" else settings["kernel_size"]
    window = (kernel, kernel)
    if kind == "AdaptiveAvgPool2d":
        window = (received.shape[-2] // settings["output_size"], kernel)
    stride = settings.get("stride") or window

    def summed(tensors: list[torch.Tensor]) -> torch.Tensor:
        return functional.avg_pool2d(tensors[0], window, stride, divisor_override=1)

    factor = float(np.ldexp(np.float32(1) / np.float32(prod(window)), exponent))
    chosen = exponent_of(float(summed([received]).abs().max()) * factor)
    factor = float(np.ldexp(np.float32(1) / np.float32(prod(window)), exponent - chosen))
    return lambda tensors: _activation(summed(tensors).mul_(factor)), chosen


def addition_operation(exponents: list[int], received: list[torch.Tensor]) -> tuple[Operation, int]:
    """Return a sum of signals of different exponents, each first rounded to a common grid of eight more bits."""
    top = max(exponents) - _SUMMAND_BITS
    factors = [2.0 ** (exponent - top) for exponent in exponents]

    def summed(tensors: list[torch.Tensor]) -> torch.Tensor:
        total = (tensors[0] * factors[0]).round_()
        for tensor, factor in zip(tensors[1:], factors[1:], strict=True):
            total += (tensor * factor).round_()
        return total

    chosen = exponent_of(float(summed(received).abs().max()) * 2.0**top)
    return lambda tensors: _activation(summed(tensors).mul_(2.0 ** (top - chosen))), chosen


def concatenation_operation(exponents: list[int]) -> tuple[Operation, int]:
    """Return a concatenation at the largest exponent of its inputs."""
    top = max(exponents)
    factors = [2.0 ** (exponent - top) for exponent in exponents]

    def run(received: list[torch.Tensor]) -> torch.Tensor:
        scaled = [
            tensor if factor == 1 else (tensor * factor).round_()
            for tensor, factor in zip(received, factors, strict=True)
        ]
        return torch.cat(scaled, dim=1)

    return run, top


def table_operation(kind: str, exponent: int) -> tuple[Operation, int]:
    """Return sigmoid or tanh as a table over all activations of an exponent."""
    table = torch.tensor(_table(kind, exponent), dtype=torch.float32)
    return lambda received: table[(received[0] + ACTIVATION_MAXIMUM).long()], _TABLE_EXPONENT


def plain_operation(kind: str, settings: Mapping[str, int]) -> Operation:
    """Return an operation that only moves, compares or drops integers; the exponent stays."""
    if kind == "ReLU":
        return lambda received: received[0].clamp(min=0)
    if kind == "Flatten":
        return lambda received: received[0].flatten(1)
    if kind == "Dropout":
        return lambda received: received[0]
    if kind.startswith("MaxPool"):
        pool = functional.max_pool2d if kind == "MaxPool2d" else functional.max_pool3d
        kernel, stride = settings["kernel_size"], settings["stride"] or settings["kernel_size"]
        return lambda received: pool(received[0], kernel, stride, settings["padding"])
    if kind == "ZeroPad2d":
        before, after = settings["before"], settings["after"]
        return lambda received: functional.pad(received[0], (before, after, before, after))
    if kind == "Upsample":
        return lambda received: _repeat_elements(received[0], settings["scale_factor"])
    raise TypeError(f"the exact evaluation has no {kind}")


def _repeat_elements(tensor: torch.Tensor, factor: int) -> torch.Tensor:
    for axis in range(2, tensor.ndim):
        tensor = tensor.repeat_interleave(factor, dim=axis)
    return tensor


def _activation(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.round_().clamp_(-ACTIVATION_MAXIMUM, ACTIVATION_MAXIMUM)


@cache
def _table(kind: str, exponent: int) -> tuple[int, ...]:
    upper: list[int] = []
    for value in range(ACTIVATION_MAXIMUM + 1):
        magnitude = Decimal(value) * (Decimal(2) ** exponent)
        decay = CONTEXT.exp(-min(magnitude if kind == "Sigmoid" else 2 * magnitude, Decimal(200)))
        share = CONTEXT.divide(Decimal(1) if kind == "Sigmoid" else 1 - decay, 1 + decay)
        upper.append(int((share * 1024).to_integral_value()))
    lower = [(-value if kind == "Tanh" else 1024 - value) for value in reversed(upper[1:])]
    return tuple(max(min(value, ACTIVATION_MAXIMUM), -ACTIVATION_MAXIMUM) for value in (*lower, *upper))


def _normalise_weights(layer: Layer, normalisation: Layer | None, weights: Weights) -> Folded:
    if layer.kind.startswith("BatchNorm"):
        scale, bias = _normalisation(layer, weights)
        return Folded(scale.reshape(-1, 1), bias)
    weight = weights[f"{layer.name}.weight"].astype(np.float64)
    if layer.kind.startswith("ConvTranspose"):
        weight = weight.swapaxes(0, 1)
    stored = weights.get(f"{layer.name}.bias")
    bias = np.zeros(len(weight)) if stored is None else stored.astype(np.float64)
    if normalisation is not None:
        scale, shift = _normalisation(normalisation, weights)
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = bias * scale + shift
    return Folded(weight, bias)


def _normalisation(layer: Layer, weights: Weights) -> tuple[Array, Array]:
    gain, shift, mean, variance = (
        weights[f"{layer.name}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    if variance.min() < 0:
        raise Rejected(RejectionReason.WEIGHTS_NOT_FINITE, f"{layer.name} has a negative variance")
    scale = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
    return scale, shift - mean * scale


def _quantise_weights(
    layer: Layer, folded: Folded, input_exponent: int, output_exponent: int
) -> tuple[list[torch.Tensor], torch.Tensor, bool]:
    """Return integer weights times their power of two, cut into pieces, and the bias; True if there are several."""
    weight, bias = folded.weight, folded.bias
    terms = prod(weight.shape[2:])
    channels = max(1, PIECE_TERMS // terms) if complete_settings(layer).get("groups", 1) == 1 else weight.shape[1]
    starts = range(0, weight.shape[1], channels)
    reach = np.max([_reach(weight[:, start : start + channels]) for start in starts], axis=0)
    room = _SUM_LIMIT - 1 - (min(channels, weight.shape[1]) * terms // 2 + 1) * ACTIVATION_MAXIMUM
    demand = reach * ACTIVATION_MAXIMUM + np.ldexp(np.abs(bias), -input_exponent)
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    shifts = np.minimum(_shift(max(room, 1 << 20), demand), _shift(WEIGHT_MAXIMUM, largest))
    by_channel = shifts.reshape(-1, *(1,) * (weight.ndim - 1))
    whole = np.rint(np.ldexp(weight, by_channel))
    whole_bias = np.rint(np.ldexp(bias, shifts - input_exponent))
    _check_sums(layer, whole, whole_bias, channels)
    unit = input_exponent - shifts - output_exponent
    scaled = np.ldexp(whole, unit.reshape(by_channel.shape)).astype(np.float32)
    pieces = [_arrange_weight(layer, scaled[:, start : start + channels]) for start in starts]
    return pieces, torch.from_numpy(np.ldexp(whole_bias, unit).astype(np.float32)), len(pieces) > 1


def _reach(weight: Array) -> Array:
    """Return an upper bound of each channel's sum of absolute weights, summed as integers and so in any order."""
    flat = np.abs(weight).reshape(len(weight), -1)
    exponents = np.frexp(flat.max(axis=1))[1]
    steps = np.ceil(np.ldexp(flat, (30 - exponents).reshape(-1, 1))).astype(np.int64)
    return np.ldexp(steps.sum(axis=1).astype(np.float64), exponents - 30)


def _shift(room: int, demand: Array) -> Array:
    """Return the largest shift with demand * 2**shift <= room / 2 or better, within bounds."""
    shifts = np.full(demand.shape, _SHIFT_MAXIMUM, dtype=np.int64)
    positive = demand > 0
    # frexp of the quotient: 2**(exponent - 1) is the largest power of two that does not exceed it.
    shifts[positive] = np.frexp(room / demand[positive])[1] - 1
    return np.clip(shifts, _SHIFT_MINIMUM, _SHIFT_MAXIMUM)


def _check_sums(layer: Layer, whole: Array, whole_bias: Array, channels: int) -> None:
    """Refuse a layer whose sums could leave the exact range even at the coarsest scale."""
    for start in range(0, whole.shape[1], channels):
        piece = np.abs(whole[:, start : start + channels]).astype(np.int64).reshape(len(whole), -1)
        sums = piece.sum(axis=1) * ACTIVATION_MAXIMUM + np.abs(whole_bias).astype(np.int64)
        if int(sums.max()) >= _SUM_LIMIT:
            raise Rejected(RejectionReason.WEIGHTS_NOT_FINITE, f"{layer.name} leaves the exact range")


def _arrange_weight(layer: Layer, weight: Array) -> torch.Tensor:
    if layer.kind.startswith("ConvTranspose"):
        weight = weight.swapaxes(0, 1)
    if layer.kind.startswith("BatchNorm"):
        weight = weight.reshape(-1)
    return torch.from_numpy(np.ascontiguousarray(weight))


def _sum_of_pieces(
    apply: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor],
    received: torch.Tensor,
    pieces: list[torch.Tensor],
    bias: torch.Tensor,
) -> torch.Tensor:
    start, total = 0, torch.zeros((), dtype=torch.float64)
    for index, piece in enumerate(pieces):
        channels = piece.shape[0] if getattr(apply, "transposed", False) else piece.shape[1]
        part = apply(received[:, start : start + channels], piece, bias if index == 0 else None).to(torch.float64)
        total = part if index == 0 else total.add_(part)
        start += channels
    return total


def _application(layer: Layer) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]:
    settings = complete_settings(layer)
    if layer.kind == "Linear":
        return functional.linear
    if layer.kind.startswith("BatchNorm"):
        return _channelwise
    function = getattr(functional, {"Conv2d": "conv2d", "Conv3d": "conv3d"}.get(layer.kind, ""), None)
    names = ("stride", "padding", "output_padding", "groups")
    chosen = {name: settings[name] for name in names if name in settings}
    if function is None:
        return _Transposed(layer.kind, chosen)
    return lambda received, weight, bias: function(received, weight, bias, **chosen)


class _Transposed:
    """Apply a transposed convolution, whose weights hold the input channels first."""

    transposed = True

    def __init__(self, kind: str, settings: Mapping[str, int]) -> None:
        self._function = functional.conv_transpose2d if kind == "ConvTranspose2d" else functional.conv_transpose3d
        self._settings = dict(settings)

    def __call__(self, received: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return self._function(received, weight, bias, **self._settings)


def _channelwise(received: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    shape = (1, -1, *(1,) * (received.ndim - 2))
    total = received * weight.reshape(shape)
    return total if bias is None else total.add_(bias.reshape(shape))
