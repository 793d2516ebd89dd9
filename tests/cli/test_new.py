"""A fifth engine is a copied package: it is found by its entry point, and its lint and tests are green."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from learnchain.cli.new import EngineNames, rename_text, restore_long_prose, start_engine
from learnchain.rejection import Rejected, RejectionReason

CHECKOUT = Path(__file__).parents[2]
ENGINES = ("dlbc", "podl", "pole", "proof_of_work")
HOSTILE = (
    *("podl", "Podl", "9lives", "class", "a-b", "", "x" * 40, "y" * 200, "../up", "a.b", "a b", "_a", "a__b", "\u00e9"),
    # Words of Python, modules that are here, and names that the copied files use for something else.
    *("list", "match", "json", "learnchain", "contract", "block", "engine", "task"),
)
_LISTED = """
from learnchain_conformance.engine_scenarios import all_scenarios
print(*(scenario.rules.name for scenario in all_scenarios()))
"""


def install(plug_in: Path, target: Path) -> dict[str, str]:
    """Lay the metadata that an installer writes beside nothing else; return the environment that finds the engine."""
    project = tomllib.loads((plug_in / "pyproject.toml").read_text())["project"]
    metadata = target / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    entries = [f"{name} = {value}" for name, value in project["entry-points"]["learnchain.engines"].items()]
    (metadata / "entry_points.txt").write_text("[learnchain.engines]\n" + "\n".join(entries) + "\n")
    places = (plug_in / "src", target, CHECKOUT / "src", CHECKOUT / "packages/conformance/src")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}


def run(*command: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "like", [pytest.param(name, marks=[] if name == "podl" else [pytest.mark.slow]) for name in ENGINES]
)
def test_the_copy_is_found_and_its_lint_and_tests_are_green(tmp_path: Path, like: str) -> None:
    start_engine(tmp_path, "proof_of_patience", like)
    plug_in = tmp_path / "proof_of_patience"
    environment = install(plug_in, tmp_path / "installed")
    configuration = CHECKOUT / "pyproject.toml"
    run("ruff", "check", "--config", configuration, "src", cwd=plug_in)
    run("ruff", "format", "--check", "--config", configuration, ".", cwd=plug_in)
    run("pyrefly", "check", "--python-interpreter-path", sys.executable, cwd=plug_in, environment=environment)
    answer = run("pytest", "-q", "-n", "0", "-m", "not slow", cwd=plug_in, environment=environment)
    assert " passed" in answer
    assert "failed" not in answer
    names = subprocess.check_output([sys.executable, "-c", _LISTED], env=environment, text=True).split()
    assert names == ["dlbc", "pole", "proof_of_work", "podl", "proof_of_patience"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_cannot_be_a_package_or_is_used_writes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(Rejected) as refusal:
        start_engine(tmp_path, name, "podl")
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("like", ["fourth", "podl-quantised"])
def test_only_an_engine_can_be_copied(tmp_path: Path, like: str) -> None:
    with pytest.raises(Rejected) as refusal:
        start_engine(tmp_path, "fifth", like)
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "fifth").mkdir()
    with pytest.raises(Rejected, match="exists already"):
        start_engine(tmp_path, "fifth", "podl")
    assert list(tmp_path.rglob("*")) == [tmp_path / "fifth"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = Path.write_text, []

    def fails(path: Path, text: str) -> int:
        written.append(path)
        if len(written) == 5:
            raise OSError(28, "no space left on device")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="no space"):
        start_engine(tmp_path, "fifth", "podl")
    assert not list(tmp_path.iterdir())


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


def test_prose_keeps_the_paper_that_it_cites() -> None:
    old, new = EngineNames("podl"), EngineNames("slow_proof")
    text = 'PoDL III-B, PODL-R1, PODL_CALLS, class Podl, podl.rules, "podl/height", start_podl_node'
    expected = 'PoDL III-B, SLOW-PROOF-R1, SLOW_PROOF_CALLS, class SlowProof, slow_proof.rules, "slow_proof/height", '
    assert rename_text(text, old, new) == expected + "start_slow_proof_node"
