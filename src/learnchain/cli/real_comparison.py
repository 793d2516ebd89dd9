"""Run one local network of real processes for every engine, one after the other, and lay their figures side by side."""

import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from learnchain.cli.display import PlainDisplay
from learnchain.cli.local_run import LocalRun, LocalRunPlan
from learnchain.cli.observation import NetworkObserver, Snapshot, View, machine_report
from learnchain.rejection import Rejected, Unavailable
from learnchain.simulation.comparison import WORK_STEPS, gini, intervals

TASK = "digits-in-blocks"
"""The standing task of every network: engines that use one test set only take the first of its sets."""


def compare_for_real(engines: list[str], blocks: int, miners: int) -> dict[str, Any]:
    """Return the reports of all engines with the machine they ran on."""
    reports = [_report(name, _run(name, blocks, miners), miners) for name in engines]
    return {"real": True, "blocks": blocks, "miners": miners, "reports": reports, "machine": machine_report()}


def _run(name: str, blocks: int, miners: int) -> dict[str, Any]:
    """Run one network in a directory of its own until enough blocks were won; nobody commissions anything."""
    with TemporaryDirectory(prefix="learnchain-lab-") as directory:
        place = Path(directory) / "network"
        wanted = LocalRunPlan(place, name, miners, (TASK,), blocks, rpc_port=0, patience_seconds=300.0)
        run = LocalRun(wanted, time.monotonic(), inspect=_list_decisions)
        console = Console(file=sys.stderr, highlight=False)
        console.print(f"{name}: {blocks} blocks of {miners} miners in real time", markup=False)
        return run.run(run.provision_network(), PlainDisplay(console), ())


def _list_decisions(observer: NetworkObserver, snapshot: Snapshot) -> dict[str, Any]:
    """Return what every node says that it decided and measured at each height, node by node."""
    found: list[list[View]] = []
    for client in observer.clients:
        try:
            heights = [int(each["height"]) for each in snapshot.blocks]
            found.append([{**each, "height": at} for at in heights for each in client.call("learn_decisions", at)])
        except (Rejected, Unavailable):
            # A node that ends this very moment has nothing to add.
            found.append([])
    return {"decisions": found, "miners": [each.address for each in snapshot.nodes]}


def _work(data: dict[str, Any]) -> dict[str, Any]:
    """Return forks, the part of the work that is in no winner, and what judging cost, as the simulated report does."""
    won = {each["height"]: each["winner"] for each in data["blocks"] if not each["empty"]}
    noted = [(address, each) for address, seen in zip(data["miners"], data["decisions"], strict=True) for each in seen]
    work = useful = 0.0
    for address, each in noted:
        if each["step"] in WORK_STEPS:
            done = float(each.get("training_seconds", each.get("attempts", 0)))
            work += done
            useful += done if won.get(each["height"]) == address else 0.0
    blocks = {each["hash"] for _, each in noted if each["step"] == "block"}
    measured = [each["step"] for _, each in noted if each["step"].startswith("measured ")]
    return {
        "forks": len(blocks - {each["hash"] for each in data["blocks"]}),
        "stale_share": round(1 - useful / work, 6) if work else 0.0,
        "evaluations_per_block": round(measured.count("measured count") / len(data["blocks"]), 4),
        "measurements_per_block": round(len(measured) / len(data["blocks"]), 4),
    }


def _report(name: str, data: dict[str, Any], miners: int) -> dict[str, Any]:
    trained = [each for each in data["blocks"] if not each["empty"]]
    won = Counter(each["winner"] for each in trained)
    shares = [each["training_share"] for each in trained if each["training_share"] is not None]
    amounts = [Fraction(each) for each in won.values()] + [Fraction(0)] * max(0, miners - len(won))
    # The first interval holds the start of all processes.
    lengths = [round(1000 * each["interval_seconds"]) for each in data["blocks"][1:]]
    measured = intervals(lengths or [round(1000 * data["blocks"][0]["interval_seconds"])])
    return {
        "engine": name,
        "blocks": len(data["blocks"]),
        "empty_blocks": len(data["blocks"]) - len(trained),
        "intervals": {
            "mean_seconds": measured.mean_seconds,
            "variance_seconds_squared": measured.variance_seconds_squared,
            "variation": measured.variation,
        },
        **_work(data),
        "training_share": fmean(shares) if shares else 0.0,
        "won_blocks": dict(sorted(won.items())),
        "reward_gini": round(float(gini(amounts)), 6),
        "agree": data["agree"],
        "conserved": data["supply"].get("conserved"),
    }
