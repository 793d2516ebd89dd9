"""The phases of a block fill its interval and are never negative, whether a clock or a solution ends training."""

import pytest

from learnchain.node.api.views import block_view
from learnchain.testing.play import play_height
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
