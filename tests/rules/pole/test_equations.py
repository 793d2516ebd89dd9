"""Equation 2: what a cited ommer earns, why the printed line cannot be meant, and what a second identity earns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.rules.pole.equations import (
    MAXIMUM_DEPTH,
    OmmerFormula,
    citing_rewards,
    ommer_reward,
    second_identity_gain,
)

REWARDS = st.integers(1, 10**12)
DISTANCES = st.integers(1, MAXIMUM_DEPTH)
COUNTS = st.integers(1, 128)


@given(REWARDS, DISTANCES, COUNTS)
def test_the_fraction_falls_with_distance_and_with_rivals(reward: int, distance: int, ommers: int) -> None:
    paid = ommer_reward(reward, 100 + distance, 100, ommers)
    assert paid * distance * ommers <= reward < (paid + 1) * distance * ommers
    assert paid >= ommer_reward(reward, 100 + distance, 100, ommers + 1)


@given(REWARDS, DISTANCES, COUNTS, st.integers(1, 10**6))
def test_only_the_distance_of_heights_matters(reward: int, distance: int, ommers: int, height: int) -> None:
    assert ommer_reward(reward, height + distance, height, ommers) == ommer_reward(reward, distance, 0, ommers)


def test_the_printed_line_grows_with_the_chain() -> None:
    low, high = (ommer_reward(2_000, height + 1, height, 1, OmmerFormula.LITERAL) for height in (10, 1_000_000))
    assert (low, high) == (2_000 * 11 - 10, 2_000 * 1_000_001 - 1_000_000)
    assert high > 100_000 * ommer_reward(2_000, 2, 1, 1)


@pytest.mark.parametrize(("winning", "ommer", "ommers"), [(5, 5, 1), (4, 5, 1), (12, 5, 1), (6, 5, 0)])
def test_an_ommer_that_may_not_be_cited_is_refused(winning: int, ommer: int, ommers: int) -> None:
    with pytest.raises(Rejected) as refusal:
        ommer_reward(1_000, winning, ommer, ommers)
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


@given(st.integers(2, 10**12), DISTANCES, COUNTS)
def test_citing_never_mints_as_much_as_another_block(reward: int, distance: int, ommers: int) -> None:
    paid, bonus = citing_rewards(reward, distance, ommers)
    assert paid >= 0
    assert bonus >= 0
    assert paid + bonus < reward


@given(st.integers(64, 10**12), DISTANCES, COUNTS)
def test_a_second_identity_earns_less_than_a_block_but_not_nothing(reward: int, distance: int, ommers: int) -> None:
    assert 0 < second_identity_gain(reward, distance, ommers) < reward
