"""What a block says of itself: phases fill its interval, and only what was trained has a model and an accuracy."""

import pytest

from learnchain.api.block_views import block_view, solved_puzzle
from learnchain.engines.dlbc.scenario import started
from learnchain.engines.podl.scenario import PODL, played
from learnchain.engines.pole.scenario import THREE, learning, play_to_limit
from learnchain.engines.proof_of_work.scenario import solving
from learnchain.protocol.messages import Deadline
from learnchain.protocol.puzzle import is_solved
from learnchain.simulation.scenario import play_empty, play_height


def _viewed(node, play):
    parent, selection = node.parent, node.round.selection
    block = play(node)
    puzzle = solved_puzzle(node.builder.rules, selection, block)
    return block_view(block, parent, node.parent, selection, puzzle), selection.schedule


PLAYS = {
    "hashing": lambda: (solving(), play_height),
    "clock-driven": lambda: (started(), play_height),
    "event-driven": lambda: (learning(), lambda node: play_height(node, THREE)),
    "event-driven, at the time limit": lambda: (learning(), lambda node: play_to_limit(node, THREE)),
}


@pytest.mark.parametrize("name", PLAYS)
def test_phases_fill_the_interval_and_none_is_negative(name):
    view, schedule = _viewed(*PLAYS[name]())
    phases, timeline = view["phase_seconds"], view["timeline"]
    assert min(phases.values()) >= 0
    assert sum(phases.values()) == pytest.approx(view["interval_seconds"])
    one, two = timeline["phase_one_milliseconds"], timeline["phase_two_milliseconds"]
    assert one[0] == schedule.start_milliseconds
    assert one[0] <= one[1] == two[0] < two[1]


def test_only_an_engine_with_a_phase_for_the_key_shows_one():
    view, schedule = _viewed(started(), play_height)
    one = (schedule.key_milliseconds - schedule.start_milliseconds) / 1000
    assert view["phase_seconds"]["key"] == one > 0
    for play in (_viewed(played(()), play_height), _viewed(learning(), lambda node: play_height(node, THREE))):
        assert play[0]["phase_seconds"]["key"] == 0
        assert play[0]["phase_seconds"]["training"] > 0


@pytest.mark.parametrize("corrects", [(), (95,)], ids=["first block of a task", "second block"])
def test_podl_trains_in_all_of_phase_one_which_overlaps_the_phase_two_before(corrects):
    view, _ = _viewed(played(corrects), play_height)
    phases, overlap = view["phase_seconds"], PODL.phases.two_milliseconds / 1000
    assert view["turn"] == len(corrects)
    assert phases["training"] == PODL.phases.one_milliseconds / 1000
    assert phases["judging"] == overlap
    assert sum(phases.values()) - view["interval_seconds"] == (overlap if corrects else 0)


def test_an_early_release_ends_training_before_its_deadline():
    view, schedule = _viewed(learning(), lambda node: play_height(node, THREE))
    released = view["timeline"]["released_milliseconds"]
    assert released < schedule.commitment_milliseconds
    assert view["timeline"]["phase_two_milliseconds"][0] == released
    assert view["phase_seconds"]["judging"] > 0


def test_a_clock_ends_training_at_its_deadline_although_the_release_comes_later():
    view, schedule = _viewed(started(), play_height)
    assert view["timeline"]["released_milliseconds"] >= schedule.commitment_milliseconds
    assert view["timeline"]["phase_two_milliseconds"][0] == schedule.commitment_milliseconds


def test_a_hashed_block_names_its_puzzle_and_claims_no_training():
    view, _ = _viewed(solving(), play_height)
    assert (view["won_by"], view["trained"], view["empty"]) == ("hashing", False, False)
    assert {"accuracy", "label", "model", "trace", "epochs", "training_mode"} & set(view) == set()
    assert set(view["phase_seconds"]) == {"hashing", "judging"}
    puzzle = view["puzzle"]
    assert is_solved(bytes.fromhex(puzzle["digest"]), int(puzzle["target"], 16))
    assert puzzle["expected_attempts"] == 16


@pytest.mark.parametrize("begun", [started, learning])
def test_a_trained_block_says_so(begun):
    view, _ = _viewed(begun(), play_height)
    assert (view["won_by"], view["trained"], view["empty"]) == ("training", True, False)
    assert "puzzle" not in view
    assert (view["mapping"] is None) == (begun is started)


def test_an_empty_block_was_won_by_nobody():
    view, _ = _viewed(started(), lambda node: play_empty(node, Deadline.KEY))
    assert (view["won_by"], view["trained"], view["empty"]) == (None, False, True)
    assert "winner" not in view
