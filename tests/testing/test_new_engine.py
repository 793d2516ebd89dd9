"""A fifth engine is a copied folder: registered, it plays its heights and its vectors name it; nothing else moves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.testing.new_engine import Names, renamed, start_engine

CHECKOUT = Path(__file__).parent.parent.parent
_PLAY = """
import json
from learnchain.node.engines import ENGINES, engine_from
from learnchain.node.local_network import LOCAL_PHASES
from learnchain.rules.proof_of_patience import READINGS
from learnchain.testing.engine_cases import engine_vectors
from learnchain.testing.engine_plays import PLAYS
from learnchain.testing.play import play_height

play = next(each for each in PLAYS if each.rules.name == "proof_of_patience")
node = play.begun()
play_height(node)
local = ENGINES["proof_of_patience"].local(LOCAL_PHASES, 2)
mine = [each for each in engine_vectors() if each.path.startswith("proof_of_patience/")]
print(json.dumps({
    "height": node.parent.height,
    "same": engine_from("proof_of_patience", local.canonical()) == local,
    "readings": sorted(each.identifier for each in READINGS)[:1],
    "vectors": len(mine),
    "named": all(reading.vector in {each.path for each in mine} for reading in READINGS),
}))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    places = ("src/learnchain", "tests/rules/podl")
    for each in places:
        shutil.copytree(CHECKOUT / each, tmp_path / each, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(CHECKOUT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_the_copy_is_an_engine_of_its_own(checkout: Path) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*.py")}
    written = start_engine(checkout, "proof_of_patience", "podl")
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert {path.name for path in changed} == {"engines.py", "engine_plays.py", "engine_cases.py"}
    assert changed < set(written)
    assert '"learnchain.rules.proof_of_patience"' in (checkout / "pyproject.toml").read_text()
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", _PLAY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    answer = done.stdout.strip()
    assert '"height": 1, "same": true, "readings": ["PROOF-OF-PATIENCE-R1"]' in answer
    assert '"vectors": 0' not in answer
    assert '"named": true' in answer


@pytest.mark.parametrize("name", ["podl", "Podl", "9lives", "class", "a-b", "", "x" * 40, "../up"])
def test_a_name_that_cannot_be_a_folder_or_is_taken_changes_nothing(checkout: Path, name: str) -> None:
    before = sorted(checkout.rglob("*"))
    with pytest.raises(Rejected) as refusal:
        start_engine(checkout, name, "podl")
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID
    assert sorted(checkout.rglob("*")) == before


def test_only_an_engine_with_folders_of_its_own_can_be_copied(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refusal:
        start_engine(tmp_path, "fifth", "podl")
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


def test_prose_keeps_the_paper_that_it_cites() -> None:
    old, new = Names("podl"), Names("slow_proof")
    text = 'PoDL III-B, PODL-R1, PODL_CALLS, class Podl, rules.podl, "podl/height", podl_play'
    expected = 'PoDL III-B, SLOW-PROOF-R1, SLOW_PROOF_CALLS, class SlowProof, rules.slow_proof, "slow_proof/height", '
    assert renamed(text, old, new) == expected + "slow_proof_play"
