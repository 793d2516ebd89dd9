"""Run the engines one after the other from one seed, on simulated nodes with real training and real hashing.

Everything that is reported follows from the seed: times are virtual, costs are counts, so two runs have one digest.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from learnchain.lab.measures import Intervals, gini, intervals
from learnchain.node.decisions import Decision
from learnchain.node.engines import engine_named
from learnchain.node.local_network import LocalPlan
from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.messages import AnyBlock, Block
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.rules.contract import Rules
from learnchain.testing.in_process_training import InProcessTraining
from learnchain.testing.simulated_clock import run_simulated
from learnchain.testing.simulated_nodes import SimulatedNodes

HASHES_PER_SECOND = 150
"""Few enough that a simulated hour of hashing costs seconds; only ratios of times are compared."""
PATIENCE_SECONDS = 10_000.0
"""Virtual seconds a block may take before the run is called stuck."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Say what is run for every engine: the same seed, tasks, miners and number of blocks."""

    seed: int = 7
    blocks: int = 50
    miners: int = 3
    standing: tuple[str, ...] = ("digits-in-blocks",)


@dataclass(frozen=True, slots=True)
class Report:
    """Hold what one engine did: `work` counts seconds of training or attempts at hashing, whatever it does.

    `until_release` is the part of each interval that ends with the release: what is searched or trained for. What comes
    after it is fixed by the engine's schedule and only makes intervals more alike. `stale_share` is the part of the
    work that is in no winner; `evaluations` are exact counts of models that nodes made to judge.
    """

    engine: str
    blocks: int
    empty_blocks: int
    intervals: Intervals
    until_release: Intervals
    forks: int
    reorganisations: int
    work: float
    stale_share: float
    training_share: float
    evaluations_per_block: float
    measurements_per_block: float
    reward_gwei: dict[str, int]
    reward_gini: float


def compare(experiment: Experiment, engines: tuple[str, ...], note: Callable[[str], None]) -> dict[str, Any]:
    """Return the report of every engine with the digest over all of them."""
    for name in engines:
        engine_named(name)
    if not 2 <= experiment.blocks <= 1_000 or not 1 <= experiment.miners <= 16:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "choose 2 to 1000 blocks and 1 to 16 miners")
    reports: list[dict[str, Any]] = []
    for name in engines:
        note(f"{name}: {experiment.blocks} blocks of {experiment.miners} miners in virtual time")
        reports.append(asdict(run_engine(experiment, name)))
    content = {"experiment": asdict(experiment), "reports": reports}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**content, "digest": digest}


def run_engine(experiment: Experiment, name: str) -> Report:
    """Run one engine in a directory of its own and measure it."""
    with TemporaryDirectory(prefix="learnchain-lab-") as directory:
        reports: list[Report] = []

        async def main() -> None:
            reports.append(await _measured(experiment, name, Path(directory)))

        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            run_simulated(main())
        finally:
            logging.disable(before)
        return reports[0]


def rules_for(name: str, miners: int) -> Rules | None:
    """Return the parameters of an engine that fit simulated machines; None keeps its local ones."""
    simulated = engine_named(name).simulated
    return None if simulated is None else simulated(HASHES_PER_SECOND * miners)


async def _measured(experiment: Experiment, name: str, directory: Path) -> Report:
    rules = rules_for(name, experiment.miners)
    plan = LocalPlan(directory, name, experiment.miners, experiment.standing, rules=rules)
    nodes = SimulatedNodes(directory, plan, experiment.seed)
    nodes.make_training = lambda _index: InProcessTraining(hashes_per_second=HASHES_PER_SECOND)
    await nodes.start()
    observed = Observed(nodes)
    try:
        await nodes.until(lambda: observed.look() >= experiment.blocks, PATIENCE_SECONDS * experiment.blocks)
        return observed.report(experiment, name)
    finally:
        await nodes.close()


def _until_release(states: Sequence[ChainState], blocks: Sequence[AnyBlock]) -> list[int]:
    """Return how long after its start each height's test set was released, without the first and the empty ones."""
    pairs = zip(states, blocks[1:], strict=False)
    return [each.release.released_milliseconds - one.end_milliseconds for one, each in pairs if isinstance(each, Block)]


