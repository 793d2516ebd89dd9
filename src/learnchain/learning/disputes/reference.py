"""The reference of what follows the backward pass: the gradient's bounded length, the watermark, SGD and Adam.

Settle one disputed step: compute it in float64 with bounds, and compare what a miner claims (AUDIT-8).

One step is a pure function of the committed state before it, the rows that the seed draws, and the plan: forward
pass, cross-entropy, backward pass, the bound on the gradient's length, the watermark's term, the optimiser. Every
number comes with the radius inside which an honest machine of any class lies (`bounds`); a claim with one number
outside is no honest machine's. All layers of the allow-list and both optimisers are covered.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.disputes import bounds, reference_layers, reference_products
from learnchain.learning.model import dropout_mask
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import GRADIENT_NORM, MILLION, NORM_EPSILON, TrainingPlan, segment_rows, step_seed
from learnchain.learning.watermark import marked_tensor, target_of, watermark_matrix
from learnchain.protocol import model_specification
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import Watermark

_FIRST_DECAY, _SECOND_DECAY, _ADAM_EPSILON = 0.9, 0.999, 1e-8


def updated(
    plan: TrainingPlan, step: int, before: Mapping[str, Array], gradients: Mapping[str, bounds.Bounded]
) -> dict[str, bounds.Bounded]:
    """Return every trained tensor and its memories after the step, with bounds."""
    shortened = _shortened({name: bounds.Bounded(each.value, each.width) for name, each in gradients.items()})
    if plan.terms.watermark is not None:
        shortened = _marked(plan, plan.terms.watermark, before, shortened)
    state: dict[str, bounds.Bounded] = {}
    for tensor in model_specification.tensors(plan.specification):
        if tensor.trained:
            change = _adam if plan.optimiser is Optimiser.ADAM else _descent
            state.update(change(plan, step, tensor.name, before, shortened[tensor.name]))
    return state


def _shortened(gradients: Mapping[str, bounds.Bounded]) -> dict[str, bounds.Bounded]:
    """Return the gradients divided by their length where that exceeds `GRADIENT_NORM`; near it, either may be."""
    lower = sum(
        float(bounds.total(np.maximum(np.abs(each.value) - each.radius, 0) ** 2)) for each in gradients.values()
    )
    upper = sum(float(bounds.total(each.reach**2)) for each in gradients.values())
    doubt = bounds.growth(sum(each.value.size for each in gradients.values()))
    shortest, longest = float(np.sqrt(lower)) * (1 - doubt), float(np.sqrt(upper)) * (1 + doubt)
    if longest <= GRADIENT_NORM:
        return dict(gradients)
    smallest = GRADIENT_NORM / (longest + NORM_EPSILON)
    largest = min(GRADIENT_NORM / (shortest + NORM_EPSILON), 1.0) if shortest > GRADIENT_NORM else 1.0
    factor = bounds.between(np.array(smallest * (1 - 8 * bounds.UNIT)), np.array(largest * (1 + 8 * bounds.UNIT)))
    return {name: bounds.times(each, factor) for name, each in gradients.items()}


def _marked(
    plan: TrainingPlan, terms: Watermark, before: Mapping[str, Array], gradients: dict[str, bounds.Bounded]
) -> dict[str, bounds.Bounded]:
    """Add the gradient of the watermark's regulariser (DLBC Eq. 7); a row near its target may pull or not."""
    marked = marked_tensor(plan.specification)
    filters = marked.shape[0]
    flat = before[marked.name].astype(np.float64).reshape(filters, -1)
    matrix = watermark_matrix(terms.bits, flat.shape[1]).astype(np.float64)
    target = target_of(terms)
    pull = bounds.Bounded(np.zeros(flat.shape[1]), np.zeros(flat.shape[1]))
    for row in matrix:
        chosen = flat[:, row > 0]
        form = float(bounds.total(chosen)) / filters
        doubt = bounds.growth(chosen.size) * float(bounds.total(np.abs(chosen))) / filters + 4 * bounds.UNIT * target
        lacking = bounds.scaled(bounds.exact(row * (-target / row.sum())), 1.0)
        certain, possible = np.array(form < target - doubt), np.array(form < target + doubt)
        pull = bounds.added(pull, bounds.either(lacking, certain, possible))
    pull = bounds.Bounded(pull.value, pull.width)
    term = bounds.scaled(pull, terms.strength_millionths / MILLION).reshape(1, *marked.shape[1:])
    return {**gradients, marked.name: bounds.added(gradients[marked.name], term)}


def _descent(
    plan: TrainingPlan, _step: int, name: str, before: Mapping[str, Array], gradient: bounds.Bounded
) -> dict[str, bounds.Bounded]:
    chosen = plan.hyper_parameters
    weights, gradient = bounds.exact(before[name]), _decayed(plan, before[name], gradient)
    rate = chosen.learning_rate_millionths / MILLION
    if not chosen.momentum_millionths:
        return {name: bounds.added(weights, bounds.scaled(gradient, -rate))}
    memory = bounds.exact(before[f"momentum_buffer/{name}"])
    velocity = bounds.added(bounds.scaled(memory, chosen.momentum_millionths / MILLION), gradient)
    return {name: bounds.added(weights, bounds.scaled(velocity, -rate)), f"momentum_buffer/{name}": velocity}


