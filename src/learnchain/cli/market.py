"""`learnchain market announce|contribute|verify|collect|show`: one role each, against any chain's JSON-RPC.

`learnchain market`: the cooperative marketplace of BaaS, played end to end on a chain.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from learnchain.cli.output import JsonOption, ether, page, run_verb
from learnchain.rejection import Rejected, RejectionReason

application = typer.Typer(help="Sell and buy models that private data taught (BaaS).", no_args_is_help=True)
_ACCOUNTS = 14
_ACTS = {"lying_verifier": "lying_verifier", "late": "late_joiner", "leaving_verifier": "leaving_verifier"}

TROUBLES = (*_ACTS, "nan", "oversized", "garbage", "shape", "absent")
"""A lying verifier, one who joins late, one who vanishes, and five kinds of hostile models."""


@application.command("demo")
def demo(
    *,
    scenario: Annotated[int, typer.Option(min=1, max=2, help="1: own CNNs (Table I). 2: a recommended one.")] = 2,
    mnist: Annotated[
        Path | None, typer.Option("--mnist", help="Directory of MNIST's IDX files; without it: scikit-learn's digits.")
    ] = None,
    rpc: Annotated[
        str | None, typer.Option("--rpc", help="Play on this development chain (anvil, a node), not in this process.")
    ] = None,
    strategy: Annotated[int, typer.Option(min=1, max=2, help="How verifiers fuse: Strategy I or II.")] = 2,
    trouble: Annotated[
        list[str] | None, typer.Option("--trouble", help=f"Let something go wrong: {', '.join(TROUBLES)}; repeatable.")
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0, help="Contributors train with differential privacy: noise in gradient norms.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Play a task with 5 computing and 3 verification contributors: train, publish, fuse, vote, pay."""
    run_verb(as_json, lambda: _demo((scenario, strategy), mnist, rpc, tuple(trouble or ()), noise), _show)


