"""The answers that vectors do not fix: value of tasks, refused parameters, the theft that open broadcast invites."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.codec import WEI_PER_ETHER, decode, encode
from learnchain.engines.pole import Pole
from learnchain.engines.pole.parts import is_waived
from learnchain.engines.pole.rules import PoleDurations, task_value
from learnchain.engines.pole.scenario import (
    OPEN_BROADCAST,
    POLE,
    UNABLE,
    run_to_limit,
    start_pole_node,
    steal_candidate,
)
from learnchain.protocol.actions import ProposeBlock, ReleaseTestSet
from learnchain.protocol.events import CommitmentReceived, KeyReleaseReceived, ReleaseReceived
from learnchain.protocol.messages import CandidateOutcome, Deadline, TrainedModel
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import alter, build_sample_parameters
from learnchain.simulation.sample_tasks import build_sample_specification, build_sample_task, name_of
from learnchain.simulation.scenario import HeightPlan, build_candidates, reveal_models, run_height
from learnchain_conformance.bad_inputs import prepare


@given(st.integers(1, 10**20), st.integers(1, 10**20), st.integers(1, 600), st.integers(1, 600))
def test_the_task_with_the_higher_reward_per_second_is_selected(one: int, two: int, fast: int, slow: int) -> None:
    tasks = [
        build_sample_task(
            name, reward, specification=replace(build_sample_specification(name), time_limit_seconds=seconds)
        )
        for name, reward, seconds in (("one", one, fast), ("two", two, slow))
    ]
    parent = replace(start_pole_node().parent, queued_tasks=tuple(tasks))
    chosen = POLE.select_task(parent, build_sample_parameters()).posted_task
    assert task_value(chosen) == max(map(task_value, tasks))


def test_an_overestimated_time_limit_lowers_the_value() -> None:
    modest, greedy = (
        build_sample_task(
            "limit", specification=replace(build_sample_specification("limit"), time_limit_seconds=seconds)
        )
        for seconds in (60, 120)
    )
    assert task_value(modest) == 2 * task_value(greedy)


def test_without_a_task_the_chain_commissions_a_standing_one() -> None:
    node = start_pole_node()
    assert node.round.selection.task.is_standing
    run_height(node)
    assert node.round.head.weight == 1


def test_a_task_whose_limit_cannot_end_before_its_deadline_is_passed_over() -> None:
    node = start_pole_node()
    due = node.parent.end_milliseconds // 1000 + 600
    waiting = replace(node.parent, queued_tasks=(build_sample_task("late", deadline_seconds=due),))
    assert POLE.select_task(waiting, build_sample_parameters()).task.is_standing


@pytest.mark.parametrize(
    "wrong",
    [
        replace(POLE, times=replace(POLE.times, sufficient_solutions=0)),
        replace(POLE, times=replace(POLE.times, sufficient_solutions=129)),
        replace(POLE, times=replace(POLE.times, key_milliseconds=0)),
        replace(POLE, times=replace(POLE.times, longest_milliseconds=60_000)),
        replace(POLE, times=replace(POLE.times, reveal_milliseconds=60_000)),
        replace(POLE, times=replace(POLE.times, block_milliseconds=36_000)),
    ],
)
def test_parameters_no_chain_can_run_with_are_refused(wrong: Pole) -> None:
    with pytest.raises(Rejected) as refusal:
        wrong.check_parameters(build_sample_parameters())
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


def test_finality_must_leave_room_for_ommers() -> None:
    POLE.check_parameters(build_sample_parameters(finality_depth=7))
    with pytest.raises(Rejected) as refusal:
        POLE.check_parameters(build_sample_parameters(finality_depth=6))
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


def test_openly_shown_models_leave_room_for_fewer_commitments() -> None:
    OPEN_BROADCAST.check_parameters(build_sample_parameters(maximum_commitments=64))
    with pytest.raises(Rejected) as refusal:
        OPEN_BROADCAST.check_parameters(build_sample_parameters(maximum_commitments=65))
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


@given(st.integers(1, 10_000))
def test_a_tasks_limit_counts_within_the_chains(seconds: int) -> None:
    specification = replace(build_sample_specification("limit"), time_limit_seconds=seconds)
    times = PoleDurations()
    limit = times.limit_milliseconds(specification)
    assert times.minimum_milliseconds < limit <= times.longest_milliseconds
    assert limit == seconds * 1000 or seconds <= 60 or seconds > 3_600


def test_a_height_at_the_time_limit_refunds_the_task_and_has_no_ommer() -> None:
    node = start_pole_node()
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("wanted", 50 * WEI_PER_ETHER),)))
    run_height(node)
    assert not node.round.selection.task.is_standing
    node.builder.training_claims.update({"miner-1": UNABLE, "miner-2": UNABLE})
    block = run_to_limit(node, HeightPlan({"miner-1": 80, "miner-2": 83}))
    assert is_waived(block.verdict)
    assert name_of(block.proposer) == "miner-2"
    assert [each.outcome.value for each in node.parent.reward.settlements] == ["refunded"]
    assert POLE.parts.list_citable_commitments(node.round.selection) == ()


def test_at_the_time_limit_everybody_has_the_time_of_grace_not_only_the_first_two() -> None:
    """'The block with the highest accuracy is considered as the winner' (3.2): of all, not of whose message is fast."""
    node = start_pole_node()
    node.builder.training_claims.update({"miner-1": UNABLE, "miner-2": UNABLE, "miner-3": UNABLE})
    schedule, parent = node.round.selection.schedule, node.parent
    node.feed(KeyReleaseReceived(node.builder.build_key_release(parent), schedule.start_milliseconds))
    found = build_candidates(node, HeightPlan({"miner-1": 70, "miner-2": 71, "miner-3": 90}))
    last = schedule.commitment_milliseconds
    arriving = zip(found, (schedule.time_limit_milliseconds, schedule.time_limit_milliseconds + 1, last), strict=True)
    actions = [node.feed(CommitmentReceived(each.commitment, at)) for each, at in arriving]
    due = [each for each in (*actions[0], *actions[1]) if isinstance(each, ReleaseTestSet)]
    assert due == []
    closed = next(each for each in actions[2] if isinstance(each, ReleaseTestSet))
    assert len(closed.commitments) == 3


def test_two_solutions_before_the_time_limit_end_a_height_at_once() -> None:
    node = start_pole_node()
    schedule, parent = node.round.selection.schedule, node.parent
    node.feed(KeyReleaseReceived(node.builder.build_key_release(parent), schedule.start_milliseconds))
    found = build_candidates(node, HeightPlan({"miner-1": 70, "miner-2": 71}))
    just = schedule.time_limit_milliseconds - 1
    due = [node.feed(CommitmentReceived(each.commitment, just)) for each in found]
    assert [[isinstance(each, ReleaseTestSet) for each in actions] for actions in due] == [[], [True]]


def test_who_reaches_the_requirement_wins_over_a_better_test_count_even_at_the_limit() -> None:
    node = start_pole_node()
    node.builder.training_claims["miner-2"] = UNABLE
    block = run_to_limit(node, HeightPlan({"miner-1": 70, "miner-2": 99}))
    assert name_of(block.proposer) == "miner-1"
    assert not is_waived(block.verdict)
    entry = next(each for each in block.verdict.entries if name_of(each.miner) == "miner-2")
    assert (entry.outcome, entry.reason) == (CandidateOutcome.REJECTED, RejectionReason.TRAINING_ACCURACY_LOW.value)


def test_a_model_of_another_layer_that_claims_this_one_shows_by_its_counts() -> None:
    node = start_pole_node()
    liar = node.builder.build_candidate(node.parent, "miner-2", 99)
    # Right on 104 of 400 rows behind this block's layer: four classes, so it guesses.
    node.builder.trained[liar.model.model_cid] = 104
    block = run_height(node, HeightPlan({"miner-1": 70, "miner-2": 99}))
    assert name_of(block.proposer) == "miner-1"
    entry = next(each for each in block.verdict.entries if name_of(each.miner) == "miner-2")
    assert (entry.outcome, entry.reason) == (CandidateOutcome.REJECTED, RejectionReason.MAPPING_FOREIGN.value)


def test_openly_broadcast_models_can_be_stolen_and_the_thief_can_win() -> None:
    """What is shown can be committed to by anybody; equal counts go to the lower hash, which a thief can grind."""
    node = start_pole_node(OPEN_BROADCAST)
    honest = prepare(node, "opened")[0]
    node.feed(CommitmentReceived(honest.commitment, node.round.selection.schedule.start_milliseconds + 1))
    shown = decode(TrainedModel, next(iter(node.round.commitments.values())).engine)
    assert shown == honest.model
    tried = (steal_candidate(node, honest, "miner-3", bytes([variant]) * 32) for variant in range(1, 65))
    thief = next(each for each in tried if each.key < honest.key)
    node.feed(CommitmentReceived(thief.commitment, node.round.selection.schedule.start_milliseconds + 2))
    block = node.builder.build_block(node.parent, (honest, thief))
    node.receive(block)
    assert name_of(block.proposer) == "miner-3"
    assert node.round.head.weight == 1


def test_two_commitments_to_nothing_end_a_height_and_return_its_task() -> None:
    """What is not opened may be the network's fault, so nobody is punished: a known price of ending by solutions."""
    node = start_pole_node()
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("wanted", 50 * WEI_PER_ETHER),)))
    run_height(node)
    schedule, parent = node.round.selection.schedule, node.parent
    node.feed(KeyReleaseReceived(node.builder.build_key_release(parent), schedule.start_milliseconds))
    found = build_candidates(node, HeightPlan({"miner-1": 1, "miner-2": 1}))
    due = [node.feed(CommitmentReceived(each.commitment, schedule.release_opens_milliseconds)) for each in found]
    assert [[isinstance(each, ReleaseTestSet) for each in actions] for actions in due] == [[], [True]]
    announcement = node.builder.build_announcement(parent, found)
    node.feed(ReleaseReceived(announcement, schedule.release_opens_milliseconds))
    actions = reveal_models(node, HeightPlan(silent_miners=frozenset({"miner-1", "miner-2"})), found)
    assert not [each for each in actions if isinstance(each, ProposeBlock)]
    block = node.builder.build_empty_block(parent, Deadline.BLOCK)
    node.receive(node.builder.reseal(parent, block, commitments=announcement.commitments))
    assert [each.outcome.value for each in node.parent.reward.settlements] == ["refunded"]
    assert node.parent.bonds.penalties == ()


def test_closed_commitments_show_nothing_to_steal() -> None:
    node = start_pole_node()
    honest = prepare(node, "committed")[0]
    assert next(iter(node.round.commitments.values())).engine == b""
    with pytest.raises(Rejected) as refusal:
        shown = alter(honest.commitment, engine=encode(honest.model))
        node.feed(CommitmentReceived(shown, node.round.selection.schedule.start_milliseconds + 2))
    assert refusal.value.reason is RejectionReason.SHOWN_MODEL_WRONG
