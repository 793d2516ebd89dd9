import itertools
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from learnchain.learning.data import DataSet, save_data
from learnchain.learning.jobs import TrainingProgress
from learnchain.learning.model import build_model, set_weights
from learnchain.learning.trace import read_trace
from learnchain.learning.train import TrainingRun, Watcher, epoch_rows, probe, segment_rows, train
from learnchain.protocol.model_presets import keyword_cnn, mlp
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import Watermark
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from tests.learning.conftest import float_accuracy, plan_of

WATCHER = Watcher(time.perf_counter)
MARK = Watermark(bytes(range(64)), 100_000, 999_900)

IN_ANOTHER_PROCESS = """
import sys, time
from pathlib import Path
import torch
from learnchain.learning.data import load_data
from learnchain.learning.train import Watcher, configure_torch, train
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import Watermark
from tests.learning.conftest import plan_of
configure_torch()
torch.manual_seed(int(sys.argv[2]))
plan = plan_of(optimiser=Optimiser(sys.argv[3]), terms=Watermark(bytes(range(64)), 100_000, 999_900))
print(train(plan, load_data(Path(sys.argv[1])), Watcher(time.perf_counter)).trace.root().hex())
"""


def refusal(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_a_run_is_bit_identical_in_another_process(tmp_path, digit_sets, optimiser):
    save_data(tmp_path / "training", digit_sets[0])
    result = train(plan_of(optimiser=optimiser, terms=MARK), digit_sets[0], WATCHER)
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "training"), "7", optimiser.value]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert printed == result.trace.root().hex()


def test_another_miner_has_another_trajectory_from_the_first_state_on(digit_sets):
    one, two = (train(plan_of(name), digit_sets[0], WATCHER) for name in (b"one", b"two"))
    assert not {leaf.digest for leaf in one.trace.leaves} & {leaf.digest for leaf in two.trace.leaves}


