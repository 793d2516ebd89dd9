"""What the walk rests on by name is in the tree, so that a rename is noticed here and not when the walk runs."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import walk


@pytest.mark.parametrize("boundary", [walk.COMMITMENT_BEGINS, walk.COMMITMENT_DECIDED], ids=lambda each: each[1])
def test_the_boundaries_are_functions_of_the_package(boundary: tuple[str, str]) -> None:
    file, name = boundary
    functions = [
        node.name
        for path in walk.SOURCE.rglob(file)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert functions.count(name) == 1


@pytest.mark.parametrize("part", [walk.NODES, walk.RUN, walk.PLAN, walk.TASKS], ids=lambda each: each[1])
def test_the_parts_of_the_network_are_in_one_module_each(part: tuple[str, str]) -> None:
    module, name = part
    (path,) = walk.SOURCE.rglob(f"{module}.py")
    defined = {
        target
        for node in ast.parse(path.read_text()).body
        for target in (
            [node.name]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
        )
    }
    assert name in defined


def compiled(source: Path, file: str, text: str) -> dict[str, Callable[[], None]]:
    names: dict[str, Callable[[], None]] = {}
    exec(compile(text, str(source / file), "exec"), names)
    return names


def test_functions_are_counted_while_their_window_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "SOURCE", tmp_path)
    carried = compiled(tmp_path, "room/wire.py", "def send():\n    pass\ndef before():\n    pass\n")
    miner = compiled(
        tmp_path,
        "miner.py",
        "def send_commitment():\n    pass\ndef propose_block():\n    pass\ndef after():\n    pass\n",
    )
    foreign = compiled(tmp_path.parent, "other.py", "def stranger():\n    pass\n")
    profile = walk.Profile()
    outer = sys.getprofile()
    profile.begin()
    carried["before"]()
    miner["send_commitment"]()
    profile.open_task()
    miner["send_commitment"]()
    profile.await_commitment()
    miner["after"]()
    miner["send_commitment"]()
    for _ in range(2):
        carried["send"]()
    foreign["stranger"]()
    miner["propose_block"]()
    miner["after"]()
    profile.close_task()
    carried["before"]()
    profile.end()
    sys.setprofile(outer)
    assert profile.task.figures() == {"files": 2, "functions": 4, "entered": ["miner.py", "room/wire.py"]}
    assert {code.co_name for code in profile.commitment.codes} == {"send_commitment", "send", "propose_block"}
    assert not profile.commitment.is_open
