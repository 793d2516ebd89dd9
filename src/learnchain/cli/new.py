"""Start a fifth engine: copy the folders of one that is there, rename it, and register it where engines are listed.

The copy answers the ten questions as its model does, with tests and vectors of its own that pass at once; what a new
paper decides differently is then changed answer by answer, and the vectors show what changed. Everything is planned
before the first file is written, and what was written can be taken back: there is no half an engine.

`learnchain new`: start a protocol of one's own inside a checkout.
"""

import builtins
import importlib.util
import io
import keyword
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from learnchain.cli.output import JsonOption, page, run_verb
from learnchain.rejection import Rejected, RejectionReason, Unavailable

SOURCE = Path("src/learnchain")


MARK = "# new engines above this line"


LONGEST_NAME = 32


_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


_REGISTRY = SOURCE / "engines/registry.py"


_PLAYS, _CASES = (
    SOURCE / "packages/conformance/src/learnchain_conformance/engine_scenarios.py",
    SOURCE / "packages/conformance/src/learnchain_conformance/engine_cases.py",
)


_DOCUMENTS = ("docs/messages.md", "docs/reasons.md", "docs/engines.md")


_LINE_LENGTH = 120


@dataclass(frozen=True, slots=True)
class EngineNames:
    """Spell an engine's name as its folder, its class and its constants do."""

    folder: str

    @property
    def class_name(self) -> str:
        """Return the class's name."""
        return "".join(each.capitalize() for each in self.folder.split("_"))

    @property
    def constant_prefix(self) -> str:
        """Return what constants begin with."""
        return self.folder.upper()

    @property
    def interpretation_prefix(self) -> str:
        """Return what the identifiers of readings begin with, unless the engine abbreviates it."""
        return self.constant_prefix.replace("_", "-")


@dataclass(slots=True)
class EngineCopy:
    """Hold the files that a new engine adds and changes, and how to take them back."""

    root: Path
    name: EngineNames
    files: dict[Path, str]
    _before: dict[Path, str] = field(default_factory=dict)

    @property
    def changed_paths(self) -> tuple[Path, ...]:
        """Return what is written or changed, in order."""
        return tuple(sorted(self.files))

    def write(self) -> None:
        """Write all files; take back what was written when one of them cannot be."""
        kept = (*self.files, *(self.root / each for each in _DOCUMENTS))
        self._before = {path: path.read_text() for path in kept if path.is_file()}
        try:
            for path, text in self.files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Leave the checkout as it was: no folder of the new engine, no vectors, no line in a list."""
        for place in (*_places(self.name), Path("vectors") / self.name.folder):
            target = self.root / place
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        for path, text in self._before.items():
            path.write_text(text)


def start_engine(root: Path, name: str, like: str) -> tuple[Path, ...]:
    """Copy one engine's folders under another name and register the copy; return what was written or changed."""
    copy = plan_engine(root, name, like)
    copy.write()
    return copy.changed_paths


def plan_engine(root: Path, name: str, like: str) -> EngineCopy:
    """Return everything that a copy writes and changes; nothing is touched yet."""
    old, new = EngineNames(like), EngineNames(name)
    _check_name(new)
    _check_places(root, old, new)
    sources = {path: path.read_text() for place in _places(old) for path in _files_of(root / place)}
    lists = {root / each: (root / each).read_text() for each in (_REGISTRY, _PLAYS, _CASES)}
    _check_unused(new, {**sources, **lists})
    prefix, shared = _find_interpretation_prefix(root, old), _shared_vectors(root, old)
    files: dict[Path, str] = {}
    for path, text in sources.items():
        made = restore_long_prose(text, rename_text(text, old, new, prefix))
        for each in shared:
            # What a vector of another room shows is no copy's own: its readings go on to name that vector.
            made = made.replace(f'"{new.folder}/{each}"', f'"{old.folder}/{each}"')
        files[root / rename_text(str(path.relative_to(root)), old, new)] = made
    registry, plays, cases = (root / each for each in (_REGISTRY, _PLAYS, _CASES))
    play, case, entry = f"{name}_play", f"{name}_cases", _build_registry_entry(lists[registry], old, new)
    files[registry] = _add_to_list(_add_import(lists[registry], "learnchain.engines", name), entry)
    files[plays] = _add_to_list(_add_import(lists[plays], "learnchain.simulation", play), f"{play}.PLAY,")
    files[cases] = _add_to_list(_add_import(lists[cases], "learnchain.simulation", case), f"*{case}.{name}_vectors(),")
    files[root / "pyproject.toml"] = _add_independence_contract(root / "pyproject.toml", old, new)
    return EngineCopy(root, new, files)


