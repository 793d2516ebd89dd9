"""`learnchain market announce|contribute|verify|collect|show`: one role each, against any chain's JSON-RPC."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from learnchain.cli.market_demo import application
from learnchain.cli.output import JsonOption, page, run_verb
from learnchain.rejection import Rejected, RejectionReason

TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="0xCONTRACT/0xTASK@BLOCK, as `announce` prints it.")]
ChainOption = Annotated[str, typer.Option("--rpc", help="JSON-RPC address of any EVM chain: a node, anvil, geth.")]

WalletOption = Annotated[
    Path, typer.Option("--wallet", help="Keystore (.json; LEARNCHAIN_PASSWORD opens it) or key file.")
]

FolderOption = Annotated[
    Path, typer.Option("--directory", help="What a restart needs: models, keys, votes. One for each account.")
]

StoreOption = Annotated[
    str,
    typer.Option(
        "--blob-store", help="Where all who take part find blobs: kubo:URL, s3:[URL/]BUCKET, folder:/PATH, gateway:URL."
    ),
]

PollOption = Annotated[float, typer.Option("--poll-seconds", min=0.05, help="Between two looks at the chain.")]
_RPC = "http://127.0.0.1:8545"
_DIRECTORY = Path(".learnchain/market")


@application.command("announce")
def announce(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The task in TOML; docs/market.md shows one.")],
    wallet: WalletOption,
    blob_store: StoreOption,
    rpc: ChainOption = _RPC,
    contract: Annotated[str | None, typer.Option(help="A deployed CooperativeTask; without it: a new one.")] = None,
    directory: FolderOption = _DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Publish a verification sample, pay for models and votes, and announce the task."""

    def work() -> dict[str, Any]:
        from learnchain.market.initiator import announce as announce_at
        from learnchain.market.market_task_file import read_market_file

        draft, address = read_market_file(file), _address(contract)
        name = asyncio.run(announce_at(_seat(rpc, wallet, directory, blob_store, 1.0), draft, address))
        return {"task": str(name), "value_wei": draft.terms.value_wei, "rows": draft.terms.rows}

    run_verb(as_json, work, _show_facts)


@application.command("contribute")
def contribute(
    *,
    task: TaskArgument,
    wallet: WalletOption,
    blob_store: StoreOption,
    data: Annotated[str, typer.Option(help="Private rows: a .safetensors file, or a name of `learnchain data`.")],
    model: Annotated[Path | None, typer.Option(help="TOML of an architecture, where the task recommends none.")] = None,
    noise: Annotated[
        float, typer.Option(min=0, help="Differential privacy: noise in gradient norms; 0 trains without.")
    ] = 0.0,
    epochs: Annotated[int, typer.Option(min=1)] = 40,
    learning_rate: Annotated[float, typer.Option(min=0.000001)] = 0.0003,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    kept_back: Annotated[int, typer.Option(min=1, max=90, help="Percent of the rows to judge the model by.")] = 20,
    rpc: ChainOption = _RPC,
    directory: FolderOption = _DIRECTORY,
    poll_seconds: PollOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Train on private data, sell the model, hand out its key, and take the reward when the task is closed."""

    def work() -> dict[str, Any]:
        import time

        from learnchain.market.initiator import parse_task_reference
        from learnchain.market.local_training import LocalTrainingTerms
        from learnchain.market.market_task_file import rows_of
        from learnchain.market.services import PrivateWork
        from learnchain.market.services import contribute as contribute_to

        rows = rows_of(data)
        terms = LocalTrainingTerms(epochs, round(learning_rate * 1_000_000), batch_size, noise)
        brought = PrivateWork(rows, kept_back, _model(model, rows.sample_shape), terms, time.monotonic)
        seat = _seat(rpc, wallet, directory, blob_store, poll_seconds)
        return asyncio.run(contribute_to(seat, parse_task_reference(task), brought))

    run_verb(as_json, work, _show_facts)


@application.command("verify")
def verify(
    *,
    task: TaskArgument,
    wallet: WalletOption,
    blob_store: StoreOption,
    rpc: ChainOption = _RPC,
    directory: FolderOption = _DIRECTORY,
    poll_seconds: PollOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Stake, fuse and measure the models one is drawn for, vote, and take stake and pay when the task is closed."""

    def work() -> dict[str, Any]:
        from learnchain.market.initiator import parse_task_reference
        from learnchain.market.services import verify as verify_for

        return asyncio.run(
            verify_for(_seat(rpc, wallet, directory, blob_store, poll_seconds), parse_task_reference(task))
        )

    run_verb(as_json, work, _show_facts)


@application.command("collect")
def collect(
    *,
    task: TaskArgument,
    wallet: WalletOption,
    blob_store: StoreOption,
    out: Annotated[Path, typer.Option(help="Directory for the fused model.")],
    rpc: ChainOption = _RPC,
    directory: FolderOption = _DIRECTORY,
    poll_seconds: PollOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Wait for one's own task to end, close it, take the refund, and fuse the models that were paid for."""

    def work() -> dict[str, Any]:
        from learnchain.market.initiator import parse_task_reference
        from learnchain.market.services import collect as collect_from

        return asyncio.run(
            collect_from(_seat(rpc, wallet, directory, blob_store, poll_seconds), parse_task_reference(task), out)
        )

    run_verb(as_json, work, _show_facts)


@application.command("show")
def show(task: TaskArgument, rpc: ChainOption = _RPC, as_json: JsonOption = False) -> None:
    """Show a task: its terms, verifiers, models, votes and decisions."""

    def work() -> dict[str, Any]:
        from learnchain.market.initiator import parse_task_reference
        from learnchain.market.services import show_task

        return asyncio.run(show_task(rpc, _pause(1.0), parse_task_reference(task)))

    run_verb(as_json, work, _show_facts)


def _seat(rpc: str, wallet: Path, directory: Path, blob_store: str, poll_seconds: float) -> Any:
    import secrets

    from learnchain.app.service import load_wallet
    from learnchain.market.initiator import Session

    directory.mkdir(parents=True, exist_ok=True)
    return Session(rpc, load_wallet(wallet), directory, blob_store, secrets.token_bytes, _pause(poll_seconds))


def _pause(seconds: float) -> Callable[[], Awaitable[None]]:
    async def pause() -> None:
        await asyncio.sleep(seconds)

    return pause


def _model(path: Path | None, shape: tuple[int, ...]) -> Any:
    import tomllib

    from learnchain.protocol.model_presets import parse_model_table

    if path is None:
        return None
    try:
        return parse_model_table({"input_shape": list(shape), **tomllib.loads(path.read_text())})
    except (OSError, ValueError) as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} is no TOML file: {error}") from error


def _address(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        address = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{text!r} is no address") from error
    if len(address) != 20:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{text!r} is no address of 20 bytes")
    return address


def _show_facts(data: dict[str, Any]) -> None:
    console = page()
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            console.print(f"{key}:")
            for each in value:
                console.print("  " + "  ".join(f"{name} {fact}" for name, fact in each.items()), soft_wrap=True)
        else:
            console.print(f"{key:<22}{value}", soft_wrap=True)
