"""`learnchain lab`: protocols side by side, in virtual time, from one seed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from learnchain.cli.output import JsonOption, page, run_verb
from learnchain.rejection import Rejected, RejectionReason, Unavailable

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
    latency_seconds: Annotated[
        float, typer.Option(min=0, max=1, help="Mean one-way delay of the simulated network; 0 is a local one.")
    ] = 0.0,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the drawing to this SVG file.")] = None,
    real: Annotated[
        bool, typer.Option("--real", help="Run real processes in real time; no digest: the machine decides.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run every engine on the same seed, tasks and simulated machines; training and hashing are real."""

    def work() -> dict[str, Any]:
        from learnchain.engines.registry import find_engine, list_compared_engines
        from learnchain.simulation.comparison import svg

        engines = list(dict.fromkeys(engine or list_compared_engines()))
        for name in engines:
            find_engine(name)
        if real:
            if plot is not None or latency_seconds:
                raise Rejected(RejectionReason.ARGUMENT_INVALID, "--plot and --latency-seconds are for simulated runs")
            from learnchain.cli.real_comparison import compare_for_real

            return compare_for_real(engines, blocks, miners)
        if plot is not None:
            # Minutes of work must not end at a path that cannot be written.
            plot.parent.mkdir(parents=True, exist_ok=True)
            plot.touch()
        asked = {"engines": engines, "seed": seed, "blocks": blocks, "miners": miners}
        result = _run_comparison({**asked, "latency_milliseconds": round(1_000 * latency_seconds)}, as_json)
        if plot is not None:
            plot.write_text(svg(result))
        return result

    run_verb(as_json, work, _show)


def _run_comparison(asked: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Run in a process whose hashes are not salted: sets must not be walked in another order the next time."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "learnchain.simulation"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        given, answered, told = process.stdin, process.stdout, process.stderr
        if given is None or answered is None or told is None:
            raise AssertionError("a process that was given pipes has them")
        try:
            given.write(json.dumps(asked))
            given.close()
            _follow(told, asked, quiet)
            # One line, written at the very end, when nothing is told any more.
            written = answered.read()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise Unavailable(f"a comparison: its process ended with code {process.returncode}; its trace stands above")
    result: dict[str, Any] = json.loads(written)
    return result


def _follow(lines: Iterable[str], asked: dict[str, Any], quiet: bool) -> None:
    """Show how far each engine is, and everything else that the process says, on standard error."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        bars = {name: progress.add_task(name, total=asked["blocks"], start=False) for name in asked["engines"]}
        for line in lines:
            try:
                told = json.loads(line)
                bar, height = bars[told["engine"]], int(told["height"])
            except (ValueError, KeyError, TypeError):
                progress.console.print(line.rstrip(), markup=False, soft_wrap=True)
                continue
            if not height:
                progress.start_task(bar)
                if progress.disable and not quiet:
                    console.print(f"{told['engine']}: {asked['blocks']} blocks in virtual time", markup=False)
            progress.update(bar, completed=height)


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
    ("late solutions per block", lambda each: f"{each['late_solutions_per_block']:.2f}"),
    ("stale work", lambda each: f"{100 * each['stale_share']:.1f} %"),
    ("training share", lambda each: f"{100 * each['training_share']:.1f} %"),
    ("evaluations per block, all nodes", lambda each: f"{each['evaluations_per_block']:.2f}"),
    ("measurements per block, all nodes", lambda each: f"{each['measurements_per_block']:.2f}"),
    ("Gini of rewards", lambda each: f"{each['reward_gini']:.3f}"),
)

_SIMULATED_ONLY = frozenset(
    {
        "of it until the release, s",
        "variation until the release",
        "reorganisations",
        "late solutions per block",
        "training share",
        "Gini of rewards",
    }
)

_REAL_ONLY: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("training share of winners", lambda each: f"{100 * each['training_share']:.1f} %"),
    ("Gini of won blocks", lambda each: f"{each['reward_gini']:.3f}"),
    ("all nodes agree, coins conserved", lambda each: f"{each['agree']}, {each['conserved']}"),
)

_REAL_ROWS = (*(row for row in _ROWS if row[0] not in _SIMULATED_ONLY), *_REAL_ONLY)