def test_the_batch_order_changes_with_every_epoch_and_miner(digit_sets):
    run, other = (TrainingRun(plan_of(name), digit_sets[0]) for name in (b"one", b"two"))
    orders = [torch.cat(list(batches)).tolist() for batches in (run.batches(0), run.batches(1), other.batches(0))]
    assert all(sorted(order) == list(range(1437)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_digits_are_learned_within_a_few_epochs(digit_sets, optimiser):
    result = train(plan_of(epochs=6, optimiser=optimiser), digit_sets[0], WATCHER)
    model = build_model(plan_of().specification)
    set_weights(model, result.weights)
    assert float_accuracy(model, digit_sets[1]) > 0.93
    assert (result.epochs, result.steps) == (6, 6 * 45)


def test_the_trace_begins_at_the_initialisation_and_ends_in_the_model(tmp_path, digit_sets):
    result = train(plan_of(), digit_sets[0], WATCHER, tmp_path)
    assert [leaf.step for leaf in result.trace.leaves] == [0, 20, 40, 60, 80, 90]
    assert read_trace(tmp_path, result.trace.root()) == result.trace
    assert len(list(tmp_path.glob("state-*.safetensors"))) == 6


def test_the_rows_of_a_segment_are_those_of_its_steps_across_epochs():
    plan = plan_of()
    steps = [rows.tolist() for epoch in range(3) for rows in epoch_rows(plan, 100, epoch)]
    assert len(steps) == 12
    for first, following in ((0, 4), (0, 1), (2, 6), (3, 12), (11, 12), (4, 8)):
        assert [rows.tolist() for rows in segment_rows(plan, 100, first, following)] == steps[first:following]


def test_finished_epochs_are_the_run_when_it_is_ended_early(digit_sets):
    asked = itertools.count(1)
    watcher = Watcher(time.perf_counter, finish_early=lambda: next(asked) == 2)
    interrupted = train(plan_of(epochs=50), digit_sets[0], watcher)
    assert interrupted.epochs == 2
    assert interrupted.trace.root() == train(plan_of(epochs=2), digit_sets[0], WATCHER).trace.root()


def test_an_abandoned_run_ends_at_once(digit_sets):
    asked = itertools.count(1)
    with pytest.raises(Unavailable):
        train(plan_of(epochs=50), digit_sets[0], Watcher(time.perf_counter, abandon=lambda: next(asked) == 3))
    assert next(asked) == 4


def test_progress_tells_each_epoch_once_when_the_clock_stands_still(digit_sets):
    seen: list[TrainingProgress] = []
    train(plan_of(epochs=3), digit_sets[0], Watcher(lambda: 1.0, seen.append))
    assert [(progress.epoch, progress.step, progress.steps) for progress in seen] == [
        (1, 45, 135),
        (2, 90, 135),
        (3, 135, 135),
    ]
    assert seen[0].loss > seen[2].loss


def test_the_probe_runs_one_epoch(digit_sets):
    ticks = itertools.count()
    assert probe(plan_of(epochs=50), digit_sets[0], lambda: float(next(ticks))) == 1.0
    assert 0 < probe(plan_of(), digit_sets[0], time.perf_counter) < 30


def test_dropout_and_batch_normalisation_are_reproducible_too(tmp_path):
    generator = np.random.default_rng(1)
    data = DataSet(
        generator.integers(0, 256, (65, 1, 8, 8), dtype=np.uint8), generator.integers(0, 4, 65, dtype=np.int64)
    )
    plan = plan_of(specification=keyword_cnn((1, 8, 8), 4, width=4))
    result = train(plan, data, WATCHER, tmp_path)
    torch.manual_seed(99)
    assert train(plan, data, WATCHER).trace.root() == result.trace.root()
    # 65 rows in batches of 32: the single last row is left out.
    assert result.steps == 4


@pytest.mark.parametrize("steepness", [0.1, 200])
def test_one_step_moves_the_weights_by_the_rate_at_most(digit_sets, steepness):
    plan = plan_of(epochs=1)
    plan = replace(plan, hyper_parameters=replace(plan.hyper_parameters, momentum_millionths=0))
    run = TrainingRun(plan, digit_sets[0])
    for weights in run.weights().values():
        np.multiply(weights, steepness, out=weights)
    before = {name: weights.astype(np.float64) for name, weights in run.weights().items()}
    run.advance_to(1)
    moved = np.sqrt(sum(float(((run.weights()[name] - old) ** 2).sum()) for name, old in before.items()))
    rate = plan.hyper_parameters.learning_rate_millionths / 1_000_000
    # What is not shortened moves by less; a steep loss moves by exactly the rate, a NaN by neither.
    assert moved < 0.99 * rate if steepness < 1 else moved == pytest.approx(rate, rel=1e-3)


def test_a_marked_run_at_a_high_rate_stays_stable(digit_sets):
    plan = plan_of(terms=MARK)
    steep = type(plan.hyper_parameters)(50_000, 900_000, 0, 16, 40)
    plan = type(plan)(plan.specification, plan.optimiser, steep, plan.terms, plan.work_id, 1_000)
    model = build_model(plan.specification)
    set_weights(model, train(plan, digit_sets[0], WATCHER).weights)
    assert float_accuracy(model, digit_sets[1]) > 0.9


def test_data_that_do_not_fit_the_model_are_refused(digit_sets):
    plan = plan_of(specification=mlp((64,), 10))
    assert refusal(train, plan, digit_sets[0], WATCHER) is RejectionReason.MODEL_SHAPE_MISMATCH
    fewer = plan_of(specification=mlp((1, 8, 8), 9))
    assert refusal(train, fewer, digit_sets[0], WATCHER) is RejectionReason.MODEL_SHAPE_MISMATCH


def test_a_diverged_run_is_refused_by_its_own_miner(digit_sets):
    plan = plan_of(epochs=1)
    wild = type(plan.hyper_parameters)(10_000_000, 990_000, 10_000_000, 32, 3)
    plan = type(plan)(plan.specification, plan.optimiser, wild, plan.terms, plan.work_id, 1_000)
    assert refusal(train, plan, digit_sets[0], WATCHER) is RejectionReason.WEIGHTS_NOT_FINITE
