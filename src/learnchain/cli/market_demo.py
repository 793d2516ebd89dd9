"""`learnchain market`: the cooperative marketplace of BaaS, played end to end on a chain."""

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
        from learnchain.market.demo_figures import FusionExperiment, fusion_figures
        from learnchain.market.demo_stage import read_idx_data
        from learnchain.market.local_training import LocalTrainingTerms

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
    from learnchain.market.demo import MarketRun, MarketScenario
    from learnchain.market.demo_cast import SMALL, TABLE_2
    from learnchain.market.demo_stage import DEVELOPMENT_MNEMONIC, connect_remote_chain, open_local_chain, read_idx_data
    from learnchain.market.local_training import LocalTrainingTerms

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
