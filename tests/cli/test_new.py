"""A fifth engine is a copied folder: registered, it plays its heights and its vectors name it; nothing else moves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from learnchain.cli.new import MARK, EngineNames, plan_engine, rename_text, restore_long_prose, start_engine
from learnchain.rejection import Rejected, RejectionReason

HOSTILE = (
    *("podl", "Podl", "9lives", "class", "a-b", "", "x" * 40, "y" * 200, "../up", "a.b", "a b", "_a", "a__b", "\u00e9"),
    # Words of Python, modules beside the engines, and names that the copied files use for something else.
    *("list", "match", "contract", "reading", "block", "engine", "vector", "market"),
)
CHECKOUT = Path(__file__).parent.parent.parent
ENGINES = ("dlbc", "podl", "pole", "proof_of_work")
_PLAY = """
import json
from learnchain.engines.registry import ENGINES, engine_from
from learnchain.node.local_network import LOCAL_PHASES
from learnchain.engines.proof_of_patience import READINGS
from learnchain_conformance.engine_cases import proof_of_patience_cases
from learnchain_conformance.engine_scenarios import PLAYS
from learnchain.simulation.scenario import play_height
from learnchain_conformance.reference_cases import reference_vectors

play = next(each for each in PLAYS if each.rules.name == "proof_of_patience")
node = play.begun()
play_height(node)
every = (*proof_of_patience_cases.proof_of_patience_vectors(), *reference_vectors())
local = ENGINES["proof_of_patience"].local(LOCAL_PHASES, 2)
mine = [each for each in every if each.path.startswith("proof_of_patience/")]
print(json.dumps({
    "height": node.parent.height,
    "same": engine_from("proof_of_patience", local.canonical()) == local,
    "readings": sorted(each.identifier for each in READINGS)[:1],
    "vectors": len(mine),
    "named": all(reading.vector in {each.path for each in every} for reading in READINGS),
    "own": type(local).__name__,
}))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    places = ("src/learnchain", *(f"tests/rules/{each}" for each in ENGINES))
    for each in places:
        shutil.copytree(CHECKOUT / each, tmp_path / each, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(CHECKOUT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


@pytest.mark.parametrize("like", ENGINES)
def test_the_copy_is_an_engine_of_its_own(checkout: Path, like: str) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*.py")}
    written = start_engine(checkout, "proof_of_patience", like)
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert {path.name for path in changed} == {"engines.py", "engine_plays.py", "engine_cases.py"}
    assert changed < set(written)
    assert '"learnchain.engines.proof_of_patience"' in (checkout / "pyproject.toml").read_text()
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", _PLAY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    answer = done.stdout.strip()
    assert '"height": 1, "same": true, "readings": ["PROOF-OF-PATIENCE-R1"]' in answer
    assert '"vectors": 0' not in answer
    assert '"named": true, "own": "ProofOfPatience"' in answer


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_cannot_be_a_folder_or_is_taken_changes_nothing(checkout: Path, name: str) -> None:
    before = _content(checkout)
    with pytest.raises(Rejected) as refusal:
        start_engine(checkout, name, "podl")
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID
    assert _content(checkout) == before


def _content(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")}


@pytest.mark.parametrize(
    "broken",
    [
        "engines/registry.py",
        "packages/conformance/src/learnchain_conformance/engine_scenarios.py",
        "../../pyproject.toml",
    ],
)
def test_a_checkout_whose_lists_cannot_be_changed_stays_as_it_is(checkout: Path, broken: str) -> None:
    path = checkout / "src/learnchain" / broken
    path.write_text(path.read_text().replace(MARK, "").replace('"learnchain.engines.podl"', ""))
    before = _content(checkout)
    with pytest.raises(Rejected) as refusal:
        start_engine(checkout, "fifth", "podl")
    assert refusal.value.reason is RejectionReason.MALFORMED
    assert _content(checkout) == before


def test_what_was_written_can_be_taken_back(checkout: Path) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    copy = plan_engine(checkout, "fifth", "pole")
    copy.write()
    (checkout / "vectors/fifth").mkdir(parents=True)
    copy.undo()
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before
    assert not (checkout / "vectors/fifth").exists()


def test_a_full_disk_leaves_nothing_behind(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _content(checkout)
    write, written = Path.write_text, []

    def fails(path: Path, text: str) -> int:
        written.append(path)
        if len(written) == 5:
            raise OSError(28, "no space left on device")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="no space"):
        start_engine(checkout, "fifth", "podl")
    assert _content(checkout) == before


def test_a_longer_name_leaves_prose_that_would_not_fit() -> None:
    old, new = EngineNames("podl"), EngineNames("proof_of_much_patience")
    before = f'def podl() -> None:\n    """{"Do as told " * 9}(PODL-R1)."""\n    # {"x" * 109} podl\n    podl()\n'
    lines = restore_long_prose(before, rename_text(before, old, new)).splitlines()
    assert [len(each) <= 120 for each in lines] == [True] * 4
    assert [("podl" in each.lower()) for each in lines] == [False, True, True, False]


def test_a_name_that_contains_the_old_one_is_put_in_once() -> None:
    assert (
        rename_text("podl PODL-R1 Podl", EngineNames("podl"), EngineNames("podl_again"))
        == "podl_again PODL-AGAIN-R1 PodlAgain"
    )


def test_only_an_engine_with_folders_of_its_own_can_be_copied(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refusal:
        start_engine(tmp_path, "fifth", "podl")
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


def test_prose_keeps_the_paper_that_it_cites() -> None:
    old, new = EngineNames("podl"), EngineNames("slow_proof")
    text = 'PoDL III-B, PODL-R1, PODL_CALLS, class Podl, rules.podl, "podl/height", podl_play'
    expected = 'PoDL III-B, SLOW-PROOF-R1, SLOW_PROOF_CALLS, class SlowProof, rules.slow_proof, "slow_proof/height", '
    assert rename_text(text, old, new) == expected + "slow_proof_play"
