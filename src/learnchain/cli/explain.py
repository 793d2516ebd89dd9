"""`learnchain explain`: from an equation or algorithm of a paper to the code that carries it out, and a number."""

import importlib.util
import inspect
import json
import re
from importlib import resources
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

_PACKAGE = Path(str(resources.files("learnchain")))


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
    importlib.import_module(_module_of_equations(engine))
    found = _list_citations(engine)
    if not found:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{engine} follows no numbered equation; see docs/engines.md")
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


def _module_of_equations(engine: str) -> str:
    return "learnchain.learning.fusion" if engine == MARKET else f"{_package_of(engine)}.rules"


def _package_of(paper: str) -> str:
    """Return the package of an engine, in this one or a plug-in, or of the market."""
    # Loaded here alone: engines bring the whole protocol, and `learnchain --help` has to be quick.
    from learnchain.engines.registry import find_engine

    return "learnchain.market" if paper == MARKET else find_engine(paper).package


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
    """Return a path from the root of the checkout; of an installed package it is absolute."""
    is_checkout = _PACKAGE.parent.name == "src" and path.is_relative_to(_PACKAGE)
    return str(path.relative_to(_PACKAGE.parents[1])) if is_checkout else str(path)


def _vector(citation: Citation) -> dict[str, Any] | None:
    """Return the first case of the vector, which is in the package of what it shows."""
    name = f"vectors/{_vector_name(citation)}"
    file = resources.files(_package_of(citation.paper)) / name
    if not file.is_file():
        return None
    cases = json.loads(file.read_text())["cases"]
    first = {key: cases[0][key] for key in ("step", "given", "expected")}
    return {"file": _format_path(Path(str(file))), "cases": len(cases), **first}


def _vector_name(citation: Citation) -> str:
    return f"{citation.kind}s/{citation.number}.json"


def _readings(citation: Citation, docstring: str) -> list[dict[str, str]]:
    name = f"{_package_of(citation.paper)}.{'terms' if citation.paper == MARKET else 'interpretations'}"
    if importlib.util.find_spec(name) is None:
        return []
    prefix = citation.paper.upper().replace("_", "-")
    named = {f"{prefix}-{each}" for each in re.findall(r"\bR\d+", docstring)}
    # "Equations 5,7", "Eq. 1 and 5", "Eq. 2-3": the number as a word after the name of the thing.
    called = r"Eq(?:uations?|\.)[^.;]*?" if citation.kind == EQUATION else r"Algorithms? (?:\d(?:, | and ))*"
    mentions = re.compile(rf"\b{called}\b{citation.number}\b")
    found: list[dict[str, str]] = []
    for each in importlib.import_module(name).INTERPRETATIONS:
        is_shown = each.identifier in named or each.vector == _vector_name(citation)
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
            given = ", ".join(f"{key} = {value}" for key, value in vector["given"].items())
            result = ", ".join(str(value) for value in vector["expected"].values())
            console.print(f"  {vector['file']}: {given} -> {result}", markup=False, soft_wrap=True)
        for reading in each["readings"]:
            console.print(f"  [bold]{reading['identifier']}[/] {escape(reading['we_do'])}", soft_wrap=True)
