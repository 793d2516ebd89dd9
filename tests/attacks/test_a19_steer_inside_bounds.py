"""A19: after every step move every number of the state inside the bounds of the reference step, towards the test rows.

Weights, memories and running statistics go by up to 90 % of their radius in the direction that lowers the loss on the
test rows. Every step is within the bounds, so that no dispute can be won against it, and any class may be declared.

Earns: 360 of 360 (honest 352) after 3,000 steps for some ten times the training, the accuser pays. The room grows as
training converges: bound and change of a step have the ratio 2e-3 at first and 0.1 to 0.6 in the end.
Kind: training is not enforced, audits as the last word; real training and the real reference step.
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from learnchain.learning.disputes.reference import reference_step, settled
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.model import build_model, set_weights
from learnchain.learning.train import TrainingPlan, TrainingRun, configure_torch, to_float
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from learnchain.tasks.task_file import BUILT_IN, TaskDraft, task_draft

WORK_ID = b"\7" * 32
SHARE, LARGEST_SHARE = 0.9, 0.98
State = dict[str, Any]


@dataclass(frozen=True)
class SteeredRun:
    """What both runs reach from one honest state in as many steps, and how the bounds judge the steered one."""

    steps_settled: int
    steps_outside: int
    largest_deviation: float
    moved_share: float
    honest_loss: float
    steered_loss: float
    honest_correct: int
    steered_correct: int


class TestRows:
    """Know the test rows: the gradient of their loss at a state, and the count on them."""

    __test__ = False

    def __init__(self, draft: TaskDraft) -> None:
        self._draft = draft
        self._model = build_model(draft.model)
        self._model.eval()
        self._inputs = to_float(torch.from_numpy(draft.test_data.inputs.copy()))
        self._labels = torch.from_numpy(draft.test_data.labels.astype(np.int64))
        self._names = [name for name, _ in self._model.named_parameters()]

    def gradient(self, state: State) -> tuple[State, float]:
        """Return the gradient of the loss on the test rows, and the loss."""
        set_weights(self._model, {name: state[name] for name in self._names})
        self._model.zero_grad()
        loss = functional.cross_entropy(self._model(self._inputs), self._labels)
        loss.backward()
        gradients = {name: value.grad.numpy().copy() for name, value in self._model.named_parameters()}
        return gradients, loss.item()

    def correct(self, state: State) -> int:
        """Return on how many test rows a state is right."""
        weights = {name: state[name] for name in self._names}
        draft = self._draft
        return evaluate(draft.model, weights, draft.training_data, draft.test_data, draft.metric).correct


def steer(reference: State, gradients: State) -> State:
    """Return the state inside the bounds that lowers the loss on the test rows."""
    after: State = {}
    for name, bounded in reference.items():
        gradient = gradients[name.split("/")[-1]]
        # The memory of the optimiser points up the loss, the weights go down.
        direction = np.sign(gradient) if "/" in name else -np.sign(gradient)
        moved = (bounded.value + SHARE * bounded.width * direction).astype(np.float32)
        too_far = np.abs(moved.astype(np.float64) - bounded.value) > LARGEST_SHARE * bounded.width
        after[name] = np.where(too_far, bounded.value.astype(np.float32), moved)
    return after


def distance(one: State, other: State, names: list[str]) -> float:
    """Return the length of the difference of two states' weights."""
    return float(np.sqrt(sum(float(((one[name].astype(float) - other[name]) ** 2).sum()) for name in names)))


def attack(steps: int, honest_epochs: int, settle_every: int, hidden: int = 64) -> SteeredRun:
    """Train honestly for some epochs, then honestly and steered for as many steps from the same state."""
    configure_torch()
    draft = task_draft({**BUILT_IN["digits"], "model": {"preset": "mlp", "hidden": [hidden]}})
    choice = HyperParameters(150_000, 900_000, 0, 16, 1_000)
    plan, rows = (
        TrainingPlan(draft.model, draft.training.optimiser, choice, FreeTraining(32), WORK_ID, 200),
        draft.training_data,
    )
    run = TrainingRun(plan, rows)
    run.advance_to(honest_epochs * run.steps_per_epoch)
    first, start = run.step, {name: array.copy() for name, array in run.state().items()}
    known, names = TestRows(draft), list(run.weights())
    state, outside, deviations = start, 0, []
    for step in range(steps):
        after = steer(reference_step(plan, rows, first + step, state), known.gradient(state)[0])
        if step % settle_every == 0 or step == steps - 1:
            settlement = settled(plan, rows, first + step, state, after)
            outside += not settlement.within
            deviations.append(settlement.deviation)
        state = after
    run.advance_to(first + steps)
    honest = run.state()
    return SteeredRun(
        steps_settled=len(deviations),
        steps_outside=outside,
        largest_deviation=max(deviations),
        moved_share=distance(state, honest, names) / distance(honest, start, names),
        honest_loss=known.gradient(honest)[1],
        steered_loss=known.gradient(state)[1],
        honest_correct=known.correct(honest),
        steered_correct=known.correct(state),
    )


def test_every_steered_step_is_within_the_bounds_and_the_run_goes_elsewhere() -> None:
    result = attack(steps=60, honest_epochs=30, settle_every=20)
    assert result.steps_settled == 4
    assert result.steps_outside == 0
    assert result.largest_deviation <= 1
    assert result.steered_loss < 0.8 * result.honest_loss
    assert result.steered_correct > result.honest_correct


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_thousand_steered_steps_are_right_on_every_test_row() -> None:
    result = attack(steps=3_000, honest_epochs=2, settle_every=100)
    assert result.steps_outside == 0
    assert result.steered_correct > result.honest_correct
    assert result.steered_correct == 360
    assert result.steered_loss < result.honest_loss / 10