class Observed:
    """Collect what nodes decided while they run: their own memory of it is bounded."""

    def __init__(self, nodes: SimulatedNodes) -> None:
        self._nodes = nodes
        self._seen: list[dict[tuple[int, int, str, str], Decision]] = [{} for _ in nodes.places]
        self._reorganisations = 0
        self._head = b""

    def look(self) -> int:
        """Take what is new from every node; return the lowest height that all have reached."""
        heights: list[int] = []
        for index, place in enumerate(self._nodes.places):
            node = self._nodes.node(index)
            for each in node.ports.decisions.recent:
                self._seen[index].setdefault((each.at_milliseconds, each.height, each.step, each.about), each)
            heights.append(node.ports.chain.round.head.height)
            del place
        self._follow_head()
        return min(heights)

    def report(self, experiment: Experiment, name: str) -> Report:
        """Measure the branch of node 0 up to the wanted height, and the work of all miners below it."""
        ports = self._nodes.node(0).ports
        states = ports.archive.branch(ports.chain.round.head.block, 0)[: experiment.blocks]
        blocks = [ports.archive.block(each.block_hash) for each in states]
        rewards = {self._address(index): 0 for index in range(1, experiment.miners + 1)}
        for state in states:
            for payout in state.reward.payouts:
                key = payout.recipient.hex()
                rewards[key] = rewards.get(key, 0) + payout.amount_gwei
        chained = {each.block_hash.hex() for each in states}
        known = self._facts("block", "hash", len(states))
        won = {each.height: each.proposer for each in blocks if isinstance(each, Block)}
        work, useful, training = self._work(won, len(states))
        seconds = (states[-1].end_milliseconds - ports.chain.parameters.genesis_milliseconds) / 1000
        counted = [each for seen in self._seen for each in seen.values() if each.height <= len(states)]
        measured = [each.step for each in counted if each.step.startswith("measured ")]
        return Report(
            engine=name,
            blocks=len(blocks),
            empty_blocks=len(blocks) - len(won),
            intervals=intervals([later.end_milliseconds - one.end_milliseconds for one, later in pairwise(states)]),
            until_release=intervals(_until_release(states, blocks) or [0]),
            forks=len(known - chained),
            reorganisations=self._reorganisations,
            work=round(work, 3),
            stale_share=round(1 - useful / work, 6) if work else 0.0,
            training_share=round(training / (experiment.miners * seconds), 6),
            evaluations_per_block=round(measured.count("measured count") / len(blocks), 4),
            measurements_per_block=round(len(measured) / len(blocks), 4),
            reward_gwei=dict(sorted(rewards.items())),
            reward_gini=round(float(gini([Fraction(each) for each in rewards.values()])), 6),
        )

    def _follow_head(self) -> None:
        state = self._nodes.node(0).ports.chain.round
        if self._head and state.head.block != self._head:
            ancestors = {each.state.block_hash for each in state.tree.branch(state.head.block)} | {state.tree.root}
            self._reorganisations += self._head not in ancestors
        self._head = state.head.block

    def _address(self, index: int) -> str:
        address: str = self._nodes.node(index).ports.wallet.address.hex()
        return address

    def _facts(self, step: str, name: str, height: int) -> set[str]:
        every = (each for seen in self._seen for each in seen.values())
        return {str(each.facts[name]) for each in every if each.step == step and each.height <= height}

    def _work(self, won: dict[int, bytes], height: int) -> tuple[float, float, float]:
        """Return all work, the part of it that won, and the part of it that was training."""
        work = useful = training = 0.0
        for index, seen in enumerate(self._seen):
            address = bytes.fromhex(self._address(index))
            for each in seen.values():
                done = float(each.facts.get("training_seconds", each.facts.get("attempts", 0)))
                if each.step not in ("trained", "puzzle solved", "puzzle given up") or each.height > height:
                    continue
                work += done
                useful += done if won.get(each.height) == address else 0.0
                training += done if each.step == "trained" else 0.0
        return work, useful, training
