"""Equation 2: what a cited ommer earns, why the printed line cannot be meant, and out of what it is paid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.engines.pole.judging import MAXIMUM_DEPTH, OmmerFormula, OmmerFunding, OmmerRules, ommer_reward
from learnchain.rejection import Rejected, RejectionReason

REWARDS = st.integers(1, 10**12)
DISTANCES = st.integers(1, MAXIMUM_DEPTH)
COUNTS = st.integers(1, 128)
FORMULAS = st.sampled_from(OmmerFormula)
POOLS = st.integers(0, 333)


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


@given(REWARDS, DISTANCES, COUNTS, FORMULAS, POOLS, st.integers(1, 10**6))
def test_a_height_whose_winner_pays_never_mints_more_than_one_block(
    reward: int, distance: int, ommers: int, formula: OmmerFormula, pool: int, height: int
) -> None:
    rules = OmmerRules(formula, OmmerFunding.WINNER, pool)
    shares = rules.shares(reward, height + distance, height, ommers)
    assert min(shares.loser_gwei, shares.referrer_gwei) >= 0
    assert shares.loser_gwei + shares.referrer_gwei <= rules.withheld_gwei(reward) <= reward


@given(st.integers(64, 10**12), DISTANCES, COUNTS, FORMULAS, POOLS)
def test_losing_never_pays_better_than_winning(
    reward: int, distance: int, ommers: int, formula: OmmerFormula, pool: int
) -> None:
    rules = OmmerRules(formula, OmmerFunding.WINNER, pool)
    at_once = reward - rules.withheld_gwei(reward)
    assert rules.shares(reward, 100 + distance, 100, ommers).loser_gwei < at_once


@given(st.integers(2, 10**12), DISTANCES, COUNTS, FORMULAS)
def test_minted_shares_stay_below_another_block(reward: int, distance: int, ommers: int, formula: OmmerFormula) -> None:
    rules = OmmerRules(formula, OmmerFunding.MINTED)
    shares = rules.shares(reward, 100 + distance, 100, ommers)
    assert rules.withheld_gwei(reward) == 0
    assert 0 <= shares.loser_gwei + shares.referrer_gwei < reward


@pytest.mark.parametrize("pool", [334, 1_000])
def test_a_pool_that_outweighs_the_winner_is_refused(pool: int) -> None:
    with pytest.raises(Rejected) as refusal:
        OmmerRules(pool_thousandths=pool).check()
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID
