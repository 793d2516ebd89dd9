"""Start a fifth engine: copy the folders of one that has its own, rename it, and register it where engines are listed.

The copy answers the ten questions as its model does, with tests and vectors of its own that pass at once; what a new
paper decides differently is then changed answer by answer, and the vectors show what changed.
"""

import keyword
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from learnchain.primitives.rejection import Rejected, RejectionReason

SOURCE = Path("src/learnchain")
MARK = "# new engines above this line"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Names:
    """Spell an engine's name as its folder, its class and its constants do."""

    folder: str

    @property
    def kind(self) -> str:
        """Return the class's name."""
        return "".join(each.capitalize() for each in self.folder.split("_"))

    @property
    def constant(self) -> str:
        """Return what constants begin with."""
        return self.folder.upper()

    @property
    def reading(self) -> str:
        """Return what the identifiers of readings begin with."""
        return self.constant.replace("_", "-")


def start_engine(root: Path, name: str, like: str) -> tuple[Path, ...]:
    """Copy one engine's folders under another name and register the copy; return what was written or changed."""
    old, new = Names(like), Names(name)
    _check(root, old, new)
    written = [path for place in _places(old) for path in _copied(root, place, old, new)]
    changed = (
        _listed(root / SOURCE / "node/engines.py", _engine_line(root, old, new)),
        _imported(root / SOURCE / "node/engines.py", "learnchain.rules", new.folder),
        _listed(root / SOURCE / "testing/engine_plays.py", f"{new.folder}_play.PLAY,"),
        _imported(root / SOURCE / "testing/engine_plays.py", "learnchain.testing", f"{new.folder}_play"),
        _listed(root / SOURCE / "testing/engine_cases.py", f"*{new.folder}_cases.{new.folder}_vectors(),"),
        _imported(root / SOURCE / "testing/engine_cases.py", "learnchain.testing", f"{new.folder}_cases"),
        _independent(root / "pyproject.toml", old, new),
    )
    return tuple(sorted({*written, *changed}))


def _places(names: Names) -> tuple[Path, ...]:
    """Return the folders and files that belong to one engine alone."""
    testing = SOURCE / "testing"
    return (
        SOURCE / "rules" / names.folder,
        testing / f"{names.folder}_play.py",
        testing / f"{names.folder}_cases.py",
        Path("tests/rules") / names.folder,
    )


def _check(root: Path, old: Names, new: Names) -> None:
    if not _NAME.fullmatch(new.folder) or keyword.iskeyword(new.folder) or len(new.folder) > 32:
        detail = f"{new.folder!r} is no name of a folder: small letters, digits and single underscores"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    missing = [str(place) for place in _places(old) if not (root / place).exists()]
    if missing:
        detail = f"{root} is no checkout with an engine {old.folder!r} to copy: {missing[0]} is missing"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    taken = [str(place) for place in _places(new) if (root / place).exists()]
    if taken:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{taken[0]} exists already; nothing was changed")


def _copied(root: Path, place: Path, old: Names, new: Names) -> list[Path]:
    """Copy a folder or file and rename the engine in it."""
    target = root / renamed(str(place), old, new)
    if (root / place).is_dir():
        shutil.copytree(root / place, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(root / place, target)
    files = sorted(target.rglob("*.py")) if target.is_dir() else [target]
    for path in files:
        path.write_text(renamed(path.read_text(), old, new))
    return files


def renamed(text: str, old: Names, new: Names) -> str:
    """Return a text in which the engine has its new name: folders, class, constants, readings; prose stays."""
    text = text.replace(f"{old.reading}-R", f"{new.reading}-R")
    for before, after in ((old.constant, new.constant), (old.kind, new.kind), (old.folder, new.folder)):
        text = re.sub(rf"(?<![A-Za-z]){before}(?![a-z])", after, text)
    return text


def _engine_line(root: Path, old: Names, new: Names) -> str:
    """Return the copied engine's entry for the registry."""
    text = (root / SOURCE / "node/engines.py").read_text()
    line = next(each for each in text.splitlines() if each.strip().startswith(f'"{old.folder}":'))
    return renamed(line.strip(), old, new)


def _listed(path: Path, line: str) -> Path:
    """Add a line above the mark of a list of engines."""
    text = path.read_text()
    if text.count(MARK) != 1:
        raise Rejected(RejectionReason.MALFORMED, f"{path} has not one line that says {MARK!r}")
    indent = re.search(rf"^( *){MARK}", text, re.MULTILINE)
    path.write_text(text.replace(MARK, f"{line}\n{indent.group(1) if indent else ''}{MARK}"))
    return path


def _imported(path: Path, package: str, name: str) -> Path:
    """Add a name to the one import of a package, in order."""
    text = path.read_text()
    found = re.search(rf"^from {re.escape(package)} import ([a-z0-9_, ]+)$", text, re.MULTILINE)
    if found is None:
        raise Rejected(RejectionReason.MALFORMED, f"{path} does not import its engines from {package} in one line")
    names = sorted({*found.group(1).split(", "), name})
    path.write_text(text.replace(found.group(0), f"from {package} import {', '.join(names)}"))
    return path


def _independent(path: Path, old: Names, new: Names) -> Path:
    """Have the import linter keep the new engine apart from the others."""
    text = path.read_text()
    entry = f'"learnchain.rules.{old.folder}"'
    path.write_text(text.replace(entry, f'{entry}, "learnchain.rules.{new.folder}"', 1))
    return path