def _places(names: EngineNames) -> tuple[Path, ...]:
    """Return the folders and files that belong to one engine alone."""
    testing = SOURCE / "testing"
    return (
        SOURCE / "rules" / names.folder,
        testing / f"{names.folder}_play.py",
        testing / f"{names.folder}_cases.py",
        Path("tests/rules") / names.folder,
    )


def _files_of(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def _check_name(new: EngineNames) -> None:
    """Refuse what is no name of a folder, and words of the language itself."""
    taken = keyword.iskeyword(new.folder) or keyword.issoftkeyword(new.folder) or hasattr(builtins, new.folder)
    if taken or not _NAME.fullmatch(new.folder) or len(new.folder) > LONGEST_NAME:
        detail = f"{new.folder[:80]!r} is no name for an engine: at most {LONGEST_NAME} small letters, digits and "
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail + "single underscores, and no word of Python")


def _check_places(root: Path, old: EngineNames, new: EngineNames) -> None:
    """Refuse a model that is not there, and a name under which something is."""
    missing = [str(place) for place in _places(old) if not (root / place).exists()]
    missing = missing or [str(each) for each in (_REGISTRY, _PLAYS, _CASES) if not (root / each).is_file()]
    if missing or not _NAME.fullmatch(old.folder):
        detail = f"{root} is no checkout with an engine {old.folder!r} to copy"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{detail}: {missing[0]} is missing" if missing else detail)
    module = SOURCE / "rules" / f"{new.folder}.py"
    places = (*_places(new), module, Path("vectors") / new.folder)
    taken = [str(place) for place in places if (root / place).exists()]
    if taken:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{taken[0]} exists already; nothing was changed")


def _check_unused(new: EngineNames, texts: dict[Path, str]) -> None:
    """Refuse a name that the files use for something else: in the copy it would stand for two things."""
    for path, text in texts.items():
        words = {each.string for each in _tokens(text) if each.type == tokenize.NAME}
        found = sorted(words & {new.folder, new.class_name, new.constant_prefix})
        if found:
            detail = f"{path.name} uses the name {found[0]!r} for something else; choose another one"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)


def _find_interpretation_prefix(root: Path, old: EngineNames) -> str:
    """Return what the readings of an engine begin with: proof of work abbreviates its name."""
    text = (root / SOURCE / "rules" / old.folder / "readings.py").read_text()
    found = re.search(r'"([A-Z0-9]+(?:-[A-Z0-9]+)*)-R\d+"', text)
    return old.interpretation_prefix if found is None else found.group(1)


def _shared_vectors(root: Path, old: EngineNames) -> list[str]:
    """Return the vectors that readings name and that the engine's own cases do not write."""
    readings = (root / SOURCE / "rules" / old.folder / "readings.py").read_text()
    cases = (root / SOURCE / "testing" / f"{old.folder}_cases.py").read_text()
    named = re.findall(rf'"{old.folder}/([^"]+\.json)"', readings)
    # Wrong inputs are written by their names, all others are spelled out.
    mine = [each for each in named if each.startswith("bad_input/") or f'"{old.folder}/{each}"' in cases]
    return [each for each in named if each not in mine]


def rename_text(text: str, old: EngineNames, new: EngineNames, prefix: str = "") -> str:
    """Return a text in which the engine has its new name: folders, class, constants, readings; prose stays."""
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
    return re.sub(pattern, lambda found: names[found.group(0)], text)


def restore_long_prose(before: str, after: str) -> str:
    """Return the renamed text with those lines of prose as they were that the new name has made too long."""
    prose: set[int] = set()
    for each in _tokens(before):
        told = each.type == tokenize.COMMENT or (each.type == tokenize.STRING and each.string.startswith('"""'))
        prose.update(range(each.start[0], each.end[0] + 1) if told else ())
    pairs = zip(before.splitlines(keepends=True), after.splitlines(keepends=True), strict=True)
    kept = (
        old if number in prose and len(new.rstrip()) > _LINE_LENGTH else new
        for number, (old, new) in enumerate(pairs, start=1)
    )
    return "".join(kept)


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _build_registry_entry(text: str, old: EngineNames, new: EngineNames) -> str:
    """Return the copied engine's entry for the registry."""
    lines = text.splitlines()
    first = next((number for number, each in enumerate(lines) if each.strip().startswith(f'"{old.folder}":')), None)
    if first is None:
        raise Rejected(RejectionReason.MALFORMED, f"{_REGISTRY} has no entry for {old.folder!r}")
    entry = lines[first]
    while entry.count("(") > entry.count(")"):
        first += 1
        entry += "\n" + lines[first]
    return rename_text(entry.strip(), old, new)


