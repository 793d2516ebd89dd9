"""Signed time stamps (3.1): what a data node gains by a false one, and what its release costs it then."""

import pytest

from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.engines.pole import Pole
from learnchain.engines.pole.rules import BURN_ADDRESS
from learnchain.engines.pole.scenario import OPEN_BROADCAST, POLE, start_pole_node
from learnchain.protocol.actions import ProposeBlock, RevealModel
from learnchain.protocol.events import BlockReceived, CommitmentReceived, KeyReleaseReceived, ReleaseReceived
from learnchain.protocol.messages import Deadline, ReleaseAnnouncement
from learnchain.protocol.payload import SettlementOutcome
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import Candidate
from learnchain.simulation.sample_tasks import build_sample_task
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, build_candidates, reveal_models, run_height

SKEW = 5_000
TWO = HeightPlan({"miner-1": 95, "miner-2": 93})


def commissioned(engine: Pole = POLE) -> tuple[ScenarioNode, tuple[Candidate, ...]]:
    """Return a node at a height of a commissioned task to which two models were committed early."""
    node = start_pole_node(engine)
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("wanted", 50 * WEI_PER_ETHER),)))
    run_height(node)
    schedule = node.round.selection.schedule
    assert not node.round.selection.task.is_standing
    node.feed(KeyReleaseReceived(node.builder.build_key_release(node.parent), schedule.start_milliseconds))
    found = build_candidates(node, TWO)
    for each in found:
        node.feed(CommitmentReceived(each.commitment, schedule.start_milliseconds + 1_000))
    return node, found


def dated(node: ScenarioNode, found: tuple[Candidate, ...], late_milliseconds: int) -> ReleaseAnnouncement:
    return node.builder.build_announcement(node.parent, found, late_milliseconds)


def refusal(node: ScenarioNode, announcement: ReleaseAnnouncement, at_milliseconds: int) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        node.feed(ReleaseReceived(announcement, at_milliseconds))
    return caught.value.reason


def settled_without_a_release(node: ScenarioNode) -> list[SettlementOutcome]:
    """End the height with the empty block that names the missed release and whom it left waiting."""
    parent, listed = node.parent, tuple(node.round.commitments[key] for key in sorted(node.round.commitments))
    block = node.builder.build_empty_block(parent, Deadline.RELEASE)
    node.receive(node.builder.reseal(parent, block, commitments=listed))
    return [each.outcome for each in node.parent.reward.settlements if each.recipient == BURN_ADDRESS]


@pytest.mark.parametrize("engine", [POLE, OPEN_BROADCAST])
@pytest.mark.parametrize("ahead", [SKEW + 1, 500_000])
def test_a_release_dated_ahead_shows_no_model_and_costs_the_bond(engine: Pole, ahead: int) -> None:
    """Else: models are revealed at once, every block on it is from the future, and the reward goes back."""
    node, found = commissioned(engine)
    now = node.round.selection.schedule.release_opens_milliseconds
    assert refusal(node, dated(node, found, ahead), now) is RejectionReason.RELEASE_EARLY
    assert not [each for each in node.actions if isinstance(each, RevealModel) and each.selection.height == 3]
    assert settled_without_a_release(node) == [SettlementOutcome.STRUCK]


@pytest.mark.parametrize("engine", [POLE, OPEN_BROADCAST])
def test_a_release_dated_back_is_as_none_and_costs_the_bond(engine: Pole) -> None:
    """Else: the time for reveals is over when the release comes, nobody can win, and the reward goes back."""
    node, found = commissioned(engine)
    schedule = node.round.selection.schedule
    later = schedule.release_opens_milliseconds + schedule.reveal_after_milliseconds + 60_000
    assert refusal(node, dated(node, found, 0), later) is RejectionReason.WRONG_PHASE
    assert settled_without_a_release(node) == [SettlementOutcome.STRUCK]


@pytest.mark.parametrize("arrives", [-SKEW, 0, 17_500 + SKEW])
def test_a_release_within_the_clocks_and_half_the_time_for_reveals_is_taken(arrives: int) -> None:
    node, found = commissioned()
    announcement = dated(node, found, 10_000)
    at = announcement.release.released_milliseconds + arrives
    assert [each for each in node.feed(ReleaseReceived(announcement, at)) if isinstance(each, RevealModel)]


def test_at_the_last_moment_only_the_clocks_count() -> None:
    node, found = commissioned()
    schedule = node.round.selection.schedule
    last = schedule.release_milliseconds
    announcement = dated(node, found, last - schedule.release_opens_milliseconds)
    assert refusal(node, announcement, last + SKEW + 1) is RejectionReason.WRONG_PHASE
    assert [each for each in node.feed(ReleaseReceived(announcement, last + SKEW)) if isinstance(each, RevealModel)]


def test_what_a_release_dated_ahead_won_before_it_was_refused() -> None:
    """The theft itself, as far as rules still show it: models are open, and no block on that date is taken."""
    node, found = commissioned()
    schedule = node.round.selection.schedule
    announcement = dated(node, found, 500_000)
    # A node whose clock runs ahead lives the theft: it takes the release and opens the models.
    node.feed(ReleaseReceived(announcement, announcement.release.released_milliseconds))
    proposal = next(each for each in reveal_models(node, TWO, found) if isinstance(each, ProposeBlock))
    winner = next(each for each in found if each.key == proposal.verdict.winner)
    block = node.builder.build_proposed_block(proposal, winner)
    with pytest.raises(Rejected) as caught:
        node.feed(BlockReceived(block, schedule.release_opens_milliseconds))
    assert caught.value.reason is RejectionReason.RELEASE_EARLY
    empty = node.builder.build_empty_block(node.parent, Deadline.BLOCK)
    reward = POLE.compute_reward(node.round.selection, empty, node.builder.parameters)
    assert [each.outcome for each in reward.settlements] == [SettlementOutcome.REFUNDED]


def test_a_false_date_waives_no_requirement() -> None:
    """A release at the time limit waives it (POLE-R4), so two worthless models and a false date were a block reward."""
    node, found = commissioned()
    schedule = node.round.selection.schedule
    at_limit = schedule.time_limit_milliseconds - schedule.release_opens_milliseconds
    announcement = dated(node, found, at_limit)
    assert refusal(node, announcement, schedule.release_opens_milliseconds) is RejectionReason.RELEASE_EARLY
    assert node.round.announcement is None
