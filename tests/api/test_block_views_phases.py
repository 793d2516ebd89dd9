"""What a block says of itself: phases fill its interval, and only what was trained has a model and an accuracy."""

import pytest

from learnchain.api.block_views import block_view, find_solved_puzzle
from learnchain.engines.dlbc.scenario import start_dlbc_node
from learnchain.engines.podl.scenario import PODL, run_blocks
from learnchain.engines.pole.scenario import THREE_SOLUTIONS, run_to_limit, start_pole_node
from learnchain.engines.proof_of_work.scenario import start_proof_of_work_node
from learnchain.protocol.messages import Deadline
from learnchain.protocol.puzzle import is_solved
from learnchain.simulation.scenario import run_empty_height, run_height


def _viewed(node, play):
    parent, selection = node.parent, node.round.selection
    block = play(node)
    puzzle = find_solved_puzzle(node.builder.rules, selection, block)
    return block_view(block, parent, node.parent, selection, node.builder.rules.parts, puzzle), selection.schedule


PLAYS = {
    "hashing": lambda: (start_proof_of_work_node(), run_height),
    "clock-driven": lambda: (start_dlbc_node(), run_height),
    "event-driven": lambda: (start_pole_node(), lambda node: run_height(node, THREE_SOLUTIONS)),
    "event-driven, at the time limit": lambda: (start_pole_node(), lambda node: run_to_limit(node, THREE_SOLUTIONS)),
}


@pytest.mark.parametrize("name", PLAYS)
def test_phases_fill_the_interval_and_none_is_negative(name):
    view, schedule = _viewed(*PLAYS[name]())
    phases, timeline = view["phase_seconds"], view["timeline"]
    assert min(phases.values()) >= 0
    assert sum(phases.values()) == pytest.approx(view["interval_seconds"])
    one, two = timeline["training_phase_milliseconds"], timeline["judging_phase_milliseconds"]
    assert one[0] == schedule.start_milliseconds
    assert one[0] <= one[1] == two[0] < two[1]


def test_only_an_engine_with_a_phase_for_the_key_shows_one():
    view, schedule = _viewed(start_dlbc_node(), run_height)
    one = (schedule.key_milliseconds - schedule.start_milliseconds) / 1000
    assert view["phase_seconds"]["key"] == one > 0
    for play in (
        _viewed(run_blocks(()), run_height),
        _viewed(start_pole_node(), lambda node: run_height(node, THREE_SOLUTIONS)),
    ):
        assert play[0]["phase_seconds"]["key"] == 0
        assert play[0]["phase_seconds"]["training"] > 0


@pytest.mark.parametrize("corrects", [(), (95,)], ids=["first block of a task", "second block"])
def test_podl_trains_in_all_of_phase_one_which_overlaps_the_phase_two_before(corrects):
    view, _ = _viewed(run_blocks(corrects), run_height)
    phases, overlap = view["phase_seconds"], PODL.phases.judging_milliseconds / 1000
    assert view["block_index"] == len(corrects)
    assert phases["training"] == PODL.phases.training_milliseconds / 1000
    assert phases["judging"] == overlap
    assert sum(phases.values()) - view["interval_seconds"] == (overlap if corrects else 0)


def test_an_early_release_ends_training_before_its_deadline():
    view, schedule = _viewed(start_pole_node(), lambda node: run_height(node, THREE_SOLUTIONS))
    released = view["timeline"]["released_milliseconds"]
    assert released < schedule.commitment_milliseconds
    assert view["timeline"]["judging_phase_milliseconds"][0] == released
    assert view["phase_seconds"]["judging"] > 0


def test_a_clock_ends_training_at_its_deadline_although_the_release_comes_later():
    view, schedule = _viewed(start_dlbc_node(), run_height)
    assert view["timeline"]["released_milliseconds"] >= schedule.commitment_milliseconds
    assert view["timeline"]["judging_phase_milliseconds"][0] == schedule.commitment_milliseconds


def test_a_hashed_block_names_its_puzzle_and_claims_no_training():
    view, _ = _viewed(start_proof_of_work_node(), run_height)
    assert (view["won_by"], view["trained"], view["empty"]) == ("hashing", False, False)
    assert {"accuracy", "label", "model", "trace", "epochs", "training_mode"} & set(view) == set()
    assert set(view["phase_seconds"]) == {"hashing", "judging"}
    puzzle = view["puzzle"]
    assert is_solved(bytes.fromhex(puzzle["digest"]), int(puzzle["target"], 16))
    assert puzzle["expected_attempts"] == 16


@pytest.mark.parametrize("begun", [start_dlbc_node, start_pole_node])
def test_a_trained_block_says_so(begun):
    view, _ = _viewed(begun(), run_height)
    assert (view["won_by"], view["trained"], view["empty"]) == ("training", True, False)
    assert "puzzle" not in view
    assert (view["mapping"] is None) == (begun is start_dlbc_node)


def test_an_empty_block_was_won_by_nobody():
    view, _ = _viewed(start_dlbc_node(), lambda node: run_empty_height(node, Deadline.KEY))
    assert (view["won_by"], view["trained"], view["empty"]) == (None, False, True)
    assert "winner" not in view
