"""`learnchain lab`: protocols side by side, in virtual time, from one seed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from learnchain.cli.answers import JsonOption, answer, page
from learnchain.primitives.rejection import Unavailable

application = typer.Typer(help="Compare protocols on simulated networks.", no_args_is_help=True)


@application.callback()
def lab() -> None:
    """Compare protocols on simulated networks."""


@application.command("compare")
def compare(
    *,
    engine: Annotated[
        list[str] | None, typer.Option(help="An engine to compare, repeatable; all of them if none is named.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Everything follows from it: one seed, one digest.")] = 7,
    blocks: Annotated[int, typer.Option(min=2, max=1_000, help="Blocks to run for each engine.")] = 50,
    miners: Annotated[int, typer.Option(min=1, max=16, help="Miners of equal power.")] = 3,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the drawing to this SVG file.")] = None,
    real: Annotated[
        bool, typer.Option("--real", help="Run real processes in real time; no digest: the machine decides.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run every engine on the same seed, tasks and simulated machines; training and hashing are real."""

    def work() -> dict[str, Any]:
        from learnchain.lab.plot import svg
        from learnchain.node.engines import ENGINES, engine_named

        engines = list(engine or (name for name, each in ENGINES.items() if not each.variant))
        for name in engines:
            engine_named(name)
        if real:
            from learnchain.cli.real_comparison import compared_for_real

            return compared_for_real(engines, blocks, miners)
        result = _compared({"engines": engines, "seed": seed, "blocks": blocks, "miners": miners})
        if plot is not None:
            plot.write_text(svg(result))
        return result

    answer(as_json, work, _show)


def _compared(asked: dict[str, Any]) -> dict[str, Any]:
    """Run in a process whose hashes are not salted: sets must not be walked in another order the next time."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "learnchain.lab"]
    done = subprocess.run(
        command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, env=environment, check=False
    )
    if done.returncode:
        raise Unavailable(f"a comparison: its process ended with code {done.returncode}; its trace stands above")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _show(data: dict[str, Any]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("")
    for each in data["reports"]:
        table.add_column(each["engine"], justify="right")
    for title, read in _REAL_ROWS if data.get("real") else _ROWS:
        table.add_row(title, *(read(each) for each in data["reports"]))
    page().print(table)
    if data.get("real"):
        machine = data["machine"]
        page().print(f"real processes on {machine['cores']} cores, load {machine['load_one_minute']}", markup=False)
    else:
        page().print(f"digest {data['digest']}", markup=False)


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("blocks (of them empty)", lambda each: f"{each['blocks']} ({each['empty_blocks']})"),
    ("interval mean, s", lambda each: f"{each['intervals']['mean_seconds']:.3f}"),
    ("interval variance, s²", lambda each: f"{each['intervals']['variance_seconds_squared']:.3f}"),
    ("interval variation", lambda each: f"{100 * each['intervals']['variation']:.1f} %"),
    ("of it until the release, s", lambda each: f"{each['until_release']['mean_seconds']:.3f}"),
    ("variation until the release", lambda each: f"{100 * each['until_release']['variation']:.1f} %"),
    ("forks", lambda each: str(each["forks"])),
    ("reorganisations", lambda each: str(each["reorganisations"])),
    ("stale work", lambda each: f"{100 * each['stale_share']:.1f} %"),
    ("training share", lambda each: f"{100 * each['training_share']:.1f} %"),
    ("evaluations per block, all nodes", lambda each: f"{each['evaluations_per_block']:.2f}"),
    ("measurements per block, all nodes", lambda each: f"{each['measurements_per_block']:.2f}"),
    ("Gini of rewards", lambda each: f"{each['reward_gini']:.3f}"),
)


def _share(each: dict[str, Any]) -> str:
    return f"{100 * each['training_share']:.1f} %"


def _gini(each: dict[str, Any]) -> str:
    return f"{each['reward_gini']:.3f}"


def _sound(each: dict[str, Any]) -> str:
    return f"{each['agree']}, {each['conserved']}"


_SIMULATED_ONLY = frozenset(
    {
        "of it until the release, s",
        "variation until the release",
        "reorganisations",
        "training share",
        "Gini of rewards",
    }
)
_REAL_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    *(row for row in _ROWS if row[0] not in _SIMULATED_ONLY),
    ("training share of winners", _share),
    ("Gini of won blocks", _gini),
    ("all nodes agree, coins conserved", _sound),
)
