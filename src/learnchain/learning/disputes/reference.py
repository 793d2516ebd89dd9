"""Settle one disputed step: compute it in float64 with bounds, and compare what a miner claims (AUDIT-8).

One step is a pure function of the committed state before it, the rows that the seed draws, and the plan: forward
pass, cross-entropy, backward pass, the bound on the gradient's length, the watermark's term, the optimiser. Every
number comes with the radius inside which an honest machine of any class lies (`bounds`); a claim with one number
outside is no honest machine's. All layers of the allow-list and both optimisers are covered.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.model import dropout_mask
from learnchain.learning.replay.bounds import Bounded, added, exact
from learnchain.learning.replay.reference_layers import (
    addition,
    average_pooling,
    concatenation,
    cross_entropy_gradient,
    flattening,
    masking,
    maximum_pooling,
    normalisation,
    rectifier,
    saturation,
    upsampling,
    zero_padding,
)
from learnchain.learning.replay.reference_products import Backward, convolution, linear, transposed_convolution
from learnchain.learning.replay.reference_update import updated
from learnchain.learning.replay.windows import Windows
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import TrainingPlan, segment_rows, step_seed
from learnchain.primitives.model_costs import tensors
from learnchain.primitives.model_specification import INPUT, Layer, Shape, inputs_of, layer_shapes, settings_of

SMALLEST = 2.0**-100
"""Covers float32 results that a device flushes to zero."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Say how a claimed step compares: the largest deviation in units of its radius, and in which tensor.

    `share` is the median over all changed numbers of radius / change: how much of an honest change a claim could
    differ by unnoticed.
    """

    within: bool
    deviation: float
    tensor: str
    share: float


def within_bounds(
    plan: TrainingPlan, data: DataSet, step: int, before: Mapping[str, Array], after: Mapping[str, Array]
) -> bool:
    """Return whether `after` may be an honest machine's state after step number `step`, counted from zero."""
    return settled(plan, data, step, before, after).within


def settled(
    plan: TrainingPlan, data: DataSet, step: int, before: Mapping[str, Array], after: Mapping[str, Array]
) -> Settlement:
    """Compare a claimed state with the reference; both states have the shapes and the digests they were named by."""
    reference = reference_step(plan, data, step, before)
    largest, where, shares = 0.0, "", list[Array]()
    for name, bounded in reference.items():
        claimed = after[name].astype(np.float64)
        radius = bounded.radius + SMALLEST
        # A NaN, an infinity or a bound that is none must not pass: `not <=` instead of `>`.
        deviation = np.abs(claimed - bounded.value) / radius
        worst = float(deviation.max()) if np.isfinite(deviation).all() else np.inf
        if not worst <= largest:
            largest, where = worst, name
        change = np.abs(bounded.value - before[name])
        shares.append((radius[change > 0] / change[change > 0]).ravel())
    share = float(np.median(np.concatenate(shares))) if any(each.size for each in shares) else np.inf
    return Settlement(largest <= 1.0, largest, where, share)


def reference_step(plan: TrainingPlan, data: DataSet, step: int, before: Mapping[str, Array]) -> dict[str, Bounded]:
    """Return every tensor of the state after a step, with bounds."""
    (rows,) = segment_rows(plan, len(data), step, step + 1)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        walk = _Walk(plan, before, step_seed(plan.work_id, step))
        logits = walk.forward(_samples(data.inputs[rows]))
        gradients, running = walk.backward(cross_entropy_gradient(logits, data.labels[rows].astype(np.int64)))
        return {**updated(plan, step, before, gradients), **running}


def _samples(inputs: Array) -> Array:
    return inputs.astype(np.float64) if inputs.dtype == np.float32 else inputs / 256.0


