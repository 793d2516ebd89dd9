"""Answer every verb the same way: a page for people or one JSON envelope, and an exit code that says which family.

The envelope is `{"success": bool, "data": ..., "error": null | {"reason", "detail", "what_to_do"}}`; with `--json` it
is the only thing on standard output. `docs/cli.md` lists the exit codes.
"""

import contextlib
import errno
import json
import logging
import sys
from collections.abc import Callable
from decimal import Context, Decimal
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from learnchain.rejection import Rejected, Unavailable

logger = logging.getLogger(__name__)
Data = TypeVar("Data")


class ExitCode(IntEnum):
    """Say how a command ended."""

    OK = 0
    REJECTED = 1
    USAGE = 2
    UNAVAILABLE = 3
    BUG = 4
    INTERRUPTED = 130


JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON envelope on standard output.")]
RpcOption = Annotated[str | None, typer.Option("--rpc", help="Address of a node's JSON-RPC server.")]

DataDirectoryOption = Annotated[
    Path, typer.Option("--data-dir", help="Directory of a local network or of one node.", file_okay=False)
]

PLAIN_WIDTH = 160
"""Columns of tables in files and pipes, which have no width of their own."""

LOCAL_DIRECTORY = Path(".learnchain/local")

_EXACT = Context(prec=100)
"""Amounts are shown as they are: a binary float would round beyond 2^53, and fail beyond its largest number."""

_WHAT_TO_DO = {
    "argument_invalid": "Correct the value that the detail names; `--help` on the verb lists all options.",
    "malformed": "Check the file or text against docs/cli.md; it is not in the form that is expected.",
    "too_large": "Ask for less at once, or give a smaller file.",
    "wrong_signature": "Point --data-dir at the directory of the node that you call; its admin.token lies there.",
    "wrong_chain": "Use the genesis.json of the network that this data directory belongs to.",
    "wrong_hash": "The content was changed on its way; fetch it again from another node.",
    "task_number_out_of_range": "Correct the number in the task file; README.md shows a task that works.",
    "model_layer_unknown": "Use a preset or one of the layers of docs/cli.md in the table [model].",
    "model_shape_mismatch": "Make the shapes of connected layers fit.",
    "model_too_large": "Choose a smaller model: the chain bounds parameters, layers and FLOPs.",
    "encryption_unsuitable": "Use encryption = symmetric, or PoLe with a flat model of few inputs; docs/encryption.md.",
    "leak_budget_spent": "Post new rows: what these may give away is given away; docs/encryption.md.",
    "reward_too_low": "Raise reward_ether in the task file.",
    "bond_too_low": "Raise bond_ether in the task file.",
    "transaction_invalid": "Check the account's balance with `learnchain wallet balance` and send again.",
    "execution_reverted": "The contract refused the call; the detail names its error.",
    "method_unknown": "Update the node, or call a node of this version.",
    "call_aborted": "Give the call less gas or a smaller range, or run it on a node of your own with more time.",
    "filter_unknown": "Create the filter again: one that nobody polls for five minutes is forgotten.",
    "rate_limited": "Wait a little and try again; docs/wallets.md lists the limits.",
    "wrong_height": "Ask for a height that exists; `learnchain chain show` names the head.",
    "task_unknown": "Take an identifier from `learnchain task list`; its first digits are enough.",
}

_DEFAULT_ADVICE = "docs/reasons.md explains the reason; the detail names what broke the rule."

_UNAVAILABLE_ADVICE = (
    "Bring what the detail names, or wait until it is free, and try again; node logs lie in the data directory."
)

_SURROUNDINGS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EADDRINUSE, errno.EADDRNOTAVAIL),
    }
)
"""Failures of the operating system that say something of the machine and of paths, not of this program."""

_SURROUNDINGS_ADVICE = "Check the path, its permissions and the free space of what the detail names, and try again."


class MissingData(Unavailable):
    """Say what is not here together with the next step, where the family's advice would mislead."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.advice = advice


def run_verb(as_json: bool, work: Callable[[], Data], show: Callable[[Data], None]) -> None:
    """Carry out a verb: show its data to a person, or print the envelope, and exit with the family's code."""
    try:
        # Whatever a library prints meanwhile must not spoil the one envelope.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            data = work()
    except Rejected as error:
        exit_with_failure(as_json, ExitCode.REJECTED, error.reason.value, error.detail)
    except MissingData as error:
        exit_with_failure(as_json, ExitCode.UNAVAILABLE, "unavailable", error.what, error.advice)
    except Unavailable as error:
        exit_with_failure(as_json, ExitCode.UNAVAILABLE, "unavailable", error.what)
    except KeyboardInterrupt:
        exit_with_failure(as_json, ExitCode.INTERRUPTED, "interrupted", "stopped from the keyboard")
    except (typer.Exit, typer.BadParameter, BrokenPipeError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
            named = f": {error.filename}" if error.filename is not None else ""
            detail = f"{(error.strerror or 'the operating system refuses').lower()}{named}"
            exit_with_failure(as_json, ExitCode.UNAVAILABLE, "unavailable", detail, _SURROUNDINGS_ADVICE)
        # The last place where a fault of our own can be told to a person and to a program alike.
        logger.exception("a fault of our own")
        exit_with_failure(as_json, ExitCode.BUG, "bug", f"{type(error).__name__}: {error}")
    else:
        if as_json:
            write_envelope({"success": True, "data": data, "error": None})
        else:
            show(data)


def exit_with_failure(as_json: bool, code: ExitCode, reason: str, detail: str, advice: str = "") -> None:
    """Report a failure with what to do about it, and exit."""
    advice = advice or what_to_do(code, reason)
    if as_json:
        error = {"reason": reason, "detail": detail, "what_to_do": advice}
        write_envelope({"success": False, "data": None, "error": error})
    else:
        errors = Console(stderr=True, soft_wrap=True, highlight=False)
        errors.print(f"[bold red]{reason}[/]: ", end="")
        errors.print(detail, markup=False)
        errors.print(advice, markup=False)
    raise typer.Exit(int(code))


def what_to_do(code: ExitCode, reason: str) -> str:
    """Return the next step after a failure."""
    fixed = {
        ExitCode.USAGE: "Run the command with --help.",
        ExitCode.UNAVAILABLE: _UNAVAILABLE_ADVICE,
        ExitCode.BUG: "This is a fault of the program: please report it with the trace on standard error.",
        ExitCode.INTERRUPTED: "Run the command again; what was finished is kept.",
    }
    return fixed.get(code) or _WHAT_TO_DO.get(reason, _DEFAULT_ADVICE)


def write_envelope(envelope: dict[str, Any]) -> None:
    """Write one envelope on one line."""
    sys.stdout.write(json.dumps(envelope, default=str) + "\n")
    sys.stdout.flush()


def page() -> Console:
    """Return the console that people read: standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH, soft_wrap=True)


def ether(wei: int) -> str:
    """Return an amount for people, in ether with four places."""
    return f"{_EXACT.divide(Decimal(wei), Decimal(10**18)):,.4f}"
