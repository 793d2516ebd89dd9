"""Start a fifth engine: copy one that is there into a package of its own, under another name, as a plug-in.

The copy answers the ten questions as its model does, with a scenario, cases, vectors and tests of its own that pass at
once; what a new paper decides differently is then changed answer by answer. It is found by its entry point: no file
that exists is changed. The folder appears whole or not at all.
"""

import builtins
import importlib.util
import io
import keyword
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

import learnchain
from learnchain.cli.output import JsonOption, page, run_verb
from learnchain.rejection import Rejected, RejectionReason

LONGEST_NAME = 32
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LINE_LENGTH = 120

_PROJECT = """[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "0.1.0"
description = "A consensus engine for learnchain, begun as a copy of {like}."
requires-python = ">=3.11"
dependencies = ["learnchain"]

[project.entry-points."learnchain.engines"]
{name} = "{name}:ENGINE"

[dependency-groups]
# The conformance kit is in packages/conformance of learnchain's repository.
test = ["pytest", "hypothesis", "learnchain-conformance"]

[tool.hatch.build.targets.wheel]
packages = ["src/{name}"]

[tool.ruff]
line-length = 120
target-version = "py311"

[tool.ruff.lint]
select = ["E", "F", "W", "I", "N", "UP", "B"]

[tool.pytest.ini_options]
testpaths = ["tests"]

[tool.pyrefly]
project-includes = ["src"]
python-version = "3.11"
preset = "strict"
"""

_README = """# {name}

A consensus engine for learnchain, begun as a copy of `{like}`. `src/{name}/rules.py` has the ten answers: change one,
run the tests, and they show what changed.

    pip install --editable .
    pytest                                  # needs learnchain-conformance, the conformance kit
    learnchain up --consensus {name}
    learnchain lab compare --engine {like} --engine {name}

Its vectors, `src/{name}/vectors/`, are written by the kit (docs/vectors.md of learnchain), at first and after changes:

    from pathlib import Path
    from learnchain_conformance.engine_scenarios import engine_vectors, find_scenario
    from learnchain_conformance.vectors import write_engine_vectors

    write_engine_vectors(find_scenario("{name}"), engine_vectors("{name}"), Path("src/{name}/vectors"))
"""

_TESTS = '''"""Hold the engine against the conformance kit: it is found, plays, and refuses what every engine must."""

from pathlib import Path

import pytest

from learnchain.engines.contract import STEPS
from learnchain.engines.registry import find_engine
from learnchain.rejection import Rejected
from learnchain.simulation.scenario import run_height
from learnchain_conformance.bad_inputs import BadInput, prepare
from learnchain_conformance.engine_scenarios import engine_vectors, find_scenario
from learnchain_conformance.vectors import GIVEN, run_vector_file, write_engine_vectors

SCENARIO = find_scenario("{name}")


def test_the_engine_is_found_by_its_entry_point() -> None:
    assert find_engine("{name}").kind is type(SCENARIO.rules)
    assert SCENARIO.rules.name == "{name}"


def test_the_ten_questions_are_answered_in_order() -> None:
    assert tuple(step for step in vars(type(SCENARIO.rules)) if step in STEPS) == STEPS


def test_a_height_is_played() -> None:
    node = SCENARIO.start_node()
    run_height(node)
    assert node.parent.height == 1


@pytest.mark.parametrize("wrong", SCENARIO.bad_inputs, ids=lambda wrong: wrong.name)
def test_what_is_wrong_is_refused_with_its_reason(wrong: BadInput) -> None:
    node = SCENARIO.start_node()
    event = wrong.make(node, prepare(node, wrong.stage))
    with pytest.raises(Rejected) as refusal:
        node.feed(event)
    assert refusal.value.reason is wrong.reason


def test_every_vector_gives_what_it_says(tmp_path: Path) -> None:
    files = write_engine_vectors(SCENARIO, engine_vectors("{name}"), tmp_path)
    assert all((tmp_path / each.vector) in files for each in SCENARIO.interpretations)
    for path in files:
        if path.name != GIVEN:
            assert all(answer == expected for expected, answer in run_vector_file(path, SCENARIO)), path
'''


@dataclass(frozen=True, slots=True)
class EngineNames:
    """Spell an engine's name as its package, its class and its constants do."""

    folder: str

    @property
    def class_name(self) -> str:
        """Return the class's name."""
        return "".join(part.capitalize() for part in self.folder.split("_"))

    @property
    def constant_prefix(self) -> str:
        """Return what constants begin with."""
        return self.folder.upper()

    @property
    def interpretation_prefix(self) -> str:
        """Return what the identifiers of readings begin with, unless the engine abbreviates it."""
        return self.constant_prefix.replace("_", "-")


def plan_engine(name: str, like: str) -> dict[Path, str]:
    """Return the text of every file of a plug-in that copies an engine, by its path below the plug-in's folder."""
    from learnchain.engines.registry import find_engine

    new, old = EngineNames(name), EngineNames(like)
    _check_name(new)
    if find_engine(like).is_variant:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{like} is a variant: copy the engine that it varies")
    sources = _read_sources(like)
    _check_unused(new, sources)
    # Proof of work abbreviates its name in the identifiers of its interpretations.
    identifier = re.search(r'"([A-Z0-9]+(?:-[A-Z0-9]+)*)-R\d+"', sources[Path("src", like, "interpretations.py")])
    prefix = old.interpretation_prefix if identifier is None else identifier.group(1)
    package = find_engine(like).package
    files: dict[Path, str] = {}
    for path, text in sources.items():
        before = text.replace(package, like)
        after = rename_text(before, old, new, prefix)
        files[Path(rename_text(str(path), old, new))] = (
            restore_long_prose(before, after) if path.suffix == ".py" else after
        )
    values = {"name": name, "like": like, "distribution": name.replace("_", "-")}
    templates = {"pyproject.toml": _PROJECT, "README.md": _README, "tests/test_conformance.py": _TESTS}
    return files | {Path(path): text.format(**values) for path, text in templates.items()}


