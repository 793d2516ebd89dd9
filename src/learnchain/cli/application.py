"""Join all verbs into one program: noun verb, `--json` everywhere, documented exit codes."""

import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from learnchain.cli import (
    bench,
    chain,
    data,
    doctor,
    explain,
    lab,
    market,
    model,
    new,
    node,
    task,
    up,
    wallet,
    why,
)
from learnchain.cli.output import ExitCode, exit_with_failure

_UsageError = typer.BadParameter.__bases__[0]


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"learnchain {importlib.metadata.version('learnchain')}\n")
        raise typer.Exit


application = typer.Typer(
    help="A blockchain whose blocks are won by training models that somebody asked and paid for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@application.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take options that belong to no verb."""


application.command("up")(up.up)


application.add_typer(node.application, name="node")


application.command("miner")(node.miner)


application.command("audit")(node.audit)


application.add_typer(task.application, name="task")


application.add_typer(data.application, name="data")


application.add_typer(model.application, name="model")


application.add_typer(chain.application, name="chain")


application.add_typer(market.application, name="market")


application.add_typer(lab.application, name="lab")


application.add_typer(new.application, name="new")


wallet.application.add_typer(wallet.bond_application, name="bond")


application.add_typer(wallet.application, name="wallet")


application.command("explain")(explain.explain)


application.command("bench")(bench.bench)


application.command("doctor")(doctor.doctor)


application.add_typer(why.application, name="why")


def run(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and exit; a wrong one is reported like any other failure."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_exit_code(given))


def _exit_code(given: list[str]) -> int:
    try:
        code = application(given, prog_name="learnchain", standalone_mode=False)
        return code if isinstance(code, int) else ExitCode.OK
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # The page was printed already.
            return ExitCode.USAGE
        return _report_failure("--json" in given, ExitCode.USAGE, "usage", _text(error))
    except (KeyboardInterrupt, typer.Abort):
        return _report_failure("--json" in given, ExitCode.INTERRUPTED, "interrupted", "stopped from the keyboard")
    except BrokenPipeError:
        # Whoever read the output has gone: nothing is left to say.
        sys.stderr.close()
        return ExitCode.OK


def _report_failure(as_json: bool, code: ExitCode, reason: str, detail: str) -> int:
    try:
        exit_with_failure(as_json, code, reason, detail)
    except typer.Exit as leaving:
        return leaving.exit_code
    return code


def _text(error: Exception) -> str:
    """Return a usage error's message; help pages are raised as errors too and carry their text."""
    formatted = getattr(error, "format_message", None)
    return str(formatted() if callable(formatted) else error)
