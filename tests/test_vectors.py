"""Every vector passes, every reading has its vector, and writing them anew changes no byte."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from learnchain_conformance.bad_inputs import BadInput
from learnchain_conformance.documents import ENGINES
from learnchain_conformance.engine_scenarios import find_scenario, shipped_engines
from learnchain_conformance.vector_cases import all_vectors
from learnchain_conformance.vectors import Vector, run_vector_file
from tests.test_house import PAPERS

SCENARIOS = tuple(map(find_scenario, shipped_engines()))
VECTORS = Path(__file__).parent.parent / "vectors"
FOLDERS = ("messages", *(play.rules.name for play in SCENARIOS))
"""What `fill` writes; other folders hold vectors of other rooms, checked there."""
FILES = sorted(str(path.relative_to(VECTORS)) for each in FOLDERS for path in (VECTORS / each).rglob("*.json"))
_REFILL = "import sys, pathlib; from learnchain_conformance.vectors import fill; fill(pathlib.Path(sys.argv[1]))"


@pytest.mark.parametrize("name", FILES)
def test_a_vector_gives_what_it_says(name: str) -> None:
    outcomes = run_vector_file(VECTORS / name)
    assert outcomes
    for expected, found in outcomes:
        assert found == expected


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    text = (VECTORS / "dlbc/equations/5.json").read_text()
    changed = tmp_path / "5.json"
    changed.write_text(text.replace('"15/16"', '"16/15"'))
    assert changed.read_text() != text
    assert any(expected != found for expected, found in run_vector_file(changed))


@pytest.mark.parametrize("seed", ["1", "2"])
def test_files_are_current_whatever_the_hash_seed(tmp_path: Path, seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    subprocess.run([sys.executable, "-c", _REFILL, str(tmp_path)], check=True, env=environment, timeout=200)
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json"))
    assert written == FILES
    for name in written:
        assert (tmp_path / name).read_bytes() == (VECTORS / name).read_bytes(), (
            f"{name}: fill(Path('vectors')) changes it"
        )


@cache
def _written() -> dict[str, Vector]:
    return {each.path: each for each in all_vectors()}


def _prefix(identifier: str) -> str:
    return identifier.rpartition("-R")[0]


PREFIXES = {play.rules.name: _prefix(play.interpretations[0].identifier) for play in SCENARIOS}
READINGS = [each for _, readings in ENGINES for each in readings]


@pytest.mark.parametrize("interpretation", READINGS, ids=lambda each: each.identifier)
def test_a_reading_has_the_vector_it_names(reading: object) -> None:
    vector = _written()[reading.vector]  # type: ignore[attr-defined]
    named = vector.interpretation.split(", ")
    # A copied engine leaves what it shares with its model where it is, in that engine's folder.
    shared = PREFIXES[vector.path.partition("/")[0]] != _prefix(reading.identifier)  # type: ignore[attr-defined]
    assert named if shared else reading.identifier in named  # type: ignore[attr-defined]
    assert vector.path in FILES


DECIDED = {
    "dlbc": (*range(1, 5), *range(6, 16)),
    "pole": (*range(1, 11), *range(13, 24)),
    "podl": tuple(range(1, 13)),
    "proof_of_work": tuple(range(1, 5)),
}
"""Numbers of the readings that were decided for the papers' engines; DLBC-R5 went into R12, POLE-R11 and R12 are about
experiments alone."""


def test_every_decided_reading_is_registered_once() -> None:
    wanted = [f"{PREFIXES[name]}-R{number}" for name, numbers in DECIDED.items() for number in numbers]
    papers = {PREFIXES[name] for name in DECIDED}
    found = [each.identifier for each in READINGS]
    assert sorted(each for each in found if _prefix(each) in papers) == sorted(wanted)
    assert len(set(found)) == len(found)


VECTORS_OF_ALGORITHMS = {
    1: "pole/verification/best_wins.json",
    2: "pole/verification/algorithm_2.json",
    3: "pole/algorithms/3.json",
}


@pytest.mark.parametrize(("paper", "kind", "number"), sorted(PAPERS))
def test_every_equation_and_algorithm_has_a_vector(paper: str, kind: str, number: int) -> None:
    path = VECTORS_OF_ALGORITHMS[number] if kind == "algorithm" else f"{paper}/equations/{number}.json"
    assert json.loads((VECTORS / path).read_text())["cases"]


WRONG = [(play.rules.name, each) for play in SCENARIOS for each in play.bad_inputs]


@pytest.mark.parametrize(("engine", "wrong"), WRONG, ids=lambda each: getattr(each, "name", each))
def test_a_bad_input_vector_ends_in_its_reason(engine: str, wrong: BadInput) -> None:
    (expected, _), *_ = run_vector_file(VECTORS / engine / f"bad_input/{wrong.name}.json")
    assert expected["actions"][-1] == {"rejected": wrong.reason.value}


_WITHOUT_C = """
import sys
sys.modules["_decimal"] = None
import decimal, json, pathlib
assert decimal.Decimal.__module__ in ("decimal", "_pydecimal") and "_pydecimal" in sys.modules
from learnchain_conformance.vectors import Vector, run
from tests.test_house import PAPERS
paths = [*pathlib.Path(sys.argv[1]).glob("equations/*.json"), *pathlib.Path(sys.argv[1]).glob("selection/*score.json")]
wrong = [str(path) for path in paths for expected, found in run(path) if expected != found]
print(json.dumps([len(paths), wrong]))
"""


def test_equations_agree_in_pure_python_arithmetic() -> None:
    command = [sys.executable, "-c", _WITHOUT_C, str(VECTORS / "dlbc")]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    assert answer.stdout.strip() == "[8, []]"
