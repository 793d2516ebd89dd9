"""`learnchain chain`: look at blocks, and check a whole store again from genesis."""

import asyncio
import dataclasses
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, RpcOption, page, run_verb
from learnchain.cli.rpc import NodeClient, client_for, layout_of
from learnchain.rejection import Rejected, RejectionReason

application = typer.Typer(help="Look at the chain and verify it.", no_args_is_help=True)


@application.command("show")
def show(
    height: Annotated[int | None, typer.Argument(help="A height; without one, the last blocks.")] = None,
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Show the last blocks of the head's branch, or everything about one."""
    run_verb(as_json, lambda: _blocks(client_for(rpc, data_dir), height), _show)


@application.command("verify")
def verify(
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    node: Annotated[int, typer.Option(min=0, help="Which node's store, in a local network.")] = 0,
    level: Annotated[
        str,
        typer.Option(
            help="headers: all but the models; accuracy: every model counted again; replay: random segments of every "
            "training again; full: all training again."
        ),
    ] = "accuracy",
    segments: Annotated[
        int, typer.Option(min=0, help="At replay level, how many segments of each trace; 0 is a twentieth.")
    ] = 0,
    only_quote: Annotated[bool, typer.Option("--quote", help="Only say what it will cost and prove.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every block of a store again: release, selection, exact count, watermark, signature, money, escrow.

    Stop the node first: one process owns a store.
    """
    if only_quote:
        run_verb(
            as_json,
            lambda: asyncio.run(_estimate_verification(_verifier(data_dir, node, level, segments))),
            _show_quote,
        )
        return
    run_verb(
        as_json,
        lambda: asyncio.run(_run_verification(_verifier(data_dir, node, level, segments), as_json)),
        _show_checks,
    )


def _blocks(client: NodeClient, height: int | None) -> dict[str, Any]:
    network = client.call("learn_network")
    head = client.call("learn_status")["head"]
    if height is not None:
        return {"network": network, "head": head, "single": True, "blocks": [client.call("learn_block", height)]}
    return {
        "network": network,
        "head": head,
        "single": False,
        "blocks": client.call("learn_blocks") if head["height"] else [],
    }


def _place(directory: Path, index: int) -> Path:
    place = directory / f"node-{index}" if layout_of(directory) else directory
    if not (place / "chain").is_dir():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{place} holds no chain; point --data-dir at one")
    return place


def _verifier(directory: Path, index: int, level: str, segments: int) -> Any:
    # Loaded when needed: checking a chain loads the execution engine.
    from learnchain.network.concurrency import SystemClock
    from learnchain.storage.genesis import load_genesis
    from learnchain.verification.assurance import Level
    from learnchain.verification.chain_verification import Verifier

    if level not in set(Level):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"no level {level!r}; choose {' or '.join(Level)}")
    place = _place(directory, index)
    loaded = load_genesis(directory / "genesis.json")
    # The secret draws the segments: nobody could know them while training.
    return Verifier(place, loaded, SystemClock(), Level(level), segments=segments, secret=secrets.token_bytes(32))


async def _estimate_verification(verifier: Any) -> dict[str, Any]:
    from learnchain.verification.chain_verification import quote

    return dataclasses.asdict(await quote(verifier))


def _show_quote(data: dict[str, Any]) -> None:
    console = page()
    console.print(f"{data['blocks']} blocks at {data['level']} level: about {data['seconds']:.0f} s")
    console.print(f"{data['bytes_read'] / 1e6:.1f} MB are read")
    if data["segments"]:
        console.print(f"one forged segment of {data['segments']} is found with probability {data['detection']:.3f}")
    for each in data["proven"]:
        console.print(f"  checked   {each}")
    for each in data["believed"]:
        console.print(f"  believed  {each}")


async def _run_verification(verifier: Any, quiet: bool) -> dict[str, Any]:
    from learnchain.verification.chain_verification import VerificationSample

    total, sample, quoted = verifier.height(), VerificationSample(verifier), None
    checks: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("verifying", total=total)
        async for check in verifier.run():
            progress.update(bar, completed=check.height, description=f"block {check.height}")
            checks.append({**dataclasses.asdict(check), "trained": check.is_trained, "passed": check.is_valid})
            if quoted is None and sample.is_enough_with(check):
                # The first blocks give the price of all, before most of the work is done.
                quoted = sample.quote(total)
                progress.console.print(f"about {quoted.seconds:.0f} s for {total} blocks at {quoted.level} level")
    failed = next((each for each in checks if not each["passed"]), None)
    if failed is not None:
        text = failed["reason"]
        reason = RejectionReason(text) if text in set(RejectionReason) else RejectionReason.VERDICT_WRONG
        raise Rejected(reason, f"block {failed['height']} ({failed['block_hash'][:16]}) does not stand: {text}")
    price = dataclasses.asdict(quoted or sample.quote(total))
    return {"blocks": checks, "height": total, "verified": len(checks) == total, "quote": price}


def _show(data: dict[str, Any]) -> None:
    from learnchain.cli.display import block_line

    console = page()
    head, network = data["head"], data["network"]
    console.print(
        f"{network['consensus']}, genesis {network['genesis'][:16]}, head {head['height']} {head['hash'][:16]}"
    )
    if data["single"]:
        for key, value in data["blocks"][0].items():
            console.print(f"{key:<18}{value}", soft_wrap=True)
        return
    for view in data["blocks"]:
        console.print(block_line(view), markup=False, soft_wrap=True)


def _show_checks(data: dict[str, Any]) -> None:
    console = page()
    for each in data["blocks"]:
        how = "claimed" if each["level"] == "headers" else "counted again"
        if each["replayed"]:
            how += f", {each['replayed']}/{each['segments']} replayed"
        counted = f"{each['correct']}/{each['total']} {how}"
        kind = {"training": counted, "hashing": "hash puzzle solved"}.get(each["won_by"], "empty")
        console.print(f"block {each['height']:>5}  {kind:<44} {len(each['checks']):>2} checks  {each['seconds']:.2f} s")
    console.print(f"verified {len(data['blocks'])} of {data['height']} blocks")
