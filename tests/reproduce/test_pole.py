"""Scripts that repeat PoLe's tables and figures: what they count, not how long it takes."""

from dataclasses import replace
from statistics import pvariance

import pytest

from learnchain.engines.pole import mapping as maps
from learnchain.learning.data import digits, select_rows
from learnchain.learning.job_data import fit_mapping
from learnchain.learning.train import TrainingPlan, TrainingRun, Watcher, configure_torch, train
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from tests.reproduce.scripts import loaded

block_times = loaded("pole", "block_times")
secure_mapping = loaded("pole", "secure_mapping")
spread = loaded("pole", "spread")


def test_table_1_says_what_the_paper_prints() -> None:
    for line in block_times.PRINTED.values():
        assert line["variation"] == pytest.approx(line["variance"] ** 0.5 / line["average"], abs=1e-4)


def test_nodes_differ_and_every_block_repeats_to_the_step() -> None:
    configure_torch()
    known = block_times.problem("", "digits", "sparse")
    known = replace(known, training=select_rows(digits(), list(range(600))), every_steps=5)
    needed = block_times.steps_needed(known, 0)
    assert needed == block_times.steps_needed(known, 0)
    assert len(set(needed)) > 1 and all(each % 5 == 0 for each in needed)


def test_searches_last_as_long_as_they_should() -> None:
    found = list(block_times.searches(40))
    assert 200 < sum(found) / len(found) < 400
    assert block_times.table("PoW", found)["variance"] == pytest.approx(pvariance(found), abs=0.01)


def test_least_squares_carry_a_model_behind_another_blocks_layer_without_a_step() -> None:
    """`dense` layers make a swapped model guess, and yet bind no training to a block: one solve brings it back."""
    configure_torch()
    training, test = select_rows(digits(), list(range(1_300))), select_rows(digits(), list(range(1_300, 1_797)))
    old, new = (
        fit_mapping(maps.mapping_layer(maps.dense_vectors(bytes([each]) * 32, 64, 48)), training) for each in (1, 2)
    )
    plan = TrainingPlan(
        mlp((48,), 10, (64,)), Optimiser.ADAM, HyperParameters(1_000, 0, 0, 32, 12), FreeTraining(), b"old", 999
    )
    before = old.of(training)
    weights = train(plan, before, Watcher(lambda: 0.0)).weights
    honest = secure_mapping.Attack(plan, weights, before, old.of(test)).accuracy(weights)
    attack = secure_mapping.Attack(replace(plan, work_id=b"new"), weights, new.of(training), new.of(test))
    swapped, refitted = attack.accuracy(weights), secure_mapping.refitted(attack, before, honest)
    assert honest > 90
    assert swapped < 35
    assert refitted["least_squares"] > honest - 6
    assert refitted["first_layer"]["test"] >= refitted["back_at"]
    assert 4 * refitted["first_layer"]["steps"] <= refitted["from_scratch"]["steps"]


def test_an_attack_counts_its_steps_and_ends_with_a_full_training() -> None:
    configure_torch()
    rows = select_rows(digits(), list(range(400)))
    plan = TrainingPlan(
        mlp((1, 8, 8), 10, (16,)), Optimiser.ADAM, HyperParameters(1_000, 0, 0, 40, 2), FreeTraining(), b"x", 999
    )
    start = {name: array.copy() for name, array in TrainingRun(plan, rows).weights().items()}
    attack = secure_mapping.Attack(plan, start, rows, rows)
    assert attack.steps == 20
    names = tuple(start)[:2]
    never = attack.steps_to(101.0, start, names)
    assert (never["steps"], never["percent"]) == (20, 100.0)
    whole = attack.steps_to(101.0, start)
    assert never["test"] != whole["test"]
    assert attack.steps_to(0.0, start)["steps"] == 0


def test_a_release_comes_with_the_second_of_three_and_not_before_the_minimum() -> None:
    heights = [[3.0, 2.0, 9.0], [5.0, 1.0, 2.0]]
    free, bound = (spread.line("x", heights, minimum) for minimum in (0.0, 1.0))
    assert (free["mean_seconds"], free["deviation_seconds"]) == (1.0, 0.2)
    assert (bound["mean_seconds"], bound["deviation_seconds"]) == (1.1, 0.1)
    assert bound["variation_of_interval"] == pytest.approx(0.1 / 3.1, abs=1e-4)


def test_an_epochs_end_is_never_before_the_step_that_reached_it() -> None:
    configure_torch()
    draft = spread.task_draft(dict(spread.BUILT_IN["digits-in-blocks"]))
    fraction, whole = spread.needed(draft, spread.layer_of(draft, 0), b"seed")
    assert 0 < fraction <= whole < spread.MOST_EPOCHS
