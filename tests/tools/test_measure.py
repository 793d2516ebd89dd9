"""Every figure of the measuring script on a made-up tree, and that each can break its limit."""

import json
from pathlib import Path

import pytest
from tools.measure import LIMITS, Figures, broken_limits, main, measure

PADDING = "\n" * 100


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def measured(root: Path, **package: str) -> Figures:
    """Measure a package; `room__file` names src/learnchain/room/file.py."""
    write(root, {f"src/learnchain/{name.replace('__', '/')}.py": text for name, text in package.items()})
    return measure(root)


def exclude(root: Path, *patterns: str) -> None:
    table = "[tool.hatch.build.targets.wheel]"
    write(root, {"pyproject.toml": f'{table}\npackages = ["src/learnchain"]\nexclude = {json.dumps(patterns)}\n'})


def test_files_and_lines_of_the_shipped_code_are_counted(tmp_path: Path) -> None:
    figures = measured(tmp_path, a__one="x = 1\ny = 2\n", b__two="z = 3\n")
    assert (figures.files, figures.lines) == (2, 3)
    assert figures.files_per_thousand_lines == pytest.approx(2_000 / 3)


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("cases.py", ["engines/x/rules"]),
        ("src/learnchain/engines/*/cases.py", ["engines/x/rules", "room/cases"]),
        ("src/learnchain/**/cases.py", ["engines/x/rules"]),
        ("/src/learnchain/room", ["engines/x/cases", "engines/x/rules"]),
        ("engines/*/cases.py", ["engines/x/cases", "engines/x/rules", "room/cases"]),
        ("room/", ["engines/x/cases", "engines/x/rules"]),
        ("case?.p*", ["engines/x/rules"]),
    ],
)
def test_what_the_wheel_leaves_out_is_not_shipped(tmp_path: Path, pattern: str, left: list[str]) -> None:
    exclude(tmp_path, pattern)
    figures = measured(tmp_path, engines__x__cases="a = 1\n", engines__x__rules="b = 1\n", room__cases="c = 1\n")
    assert [path.removesuffix(".py") for path in figures.modules_without_test] == left


def test_an_exclusion_can_be_taken_back(tmp_path: Path) -> None:
    exclude(tmp_path, "cases.py", "!src/learnchain/room/cases.py")
    figures = measured(tmp_path, engines__x__cases="a = 1\n", room__cases="c = 1\n")
    assert figures.modules_without_test == ["room/cases.py"]


def test_plug_ins_are_not_shipped(tmp_path: Path) -> None:
    assert measured(tmp_path, attacks__one="a = 1\n", room__attacks="b = 1\n").files == 1


def test_import_lines_are_counted_lazy_ones_too(tmp_path: Path) -> None:
    text = "import os\nfrom sys import (\n    argv,\n)\n\ndef f():\n    import json\n"
    figures = measured(tmp_path, a=text)
    assert figures.import_lines == 5
    assert figures.import_share == 5 / 7


def test_docstrings_and_comments_are_counted_by_line(tmp_path: Path) -> None:
    text = '"""One\n\ntwo."""\n# why\nx = "no # comment"  # beside code\n"""Of x."""\n'
    figures = measured(tmp_path, a=text)
    assert (figures.docstring_lines, figures.comment_lines) == (4, 1)
    assert (figures.docstring_share, figures.comment_share) == (4 / 6, 1 / 6)


def test_short_functions_used_once_are_counted(tmp_path: Path) -> None:
    long = "def long():\n" + "    pass\n" * 6
    text = (
        "def once():\n    def inner():\n        pass\n    inner()\n"
        "def twice():\n    pass\n"
        "def never():\n    pass\n"
        f"{long}"
        "class C:\n    def method(self):\n        pass\n"
    )
    figures = measured(tmp_path, a=text, b="from a import once\nonce()\ntwice()\ntwice()\nlong()\nC().method()\n")
    assert (figures.functions, figures.short_once_used) == (5, 2)
    assert figures.short_once_used_share == 2 / 5


