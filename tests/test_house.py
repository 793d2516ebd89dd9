"""What the house asks of every file: steps in order, short files, imperative docstrings, plain names, citations."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from learnchain.engines.contract import STEPS, Rules
from learnchain.protocol.training_terms import TrainingTerms
from learnchain_conformance.documents import ENGINES

SOURCE = Path(__file__).parent.parent / "src" / "learnchain"
FILES = sorted(SOURCE.rglob("*.py"))
FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|base(?!_fee)|common|misc)(_|$)|^_?get_")
NO_IMPERATIVE = re.compile(r"^(The|This|That|A|An|It|Returns|Gets|Sets|Raises|Writes|Reads|Checks|Function|Method)\b")
PAPERS = {
    *(("dlbc", "equation", number) for number in range(1, 8)),
    *(("baas", "equation", number) for number in range(1, 7)),
    ("pole", "equation", 1),
    ("pole", "equation", 2),
    *(("pole", "algorithm", number) for number in range(1, 4)),
}
"""What the papers number: fifteen equations and three algorithms, each carried out by one function."""


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


@pytest.mark.parametrize("engine", [engine for engine, _ in ENGINES], ids=lambda each: each.__name__)
def test_an_engine_answers_the_ten_questions_in_order(engine: type) -> None:
    public = [name for name in vars(engine) if name in STEPS]
    assert tuple(public) == STEPS
    asked = {name for name, value in vars(Rules).items() if not name.startswith("_") and callable(value)}
    answered = {name for name, value in vars(engine).items() if not name.startswith("_") and callable(value)}
    assert asked <= answered
    assert answered - asked == set(), "an engine answers the contract and nothing else"
    assert engine.__bases__ == (object,)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_names_say_what_things_are(path: Path) -> None:
    assert not FORBIDDEN_NAMES.search(path.stem)
    for node in functions(path):
        assert not FORBIDDEN_NAMES.search(node.name.lower()), f"{node.name} in line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_docstrings_begin_with_one_imperative_line(path: Path) -> None:
    for node in functions(path):
        text = ast.get_docstring(node)
        if text is None:
            continue
        first, *more = text.split("\n")
        assert not more or not more[0].strip(), f"line {node.lineno}: the first line is not the whole sentence"
        assert first.rstrip(".:?!") != first, f"line {node.lineno}: the first line ends without a stop"
        if not isinstance(node, ast.ClassDef):
            assert not NO_IMPERATIVE.match(first), f"line {node.lineno}: {first!r} is not imperative"


TERMS = {kind.__name__ for kind in get_args(TrainingTerms)}


def kinds_asked_for(source: str) -> set[str]:
    """Return the names of the types that `isinstance`, `type(...) is` or a `match` asks for."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            found.extend(node.args[1:])
        elif isinstance(node, ast.MatchClass):
            found.append(node.cls)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(each, ast.Call) and ast.unparse(each.func) == "type" for each in sides):
                found.extend(sides)
    names = [each for part in found for each in ast.walk(part)]
    return {each.id for each in names if isinstance(each, ast.Name)} | {
        each.attr for each in names if isinstance(each, ast.Attribute)
    }


@pytest.mark.parametrize(
    "asking",
    [
        "isinstance(terms, Watermark)",
        "isinstance(terms, int | training_terms.Watermark)",
        "type(terms) is Watermark",
        "match terms:\n    case Watermark():\n        pass",
    ],
)
def test_the_house_sees_who_asks_for_a_kind_of_terms(asking: str) -> None:
    assert "Watermark" in kinds_asked_for(asking)
    assert not kinds_asked_for("mark = terms.watermark or Watermark(bits, 1, 2)")


def test_training_terms_are_asked_what_they_demand_and_never_which_kind_they_are() -> None:
    asking = {
        relative(path): names
        for path in FILES
        if "engines" not in path.parts and path.name != "training_terms.py"
        if (names := kinds_asked_for(path.read_text()) & {*TERMS, "TrainingTerms", "LoopTerms"})
    }
    assert not asking


def cited() -> list[tuple[str, str, int]]:
    """Read citations from the source, so that nothing heavy is imported for them."""
    found: list[tuple[str, str, int]] = []
    for path in FILES:
        for node in functions(path):
            for mark in node.decorator_list:
                if (
                    isinstance(mark, ast.Call)
                    and isinstance(mark.func, ast.Name)
                    and mark.func.id in ("equation", "algorithm")
                ):
                    paper, number = (each.value for each in mark.args[:2] if isinstance(each, ast.Constant))
                    found.append((str(paper), mark.func.id, int(str(number))))
    return sorted(found)


def test_every_numbered_equation_is_carried_out_once() -> None:
    # An engine that was started as a copy cites under its own name until its own paper is read.
    papers = {paper for paper, _, _ in PAPERS}
    assert [each for each in cited() if each[0] in papers] == sorted(PAPERS)


@pytest.mark.parametrize(
    "module",
    ["learnchain.consensus", "learnchain.engines.dlbc", "learnchain.engines.pole", "learnchain_conformance.vectors"],
)
def test_rules_and_vectors_do_not_load_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=200)
