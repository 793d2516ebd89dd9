"""Figures of a chain, checked against sums written another way."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.simulation.comparison import gini, intervals

INCOMES = st.lists(st.integers(0, 10**12).map(Fraction), min_size=1, max_size=12)


def test_equal_intervals_do_not_vary() -> None:
    found = intervals([8_500] * 5)
    assert (found.mean_seconds, found.variance_seconds_squared, found.variation) == (8.5, 0.0, 0.0)


def test_variation_is_deviation_over_mean() -> None:
    found = intervals([1_000, 3_000])
    assert (found.mean_seconds, found.variance_seconds_squared, found.variation) == (2.0, 1.0, 0.5)


@pytest.mark.parametrize(("incomes", "expected"), [([1, 1, 1], 0), ([0, 0, 9], Fraction(2, 3)), ([0, 0], 0)])
def test_gini_of_known_incomes(incomes: list[int], expected: Fraction | int) -> None:
    assert gini([Fraction(each) for each in incomes]) == expected


@given(INCOMES)
def test_gini_is_half_the_relative_mean_difference(incomes: list[Fraction]) -> None:
    total, count = sum(incomes, Fraction(0)), len(incomes)
    if total:
        differences = sum((abs(one - other) for one, other in product(incomes, repeat=2)), Fraction(0))
        assert gini(incomes) == differences / (2 * count * total)
