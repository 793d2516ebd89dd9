"""What a miner earns under two names: nothing by itself, an honest second's place with a copy, new coins if minted."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learnchain.engines.pole import Pole
from learnchain.engines.pole.judging import OmmerFunding, OmmerRules
from learnchain.engines.pole.ommers import decode_memory
from learnchain.engines.pole.scenario import POLE, start_pole_node, steal_candidate
from learnchain.protocol.actions import ProposeBlock
from learnchain.protocol.events import CommitmentReceived, KeyReleaseReceived, ReleaseReceived
from learnchain.protocol.messages import Block, Deadline
from learnchain.simulation.chain_builder import Candidate
from learnchain.simulation.sample_tasks import name_of
from learnchain.simulation.scenario import (
    HeightPlan,
    ScenarioNode,
    build_candidates,
    build_proposed_block,
    reveal_models,
    run_empty_height,
    run_height,
)

REWARD = 2_000_000_000
MINTED = replace(POLE, ommers=OmmerRules(funding=OmmerFunding.MINTED))


def without_bonds(engine: Pole) -> ScenarioNode:
    """Bonds keep a part of rewards back for a while; here only what the engine pays is counted."""
    return start_pole_node(engine, minimum_commitment_bond_wei=0)


def earned(node: ScenarioNode, *names: str) -> int:
    """What these names were paid on the head's branch, in gwei."""
    records = node.round.tree.branch(node.round.head.block)
    payouts = [payout for record in records for payout in record.state.reward.payouts]
    return sum(each.amount_gwei for each in payouts if not names or name_of(each.recipient) in names)


def play_alone(engine: Pole, names: tuple[str, ...], heights: int) -> int:
    node = without_bonds(engine)
    for _ in range(heights):
        run_height(node, HeightPlan({name: 95 - place for place, name in enumerate(names)}))
    for _ in range(7):
        run_empty_height(node, Deadline.COMMITMENT)
    return earned(node, *names)


