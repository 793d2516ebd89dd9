"""Equations 1 to 6 by hand, and what the paper says about short lists of tasks (reading DLBC-R8)."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.engines.dlbc.rules import (
    Ranking,
    computation_difficulty,
    miner_share,
    network_difficulty,
    publisher_share,
    queue_index,
    ranking_score,
)
from learnchain.engines.dlbc.scenario import DLBC, build_queued_state, build_three_tasks
from learnchain.protocol.citations import citations
from learnchain.simulation.chain_builder import ChainBuilder

MILLION = 1_000_000
MAXIMUM = 32
NOTHING = Decimal(0)
SECONDS = st.integers(2, 10**6).map(Decimal)
FACTORS = st.integers(2, 1_000)
REWARDS = st.integers(1, 10**24)


def index(length: int, scale_millionths: int = MILLION) -> Decimal:
    return queue_index(length, MAXIMUM, scale_millionths)


def test_equations_one_to_six_are_cited_once() -> None:
    found = [each for each in citations() if each.paper == "dlbc" and each.number <= 6]
    assert [each.number for each in found] == [1, 2, 3, 4, 5, 6]
    assert {each.module for each in found} == {"learnchain.engines.dlbc.rules"}


def test_index_is_one_at_the_threshold_and_zero_where_the_logarithm_is() -> None:
    assert index(32) == 1
    assert index(1) == 0
    assert index(2) == Decimal(1) / 5
    assert index(1, 500_000) == Decimal(-1) / 5


def test_difficulties_are_seconds() -> None:
    assert network_difficulty(25_000_000, 12_500_000, 12_500_000) == 3
    assert computation_difficulty(10**12, 10**10) == 100


def test_score_by_hand() -> None:
    # (3 + 100 ** 0.5) / 2
    assert ranking_score(Decimal(3), Decimal(100), Decimal("0.5"), 2) == Decimal("6.5")
    assert ranking_score(Decimal(3), Decimal(100), Decimal("-0.5"), 1) == Decimal("3.1")


def test_shares_by_hand() -> None:
    assert publisher_share(8, 32, MILLION) == Fraction(15, 16)
    assert publisher_share(8, 32, 2 * MILLION) == Fraction(3, 4)
    assert publisher_share(64, 32, MILLION) == 0


@given(st.integers(0, 512), st.integers(2, 512), st.integers(1, 10 * MILLION))
def test_shares_add_up_and_fall_with_the_list(length: int, maximum: int, scale: int) -> None:
    share = publisher_share(length, maximum, scale)
    assert 0 <= share <= 1
    assert share + miner_share(share) == 1
    assert publisher_share(length + 1, maximum, scale) <= share


# --- DLBC-R8: "when the task queue is shorter than L/k, the system will prefer a complicated task" ----------------


@given(st.integers(1, 200), SECONDS, FACTORS, REWARDS)
def test_at_equal_reward_per_flop_the_threshold_is_exact(length: int, small: Decimal, factor: int, reward: int) -> None:
    """Below l = L/k the complicated task has the better score, above it the worse one, at it they are equal."""
    q = index(length)
    simple = ranking_score(NOTHING, small, q, reward)
    complicated = ranking_score(NOTHING, small * factor, q, reward * factor)
    if length < MAXIMUM:
        assert complicated < simple
    elif length > MAXIMUM:
        assert complicated > simple
    else:
        assert complicated == simple


@given(st.integers(2, 200), SECONDS, FACTORS, REWARDS)
def test_at_equal_reward_the_simple_task_is_preferred_once_k_l_exceeds_one(
    length: int, small: Decimal, factor: int, reward: int
) -> None:
    """The paper's sentence fails here: for 1 < k*l < L the list is short and yet the simple task wins."""
    q = index(length)
    assert ranking_score(NOTHING, small, q, reward) < ranking_score(NOTHING, small * factor, q, reward)


@given(st.integers(1, 9), SECONDS, FACTORS, REWARDS)
def test_at_equal_reward_the_complicated_task_is_preferred_while_k_l_is_below_one(
    length: int, small: Decimal, factor: int, reward: int
) -> None:
    q = index(length, 100_000)
    assert ranking_score(NOTHING, small * factor, q, reward) < ranking_score(NOTHING, small, q, reward)


def test_a_counter_example_to_the_sentence_as_printed() -> None:
    # L = 32, k = 1: two tasks wait, far fewer than L/k, and both pay one ether.
    simple = ranking_score(NOTHING, Decimal(10), index(2), WEI_PER_ETHER)
    complicated = ranking_score(NOTHING, Decimal(1_000), index(2), WEI_PER_ETHER)
    assert simple < complicated


def test_a_large_download_moves_the_threshold() -> None:
    # The exact threshold needs a small d_n: with one, even a short list may prefer the simple task.
    q = index(31)
    assert ranking_score(Decimal(1), Decimal(10), q, 10) < ranking_score(Decimal(1_000), Decimal(1_000), q, 1_000)


# --- Equation 4 over real specifications --------------------------------------------------------------------------


def test_three_tasks_are_ranked_as_computed_by_hand() -> None:
    """Sizes in bytes, FLOPs of one epoch and l = 3 were worked out from the layer widths on paper.

    small: mlp 16-8-4, 4*(16*8+8+8*4+4) = 688 bytes; 2*(2*128+3*32) = 704 FLOPs a row, 400 rows
    middle: mlp 16-64-4: 5,392 bytes; 5,632 FLOPs, 4,000 rows
    rich: mlp 16-512-512-4: 1,093,648 bytes; 1,617,920 FLOPs, 40,000 rows
    """
    q = queue_index(3, 32, MILLION)
    by_hand = {
        "small": ((688 + 64 * 500 + 208) / 12.5e6 + (704 * 400 / 1e10) ** float(q)) / 1e18,
        "middle": ((5_392 + 64 * 4_100 + 208) / 12.5e6 + (5_632 * 4_000 / 1e10) ** float(q)) / 2e18,
        "rich": ((1_093_648 + 64 * 40_100 + 208) / 12.5e6 + (1_617_920 * 40_000 / 1e10) ** float(q)) / 3e18,
    }
    names = {each.task.task_id: each.specification.name for each in build_three_tasks()}
    selection = DLBC.select_task(build_queued_state(build_three_tasks()), ChainBuilder(DLBC).parameters)
    assert [names[task_id] for _, task_id in selection.ranking] == sorted(by_hand, key=lambda name: by_hand[name])
    for score, task_id in selection.ranking:
        assert float(score) == pytest.approx(by_hand[names[task_id]], rel=1e-12)
    assert selection.posted_task.specification.name == "small"
    assert selection.queue_length == 3


def test_a_longer_list_changes_the_order() -> None:
    """The same three tasks in a list of 512: q grows, FLOPs below a second cost less, those above it more."""
    ranking = Ranking(2, MILLION, 12_500_000_000, 10_000_000_000)
    small, rich, _ = build_three_tasks()
    assert ranking.score(small, 1) > ranking.score(rich, 1)
    assert ranking.score(small, 32) < ranking.score(rich, 32)