@application.command("figures")
def figures(
    *,
    mnist: Annotated[Path, typer.Option("--mnist", help="Directory of MNIST's four IDX files, uncompressed.")],
    scenario: Annotated[int, typer.Option(min=1, max=2, help="1: own CNNs (Table I). 2: a recommended one.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="How rows are dealt.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Of each contributor's training.")] = 40,
    learning_rate: Annotated[float, typer.Option(min=0.000001)] = 0.0003,
    central: Annotated[bool, typer.Option(help="Train one CNN on everybody's rows as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure fusion on the paper's 2,000/500/1,000 split: both strategies, both readings, no chain."""

    def work() -> dict[str, Any]:
        import time
        from tempfile import TemporaryDirectory

        from learnchain.learning.train import configure_torch
        from learnchain.market.contributors import LocalTrainingTerms
        from learnchain.market.demo_figures import FusionExperiment, fusion_figures
        from learnchain.market.demo_stage import read_idx_data

        configure_torch()
        wanted = FusionExperiment(scenario, seed, LocalTrainingTerms(epochs, round(learning_rate * 1_000_000)), central)
        with TemporaryDirectory() as folder:
            rows, test = read_idx_data(mnist), read_idx_data(mnist, "t10k")
            return fusion_figures(rows, test, wanted, Path(folder), time.monotonic)

    run_verb(as_json, work, _show_figures)


def _show_figures(data: dict[str, Any]) -> None:
    console = page()
    console.print(f"scenario {data['scenario']}, seed {data['seed']}: accuracy on {data['verification_rows']} rows")
    for name, curve in data["curves"].items():
        shown = "  ".join(f"{each['verification']:.3f}" for each in curve)
        console.print(f"{name:<20} {shown}   (on {data['test_rows']} test rows at the end: {curve[-1]['test']:.4f})")
    for name, each in (data["central"] or {}).items():
        console.print(f"one CNN on {each['rows']} {name}: {each['verification']:.3f}, test {each['test']:.4f}")


def _demo(
    played: tuple[int, int], mnist: Path | None, rpc: str | None, troubles: tuple[str, ...], noise: float
) -> dict[str, Any]:
    import asyncio
    from tempfile import TemporaryDirectory

    from learnchain.execution.wallet import development_accounts
    from learnchain.learning.data import digits
    from learnchain.learning.fusion import FusionStrategy
    from learnchain.learning.train import configure_torch
    from learnchain.market.contributors import LocalTrainingTerms
    from learnchain.market.demo import MarketRun, MarketScenario
    from learnchain.market.demo_cast import SMALL, TABLE_2
    from learnchain.market.demo_stage import DEVELOPMENT_MNEMONIC, connect_remote_chain, open_local_chain, read_idx_data

    unknown = [each for each in troubles if each not in TROUBLES]
    if unknown:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{unknown} are none of {', '.join(TROUBLES)}")
    acts: dict[str, Any] = {name: True for each, name in _ACTS.items() if each in troubles}
    hostile = tuple(each for each in troubles if each not in _ACTS)
    configure_torch()
    chosen = (FusionStrategy.FREE, FusionStrategy.GRADUAL)[played[1] - 1]
    small = mnist is None
    home = LocalTrainingTerms(10, 1_000, 16, noise) if small else LocalTrainingTerms(noise=noise)
    split = SMALL if small else TABLE_2
    script = MarketScenario(
        played[0], split, home, chosen, threshold=5_000 if small else 8_000, hostile_models=hostile, **acts
    )
    data = digits() if mnist is None else read_idx_data(mnist)

    async def play(directory: Path) -> dict[str, Any]:
        if rpc is None:
            return await MarketRun(script, open_local_chain(_ACCOUNTS)[0], data, directory).run()
        wallets = development_accounts(DEVELOPMENT_MNEMONIC, _ACCOUNTS)
        async with connect_remote_chain(rpc, wallets) as stage:
            return await MarketRun(script, stage, data, directory).run()

    with TemporaryDirectory() as folder:
        report = asyncio.run(play(Path(folder)))
    source = "scikit-learn digits (MNIST was not given)" if small else "MNIST"
    return {"data": source, "chain": rpc or "in-process"} | report


def _show(data: dict[str, Any]) -> None:
    console = page()
    console.print(f"[bold]Scenario {data['scenario']}[/] on {data['data']}, chain {data['chain']}")
    table = Table(box=None, header_style="bold")
    for title in ("model", "labels", "own accuracy", "votes", "decision", "refused because", "epsilon", "betrays"):
        table.add_column(title)
    leaks = iter(data["membership_inference"])
    for model in data["models"]:
        leak = {"epsilon": None, "advantage": 0.0} if model["name"].startswith("hostile") else next(leaks)
        epsilon = "none" if leak["epsilon"] is None else f"{leak['epsilon']:.2f}"
        labels, votes = ",".join(map(str, model["labels"])), " ".join(str(count) for count in model["votes"].values())
        reasons = ", ".join(model["refused_because"])
        own = f"{model['own_accuracy']:.3f}"
        table.add_row(model["name"], labels, own, votes, model["status"], reasons, epsilon, f"{leak['advantage']:.2f}")
    console.print(table)
    fusion, value = data["fusion"], data["value"]
    for name in ("strategy_1", "strategy_2"):
        curve = "  ".join(f"{share:.3f}" for share in fusion[name])
        console.print(f"{name}: {curve}   (the paper, on its MNIST rows: {fusion['paper'][name]})")
    spent = value["fees_wei"]
    console.print(
        f"value conserved: {value['conserved']}; fees {ether(spent)}; left in contract 0"
        if not value["left_in_contract_wei"]
        else f"left in the contract: {ether(value['left_in_contract_wei'])}"
    )


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

        from learnchain.market.contributors import LocalTrainingTerms
        from learnchain.market.initiator import parse_task_reference
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