@pytest.mark.parametrize("names", [("miner-1", "miner-2"), ("miner-1", "miner-2", "miner-3")])
def test_further_names_earn_nothing_when_the_winner_pays(names: tuple[str, ...]) -> None:
    one, more = play_alone(POLE, ("miner-1",), 4), play_alone(POLE, names, 4)
    assert one == 4 * REWARD
    assert more <= one
    # Three of four losers are cited; the last height's pool is never minted, nor what Eq. 2 leaves of a crowded one.
    left = POLE.ommers.withheld_gwei(REWARD)
    assert more == one - left - 3 * (0 if len(names) == 2 else REWARD // 8)


def test_a_false_claim_in_the_second_place_earns_its_miner_nothing() -> None:
    """Nobody measures a lower claim at its own height; it keeps an honest second from being cited, and that is all."""
    earnings: list[int] = []
    for plan in (
        HeightPlan({"miner-1": 95, "miner-3": 90}),
        HeightPlan({"miner-1": 95, "miner-2": 10, "miner-3": 90}, claims={"miner-2": 94}),
    ):
        node = without_bonds(POLE)
        run_height(node, plan)
        for _ in range(7):
            run_empty_height(node, Deadline.COMMITMENT)
        earnings.append(earned(node, "miner-1", "miner-2"))
    assert earnings[0] == earnings[1]


def test_a_winner_gains_nothing_by_hiding_a_loser() -> None:
    node = without_bonds(POLE)
    found = build_candidates(node, HeightPlan({"miner-1": 95, "miner-2": 94}))
    honest, hiding = (node.builder.build_block(node.parent, found, hidden=each) for each in ((), found[1:]))
    selection, parameters = node.round.selection, node.builder.parameters
    paid = [POLE.compute_reward(selection, each, parameters).payouts for each in (honest, hiding)]
    assert paid[0] == paid[1]


def test_a_second_name_earns_almost_a_block_more_for_every_block_when_ommers_are_minted() -> None:
    one, two = play_alone(MINTED, ("miner-1",), 4), play_alone(MINTED, ("miner-1", "miner-2"), 4)
    assert one == 4 * REWARD
    # Three of four losers are cited by the block that follows, each with the referrer's bonus.
    assert two - one == 3 * (REWARD - 1)


def play_found(node: ScenarioNode, found: tuple[Candidate, ...]) -> Block:
    """Play a height on whose release just these candidates stand."""
    schedule, parent = node.round.selection.schedule, node.parent
    node.feed(KeyReleaseReceived(node.builder.build_key_release(parent), schedule.start_milliseconds))
    for each in found:
        node.feed(CommitmentReceived(each.commitment, schedule.start_milliseconds + 1))
    node.feed(ReleaseReceived(node.builder.build_announcement(parent, found), schedule.release_opens_milliseconds))
    proposal = next(each for each in reveal_models(node, HeightPlan(), found) if isinstance(each, ProposeBlock))
    block = build_proposed_block(node.builder, proposal, found)
    node.receive(block)
    return block


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 3), st.integers(0, 3))
def test_copies_of_ones_own_model_take_the_place_of_honest_losers(honest: int, copies: int) -> None:
    """Nothing binds weights to a name but the trace, and losers' traces nobody audits: a copy costs one commitment.

    What it earns is the quarter of R_w that Eq. 2 divides, by all losers, its own copies among them: one eighth of R_w
    at the most, with one copy beside one honest loser. Further copies only make it less.
    """
    node = without_bonds(POLE)
    losers = {f"miner-{place}": 90 for place in range(5, 5 + honest)}
    own, *others = build_candidates(node, HeightPlan({"miner-1": 95, **losers}))
    names = tuple(f"miner-{place}" for place in range(2, 2 + copies))
    block = play_found(node, (own, *(steal_candidate(node, own, name) for name in names), *others))
    assert name_of(block.proposer) in ("miner-1", *names)
    run_height(node, HeightPlan({"miner-1": 95}))
    at_once, pool = 2 * REWARD - POLE.ommers.withheld_gwei(REWARD), REWARD // 4
    gained = earned(node, "miner-1", *names) - at_once - REWARD // 32
    assert gained == (pool // (honest + copies) if copies else 0)
    assert gained <= REWARD // 8
    assert earned(node, *losers) == (0 if copies else pool // honest)


def test_against_an_honest_second_a_better_second_model_earns_that_ones_place() -> None:
    """A second model, trained or copied, has half of what the honest one would have had, and no more."""
    plans = ({"miner-1": 95, "miner-3": 90}, {"miner-1": 95, "miner-2": 94, "miner-3": 90})
    mine: list[int] = []
    for plan in plans:
        node = without_bonds(POLE)
        run_height(node, HeightPlan(plan))
        run_height(node, HeightPlan({"miner-1": 95}))
        mine.append(earned(node, "miner-1", "miner-2"))
        assert earned(node) <= 2 * REWARD
    # O_num grew by the second name itself: Eq. 2 halves the place.
    assert mine[1] - mine[0] == REWARD // 8


ROUNDS = st.lists(
    st.one_of(
        st.none(),
        st.dictionaries(st.sampled_from(["miner-1", "miner-2", "miner-3", "miner-4"]), st.integers(50, 99), min_size=1),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(ROUNDS)
def test_no_height_mints_more_than_its_block_reward(rounds: list[dict[str, int] | None]) -> None:
    node = without_bonds(POLE)
    most = 0
    for plan in rounds:
        if plan is None:
            run_empty_height(node, Deadline.COMMITMENT)
        else:
            run_height(node, HeightPlan(plan))
            most += REWARD
        waiting = len(decode_memory(node.parent.reward.memory)) * POLE.ommers.withheld_gwei(REWARD)
        assert earned(node) + waiting <= most
        assert node.parent.ledger.minted_gwei == earned(node)
