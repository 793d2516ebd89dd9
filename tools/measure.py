"""Measure the house: what is shipped, how it is cut, how it is tested, and which limits it breaks.

Shipped is every Python file under `src/learnchain` that goes into the wheel: what hatch excludes from it does not
count, nor do plug-ins (`PLUG_INS`). Rooms, engines and vectors are read from the tree, so that moves need no edit here.

- lines: all lines of a file; import lines: those of import statements, lazy ones too; docstring lines: those of string
  statements (modules, classes, functions, attributes); comment lines: lines that hold nothing else.
- short functions used once: functions and methods (not those inside functions) of at most six lines from `def` to their
  end, whose name occurs exactly once as a name or an attribute anywhere in `src`; their share of all such functions.
- mirror: a module `learnchain/a/b.py` has a test of its name if there is `tests/a/test_b.py`, a test in the folder
  `tests/a/b/`, or `tests/a/test_b_*.py`; the last belongs to the module with the longest fitting name of its folder.
  `__init__` and `__main__` are no modules here. `exact` counts `tests/a/test_b.py` alone.
- class names twice: classes defined under one name in two places; those in an engine's own folder do not count.
- cycles: modules that import each other in a circle, lazy imports and those for type checkers included.
- vectors: files but Python in folders named `vectors`, anywhere in the repository.
"""

import argparse
import ast
import io
import json
import os
import re
import statistics
import sys
import tokenize
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "learnchain"
PLUG_INS = frozenset({"attacks"})
"""Folders that are installed beside the package, wherever they lie in it."""
ENGINE_ROOMS = frozenset({"engines", "rules"})
"""Rooms whose folders are engines: each may name its classes as it likes."""
NO_MODULES = frozenset({"__init__", "__main__"})
NOT_THE_REPOSITORY = frozenset({"node_modules", "__pycache__", "dist", "build"})
SHORT_FUNCTION_LINES = 6
SHORT_FILE_LINES = 60

