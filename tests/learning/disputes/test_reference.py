"""The reference computation: honest steps of every layer kind lie inside, and it is as exact as float64 training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from learnchain.learning.data import DataSet
from learnchain.learning.disputes.reference import reference_step, settled, within_bounds
from learnchain.learning.model import SeededDropout, build_model
from learnchain.learning.train import TrainingPlan, TrainingRun, step_seed, to_float
from learnchain.protocol.model_presets import keyword_cnn, strided_cnn
from learnchain.protocol.model_specification import KINDS, output_shape
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, Watermark
from tests.learning.disputes.conftest import OPTIMISERS
from tests.learning.fixed_point_models import SPECIFICATIONS

MARK = Watermark(bytes(range(64)), 100_000, 999_900)
CHOSEN = {
    Optimiser.SGD: HyperParameters(50_000, 900_000, 100, 8, 2),
    Optimiser.ADAM: HyperParameters(2_000, 0, 100, 8, 2),
}


def data_for(specification, rows=32, real=False):
    generator = np.random.default_rng(11)
    classes, *places = output_shape(specification)
    inputs = generator.integers(0, 256, (rows, *specification.input_shape), dtype=np.uint8)
    if real:
        inputs = generator.normal(0, 2, (rows, *specification.input_shape)).astype(np.float32)
    return DataSet(inputs, generator.integers(0, classes, (rows, *places), dtype=np.int64))


def plan_for(specification, optimiser=Optimiser.SGD, terms=None, **changes):
    chosen = replace(CHOSEN[optimiser], **changes)
    return TrainingPlan(specification, optimiser, chosen, terms or FreeTraining(), b"\6" * 32, 20)


def states(plan, data, steps):
    run = TrainingRun(plan, data)
    found = [{name: array.copy() for name, array in run.state().items()}]
    for step in range(1, steps + 1):
        run.advance_to(step)
        found.append({name: array.copy() for name, array in run.state().items()})
    return found


def test_the_models_of_this_test_use_every_layer_kind():
    used = {layer.kind for specification in SPECIFICATIONS.values() for layer in specification.layers}
    assert set(KINDS) - used <= {"ZeroPad2d"}
    assert {layer.kind for layer in strided_cnn((1, 8, 8), 10).layers} <= used


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(
    "name", [*sorted(set(SPECIFICATIONS) - {"baas_3"}), pytest.param("baas_3", marks=pytest.mark.slow)]
)
def test_honest_steps_of_every_kind_lie_inside_and_others_outside(name, optimiser):
    specification = SPECIFICATIONS[name]
    plan, data = plan_for(specification, optimiser), data_for(specification)
    found = states(plan, data, 3)
    for step in range(3):
        settlement = settled(plan, data, step, found[step], found[step + 1])
        assert settlement.within, settlement
        # The step on other rows, and no step at all, are far outside.
        other = TrainingRun(plan, data)
        other.step, step_before = step, found[step]
        for target, array in other.state().items():
            array[...] = step_before[target]
        other.advance(torch.from_numpy(np.arange(8)), _Silent())
        assert not within_bounds(plan, data, step, step_before, other.state())
        assert not within_bounds(plan, data, step, step_before, step_before)


class _Silent:
    def add(self, loss, accuracy):
        """Nobody looks."""


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_marked_step_lies_inside_and_an_unmarked_one_outside(digit_sets, optimiser):
    specification = strided_cnn((1, 8, 8), 10)
    plan = plan_for(specification, optimiser, MARK)
    found = states(plan, digit_sets[0], 4)
    plain = replace(plan, terms=FreeTraining())
    for step in range(4):
        assert within_bounds(plan, digit_sets[0], step, found[step], found[step + 1])
    assert not within_bounds(plain, digit_sets[0], 3, found[3], found[4])


@pytest.mark.parametrize("changes", [{"momentum_millionths": 0}, {"learning_rate_millionths": 1_000_000}])
def test_other_choices_of_the_miner_lie_inside(digit_sets, changes):
    plan = plan_for(strided_cnn((1, 8, 8), 10), **changes)
    found = states(plan, digit_sets[0], 5)
    for step in range(5):
        assert within_bounds(plan, digit_sets[0], step, found[step], found[step + 1])


def test_pixels_of_real_numbers_are_covered_too():
    specification = keyword_cnn((1, 8, 8), 4, 4)
    plan, data = plan_for(specification), data_for(specification, real=True)
    found = states(plan, data, 2)
    assert all(within_bounds(plan, data, step, found[step], found[step + 1]) for step in range(2))


def test_numbers_that_are_none_are_outside(digit_sets):
    plan = plan_for(strided_cnn((1, 8, 8), 10))
    before, after = states(plan, digit_sets[0], 1)
    for bad in (np.nan, np.inf, -np.inf):
        forged = {**after, "conv2d0.bias": np.full_like(after["conv2d0.bias"], bad)}
        assert not within_bounds(plan, digit_sets[0], 0, before, forged)


def test_the_bounds_of_a_small_cnn_are_a_thousandth_of_the_step(digit_sets):
    plan = plan_for(strided_cnn((1, 8, 8), 10), batch_size=32)
    found = states(plan, digit_sets[0], 6)
    assert settled(plan, digit_sets[0], 5, found[5], found[6]).share < 1e-3


@pytest.mark.parametrize("name", ["strided_cnn", "keyword_cnn", "unet2d", "unet3d", "fcn34", "mlp"])
def test_the_reference_agrees_with_training_in_double_precision(name):
    """SGD without momentum leaves the bounded gradient in the change of every weight; torch's float64 is the oracle."""
    specification = SPECIFICATIONS[name]
    plan = plan_for(specification, momentum_millionths=0, weight_decay_millionths=0)
    data = data_for(specification)
    run = TrainingRun(plan, data)
    before = {key: array.copy() for key, array in run.state().items()}
    rows = next(run.batches(0))
    model = build_model(specification).double()
    model.load_state_dict({key: torch.from_numpy(array).double() for key, array in before.items()}, strict=False)
    model.train()
    for module in model.modules():
        if isinstance(module, SeededDropout):
            module.seed = step_seed(plan.work_id, 0)
    labels = torch.from_numpy(data.labels.astype(np.int64))[rows]
    functional.cross_entropy(model(to_float(torch.from_numpy(data.inputs))[rows].double()), labels).backward()
    gradients = {key: parameter.grad.numpy() for key, parameter in model.named_parameters()}
    length = np.sqrt(sum((array**2).sum() for array in gradients.values()))
    factor = 1.0 if length <= 1 else 1 / (length + 1e-6)
    reference = reference_step(plan, data, 0, before)
    for key, gradient in gradients.items():
        expected = before[key] - 0.05 * factor * gradient
        # Where a choice is in doubt the middle of both stands; elsewhere the values agree.
        deviation = np.abs(reference[key].value - expected)
        assert (deviation <= reference[key].width).all()
        if name in ("strided_cnn", "mlp"):
            assert np.median(deviation) <= 0.02 * np.median(np.abs(0.05 * factor * gradient))
