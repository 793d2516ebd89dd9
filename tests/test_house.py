"""What the house asks of all files: short files, plain names, docstrings of one sentence, steps in order, citations."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from learnchain.engines.contract import STEPS, Rules
from learnchain_conformance.documents import ENGINES

SOURCE = Path(__file__).parent.parent / "src" / "learnchain"
FILES = sorted(SOURCE.rglob("*.py"))
LONG_FILES = frozenset(
    {
        "api/explorer.py",
        "benchmarks/audit_market.py",
        "benchmarks/encryption.py",
        "consensus/audits.py",
        "encoding/codec.py",
        "engines/podl/rules.py",
        "engines/pole/cases.py",
        "engines/pole/rules.py",
        "execution/engine_api.py",
        "execution/pyevm/transactions.py",
        "market/contract.py",
        "network/multiplexer.py",
        "network/network.py",
        "network/peers.py",
        "node/roles/miner.py",
        "protocol/messages.py",
        "protocol/model_specification.py",
        "protocol/state.py",
        "simulation/chain_builder.py",
        "tasks/publishing.py",
        "storage/archive.py",
    }
)
"""Subjects that are one and need more than 400 lines; 600 is the limit for these."""
FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|base(?!_fee)|common|misc)(_|$)|^_?get_")
BANNED_WORDS = """
absent accepted accused admitted altered answered asked assigned audited awaited begun booked bounded
called cancelled carried changed charged checked chosen citable cited citing claimed closed combined commissioned
committed compared computed continued contradicted convolved copied counted credited dealt decided decoded
decompressed dialled differing disclosed discretised disputed done doubled drawn due encrypted equalising escaped
examined executed expected expired explained failed fetched finished fitted forfeited forged found founded fused
gathered given going grouped harmless hashed held impatient imported indexed inherited initialised inverted judged
kept known laid late learning linked listed loaded lost made malformed mapped measured merged missed missing moved
named negated nobody normalised noted noun offered opened ordered outlying owed own packed paid parsed passed
patiently planned played posted prefetched prepared promised proposed proud proven pruned published punished
quantised quoted raised ranked reached read_in ready reasoned refused registered released relieved remapped
remembered renamed reopened repeated replayed reported resealed resigned resized retried returned revealed rounded
said scored sealed seated seen sent served settled shifted shown signed simulated slashed solved solving specified
spent stacked stalled started stolen stretched struck supervised surplus tagged taken tasked tidied together told
torn trained transacted twice unmapped unmeasured unpacked unselected unsolved untrained verified waiting waiving
walked wanted watched windowed without won written wrong
"""
BANNED_FUNCTIONS = frozenset(BANNED_WORDS.split())
"""Participles and other words that do not say what a function does: `kept` for `retain_valid`, `told` for `report`."""
PARTICIPLE = re.compile(r"(ed|en)$|^(found|held|kept|lost|made|paid|said|sent|shown|taken|told|torn|won|drawn|known)$")
ALLOWED_FUNCTIONS = {"tagged_hash", "malformed_error"}
"""A hash with a tag is the field's word; an error is named by what it says."""
LEFT_AS_THEY_ARE = (
    "encryption/functional/lane_code.py",
    *(f"learning/disputes/{name}.py" for name in ("bounds", "reference", "reference_layers", "reference_products")),
    "learning/disputes/settling.py",
)
"""Files with a notation of their own: generated arithmetic, and bounds that are going to be deleted whole."""
VAGUE = frozenset({"found", "known", "place"})
"""What says nothing of the thing it names, as a parameter, an attribute or a function."""
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


@cache
def functions(path: Path) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, ...]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return tuple(node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef))


@pytest.mark.parametrize("engine", [engine for engine, _ in ENGINES], ids=lambda each: each.__name__)
def test_an_engine_answers_the_ten_questions_in_order(engine: type) -> None:
    public = [name for name in vars(engine) if name in STEPS]
    assert tuple(public) == STEPS
    asked = {name for name, value in vars(Rules).items() if not name.startswith("_") and callable(value)}
    answered = {name for name, value in vars(engine).items() if not name.startswith("_") and callable(value)}
    assert asked <= answered
    assert answered - asked == set(), "an engine answers the contract and nothing else"
    assert engine.__bases__ == (object,)


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in FILES}
    assert [f"{path}: {length} lines" for path, length in lengths.items() if length > 600] == []
    assert [path for path, length in lengths.items() if length > 400 and path not in LONG_FILES] == []


def test_names_say_what_things_are() -> None:
    offenders = [relative(path) for path in FILES if FORBIDDEN_NAMES.search(path.stem)]
    for path in FILES:
        for node in functions(path):
            reason = name_offence(path, node)
            offenders += [f"{relative(path)}:{node.lineno}: {node.name}: {reason}"] if reason else []
    assert offenders == []


def test_the_first_line_of_a_docstring_is_one_sentence() -> None:
    offenders: list[str] = []
    for path in FILES:
        for node in functions(path):
            first, *more = (ast.get_docstring(node) or ".").split("\n")
            if (more and more[0].strip()) or first.rstrip(".:?!") == first:
                offenders.append(f"{relative(path)}:{node.lineno}: {first!r}")
    assert offenders == []


def name_offence(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str | None:
    """Return what is wrong with the name of a function or class, or of what it takes and holds."""
    if FORBIDDEN_NAMES.search(node.name.lower()):
        return "forbidden word"
    if isinstance(node, ast.ClassDef):
        fields = (each.target for each in node.body if isinstance(each, ast.AnnAssign))
        vague = VAGUE & {each.id for each in fields if isinstance(each, ast.Name)}
        return f"attribute {', '.join(sorted(vague))}" if vague else None
    if relative(path) in LEFT_AS_THEY_ARE:
        return None
    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    vague = VAGUE & {each.arg for each in arguments}
    if vague:
        return f"parameter {', '.join(sorted(vague))}"
    name = node.name.lstrip("_")
    first, *more = name.split("_")
    if name in BANNED_FUNCTIONS | VAGUE - {"place"}:
        return "says no action"
    is_property = any(ast.unparse(mark).endswith("property") for mark in node.decorator_list)
    if more and first in BANNED_FUNCTIONS and PARTICIPLE.search(first) and not is_property:
        return None if name in ALLOWED_FUNCTIONS else "begins with a participle"
    return None


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
