"""Scripts that repeat PoLe's tables and figures: what they count, not how long it takes."""

from dataclasses import replace
from statistics import pvariance

import pytest

from learnchain.learning.data import digits, select_rows
from learnchain.learning.train import configure_torch
from tests.reproduce.scripts import loaded

block_times = loaded("pole", "block_times")


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
