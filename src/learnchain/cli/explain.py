"""`learnchain explain`: from an equation or algorithm of a paper to the code that carries it out, and a number."""

import importlib.util
import inspect
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from learnchain.cli.output import JsonOption, page, run_verb
from learnchain.protocol.citations import Citation, citations
from learnchain.rejection import Rejected, RejectionReason

LATE_MODULES = ("learnchain.learning.watermark", "learnchain.encryption.functional.decryption")
"""Where equations live that need torch or compiled code: loaded only when an engine's own modules lack the number."""


EQUATION = "equation"


MARKET = "baas"
"""The paper that is no engine: its equations are the market's way to fuse models."""


_REPOSITORY = Path(__file__).resolve().parents[3]


def explain(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="An engine, such as dlbc; or baas, the market.")],
    number: Annotated[
        int | None, typer.Argument(metavar="NUMBER", help="Of the equation or algorithm; without one, list all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print an equation or algorithm, the function that carries it out, a vector, and the readings that concern it."""
    run_verb(as_json, lambda: _find_explanations(engine, number), _show)


def _find_explanations(engine: str, number: int | None) -> dict[str, Any]:
    importlib.import_module(_equations_module(engine))
    if engine != MARKET:
        importlib.import_module(f"learnchain.engines.{engine}")
    found = _list_citations(engine)
    if number is None or number not in {each.number for each in found if each.kind == EQUATION}:
        for name in LATE_MODULES:
            importlib.import_module(name)
        found = _list_citations(engine)
    chosen = [each for each in found if number is None or each.number == number]
    if not chosen:
        numbers = ", ".join(f"{each.kind} {each.number}" for each in found)
        detail = f"{engine} has neither equation nor algorithm {number}; it has {numbers}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    return {"engine": engine, "equations": [_explanation(each) for each in chosen]}


def _equations_module(engine: str) -> str:
    if engine == MARKET:
        return "learnchain.learning.fusion"
    if not engine.isidentifier() or importlib.util.find_spec(f"learnchain.engines.{engine}") is None:
        known = ", ".join([*sorted(each.name for each in (_REPOSITORY / "src/learnchain/rules").glob("*/")), MARKET])
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"there is no engine {engine!r}; known: {known}")
    if importlib.util.find_spec(f"learnchain.engines.{engine}.equations") is None:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{engine} follows no numbered equation; see docs/engines.md")
    return f"learnchain.engines.{engine}.equations"


def _list_citations(engine: str) -> list[Citation]:
    return sorted(
        (each for each in citations() if each.paper == engine), key=lambda each: (each.kind != EQUATION, each.number)
    )


def _explanation(citation: Citation) -> dict[str, Any]:
    function = inspect.unwrap(getattr(importlib.import_module(citation.module), citation.function))
    file, (_, line) = inspect.getsourcefile(function) or "", inspect.getsourcelines(function)
    docstring = inspect.getdoc(function) or ""
    return {
        "kind": citation.kind,
        "number": citation.number,
        "formula": citation.formula,
        "function": f"{citation.module}.{citation.function}",
        "signature": f"{citation.function}{inspect.signature(function)}",
        "source": f"{_format_path(Path(file))}:{line}",
        "docstring": docstring,
        "vector": _vector(citation),
        "readings": _readings(citation, docstring),
    }


def _format_path(path: Path) -> str:
    return str(path.relative_to(_REPOSITORY)) if path.is_relative_to(_REPOSITORY) else str(path)


def _vector(citation: Citation) -> dict[str, Any] | None:
    """Return the first case of the vector; an installed package carries none."""
    path = _REPOSITORY / "vectors" / citation.paper / f"{citation.kind}s" / f"{citation.number}.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    case = content["cases"][0]
    return {
        "file": _format_path(path),
        "cases": len(content["cases"]),
        "input": case["input"],
        "expected": case["expected"],
    }


def _readings(citation: Citation, docstring: str) -> list[dict[str, str]]:
    engine = f"learnchain.engines.{citation.paper}"
    name = "learnchain.market.terms" if citation.paper == MARKET else f"{engine}.interpretations"
    if importlib.util.find_spec(name) is None:
        return []
    prefix = citation.paper.upper().replace("_", "-")
    named = {f"{prefix}-{each}" for each in re.findall(r"\bR\d+", docstring)}
    # "Equations 5,7", "Eq. 1 and 5", "Eq. 2-3": the number as a word after the name of the thing.
    called = r"Eq(?:uations?|\.)[^.;]*?" if citation.kind == EQUATION else r"Algorithms? (?:\d(?:, | and ))*"
    mentions = re.compile(rf"\b{called}\b{citation.number}\b")
    shared = f"{citation.paper}/{citation.kind}s/{citation.number}.json"
    found: list[dict[str, str]] = []
    for each in importlib.import_module(name).INTERPRETATIONS:
        is_shown = each.identifier in named or each.vector == shared
        if is_shown or mentions.search(f"{each.paper_says} {each.we_do}"):
            texts = {"identifier": each.identifier, "paper_says": each.paper_says, "we_do": each.we_do}
            found.append({**texts, "because": each.because, "vector": each.vector})
    return found


def _show(data: dict[str, Any]) -> None:
    console = page()
    for each in data["equations"]:
        console.print(f"[bold]{data['engine']} {each['kind']} {each['number']}[/]")
        console.print(f"  {each['formula']}", markup=False, soft_wrap=True)
        console.print(f"  {each['source']}  {each['signature']}", markup=False, soft_wrap=True)
        for line in each["docstring"].splitlines():
            console.print(f"  {line}", markup=False, soft_wrap=True)
        vector = each["vector"]
        if vector is not None:
            given = ", ".join(f"{key} = {value}" for key, value in vector["input"].items())
            result = ", ".join(str(value) for value in vector["expected"].values())
            console.print(f"  {vector['file']}: {given} -> {result}", markup=False, soft_wrap=True)
        for reading in each["readings"]:
            console.print(f"  [bold]{reading['identifier']}[/] {escape(reading['we_do'])}", soft_wrap=True)