LIMITS: Mapping[str, tuple[float, str]] = {
    "largest_room_share": (0.16, "a room of shipped lines"),
    "files_per_thousand_lines": (5.5, "files per 1,000 lines"),
    "import_share": (0.07, "import lines"),
    "short_once_used_share": (0.08, "short functions used once"),
    "class_names_twice": (0, "class names defined twice"),
    "vector_bytes": (2_000_000, "bytes of vectors"),
    "lines": (46_000, "shipped lines"),
    "cycles": (0, "import cycles"),
}
"""What must not be exceeded."""
MINIMUM_MIRROR_SHARE = 0.85

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """Hold one Python file of the package: its path below the package, its text and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Return the number of lines."""
        return len(self.text.splitlines())

    @property
    def room(self) -> str:
        """Return the first folder of the path, or the top of the package."""
        return self.path.parts[0] if len(self.path.parts) > 1 else "(top)"

    @property
    def name(self) -> str:
        """Return the dotted name; a package's is that of its folder."""
        parts = (PACKAGE, *self.path.with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class Figures:
    """Hold everything that is measured; shares are fractions of one."""

    files: int
    lines: int
    files_per_thousand_lines: float
    import_lines: int
    import_share: float
    docstring_lines: int
    docstring_share: float
    comment_lines: int
    comment_share: float
    functions: int
    short_once_used: int
    short_once_used_share: float
    modules: int
    mirrored: int
    mirrored_exactly: int
    mirror_share: float
    rooms: dict[str, float]
    largest_room_share: float
    class_names_twice: int
    classes_twice: dict[str, list[str]]
    vector_files: int
    vector_bytes: int
    vector_median_bytes: float
    vector_median_lines: float
    short_files_of_one_user: list[str]
    modules_without_test: list[str]
    cycles: int
    cyclic_modules: list[list[str]]


def main(arguments: list[str] | None = None) -> int:
    """Print the figures; return 1 if `--check` is asked for and a limit is broken."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--check", action="store_true", help="name every broken limit; exit 1 if there is one")
    parser.add_argument("--verbose", action="store_true", help="name the files and classes behind the figures")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="the repository")
    options = parser.parse_args(arguments)
    figures = measure(options.root)
    broken = broken_limits(figures)
    if options.json:
        _show(json.dumps(asdict(figures) | {"broken_limits": broken}, indent=2))
    else:
        _show("\n".join(_summary(figures)))
        if options.verbose:
            _show("\n".join(_details(figures)))
    if not options.check:
        return 0
    sys.stderr.writelines(f"limit broken: {each}\n" for each in broken)
    return 1 if broken else 0


def measure(root: Path) -> Figures:
    """Return all figures of a repository."""
    everything = list(read_modules(root / "src" / PACKAGE))
    excluded = wheel_exclusions(root)
    shipped = [module for module in everything if is_shipped(module.path, excluded)]
    lines = sum(module.lines for module in shipped)
    imports = sum(_spanned(ast.Import | ast.ImportFrom, module.tree) for module in shipped)
    docstrings = sum(docstring_lines(module.tree) for module in shipped)
    comments = sum(comment_lines(module.text) for module in shipped)
    functions = [function for module in shipped for function in outer_functions(module.tree)]
    uses = name_uses(everything)
    once = [each for each in functions if _length(each) <= SHORT_FUNCTION_LINES and uses[each.name] == 1]
    modules = [module.path for module in shipped if module.path.stem not in NO_MODULES]
    mirrored, exact = mirrored_modules(modules, root / "tests")
    rooms = room_shares(shipped)
    classes = classes_twice(shipped)
    vectors = [path.read_bytes() for path in vector_files(root)]
    edges = import_edges(everything)
    cycles = import_cycles({name: edges[name] for name in (module.name for module in shipped)})
    return Figures(
        files=len(shipped),
        lines=lines,
        files_per_thousand_lines=_ratio(1_000 * len(shipped), lines),
        import_lines=imports,
        import_share=_ratio(imports, lines),
        docstring_lines=docstrings,
        docstring_share=_ratio(docstrings, lines),
        comment_lines=comments,
        comment_share=_ratio(comments, lines),
        functions=len(functions),
        short_once_used=len(once),
        short_once_used_share=_ratio(len(once), len(functions)),
        modules=len(modules),
        mirrored=len(mirrored),
        mirrored_exactly=len(exact),
        mirror_share=_ratio(len(mirrored), len(modules)),
        rooms=rooms,
        largest_room_share=max(rooms.values(), default=0.0),
        class_names_twice=len(classes),
        classes_twice=classes,
        vector_files=len(vectors),
        vector_bytes=sum(map(len, vectors)),
        vector_median_bytes=statistics.median(map(len, vectors)) if vectors else 0,
        vector_median_lines=statistics.median(len(each.splitlines()) for each in vectors) if vectors else 0,
        short_files_of_one_user=short_files_of_one_user(shipped, edges),
        modules_without_test=sorted(str(path) for path in set(modules) - mirrored),
        cycles=len(cycles),
        cyclic_modules=cycles,
    )


def broken_limits(figures: Figures) -> list[str]:
    """Return one sentence for each limit that the figures break."""
    values = asdict(figures)
    broken = [
        f"{what}: {_number(name, values[name])}, at most {_number(name, limit)}"
        for name, (limit, what) in LIMITS.items()
        if values[name] > limit
    ]
    if figures.mirror_share < MINIMUM_MIRROR_SHARE:
        name = "mirror_share"
        share, least = _number(name, figures.mirror_share), _number(name, MINIMUM_MIRROR_SHARE)
        broken.append(f"modules with a test of their name: {share}, at least {least}")
    return broken


def read_modules(package: Path) -> Iterator[Module]:
    """Read every Python file below a package, in the order of their paths."""
    for path in sorted(package.rglob("*.py")):
        if "__pycache__" not in path.parts:
            text = path.read_text(encoding="utf-8")
            yield Module(path.relative_to(package), text, ast.parse(text, str(path)))


def wheel_exclusions(root: Path) -> list[tuple[re.Pattern[str], bool]]:
    """Return hatch's patterns of what stays out of the wheel, each with whether it excludes (`!` includes again)."""
    project = root / "pyproject.toml"
    table = tomllib.loads(project.read_text(encoding="utf-8")) if project.exists() else {}
    build: dict[str, Any] = table.get("tool", {}).get("hatch", {}).get("build", {})
    patterns: list[str] = [*build.get("exclude", ()), *build.get("targets", {}).get("wheel", {}).get("exclude", ())]
    return [(_compile_pattern(pattern.removeprefix("!")), not pattern.startswith("!")) for pattern in patterns]


def is_shipped(path: Path, exclusions: Iterable[tuple[re.Pattern[str], bool]]) -> bool:
    """Decide whether a file of the package goes into the wheel and is no plug-in."""
    if PLUG_INS & set(path.parts[:-1]):
        return False
    shipped = True
    for pattern, excludes in exclusions:
        if pattern.match(f"src/{PACKAGE}/{path.as_posix()}"):
            shipped = not excludes
    return shipped


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """Translate one pattern as of .gitignore; one without an inner slash matches at any depth."""
    anchored = "/" in pattern.rstrip("/")
    parts: list[str] = []
    for part in re.split(r"(\*\*/|/\*\*$|\*|\?)", pattern.strip("/")):
        parts.append({"**/": "(?:.*/)?", "/**": "/.*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)))
    return re.compile(("" if anchored else "(?:.*/)?") + "".join(parts) + "(?:/.*)?$")


def docstring_lines(tree: ast.Module) -> int:
    """Count the lines of string statements."""
    return sum(
        _length(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def comment_lines(text: str) -> int:
    """Count the lines that hold a comment and nothing else."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type == tokenize.COMMENT and token.line.lstrip().startswith("#") for token in tokens)


def outer_functions(node: ast.AST) -> Iterator[Function]:
    """Return functions and methods, but none inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child
        else:
            yield from outer_functions(child)


def name_uses(modules: Iterable[Module]) -> Counter[str]:
    """Count how often each name occurs as a name or an attribute; imports are no uses."""
    uses: Counter[str] = Counter()
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name):
                uses[node.id] += 1
            elif isinstance(node, ast.Attribute):
                uses[node.attr] += 1
    return uses


def mirrored_modules(modules: Iterable[Path], tests: Path) -> tuple[set[Path], set[Path]]:
    """Return the modules with a test of their name, and those whose test file is named exactly as they are."""
    by_folder: defaultdict[Path, set[str]] = defaultdict(set)
    for path in modules:
        by_folder[path.parent].add(path.stem)
    mirrored: set[Path] = set()
    exact: set[Path] = set()
    for folder, stems in by_folder.items():
        subjects = [path.stem.removeprefix("test_") for path in (tests / folder).glob("test_*.py")]
        exact |= {folder / f"{stem}.py" for stem in stems & set(subjects)}
        for subject in subjects:
            fitting = [stem for stem in stems if subject == stem or subject.startswith(f"{stem}_")]
            mirrored |= {folder / f"{stem}.py" for stem in sorted(fitting, key=len)[-1:]}
        mirrored |= {folder / f"{stem}.py" for stem in stems if any((tests / folder / stem).rglob("test_*.py"))}
    return mirrored, exact


def room_shares(modules: Iterable[Module]) -> dict[str, float]:
    """Return each room's share of all lines, the largest first."""
    lines: Counter[str] = Counter()
    for module in modules:
        lines[module.room] += module.lines
    return {room: _ratio(count, lines.total()) for room, count in lines.most_common()}


def classes_twice(modules: Iterable[Module]) -> dict[str, list[str]]:
    """Return where each class name is defined that is defined more than once, outside the engines' own folders."""
    defined: defaultdict[str, list[str]] = defaultdict(list)
    for module in modules:
        if module.room in ENGINE_ROOMS and len(module.path.parts) > 2:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(str(module.path))
    return {name: paths for name, paths in sorted(defined.items()) if len(paths) > 1}


def vector_files(root: Path) -> Iterator[Path]:
    """Return every file but Python of every folder `vectors`, outside hidden and installed folders."""
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in NOT_THE_REPOSITORY and not name.startswith("."))
        path = Path(directory)
        if "vectors" in path.relative_to(root).parts:
            yield from (path / name for name in sorted(names) if Path(name).suffix not in {".py", ".pyc"})


def import_edges(modules: Iterable[Module]) -> dict[str, set[str]]:
    """Return for each module the package's modules that it imports anywhere, itself and mere parents excepted."""
    modules = list(modules)
    names = {module.name for module in modules}
    edges: dict[str, set[str]] = {}
    for module in modules:
        targets = {target for node in ast.walk(module.tree) for target in _imported(node, module, names)}
        edges[module.name] = targets - {module.name}
    return edges


def _imported(node: ast.AST, module: Module, names: set[str]) -> Iterator[str]:
    """Return the modules that one node imports: the submodule that is named, or else the module named from."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in names)
    elif isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            package = (PACKAGE, *module.path.parent.parts)
            source = ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
        for alias in node.names:
            submodule = f"{source}.{alias.name}"
            if submodule in names:
                yield submodule
            elif source in names:
                yield source


def import_cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module, by Tarjan's algorithm without recursion."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []
    for start in sorted(edges):
        if start in order:
            continue
        order[start] = low[start] = len(order)
        stack.append(start)
        work = [(start, iter(sorted(edges[start] & edges.keys())))]
        while work:
            name, targets = work[-1]
            for target in targets:
                if target not in order:
                    order[target] = low[target] = len(order)
                    stack.append(target)
                    work.append((target, iter(sorted(edges[target] & edges.keys()))))
                    break
                if target in stack:
                    low[name] = min(low[name], order[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == order[name]:
                    position = stack.index(name)
                    component = stack[position:]
                    del stack[position:]
                    if len(component) > 1:
                        components.append(sorted(component))
    return components


def short_files_of_one_user(modules: Iterable[Module], edges: Mapping[str, set[str]]) -> list[str]:
    """Return the short files that fewer than two modules import."""
    users = Counter(target for targets in edges.values() for target in targets)
    return [
        str(module.path)
        for module in modules
        if module.path.stem not in NO_MODULES and module.lines < SHORT_FILE_LINES and users[module.name] < 2
    ]


def _spanned(kind: Any, tree: ast.Module) -> int:
    return sum(_length(node) for node in ast.walk(tree) if isinstance(node, kind))


def _length(node: Any) -> int:
    return int(node.end_lineno) - int(node.lineno) + 1


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _number(name: str, value: float) -> str:
    if name.endswith("_share"):
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if name == "files_per_thousand_lines" else f"{value:,.0f}"


def _summary(figures: Figures) -> list[str]:
    """Return the lines that a reader sees, the limits beside what they limit."""
    values = asdict(figures)

    def limited(name: str) -> str:
        return f"{_number(name, values[name])} (at most {_number(name, LIMITS[name][0])})"

    mirror = _number("mirror_share", figures.mirror_share)
    least = _number("mirror_share", MINIMUM_MIRROR_SHARE)
    rows = [
        ("shipped files", f"{figures.files:,}"),
        ("shipped lines", limited("lines")),
        ("files per 1,000 lines", limited("files_per_thousand_lines")),
        ("import lines", limited("import_share")),
        ("docstring lines", _number("docstring_share", figures.docstring_share)),
        ("comment lines", _number("comment_share", figures.comment_share)),
        (
            "short functions used once",
            f"{limited('short_once_used_share')}: {figures.short_once_used:,} of {figures.functions:,}",
        ),
        (
            "modules with a test of their name",
            f"{mirror} (at least {least}): {figures.mirrored} of {figures.modules}, {figures.mirrored_exactly} exactly",
        ),
        ("class names defined twice", limited("class_names_twice")),
        ("import cycles", limited("cycles")),
        ("vectors, bytes", f"{limited('vector_bytes')} in {figures.vector_files:,} files"),
        ("median vector", f"{figures.vector_median_lines:,.0f} lines, {figures.vector_median_bytes:,.0f} bytes"),
        ("short files of fewer than two users", f"{len(figures.short_files_of_one_user)}"),
        ("largest room", limited("largest_room_share")),
        *((f"  {room}", _number("room_share", share)) for room, share in figures.rooms.items()),
    ]
    return [f"{label:<36} {value}" for label, value in rows]


def _details(figures: Figures) -> Iterator[str]:
    """Return the names behind the figures."""
    yield "\nclass names defined twice"
    yield from (f"  {name}: {', '.join(paths)}" for name, paths in figures.classes_twice.items())
    yield "\nimport cycles"
    yield from (f"  {', '.join(names)}" for names in figures.cyclic_modules)
    yield f"\nfiles under {SHORT_FILE_LINES} lines with fewer than two importing modules"
    yield from (f"  {path}" for path in figures.short_files_of_one_user)
    yield "\nmodules without a test of their name"
    yield from (f"  {path}" for path in figures.modules_without_test)


def _show(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
