"""The phases of a block fill its interval and are never negative, whether a clock or a solution ends training."""

import pytest

from learnchain.node.api.views import block_view
from learnchain.testing.play import play_height
from learnchain.testing.podl_play import PODL, played
from learnchain.testing.pole_play import THREE, learning, play_to_limit
from learnchain.testing.vector_cases import started


def _viewed(node, play):
    parent, selection = node.parent, node.round.selection
    block = play(node)
    return block_view(block, parent, node.parent, selection), selection.schedule


PLAYS = {
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
