"""The whole product once: real processes, real data, a task paid for by the contract."""

import json
import subprocess
import sys

import pytest

PROGRAM = (sys.executable, "-c", "from learnchain.cli import main; main()")


def _spoken(*arguments, timeout_seconds=200):
    ended = subprocess.run(
        [*PROGRAM, *arguments, "--json"], capture_output=True, text=True, timeout=timeout_seconds, check=False
    )
    return ended.returncode, json.loads(ended.stdout), ended.stderr


@pytest.mark.network
def test_up_mines_pays_continues_and_verifies(tmp_path):
    place = ("--data-dir", str(tmp_path / "net"))
    code, envelope, log = _spoken("up", "--blocks", "2", "--task", "digits", "--rpc-port", "0", *place)
    assert code == 0, (envelope, log)
    data = envelope["data"]
    trained = [each for each in data["blocks"] if each["trained"]]
    assert len(trained) >= 2
    assert data["agree"]
    assert data["supply"]["conserved"] is True
    assert all(each["accuracy"]["total"] == 360 and each["model"].startswith("b") for each in trained)
    assert all(0 < each["training_share"] <= 1 for each in trained if each["training_share"] is not None)
    (task,) = data["tasks"]
    assert task["name"] == "digits"
    if task["outcome"] == "paid":
        assert (task["contract_status"], task["paid_wei"]) == ("paid", 2 * 10**18)
    height = data["head"]["height"]

    code, envelope, log = _spoken("chain", "verify", *place)
    assert code == 0, (envelope, log)
    assert envelope["data"]["verified"]
    assert envelope["data"]["height"] >= height

    code, envelope, log = _spoken("up", "--blocks", "1", "--task", "iris", *place)
    assert code == 0, (envelope, log)
    assert min(each["height"] for each in envelope["data"]["blocks"]) > height
    assert {each["name"] for each in envelope["data"]["tasks"]} == {"digits", "iris"}
