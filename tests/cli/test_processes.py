import json
import os
import subprocess
import sys
import time

import pytest

from learnchain.cli import processes
from learnchain.cli.processes import NodeProcesses
from learnchain.rejection import Rejected, RejectionReason, Unavailable


@pytest.fixture
def broken(tmp_path):
    """A node whose settings file is missing: its process ends at once and says why."""
    place = tmp_path / "node-0"
    place.mkdir()
    return NodeProcesses(tmp_path, (place / "settings.json",))


def _deaths(nodes):
    limit = time.monotonic() + 200
    while time.monotonic() < limit:
        found = nodes.deaths()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the node lives on")


def test_a_dead_node_is_reported_with_its_last_words_and_not_started_for_ever(broken, monkeypatch):
    monkeypatch.setattr(processes, "MAXIMUM_QUICK_DEATHS", 2)
    monkeypatch.setattr(processes, "QUICK_DEATH_SECONDS", 1e9)
    with broken as nodes:
        nodes.start()
        (death,) = _deaths(nodes)
        assert (death.name, death.exit_code, death.restarted) == ("node-0", 2, True)
        assert "settings" in " ".join(death.last_lines)
        with pytest.raises(Unavailable):
            _deaths(nodes)


def test_without_restart_the_others_go_on(broken):
    broken.restart = False
    with broken as nodes:
        nodes.start()
        (death,) = _deaths(nodes)
        assert not death.restarted
        assert nodes.deaths() == ()
        assert not nodes.is_alive(0)


def test_one_run_owns_a_directory(broken, tmp_path):
    with broken, pytest.raises(Rejected) as refused, NodeProcesses(tmp_path, ()):
        pass
    assert refused.value.reason is RejectionReason.ARGUMENT_INVALID
    with NodeProcesses(tmp_path, ()):
        pass


def test_leftovers_of_a_killed_run_are_ended_and_nobody_else(broken, tmp_path):
    settings = str(broken.settings[0])
    sleep = "import time; time.sleep(300)"
    ours = subprocess.Popen([sys.executable, "-c", sleep, "learnchain.app", settings])
    other = subprocess.Popen([sys.executable, "-c", sleep])
    try:
        time.sleep(0.3)
        listing = {str(ours.pid): settings, str(other.pid): settings, str(os.getpid()): settings}
        (tmp_path / processes.LIST_NAME).write_text(json.dumps(listing))
        # A zombie still has a directory in /proc: somebody must wait for it, as init does for real leftovers.
        import threading

        threading.Thread(target=ours.wait, daemon=True).start()
        with broken:
            assert ours.wait(100) != 0
            assert other.poll() is None
    finally:
        for each in (ours, other):
            each.kill()
            each.wait()


def test_stopping_kills_what_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
    )
    nodes = NodeProcesses(tmp_path, ())
    with nodes:
        child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
        assert child.stdout.readline()
        nodes._children.append(processes._Child(tmp_path / "node-0" / "settings.json", child))
    child.stdout.close()
    assert child.returncode == -9
