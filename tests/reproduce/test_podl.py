"""Scripts that repeat PoDL's tables and figures: what they count, not how long it takes."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnchain.learning.data import select_rows
from learnchain.learning.train import configure_torch
from tests.reproduce.scripts import loaded

course = loaded("podl", "course")
growth = loaded("podl", "growth")
double_spending = loaded("podl", "double_spending")
validation = loaded("podl", "validation")

counts = st.tuples(*[st.integers(0, 5)] * double_spending.BLOCKS)


@given(st.lists(counts, min_size=3, max_size=7), counts, st.integers(0, double_spending.BLOCKS - 1), st.data())
@settings(deadline=None)
def test_best_of_several_runs_is_counted_exactly(
    rivals: list[tuple[int, ...]], accepted: tuple[int, ...], first: int, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(1, len(rivals)))
    drawn = list(combinations(rivals, kept))
    replaced = range(first, double_spending.BLOCKS)
    won = sum(all(any(each[block] > accepted[block] for each in some) for block in replaced) for some in drawn)
    found = double_spending.best_of_beats(rivals, accepted, first, kept)
    assert found == pytest.approx(won / len(drawn))


def test_blocks_go_on_from_their_own_states_and_repeat_to_the_bit() -> None:
    configure_torch()
    whole = course.task(2)
    known = replace(whole, training=select_rows(whole.training, list(range(128))))
    first, second = (list(course.run(known, "miner", 2, 1)) for _ in range(2))
    for (one, _), (other, _) in zip(first, second, strict=True):
        assert all((one[name] == other[name]).all() for name in one)
    assert any((first[0][0][name] != first[1][0][name]).any() for name in first[0][0])


def test_a_task_grows_over_its_blocks_and_stops_with_its_last_set() -> None:
    configure_torch()
    lines = growth.grown(course.task(growth.BLOCKS), 4)
    assert len(lines) == growth.BLOCKS and lines[-1]["engine_stops"]
    assert "best_before" not in lines[0]
    assert lines[-1]["correct"] > lines[0]["correct"]


def test_who_trains_on_the_test_rows_has_them_all() -> None:
    known = course.task(4)
    cheat = double_spending.cheating(known)
    assert len(cheat.training) == len(known.training) + sum(len(each) for each in known.tests)


def test_validation_reports_the_worst_case_beside_the_mean(tmp_path: Path) -> None:
    configure_torch()
    line = validation.figure_2(course.task(8), 3, tmp_path)
    assert line["times"] == 3 and 0 < line["mean_seconds"] <= line["longest_seconds"]