class _Walk:
    """Lead one batch through the graph and its gradient back."""

    def __init__(self, plan: TrainingPlan, before: Mapping[str, Array], seed: bytes) -> None:
        self._specification = plan.specification
        self._shapes = layer_shapes(plan.specification)
        self._sources = inputs_of(plan.specification)
        self._weights = {tensor.name: before[tensor.name].astype(np.float64) for tensor in tensors(plan.specification)}
        self._seed = seed
        self._backward: dict[str, Backward] = {}
        self._running: dict[str, Bounded] = {}

    def forward(self, samples: Array) -> Bounded:
        """Return the logits."""
        outputs = {INPUT: exact(samples)}
        for layer, names in zip(self._specification.layers, self._sources, strict=True):
            received = tuple(outputs[name] for name in names)
            outputs[layer.name], self._backward[layer.name] = self._layer(layer, received, names == (INPUT,))
        return outputs[self._specification.layers[-1].name]

    def backward(self, gradient: Bounded) -> tuple[dict[str, Bounded], dict[str, Bounded]]:
        """Return the gradients of all parameters, and the running statistics after the step."""
        waiting: dict[str, list[Bounded]] = {self._specification.layers[-1].name: [gradient]}
        found: dict[str, Bounded] = {}
        for layer, names in zip(reversed(self._specification.layers), reversed(self._sources), strict=True):
            parts = waiting.pop(layer.name)
            arriving = added(*parts) if len(parts) > 1 else parts[0]
            gradients, of_parameters = self._backward.pop(layer.name)(arriving)
            found.update({f"{layer.name}.{part}": each for part, each in of_parameters.items()})
            # A layer that reads the samples hands nothing back, so there may be fewer.
            for name, each in zip(names, gradients, strict=False):
                waiting.setdefault(name, []).append(each)
        return found, self._running

    def _layer(self, layer: Layer, received: tuple[Bounded, ...], reads_samples: bool) -> tuple[Bounded, Backward]:
        kind, settings, first = layer.kind, settings_of(layer), received[0]
        parameters = self._parameters(layer.name)
        if kind == "Linear":
            return linear(first, parameters, reads_samples)
        if kind in ("Conv2d", "Conv3d"):
            return convolution(first, parameters, settings, reads_samples)
        if kind.startswith("ConvTranspose"):
            return transposed_convolution(first, parameters, settings, self._shapes[layer.name][1:])
        if kind.startswith("BatchNorm"):
            output, backward, running = normalisation(first, parameters)
            self._running.update({f"{layer.name}.{part}": each for part, each in running.items()})
            return output, backward
        if kind == "Dropout":
            return self._dropped(layer, first)
        return _plain(kind, settings, received)

    def _dropped(self, layer: Layer, received: Bounded) -> tuple[Bounded, Backward]:
        percent = settings_of(layer)["percent"]
        if not percent:
            return received, lambda gradient: ((gradient,), {})
        return masking(received, dropout_mask(layer.name, self._seed, received.value.shape, percent))

    def _parameters(self, name: str) -> dict[str, Array]:
        return {key.rpartition(".")[2]: each for key, each in self._weights.items() if key.rpartition(".")[0] == name}


def _plain(kind: str, settings: Mapping[str, int], received: tuple[Bounded, ...]) -> tuple[Bounded, Backward]:
    """Carry out a layer without parameters."""
    first = received[0]
    if kind == "ReLU":
        return rectifier(first)
    if kind in ("Sigmoid", "Tanh"):
        return saturation(first, kind)
    if kind.startswith("MaxPool"):
        return maximum_pooling(first, _pooling(first.value.shape[2:], settings))
    if kind == "AvgPool2d":
        return average_pooling(first, _pooling(first.value.shape[2:], settings))
    if kind == "AdaptiveAvgPool2d":
        sizes: Shape = first.value.shape[2:]
        whole = tuple(size // settings["output_size"] for size in sizes)
        return average_pooling(first, Windows(sizes, whole, whole, (0,) * len(sizes)))
    if kind == "Upsample":
        return upsampling(first, settings["scale_factor"])
    if kind == "ZeroPad2d":
        return zero_padding(first, settings["before"], settings["after"])
    if kind == "Flatten":
        return flattening(first)
    if kind == "Add":
        return addition(received)
    if kind == "Concat":
        return concatenation(received)
    raise TypeError(f"the reference computation has no {kind}")


def _pooling(sizes: Shape, settings: Mapping[str, int]) -> Windows:
    kernel, count = settings["kernel_size"], len(sizes)
    stride = settings["stride"] or kernel
    return Windows(tuple(sizes), (kernel,) * count, (stride,) * count, (settings.get("padding", 0),) * count)
