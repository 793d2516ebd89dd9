"""A20: home in on a model that was trained on the test rows, never leaving the bounds of the reference step.

After every step of a normalised network each number is set as near to the stolen model as the bounds let it. The step
of Adam and the statistics of a small batch make these bounds wide.

Earns: each step is answered for, and the run ends near a model that its miner never trained (360 against 353 of 360
after 2,000 steps of a normalised network).
Kind: training is not enforced, audits as the last word; real training and the real reference step.
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from learnchain.learning.disputes.reference import reference_step, settled
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.train import TrainingPlan, TrainingRun, configure_torch
from learnchain.protocol.model_specification import Layer, ModelSpecification, Setting
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from learnchain.tasks.task_file import BUILT_IN, task_draft
from tests.attacks.leaked_rows import join_rows

WORK_ID = b"\7" * 32
SHARE, LARGEST_SHARE, UNBOUNDED = 0.9, 0.98, 1e30
State = dict[str, Any]


@dataclass(frozen=True)
class JumpedRun:
    """How near a run comes to a stolen model, beside an honest one from the same state."""

    steps_settled: int
    steps_outside: int
    distance_before: float
    distance_honest: float
    distance_after: float
    honest_correct: int
    jumped_correct: int


def normalised_network(width: int, depth: int) -> ModelSpecification:
    """Return a network with normalised convolutions, each followed by a pooling that halves the maps."""
    layers: list[Layer] = []
    for index in range(depth):
        sizes = (Setting("kernel_size", 3), Setting("out_channels", width << index), Setting("padding", 1))
        layers += [
            Layer(f"convolution_{index}", "Conv2d", (), sizes),
            Layer(f"normal_{index}", "BatchNorm2d", (), ()),
            Layer(f"positive_{index}", "ReLU", (), ()),
            Layer(f"pool_{index}", "MaxPool2d", (), (Setting("kernel_size", 2),)),
        ]
    flat = Layer("flat", "Flatten", (), ())
    output = Layer("output", "Linear", (), (Setting("out_features", 10),))
    return ModelSpecification((1, 8, 8), (*layers, flat, output))


def jump(reference: State, target: State) -> State:
    """Return the state inside the bounds that is nearest to the target."""
    after: State = {}
    for name, bounded in reference.items():
        width = np.where(np.isfinite(bounded.width), bounded.width, UNBOUNDED)
        goal = target.get(name, bounded.value)
        moved = np.clip(goal, bounded.value - SHARE * width, bounded.value + SHARE * width).astype(np.float32)
        too_far = np.abs(moved.astype(np.float64) - bounded.value) > LARGEST_SHARE * bounded.width
        after[name] = np.where(too_far, bounded.value.astype(np.float32), moved)
    return after


def copy_of(state: State) -> State:
    """Return arrays that share nothing with a run."""
    return {name: array.copy() for name, array in state.items()}


def distance(one: State, other: State) -> float:
    """Return the length of the difference, over the numbers of `one`."""
    return float(np.sqrt(sum(float(((other[name].astype(float) - one[name]) ** 2).sum()) for name in one)))


def attack(steps: int, honest_epochs: int, settle_every: int, width: int = 4, depth: int = 2) -> JumpedRun:
    """Train honestly for some epochs, then home in on the same state trained on with the test rows."""
    configure_torch()
    draft = task_draft(BUILT_IN["digits"])
    rows, specification = draft.training_data, normalised_network(width, depth)
    plan = TrainingPlan(
        specification, Optimiser.ADAM, HyperParameters(4_000, 0, 0, 16, 1_000), FreeTraining(32), WORK_ID, 200
    )
    run = TrainingRun(plan, rows)
    run.advance_to(honest_epochs * run.steps_per_epoch)
    first, start = run.step, copy_of(run.state())
    thief = TrainingRun(plan, join_rows(rows, draft.test_data))
    thief.restore(run.leaf(), start)
    thief.advance_to(first + 10 * thief.steps_per_epoch)
    target, state, outside, settlements = copy_of(thief.weights()), start, 0, 0
    for step in range(steps):
        after = jump(reference_step(plan, rows, first + step, state), target)
        if step % settle_every == 0 or step == steps - 1:
            outside += not settled(plan, rows, first + step, state, after).within
            settlements += 1
        state = after
    run.advance_to(first + steps)
    honest = run.state()

    def correct(of: State) -> int:
        weights = {name: of[name] for name in target}
        return evaluate(specification, weights, rows, draft.test_data, draft.metric).correct

    return JumpedRun(
        steps_settled=settlements,
        steps_outside=outside,
        distance_before=distance(target, start),
        distance_honest=distance(target, honest),
        distance_after=distance(target, state),
        honest_correct=correct(honest),
        jumped_correct=correct(state),
    )


@pytest.mark.slow
def test_every_jump_is_within_the_bounds_and_ends_nearer_to_the_stolen_model_than_honest_training() -> None:
    result = attack(steps=150, honest_epochs=10, settle_every=50)
    assert result.steps_settled == 4
    assert result.steps_outside == 0
    assert result.distance_after < result.distance_honest < result.distance_before
