"""`learnchain bench`: figures that are always taken beside their anchor, in one run."""

import importlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial, update_wrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from learnchain.cli.output import JsonOption, page, run_verb
from learnchain.rejection import Rejected, RejectionReason, Unavailable

REGISTERS = (
    "learnchain.benchmarks.training",
    "learnchain.benchmarks.replay",
    "learnchain.benchmarks.audit_market",
    "learnchain.benchmarks.network",
    "learnchain.benchmarks.execution",
    "learnchain.benchmarks.assurance",
)
"""Modules with a `BENCHMARKS` table; a room that measures itself is one more name here."""

WITH_PEERS = ("learnchain.benchmarks.encryption",)
"""Modules with a `BENCHMARKS_WITH_PEERS` table: they measure against programs that the caller names, if here."""

Benchmark = Callable[[], dict[str, Any]]


def bench(
    name: Annotated[str, typer.Argument(metavar="list|NAME", help="`list`, a benchmark's name, or `all`.")] = "list",
    peers: Annotated[
        list[str] | None, typer.Option("--with", metavar="PEER=PATH", help="A peer's program or a data file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the benchmarks, or run one (about a minute each): every figure stands beside its anchor."""
    if name == "list":
        run_verb(as_json, _list_benchmarks, _show_list)
    else:
        run_verb(as_json, lambda: _run_benchmark(name, peers or []), _show)


def _load_registers(peers: dict[str, Path]) -> dict[str, Benchmark]:
    found: dict[str, Benchmark] = {}
    for each in REGISTERS:
        found.update(importlib.import_module(each).BENCHMARKS)
    for each in WITH_PEERS:
        # A room that is an optional extra may not be here.
        with suppress(Unavailable):
            for name, measure in importlib.import_module(each).BENCHMARKS_WITH_PEERS.items():
                found[name] = update_wrapper(partial(measure, peers), measure)
    return found


def _list_benchmarks() -> dict[str, Any]:
    known = sorted(_load_registers({}).items())
    return {"benchmarks": [{"name": name, "what": (measure.__doc__ or "").strip()} for name, measure in known]}


def _read_peers(peers: list[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for peer in peers:
        called, separator, path = peer.partition("=")
        if not separator:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{peer!r} is not PEER=PATH")
        paths[called] = Path(path)
    return paths


def _run_benchmark(name: str, peers: list[str]) -> dict[str, Any]:
    paths = _read_peers(peers)
    known = _load_registers(paths)
    if name == "all":
        return {"results": [known[each]() for each in sorted(known)]}
    if name not in known:
        detail = f"there is no benchmark {name!r}; known: {', '.join(sorted(known))}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    if paths and not isinstance(known[name], partial):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{name} measures against nothing that --with could name")
    return {"results": [known[name]()]}


def _show_list(data: dict[str, Any]) -> None:
    for each in data["benchmarks"]:
        page().print(f"{each['name']:<28}{each['what']}", markup=False, soft_wrap=True)


def _show(data: dict[str, Any]) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("benchmark", "what", "value", "unit", "ratio", "against"):
        table.add_column(title)
    for result in data["results"]:
        for each in result["figures"]:
            name = f"{result['name']} (synthetic)" if result.get("synthetic") else result["name"]
            table.add_row(name, each["what"], str(each["value"]), each["unit"], str(each["ratio"]), each["against"])
    page().print(table)
