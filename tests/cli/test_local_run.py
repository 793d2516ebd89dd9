import pytest

from learnchain.cli import local_run
from learnchain.cli.local_run import LocalRun, LocalRunPlan
from learnchain.rejection import Unavailable


class Client:
    """A node whose height is as scripted, one state a call; the last one stays."""

    def __init__(self, *states):
        self.states, self.asked = list(states), 0

    def call(self, method):
        assert method == "learn_round"
        self.asked += 1
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state is None:
            raise Unavailable("the node")
        standing, commitments = state
        return {"deciding": {"is_standing": standing}, "commitments": commitments}


class Observer:
    def __init__(self, *clients):
        self.clients = clients

    def look(self):
        return None


class Screen:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def update(self, _snapshot):
        pass


class NoDeaths:
    def deaths(self):
        return ()


@pytest.fixture
def end(tmp_path, monkeypatch):
    monkeypatch.setattr(local_run, "POLL_SECONDS", 0.0)

    def between(*clients):
        screen = Screen()
        LocalRun(LocalRunPlan(tmp_path), 0.0)._between_rounds(Observer(*clients), NoDeaths(), screen)
        return screen.notes

    return between


PAID, STANDING = (False, ["0x1"]), (True, ["0x1"])
BETWEEN = (False, [])


def test_the_end_waits_until_every_node_has_the_judged_block(end):
    first, second = Client(PAID, BETWEEN), Client(PAID, PAID, PAID, BETWEEN)
    assert len(end(first, second)) == 1
    assert second.asked == 4


@pytest.mark.parametrize("state", [BETWEEN, STANDING, None])
def test_nothing_to_judge_is_not_waited_for(end, state):
    client = Client(state)
    assert end(client) == []
    assert client.asked == 1


def test_the_wait_is_bounded(end, monkeypatch):
    monkeypatch.setattr(local_run, "DRAIN_SECONDS", 0.05)
    client = Client(PAID)
    assert len(end(client)) == 1
    assert client.asked > 1