def _read_sources(like: str) -> dict[Path, str]:
    """Return an engine's own files by their path in the copy: its package, what it is tried with, its tests.

    Its vectors are not copied: an engine's name goes into hashes, so a copy writes its own.

    A wheel of this project carries the latter two beside the package, where nobody imports them.
    """
    from learnchain.engines.registry import SHIPPED, find_engine

    package = Path(importlib.import_module(find_engine(like).package).__file__ or "").parent
    root = Path(learnchain.__file__).parents[1]
    material = root / "learnchain_engine_material" / like
    tests = root.parent / "tests/engines" / like if like in SHIPPED else package.parents[1] / "tests"
    folders = {Path("src", like): (package, material / "package"), Path("tests"): (tests, material / "tests")}
    sources: dict[Path, str] = {}
    for target, origins in folders.items():
        for origin in origins:
            for path in origin.rglob("*.py"):
                is_empty = target.name == "tests" and path.name == "__init__.py"
                if not is_empty:
                    sources[target / path.relative_to(origin)] = path.read_text()
    return dict(sorted(sources.items()))


def start_engine(directory: Path, name: str, like: str) -> tuple[Path, ...]:
    """Write a plug-in into a new folder of its name below a directory; return the paths of its files in there."""
    files, target = plan_engine(name, like), directory / name
    if target.exists():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{target} exists already; nothing was changed")
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{name}-", dir=directory) as scratch:
        unfinished = Path(scratch) / name
        for path, text in files.items():
            (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / path).write_text(text)
        if importlib.util.find_spec("ruff") is not None:
            # Another name sorts elsewhere and makes longer lines.
            for verb in (("check", "--fix", "--quiet", "--select", "I"), ("format", "--quiet")):
                command = [sys.executable, "-m", "ruff", *verb, "--no-cache", "."]
                subprocess.run(command, cwd=unfinished, check=False, stdout=subprocess.DEVNULL)
        unfinished.rename(target)
    return tuple(sorted(files))


def _check_name(new: EngineNames) -> None:
    """Refuse what is no name of a package, words of the language itself, and names that something has already."""
    from learnchain.engines.registry import engine_names

    name = new.folder
    reserved = keyword.iskeyword(name) or keyword.issoftkeyword(name) or hasattr(builtins, name)
    if reserved or not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        detail = f"{name[:80]!r} is no name for an engine: at most {LONGEST_NAME} small letters, digits and "
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail + "single underscores, and no word of Python")
    if name in engine_names() or importlib.util.find_spec(name) is not None:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{name!r} is an engine or a module already")


def _check_unused(new: EngineNames, texts: dict[Path, str]) -> None:
    """Refuse a name that the files use for something else: in the copy it would stand for two things."""
    for path, text in texts.items():
        words = {token.string for token in _tokens(text) if token.type == tokenize.NAME} if path.suffix == ".py" else ()
        for used in {new.folder, new.class_name, new.constant_prefix}.intersection(words):
            detail = f"{path.name} uses the name {used!r} for something else; choose another one"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)


def rename_text(text: str, old: EngineNames, new: EngineNames, prefix: str = "") -> str:
    """Return a text in which the engine has its new name: package, class, constants, readings; prose stays."""
    readings = prefix or old.interpretation_prefix
    names = {
        old.constant_prefix: new.constant_prefix,
        old.class_name: new.class_name,
        old.folder: new.folder,
        f"{readings}-R": f"{new.interpretation_prefix}-R",
    }
    words = "|".join((old.constant_prefix, old.class_name, old.folder))
    # In one pass: the new name may contain the old one.
    pattern = rf"(?<![A-Za-z]){readings}-R(?=\d)|(?<![A-Za-z])(?:{words})(?![a-z])"
    return re.sub(pattern, lambda match: names[match.group(0)], text)


def restore_long_prose(before: str, after: str) -> str:
    """Return the renamed text with those lines of prose as they were that the new name has made too long."""
    prose: set[int] = set()
    for token in _tokens(before):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
            prose.update(range(token.start[0], token.end[0] + 1))
    pairs = zip(before.splitlines(keepends=True), after.splitlines(keepends=True), strict=True)
    return "".join(
        old if number in prose and len(new.rstrip()) > _LINE_LENGTH else new
        for number, (old, new) in enumerate(pairs, start=1)
    )


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


application = typer.Typer(help="Start something new.", no_args_is_help=True)


@application.callback()
def new() -> None:
    """Start something new."""


@application.command("engine")
def engine(
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and underscores.")],
    *,
    like: Annotated[str, typer.Option(help="The engine to copy: podl, dlbc, pole or proof_of_work.")] = "podl",
    into: Annotated[Path, typer.Option(file_okay=False, help="Where the plug-in's folder is made.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Copy an engine into a package of its own, found by its entry point: the start of a fifth protocol."""

    def work() -> dict[str, Any]:
        files = start_engine(into, name, like)
        return {"engine": name, "like": like, "folder": str(into / name), "files": [str(path) for path in files]}

    def show(data: dict[str, Any]) -> None:
        for path in data["files"]:
            page().print(f"{data['folder']}/{path}", markup=False, soft_wrap=True)
        page().print(f"next: pip install --editable {data['folder']}, then see its README.md", markup=False)

    run_verb(as_json, work, show)