def _adam(
    plan: TrainingPlan, step: int, name: str, before: Mapping[str, Array], gradient: bounds.Bounded
) -> dict[str, bounds.Bounded]:
    weights, gradient = bounds.exact(before[name]), _decayed(plan, before[name], gradient)
    mean, square = bounds.exact(before[f"exp_avg/{name}"]), bounds.exact(before[f"exp_avg_sq/{name}"])
    new_mean = bounds.added(bounds.scaled(mean, _FIRST_DECAY), bounds.scaled(gradient, 1 - _FIRST_DECAY))
    new_square = bounds.added(
        bounds.scaled(square, _SECOND_DECAY), bounds.scaled(bounds.times(gradient, gradient), 1 - _SECOND_DECAY)
    )
    rate = plan.hyper_parameters.learning_rate_millionths / MILLION
    change = _adam_change(mean.value, square.value, gradient, step + 1)
    return {
        name: bounds.added(weights, bounds.scaled(change, -rate)),
        f"exp_avg/{name}": new_mean,
        f"exp_avg_sq/{name}": new_square,
    }


def _adam_change(mean: Array, square: Array, gradient: bounds.Bounded, count: int) -> bounds.Bounded:
    """Return m / (sqrt(v) + epsilon), corrected for bias, over every gradient inside its bounds.

    Mean and square share the gradient, so the quotient is bounded as one function f(g) = (a + c g) / (sqrt(b + k g^2)
    + epsilon): it is monotone between the ends of the interval and its extremum at g = c b / (a k).
    """
    first, second = 1 - _power(_FIRST_DECAY, count), 1 - _power(_SECOND_DECAY, count)
    a, c = _FIRST_DECAY * mean / first, (1 - _FIRST_DECAY) / first
    b, k = _SECOND_DECAY * np.maximum(square, 0.0) / second, (1 - _SECOND_DECAY) / second

    def quotient(chosen: Array, epsilon: float = _ADAM_EPSILON) -> Array:
        return (a + c * chosen) / (np.sqrt(b + k * chosen * chosen) + epsilon)

    low, high = gradient.value - gradient.radius, gradient.value + gradient.radius
    ends = (quotient(low), quotient(high))
    turning = np.divide(c * b, a * k, out=np.full_like(a, np.inf), where=a != 0)
    inside = (turning > low) & (turning < high)
    # Without epsilon the extremum is larger in magnitude, so it bounds the true one.
    extreme = np.where(inside, quotient(np.where(inside, turning, gradient.value), 2.0**-140), ends[0])
    found = bounds.between(np.minimum.reduce((*ends, extreme)), np.maximum.reduce((*ends, extreme)))
    middle = (np.abs(a) + c * np.abs(gradient.value)) / (np.sqrt(b + k * gradient.value**2) + _ADAM_EPSILON)
    size = np.maximum(np.abs(found.value) + found.radius, np.minimum(middle, 16.0))
    return bounds.Bounded(found.value, found.radius + 16 * bounds.UNIT * size)


def _power(base: float, count: int) -> float:
    """Return base ** count by multiplications alone: a library's power may differ in its last bit."""
    result, square = 1.0, base
    while count:
        if count & 1:
            result *= square
        square *= square
        count >>= 1
    return result


def _decayed(plan: TrainingPlan, weights: Array, gradient: bounds.Bounded) -> bounds.Bounded:
    decay = plan.hyper_parameters.weight_decay_millionths / MILLION
    return bounds.added(gradient, bounds.scaled(bounds.exact(weights), decay)) if decay else gradient


SMALLEST = 2.0**-100
"""Covers float32 results that a device flushes to zero."""


@dataclass(frozen=True, slots=True)
class StepComparison:
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
) -> StepComparison:
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
    return StepComparison(largest <= 1.0, largest, where, share)


def reference_step(
    plan: TrainingPlan, data: DataSet, step: int, before: Mapping[str, Array]
) -> dict[str, bounds.Bounded]:
    """Return every tensor of the state after a step, with bounds."""
    (rows,) = segment_rows(plan, len(data), step, step + 1)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        walk = _Walk(plan, before, step_seed(plan.work_id, step))
        logits = walk.forward(_samples(data.inputs[rows]))
        gradients, running = walk.backward(
            reference_layers.cross_entropy_gradient(logits, data.labels[rows].astype(np.int64))
        )
        return {**updated(plan, step, before, gradients), **running}


def _samples(inputs: Array) -> Array:
    return inputs.astype(np.float64) if inputs.dtype == np.float32 else inputs / 256.0