def _add_to_list(text: str, line: str) -> str:
    """Add a line above the mark of a list of engines."""
    if text.count(MARK) != 1:
        raise Rejected(RejectionReason.MALFORMED, f"a list of engines has not one line that says {MARK!r}")
    indent = re.search(rf"^( *){MARK}", text, re.MULTILINE)
    return text.replace(MARK, f"{line}\n{indent.group(1) if indent else ''}{MARK}")


def _add_import(text: str, package: str, name: str) -> str:
    """Add a name to the one import of a package, in order."""
    found = re.search(rf"^from {re.escape(package)} import (\([a-z0-9_,\s]+\)|[a-z0-9_, ]+)$", text, re.MULTILINE)
    if found is None:
        raise Rejected(RejectionReason.MALFORMED, f"a list of engines does not import them from {package}")
    names = sorted({*re.findall(r"[a-z0-9_]+", found.group(1)), name})
    line = f"from {package} import {', '.join(names)}"
    if len(line) > _LINE_LENGTH:
        line = f"from {package} import (\n" + "".join(f"    {each},\n" for each in names) + ")"
    return text.replace(found.group(0), line)


def _add_independence_contract(path: Path, old: EngineNames, new: EngineNames) -> str:
    """Have the import linter keep the new engine apart from the others."""
    text, entry = path.read_text(), f'"learnchain.engines.{old.folder}"'
    if entry not in text:
        raise Rejected(RejectionReason.MALFORMED, f"{path} does not keep {entry} apart from other engines")
    return text.replace(entry, f'{entry}, "learnchain.engines.{new.folder}"', 1)


application = typer.Typer(help="Start something new in a checkout of this project.", no_args_is_help=True)


_FILL = (
    "from pathlib import Path; from learnchain_conformance.vectors import fill; "
    "from learnchain_conformance.documents import write_documents; fill(Path('vectors')); write_documents(Path('docs'))"
)


@application.callback()
def new() -> None:
    """Start something new in a checkout of this project."""


@application.command("engine")
def engine(
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and underscores.")],
    *,
    like: Annotated[str, typer.Option(help="The engine to copy: podl, dlbc, pole or proof_of_work.")] = "podl",
    root: Annotated[Path, typer.Option(file_okay=False, help="The checkout.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Copy an engine's folder with tests and vectors, and register the copy: the start of a fifth protocol."""

    def work() -> dict[str, Any]:

        place = root.resolve()
        copy = plan_engine(place, name, like)
        copy.write()
        try:
            _format_files(place, [str(each) for each in copy.changed_paths if each.suffix == ".py"])
            _fill(place)
        except BaseException:
            # An interrupted or failed start leaves nothing behind.
            copy.undo()
            raise
        files = [str(each.relative_to(place)) for each in copy.changed_paths]
        return {"engine": name, "like": like, "files": files, "vectors": f"vectors/{name}"}

    run_verb(as_json, work, _show)


def _fill(root: Path) -> None:
    """Write vectors and documents anew by the checkout's own code, in a process that loads it."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", _FILL], cwd=root, env=environment, check=False, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        raise Unavailable("vectors of the copy: writing them failed, all was taken back; the trace stands above")


def _format_files(root: Path, files: list[str]) -> None:
    """Sort imports and break lines anew where the developers' tools are here: a longer name makes longer lines."""
    if importlib.util.find_spec("ruff") is None:
        return
    for verb in (("check", "--fix", "--quiet", "--select", "I"), ("format", "--quiet")):
        subprocess.run([sys.executable, "-m", "ruff", *verb, *files], cwd=root, check=False, stdout=subprocess.DEVNULL)


def _show(data: dict[str, Any]) -> None:
    console = page()
    for each in data["files"]:
        console.print(each, markup=False)
    console.print(f"vectors of the copy: {data['vectors']}; docs/engines.md has a column more", markup=False)
    console.print(f"next: change an answer in src/learnchain/rules/{data['engine']}/rules.py, then", markup=False)
    console.print(f"  pytest tests/rules/{data['engine']}   learnchain up --consensus {data['engine']}", markup=False)
    console.print(f"  learnchain lab compare --engine {data['like']} --engine {data['engine']}", markup=False)
