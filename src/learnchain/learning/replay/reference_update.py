"""The reference of what follows the backward pass: the gradient's bounded length, the watermark, SGD and Adam."""

from collections.abc import Mapping

import numpy as np

from learnchain.learning.replay.bounds import UNIT, Bounded, added, between, either, exact, growth, scaled, times, total
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import GRADIENT_NORM, MILLION, NORM_EPSILON, TrainingPlan
from learnchain.learning.watermark import marked_tensor, target_of, watermark_matrix
from learnchain.primitives.model_costs import tensors
from learnchain.primitives.task_specification import Optimiser
from learnchain.primitives.training_terms import Watermark

_FIRST_DECAY, _SECOND_DECAY, _ADAM_EPSILON = 0.9, 0.999, 1e-8


def updated(
    plan: TrainingPlan, step: int, before: Mapping[str, Array], gradients: Mapping[str, Bounded]
) -> dict[str, Bounded]:
    """Return every trained tensor and its memories after the step, with bounds."""
    shortened = _shortened({name: Bounded(each.value, each.width) for name, each in gradients.items()})
    if isinstance(plan.terms, Watermark):
        shortened = _marked(plan, plan.terms, before, shortened)
    state: dict[str, Bounded] = {}
    for tensor in tensors(plan.specification):
        if tensor.trained:
            change = _adam if plan.optimiser is Optimiser.ADAM else _descent
            state.update(change(plan, step, tensor.name, before, shortened[tensor.name]))
    return state


def _shortened(gradients: Mapping[str, Bounded]) -> dict[str, Bounded]:
    """Return the gradients divided by their length where that exceeds `GRADIENT_NORM`; near it, either may be."""
    lower = sum(float(total(np.maximum(np.abs(each.value) - each.radius, 0) ** 2)) for each in gradients.values())
    upper = sum(float(total(each.reach**2)) for each in gradients.values())
    doubt = growth(sum(each.value.size for each in gradients.values()))
    shortest, longest = float(np.sqrt(lower)) * (1 - doubt), float(np.sqrt(upper)) * (1 + doubt)
    if longest <= GRADIENT_NORM:
        return dict(gradients)
    smallest = GRADIENT_NORM / (longest + NORM_EPSILON)
    largest = min(GRADIENT_NORM / (shortest + NORM_EPSILON), 1.0) if shortest > GRADIENT_NORM else 1.0
    factor = between(np.array(smallest * (1 - 8 * UNIT)), np.array(largest * (1 + 8 * UNIT)))
    return {name: times(each, factor) for name, each in gradients.items()}


def _marked(
    plan: TrainingPlan, terms: Watermark, before: Mapping[str, Array], gradients: dict[str, Bounded]
) -> dict[str, Bounded]:
    """Add the gradient of the watermark's regulariser (DLBC Eq. 7); a row near its target may pull or not."""
    marked = marked_tensor(plan.specification)
    filters = marked.shape[0]
    flat = before[marked.name].astype(np.float64).reshape(filters, -1)
    matrix = watermark_matrix(terms.bits, flat.shape[1]).astype(np.float64)
    target = target_of(terms)
    pull = Bounded(np.zeros(flat.shape[1]), np.zeros(flat.shape[1]))
    for row in matrix:
        chosen = flat[:, row > 0]
        form = float(total(chosen)) / filters
        doubt = growth(chosen.size) * float(total(np.abs(chosen))) / filters + 4 * UNIT * target
        lacking = scaled(exact(row * (-target / row.sum())), 1.0)
        certain, possible = np.array(form < target - doubt), np.array(form < target + doubt)
        pull = added(pull, either(lacking, certain, possible))
    pull = Bounded(pull.value, pull.width)
    term = scaled(pull, terms.strength_millionths / MILLION).reshape(1, *marked.shape[1:])
    return {**gradients, marked.name: added(gradients[marked.name], term)}


def _descent(
    plan: TrainingPlan, _step: int, name: str, before: Mapping[str, Array], gradient: Bounded
) -> dict[str, Bounded]:
    chosen = plan.hyper_parameters
    weights, gradient = exact(before[name]), _decayed(plan, before[name], gradient)
    rate = chosen.learning_rate_millionths / MILLION
    if not chosen.momentum_millionths:
        return {name: added(weights, scaled(gradient, -rate))}
    memory = exact(before[f"momentum_buffer/{name}"])
    velocity = added(scaled(memory, chosen.momentum_millionths / MILLION), gradient)
    return {name: added(weights, scaled(velocity, -rate)), f"momentum_buffer/{name}": velocity}


def _adam(
    plan: TrainingPlan, step: int, name: str, before: Mapping[str, Array], gradient: Bounded
) -> dict[str, Bounded]:
    weights, gradient = exact(before[name]), _decayed(plan, before[name], gradient)
    mean, square = exact(before[f"exp_avg/{name}"]), exact(before[f"exp_avg_sq/{name}"])
    new_mean = added(scaled(mean, _FIRST_DECAY), scaled(gradient, 1 - _FIRST_DECAY))
    new_square = added(scaled(square, _SECOND_DECAY), scaled(times(gradient, gradient), 1 - _SECOND_DECAY))
    rate = plan.hyper_parameters.learning_rate_millionths / MILLION
    change = _adam_change(mean.value, square.value, gradient, step + 1)
    return {
        name: added(weights, scaled(change, -rate)),
        f"exp_avg/{name}": new_mean,
        f"exp_avg_sq/{name}": new_square,
    }


def _adam_change(mean: Array, square: Array, gradient: Bounded, count: int) -> Bounded:
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
    found = between(np.minimum.reduce((*ends, extreme)), np.maximum.reduce((*ends, extreme)))
    middle = (np.abs(a) + c * np.abs(gradient.value)) / (np.sqrt(b + k * gradient.value**2) + _ADAM_EPSILON)
    size = np.maximum(np.abs(found.value) + found.radius, np.minimum(middle, 16.0))
    return Bounded(found.value, found.radius + 16 * UNIT * size)


def _power(base: float, count: int) -> float:
    """Return base ** count by multiplications alone: a library's power may differ in its last bit."""
    result, square = 1.0, base
    while count:
        if count & 1:
            result *= square
        square *= square
        count >>= 1
    return result


def _decayed(plan: TrainingPlan, weights: Array, gradient: Bounded) -> Bounded:
    decay = plan.hyper_parameters.weight_decay_millionths / MILLION
    return added(gradient, scaled(exact(weights), decay)) if decay else gradient
