"""`learnchain up`: a whole local network of real processes, watched live."""

import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, ether, page, run_verb
from learnchain.engines import DEFAULT_ENGINE

if TYPE_CHECKING:
    from learnchain.node.local_network import LocalNetwork


def up(
    *,
    consensus: Annotated[
        str,
        typer.Option(
            help="The protocol that decides who wins a block: dlbc, pole, podl train; proof_of_work only hashes, the "
            "baseline to compare them with."
        ),
    ] = DEFAULT_ENGINE,
    miners: Annotated[int, typer.Option(help="How many miners compete, 1 to 16 (new networks).")] = 3,
    task: Annotated[
        list[str] | None, typer.Option(help="A built-in task or a TOML file, posted at the start; repeatable.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=0, help="End after so many blocks that somebody won; 0 never ends.")] = 0,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    rpc_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of node 0's JSON-RPC server; 0 takes a free one.")
    ] = None,
    restart: Annotated[bool, typer.Option(help="Start a node again that ended by itself.")] = True,
    patience_seconds: Annotated[
        float, typer.Option(min=10, help="With --blocks: fail after so long without a block that somebody won.")
    ] = 180.0,
    as_json: JsonOption = False,
) -> None:
    """Run a whole network here: a publisher pays, miners train, all nodes verify; an existing one is continued.

    Where nobody has commissioned anything, the chain trains standing tasks of its own and says so.
    """
    started_seconds = time.monotonic()

    def work() -> dict[str, Any]:
        from learnchain.cli.local_run import LocalRun, LocalRunPlan
        from learnchain.engines.registry import find_engine

        engine = find_engine(consensus)
        tasks = (engine.tasks if engine.accepts_posted_tasks else ()) if task is None else tuple(task)
        wanted = LocalRunPlan(data_dir, consensus, miners, tasks, blocks, rpc_port, restart, patience_seconds)
        return _run(LocalRun(wanted, started_seconds), as_json)

    run_verb(as_json, work, _show)


def _run(run: Any, as_json: bool) -> dict[str, Any]:
    from learnchain.cli.display import LiveDisplay, PlainDisplay
    from learnchain.tasks.task_file import read_task_file, task_draft

    # A wrong task file is refused before anything is started.
    tables = [read_task_file(each) for each in run.wanted.tasks]
    for table in tables:
        task_draft(table)
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False)
    try:
        network = run.provision_network()
        header = (
            f"RPC http://127.0.0.1:{network.rpc_ports[0]}   consensus {network.consensus}   data {network.directory}"
        )
        for line in _introduction(network):
            console.print(line, markup=False, soft_wrap=True)
        live = console.is_terminal and not as_json
        display = LiveDisplay(console, header) if live else PlainDisplay(console)
        report: dict[str, Any] = run.run(network, display, tables)
        return report
    finally:
        signal.signal(signal.SIGTERM, previous)


def _introduction(network: "LocalNetwork") -> list[str]:
    from learnchain.engines.registry import find_engine

    count = len(network.settings)
    lines = [
        f"{'a new network' if network.fresh else 'continuing the network'} in {network.directory}",
        f"RPC        http://127.0.0.1:{network.rpc_ports[0]}   consensus {network.consensus}",
        f"consensus  {network.consensus}: {find_engine(network.consensus).about}",
        f"explorer   http://127.0.0.1:{network.rpc_ports[0]}/explorer",
        "pre-funded accounts (everybody knows these words: never send anything of value here)",
        f"mnemonic   {network.mnemonic}",
    ]
    for index, address in enumerate(network.accounts):
        role = "publisher, steward" if index == 0 else "miner" if index < count else "yours"
        lines.append(f"account {index}  {address}  {role}")
    return lines


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show(data: dict[str, Any]) -> None:
    console = page()
    head = data["head"]
    console.print(f"head: height {head['height']}, {head['hash']}; all nodes agree: {'yes' if data['agree'] else 'NO'}")
    for line in _summarise_winners(data["blocks"]):
        console.print(line)
    first = data["seconds_to_first_block"]
    if first is not None:
        console.print(f"first block after {first:.1f} s")
    for each in data["tasks"]:
        amounts = f"escrowed {ether(each['escrowed_wei'])}, paid {ether(each['paid_wei'])} to {each['recipient']}"
        console.print(f"task {each['name']}: {amounts}; the contract says {each['contract_status']}", soft_wrap=True)
    for address, wei in data["balances"].items():
        console.print(f"balance {address}  {ether(wei)} ether")
    if "conserved" in data["supply"]:
        console.print(f"every coin accounted for: {'yes' if data['supply']['conserved'] else 'NO'}")
    console.print("continue this network with the same command; look around with `learnchain chain show`")


def _summarise_winners(blocks: list[dict[str, Any]]) -> list[str]:
    """Say what won the blocks, and how many of them nobody had asked for."""
    lines: list[str] = []
    trained = [each for each in blocks if each["trained"]]
    if trained:
        best = max(each["accuracy"]["correct"] / each["accuracy"]["total"] for each in trained)
        lines.append(f"{len(trained)} blocks mined by training, best exact accuracy {best:.4f}")
    standing = sum(each["is_standing"] for each in trained)
    if standing:
        lines.append(f"{standing} of them trained a standing task: nobody had commissioned one")
    hashed = [each for each in blocks if each["won_by"] == "hashing"]
    if hashed:
        expected = hashed[-1]["puzzle"]["expected_attempts"]
        lines.append(f"{len(hashed)} blocks mined by hashing, nothing trained; the last puzzle: {expected:,} hashes")
    return lines