def test_a_use_outside_the_shipped_code_is_a_use(tmp_path: Path) -> None:
    exclude(tmp_path, "cases.py")
    figures = measured(tmp_path, a="def f():\n    pass\nf()\n", cases="f()\n")
    assert (figures.functions, figures.short_once_used) == (1, 0)


def test_a_module_is_mirrored_by_a_test_of_its_name_where_it_lies(tmp_path: Path) -> None:
    modules = ["task", "task_file", "folder", "bare", "elsewhere", "__init__", "__main__"]
    write(tmp_path, {f"src/learnchain/a/{name}.py": "" for name in modules})
    tests = ["a/test_task.py", "a/test_task_file_limits.py", "a/folder/deep/test_any.py", "b/test_elsewhere.py"]
    write(tmp_path, {f"tests/{name}": "" for name in (*tests, "a/bare/samples.py")})
    figures = measure(tmp_path)
    assert (figures.modules, figures.mirrored, figures.mirrored_exactly) == (5, 3, 1)
    assert figures.modules_without_test == ["a/bare.py", "a/elsewhere.py"]
    assert figures.mirror_share == 3 / 5


def test_a_test_of_a_longer_name_is_not_that_of_a_shorter_module(tmp_path: Path) -> None:
    write(tmp_path, {f"src/learnchain/a/{name}.py": "" for name in ("task", "task_file")})
    write(tmp_path, {"tests/a/test_task_file.py": ""})
    assert measure(tmp_path).modules_without_test == ["a/task.py"]


def test_rooms_are_ordered_by_their_share_of_lines(tmp_path: Path) -> None:
    figures = measured(tmp_path, small__a="x = 1\n", large__a="x = 1\n", large__deep__b="x = 1\ny = 1\n", top="x = 1\n")
    assert list(figures.rooms.items()) == [("large", 3 / 5), ("small", 1 / 5), ("(top)", 1 / 5)]
    assert figures.largest_room_share == 3 / 5


def test_class_names_defined_twice_are_named_but_those_of_engines(tmp_path: Path) -> None:
    twice = "class Twice:\n    class Inner:\n        pass\n"
    figures = measured(tmp_path, a=twice, b="class Twice:\n    pass\n", c="class Once:\n    pass\n")
    assert figures.classes_twice == {"Twice": ["a.py", "b.py"]}
    assert figures.class_names_twice == 1
    engine = "class Once:\n    pass\nclass Rules:\n    pass\n"
    assert measured(tmp_path, engines__x__rules=engine, engines__y__rules=engine).class_names_twice == 1
    assert measured(tmp_path, engines__contract="class Once:\n    pass\n").class_names_twice == 2


def test_vectors_of_the_whole_repository_are_counted_together(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "vectors/a/one.json": "12345\n",
            "packages/kit/vectors/two.json": "1\n2\n3\n",
            "vectors/writer.py": PADDING,
            "vectors/__pycache__/writer.pyc": PADDING,
            "node_modules/x/vectors/three.json": PADDING,
            ".venv/vectors/four.json": PADDING,
            "other/five.json": PADDING,
        },
    )
    figures = measure(tmp_path)
    assert (figures.vector_files, figures.vector_bytes) == (2, 12)
    assert (figures.vector_median_bytes, figures.vector_median_lines) == (6, 2)


def test_short_files_of_fewer_than_two_users_are_named(tmp_path: Path) -> None:
    figures = measured(
        tmp_path,
        a__shared="",
        a__lonely="",
        a__long="x = 1\n" * 60,
        b__one="from learnchain.a import shared, lonely, long\n" + PADDING,
        b__two="from ..a.shared import x\n" + PADDING,
    )
    assert figures.short_files_of_one_user == ["a/lonely.py"]


LAZY = "def f():\n    from learnchain.a.one import f\n"
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import learnchain.a.one\n"


