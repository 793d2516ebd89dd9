"""Every vector passes, every interpretation has its vector, and writing them anew changes no byte."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from learnchain_conformance.bad_inputs import BadInput
from learnchain_conformance.engine_scenarios import find_scenario, shipped_engines
from learnchain_conformance.vector_cases import MESSAGES, all_folders
from learnchain_conformance.vector_references import GivenValues, SharedValues, lay_out
from learnchain_conformance.vectors import GIVEN, VectorFolder, list_steps, read_vector, run_vector_file
from tests.test_house import PAPERS

SCENARIOS = tuple(map(find_scenario, shipped_engines()))
ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/learnchain"
FOLDERS = {MESSAGES: None, **{f"engines/{each.rules.name}/vectors": each for each in SCENARIOS}}
"""What `write_vectors` writes; other folders hold vectors of other rooms, checked there."""
FILES = sorted(str(path.relative_to(PACKAGE)) for each in FOLDERS for path in (PACKAGE / each).rglob("*.json"))
CASES = [name for name in FILES if not name.endswith(GIVEN)]
_REWRITE = (
    "import sys, pathlib; from learnchain_conformance.vectors import write_vectors as w; w(pathlib.Path(sys.argv[1]))"
)


def folder_of(name: str) -> str:
    return next(each for each in FOLDERS if name.startswith(each))


@cache
def folders() -> tuple[VectorFolder, ...]:
    return all_folders()


@pytest.mark.parametrize("name", CASES)
def test_a_vector_gives_what_it_says(name: str) -> None:
    outcomes = run_vector_file(PACKAGE / name, FOLDERS[folder_of(name)])
    assert outcomes
    for expected, found in outcomes:
        assert found == expected


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("equations/5.json", '"15/16"', '"16/15"'),
        ("bad_input/commitment_late.json", '"commitment_late"', '"wrong_signature"'),
        ("bad_input/commitment_late.json", "1800000600001", "1800000600000"),
        ("bad_input/verdict_incomplete.json", '"verdict_wrong"', '"wrong_signature"'),
        ("height/trained.json", '"weight": 1,', '"weight": 2,'),
    ],
)
def test_a_wrong_expectation_or_input_is_noticed(tmp_path: Path, name: str, right: str, wrong: str) -> None:
    dlbc = next(each for each in SCENARIOS if each.rules.name == "dlbc")
    text = (PACKAGE / "engines/dlbc/vectors" / name).read_text()
    assert right in text
    shutil.copy(PACKAGE / "engines/dlbc/vectors" / GIVEN, tmp_path)
    (tmp_path / "changed.json").write_text(text.replace(right, wrong))
    assert any(expected != found for expected, found in run_vector_file(tmp_path / "changed.json", dlbc))


def test_files_are_current() -> None:
    contents = {f"{each.path}/{name}": content for each in folders() for name, content in each.contents().items()}
    assert sorted(contents) == FILES
    for name, content in contents.items():
        assert (PACKAGE / name).read_text() == lay_out(content) + "\n", (
            f"{name}: write_vectors(Path('src/learnchain')) changes it"
        )


def test_another_hash_seed_writes_equal_bytes(tmp_path: Path) -> None:
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    subprocess.run([sys.executable, "-c", _REWRITE, str(tmp_path)], check=True, env=environment, timeout=200)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")) == FILES
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (PACKAGE / name).read_bytes(), name


def test_names_and_changes_give_back_every_case_as_it_was_built() -> None:
    for folder in folders():
        whole = json.loads((PACKAGE / folder.path / GIVEN).read_text())
        values = GivenValues(whole)
        for vector in folder.vectors:
            for read, built in zip(read_vector(PACKAGE / folder.path / vector.path), vector.cases, strict=True):
                # An argument that a case leaves out is the folder's.
                left_out = {each: values.value(each) for each in set(built["arguments"]) - set(read["arguments"])}
                assert {**read, "arguments": {**left_out, **read["arguments"]}} == built, vector.path


def test_a_value_that_looks_like_a_name_is_not_written() -> None:
    with pytest.raises(ValueError, match="looks like a name"):
        SharedValues().add({"name": "$parameters"})


# --- interpretations, equations, bad inputs ------------------------------------------------------------------------


READINGS = [(play, each) for play in SCENARIOS for each in play.interpretations]


@pytest.mark.parametrize(("play", "reading"), READINGS, ids=lambda each: getattr(each, "identifier", ""))
def test_an_interpretation_has_the_vector_it_names(play, reading) -> None:
    content = json.loads((PACKAGE / "engines" / play.rules.name / "vectors" / reading.vector).read_text())
    assert reading.identifier in content["interpretation"].split(", ")


DECIDED = {
    "dlbc": ("DLBC", (*range(1, 5), *range(6, 16))),
    "pole": ("POLE", (*range(1, 11), *range(13, 24))),
    "podl": ("PODL", tuple(range(1, 13))),
    "proof_of_work": ("POW", tuple(range(1, 5))),
}
"""Numbers of the interpretations that were decided for the papers' engines; DLBC-R5 went into R12, POLE-R11 and R12 are
about experiments alone."""


@pytest.mark.parametrize("engine", DECIDED)
def test_every_decided_interpretation_is_registered_once(engine: str) -> None:
    prefix, numbers = DECIDED[engine]
    found = [each.identifier for play, each in READINGS if play.rules.name == engine]
    assert sorted(found) == sorted(f"{prefix}-R{number}" for number in numbers)


VECTORS_OF_ALGORITHMS = {
    1: "pole/vectors/verification/best_wins.json",
    2: "pole/vectors/verification/algorithm_2.json",
    3: "pole/vectors/algorithms/3.json",
}


@pytest.mark.parametrize(("paper", "kind", "number"), sorted(PAPERS))
def test_every_equation_and_algorithm_has_a_vector(paper: str, kind: str, number: int) -> None:
    room = "market" if paper == "baas" else f"engines/{paper}"
    equation = f"{room}/vectors/equations/{number}.json"
    path = f"engines/{VECTORS_OF_ALGORITHMS[number]}" if kind == "algorithm" else equation
    assert json.loads((PACKAGE / path).read_text())["cases"]


WRONG = [(play.rules.name, each) for play in SCENARIOS for each in play.bad_inputs]


@pytest.mark.parametrize(("engine", "wrong"), WRONG, ids=lambda each: getattr(each, "name", each))
def test_a_bad_input_vector_ends_in_its_reason(engine: str, wrong: BadInput) -> None:
    (case,) = read_vector(PACKAGE / "engines" / engine / f"vectors/bad_input/{wrong.name}.json")
    assert (case["step"], case["expected"]) == ("round", {"reason": wrong.reason.value})


def test_every_step_that_a_vector_names_is_documented() -> None:
    page = (ROOT / "docs/vectors.md").read_text() + (ROOT / "docs/steps.md").read_text()
    own = {step for scenario in SCENARIOS for step in list_steps(scenario)}
    assert not [each for each in sorted({"message", "round"} | own) if f"`{each}`" not in page]


def test_no_file_is_large_and_half_of_them_fit_a_screen() -> None:
    paths = list(PACKAGE.rglob("vectors/**/*.json"))
    assert sum(path.stat().st_size for path in paths) <= 2_000_000
    lines = sorted(len(path.read_text().splitlines()) for path in paths)
    assert lines[len(lines) // 2] <= 45


_WITHOUT_C = """
import sys
sys.modules["_decimal"] = None
import decimal, json, pathlib
assert decimal.Decimal.__module__ in ("decimal", "_pydecimal") and "_pydecimal" in sys.modules
from learnchain.engines.dlbc.scenario import SCENARIO
from learnchain_conformance.vectors import run_vector_file
folder = pathlib.Path(sys.argv[1])
paths = [*folder.glob("equations/*.json"), *folder.glob("selection/*score.json")]
wrong = [str(path) for path in paths for expected, found in run_vector_file(path, SCENARIO) if expected != found]
print(json.dumps([len(paths), wrong]))
"""


def test_equations_agree_in_pure_python_arithmetic() -> None:
    command = [sys.executable, "-c", _WITHOUT_C, str(PACKAGE / "engines/dlbc/vectors")]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    assert answer.stdout.strip() == "[8, []]"