class _Walk:
    """Lead one batch through the graph and its gradient back."""

    def __init__(self, plan: TrainingPlan, before: Mapping[str, Array], seed: bytes) -> None:
        self._specification = plan.specification
        self._shapes = model_specification.layer_shapes(plan.specification)
        self._sources = model_specification.resolve_inputs(plan.specification)
        self._weights = {
            tensor.name: before[tensor.name].astype(np.float64)
            for tensor in model_specification.tensors(plan.specification)
        }
        self._seed = seed
        self._backward: dict[str, reference_products.Backward] = {}
        self._running: dict[str, bounds.Bounded] = {}

    def forward(self, samples: Array) -> bounds.Bounded:
        """Return the logits."""
        outputs = {model_specification.INPUT: bounds.exact(samples)}
        for layer, names in zip(self._specification.layers, self._sources, strict=True):
            received = tuple(outputs[name] for name in names)
            outputs[layer.name], self._backward[layer.name] = self._layer(
                layer, received, names == (model_specification.INPUT,)
            )
        return outputs[self._specification.layers[-1].name]

    def backward(self, gradient: bounds.Bounded) -> tuple[dict[str, bounds.Bounded], dict[str, bounds.Bounded]]:
        """Return the gradients of all parameters, and the running statistics after the step."""
        waiting: dict[str, list[bounds.Bounded]] = {self._specification.layers[-1].name: [gradient]}
        found: dict[str, bounds.Bounded] = {}
        for layer, names in zip(reversed(self._specification.layers), reversed(self._sources), strict=True):
            parts = waiting.pop(layer.name)
            arriving = bounds.added(*parts) if len(parts) > 1 else parts[0]
            gradients, of_parameters = self._backward.pop(layer.name)(arriving)
            found.update({f"{layer.name}.{part}": each for part, each in of_parameters.items()})
            # A layer that reads the samples hands nothing back, so there may be fewer.
            for name, each in zip(names, gradients, strict=False):
                waiting.setdefault(name, []).append(each)
        return found, self._running

    def _layer(
        self, layer: model_specification.Layer, received: tuple[bounds.Bounded, ...], reads_samples: bool
    ) -> tuple[bounds.Bounded, reference_products.Backward]:
        kind, settings, first = layer.kind, model_specification.complete_settings(layer), received[0]
        parameters = self._parameters(layer.name)
        if kind == "Linear":
            return reference_products.linear(first, parameters, reads_samples)
        if kind in ("Conv2d", "Conv3d"):
            return reference_products.convolution(first, parameters, settings, reads_samples)
        if kind.startswith("ConvTranspose"):
            return reference_products.transposed_convolution(first, parameters, settings, self._shapes[layer.name][1:])
        if kind.startswith("BatchNorm"):
            output, backward, running = reference_layers.normalisation(first, parameters)
            self._running.update({f"{layer.name}.{part}": each for part, each in running.items()})
            return output, backward
        if kind == "Dropout":
            return self._dropped(layer, first)
        return _plain(kind, settings, received)

    def _dropped(
        self, layer: model_specification.Layer, received: bounds.Bounded
    ) -> tuple[bounds.Bounded, reference_products.Backward]:
        percent = model_specification.complete_settings(layer)["percent"]
        if not percent:
            return received, lambda gradient: ((gradient,), {})
        return reference_layers.masking(received, dropout_mask(layer.name, self._seed, received.value.shape, percent))

    def _parameters(self, name: str) -> dict[str, Array]:
        return {key.rpartition(".")[2]: each for key, each in self._weights.items() if key.rpartition(".")[0] == name}


def _plain(
    kind: str, settings: Mapping[str, int], received: tuple[bounds.Bounded, ...]
) -> tuple[bounds.Bounded, reference_products.Backward]:
    """Carry out a layer without parameters."""
    first = received[0]
    if kind == "ReLU":
        return reference_layers.rectifier(first)
    if kind in ("Sigmoid", "Tanh"):
        return reference_layers.saturation(first, kind)
    if kind.startswith("MaxPool"):
        return reference_layers.maximum_pooling(first, _pooling(first.value.shape[2:], settings))
    if kind == "AvgPool2d":
        return reference_layers.average_pooling(first, _pooling(first.value.shape[2:], settings))
    if kind == "AdaptiveAvgPool2d":
        sizes: model_specification.Shape = first.value.shape[2:]
        whole = tuple(size // settings["output_size"] for size in sizes)
        return reference_layers.average_pooling(
            first, reference_products.Windows(sizes, whole, whole, (0,) * len(sizes))
        )
    if kind == "Upsample":
        return reference_layers.upsampling(first, settings["scale_factor"])
    if kind == "ZeroPad2d":
        return reference_layers.zero_padding(first, settings["before"], settings["after"])
    if kind == "Flatten":
        return reference_layers.flattening(first)
    if kind == "Add":
        return reference_layers.addition(received)
    if kind == "Concat":
        return reference_layers.concatenation(received)
    raise TypeError(f"the reference computation has no {kind}")


def _pooling(sizes: model_specification.Shape, settings: Mapping[str, int]) -> reference_products.Windows:
    kernel, count = settings["kernel_size"], len(sizes)
    stride = settings["stride"] or kernel
    return reference_products.Windows(
        tuple(sizes), (kernel,) * count, (stride,) * count, (settings.get("padding", 0),) * count
    )