@pytest.mark.parametrize("back", [LAZY, FOR_TYPES, "from . import one\n", "from .one import x\n"])
def test_import_cycles_are_found_lazy_and_for_types_too(tmp_path: Path, back: str) -> None:
    chain = {"a__one": "from learnchain.a import two\n", "a__two": "import learnchain.b.three\n", "a____init__": ""}
    assert measured(tmp_path, **chain, b__three="").cycles == 0
    figures = measured(tmp_path, a__two=back, c__one="from learnchain.a.one import x\n")
    assert figures.cyclic_modules == [["learnchain.a.one", "learnchain.a.two"]]
    assert figures.cycles == 1


def test_two_cycles_are_two(tmp_path: Path) -> None:
    pairs = {"a": "b", "b": "a", "c": "d", "d": "c", "e": "a"}
    figures = measured(tmp_path, **{name: f"from learnchain.{other} import x\n" for name, other in pairs.items()})
    assert figures.cyclic_modules == [["learnchain.a", "learnchain.b"], ["learnchain.c", "learnchain.d"]]


def good_tree(root: Path) -> None:
    """Write a tree that breaks no limit: ten rooms of one module of 300 lines, each with its test."""
    for number in range(10):
        write(root, {f"src/learnchain/room{number}/m.py": "x = 1\n" * 300, f"tests/room{number}/test_m.py": ""})


ONCE = "def f{0}():\n    pass\nf{0}()\n"
BREAKING: dict[str, dict[str, str]] = {
    "largest_room_share": {"src/learnchain/room0/m.py": "x = 1\n" * 900},
    "files_per_thousand_lines": {f"src/learnchain/room{number}/__init__.py": "x = 1\n" for number in range(10)},
    "import_share": {f"src/learnchain/room{number}/m.py": "import os\n" * 30 + "x = 1\n" * 270 for number in range(10)},
    "short_once_used_share": {"src/learnchain/room0/m.py": ONCE.format(0) + "x = 1\n" * 297},
    "class_names_twice": {f"src/learnchain/room{n}/m.py": "class C:\n    x = 1\n" + "x = 1\n" * 298 for n in (0, 1)},
    "vector_bytes": {"vectors/large.json": "x" * 2_000_001},
    "lines": {f"src/learnchain/room{number}/m.py": "x = 1\n" * 4_601 for number in range(10)},
    "cycles": {
        "src/learnchain/room0/m.py": "import learnchain.room1.m\n" + "x = 1\n" * 299,
        "src/learnchain/room1/m.py": "import learnchain.room0.m\n" + "x = 1\n" * 299,
    },
}


def test_a_good_tree_breaks_no_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good_tree(tmp_path)
    assert main(["--check", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


def test_each_limit_has_a_tree_that_breaks_it() -> None:
    assert BREAKING.keys() == LIMITS.keys()


@pytest.mark.parametrize("name", BREAKING)
def test_each_limit_is_broken_alone_and_named(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    good_tree(tmp_path)
    write(tmp_path, BREAKING[name])
    assert main(["--check", "--root", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"limit broken: {LIMITS[name][1]}: ")


def test_too_few_mirrored_modules_break_their_limit(tmp_path: Path) -> None:
    good_tree(tmp_path)
    (tmp_path / "tests/room0/test_m.py").unlink()
    assert broken_limits(measure(tmp_path)) == []
    (tmp_path / "tests/room1/test_m.py").unlink()
    assert broken_limits(measure(tmp_path)) == ["modules with a test of their name: 80.0 %, at least 85.0 %"]


def test_broken_limits_are_no_failure_unless_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good_tree(tmp_path)
    write(tmp_path, BREAKING["vector_bytes"])
    assert main(["--json", "--root", str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["vector_bytes"] == 2_000_001
    assert answer["broken_limits"] == ["bytes of vectors: 2,000,001, at most 2,000,000"]


def test_names_behind_the_figures_are_shown_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(tmp_path, a__one="class C:\n    pass\n", b__two="class C:\n    pass\n")
    main(["--root", str(tmp_path)])
    assert "a/one.py" not in capsys.readouterr().out
    main(["--verbose", "--root", str(tmp_path)])
    assert "C: a/one.py, b/two.py" in capsys.readouterr().out
