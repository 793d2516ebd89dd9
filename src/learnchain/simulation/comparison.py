"""Turn what was observed into the figures that protocols are compared by.

Run the engines one after the other from one seed, on simulated nodes with real training and real hashing.

Everything that is reported follows from the seed: times are virtual, costs are counts, so two runs have one digest.

Draw a comparison as one SVG file, written by hand: one panel of bars for every figure, each with its own scale.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pvariance
from tempfile import TemporaryDirectory
from typing import Any
from xml.sax.saxutils import escape

from learnchain.engines.contract import LocalDurations, Rules
from learnchain.engines.registry import find_engine
from learnchain.node.chain import Decision
from learnchain.node.local_network import LOCAL_PHASES, LocalPlan
from learnchain.protocol.messages import AnyBlock, Block
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.simulated_network import LinkConditions, run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes


@dataclass(frozen=True, slots=True)
class Intervals:
    """Hold mean, variance and coefficient of variation of block intervals, in seconds."""

    mean_seconds: float
    variance_seconds_squared: float
    variation: float


def intervals(milliseconds: list[int]) -> Intervals:
    """Return the figures of PoLe's Table 1 for a chain's block intervals."""
    seconds = [each / 1000 for each in milliseconds]
    mean, variance = fmean(seconds), pvariance(seconds)
    return Intervals(round(mean, 6), round(variance, 6), round(variance**0.5 / mean, 6) if mean else 0.0)


def gini(amounts: list[Fraction]) -> Fraction:
    """Return the Gini coefficient of incomes: 0 when all earn the same, near 1 when one earns everything."""
    ordered, total = sorted(amounts), sum(amounts, Fraction(0))
    if not total:
        return Fraction(0)
    ranked = sum((rank * each for rank, each in enumerate(ordered, start=1)), Fraction(0))
    count = len(ordered)
    return 2 * ranked / (count * total) - Fraction(count + 1, count)


HASHES_PER_SECOND = 150
"""Few enough that a simulated hour of hashing costs seconds; only ratios of times are compared."""

WORK_STEPS = ("trained", "training given up", "puzzle solved", "puzzle given up")
"""What a miner notes when some work of it is over, with the seconds or attempts that it took."""

DELAY_SPREAD = (0.5, 1.5)

SLACK_ROUND_TRIPS = 4
"""Round trips that a message takes at the most: an announcement, a request, an answer, and one to spare."""

MAXIMUM_LATENCY_MILLISECONDS = 1_000
"""Beyond it requests between nodes time out before an answer can come, and every block is an empty one."""

PATIENCE_SECONDS = 10_000.0
"""Virtual seconds a block may take before the run is called stuck."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Say what is run for every engine: the same seed, tasks, miners and number of blocks.

    `latency_milliseconds` is the mean one-way delay between two nodes, drawn anew for each message between a half and
    one and a half of it; 0 is the weather of a local network. Every phase grows with it, so that all engines are run
    with parameters that a network of such delays would choose.
    """

    seed: int = 7
    blocks: int = 50
    miners: int = 3
    latency_milliseconds: int = 0
    standing: tuple[str, ...] = ("digits-in-blocks",)


Note = Callable[[str, int], None]
"""Is told which engine has reached which height."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Hold what one engine did: `work` counts seconds of training or attempts at hashing, whatever it does.

    `until_release` is the part of each interval that ends with the release: what is searched or trained for. What comes
    after it is fixed by the engine's schedule and only makes intervals more alike. `stale_share` is the part of the
    work that is in no winner, given up or not; `late_solutions` are commitments that came after the release: where
    nobody releases, each of them is a rival block. `evaluations` are exact counts of models that nodes made to judge.
    The Gini coefficient is that of what all miners earned, nothing included.
    """

    engine: str
    blocks: int
    empty_blocks: int
    intervals: Intervals
    until_release: Intervals
    forks: int
    reorganisations: int
    late_solutions_per_block: float
    work: float
    stale_share: float
    training_share: float
    evaluations_per_block: float
    measurements_per_block: float
    reward_gwei: dict[str, int]
    reward_gini: float


def compare(experiment: Experiment, engines: tuple[str, ...], note: Note) -> dict[str, Any]:
    """Return the report of every engine with the digest over all of them."""
    for name in engines:
        find_engine(name)
    if not 2 <= experiment.blocks <= 1_000 or not 1 <= experiment.miners <= 16:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "choose 2 to 1000 blocks and 1 to 16 miners")
    if not 0 <= experiment.latency_milliseconds <= MAXIMUM_LATENCY_MILLISECONDS or not engines:
        detail = f"choose a latency of at most {MAXIMUM_LATENCY_MILLISECONDS / 1000:.0f} s, and an engine"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    reports: list[dict[str, Any]] = []
    for name in engines:
        note(name, 0)
        reports.append(asdict(run_engine(experiment, name, note)))
    content = {"experiment": asdict(experiment), "reports": reports}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**content, "digest": digest}


def run_engine(experiment: Experiment, name: str, note: Note) -> EngineReport:
    """Run one engine in a directory of its own and measure it."""
    with TemporaryDirectory(prefix="learnchain-lab-") as directory:
        reports: list[EngineReport] = []

        async def main() -> None:
            reports.append(await _measure_engine(experiment, name, Path(directory), note))

        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            run_simulated(main())
        finally:
            logging.disable(before)
        return reports[0]


def rules_for(name: str, miners: int, phases: LocalDurations = LOCAL_PHASES) -> Rules:
    """Return an engine with the parameters that fit simulated machines."""
    engine = find_engine(name)
    if engine.build_simulated is not None:
        return engine.build_simulated(phases, HASHES_PER_SECOND * miners)
    return engine.build_local(phases, miners)


def stretch_phases(phases: LocalDurations, slack_milliseconds: int) -> LocalDurations:
    """Return phases with so much more time for every message that somebody waits for.

    Training's phase grows by as much as judging's: PoDL's judging must fit beside the next training.
    """
    return LocalDurations(
        phases.key_milliseconds + slack_milliseconds,
        phases.training_milliseconds + 3 * slack_milliseconds,
        phases.judging_milliseconds + 3 * slack_milliseconds,
        phases.release_milliseconds + slack_milliseconds,
        phases.reveal_milliseconds + 2 * slack_milliseconds,
    )


async def _measure_engine(experiment: Experiment, name: str, directory: Path, note: Note) -> EngineReport:
    phases = stretch_phases(LOCAL_PHASES, 2 * SLACK_ROUND_TRIPS * experiment.latency_milliseconds)
    rules = rules_for(name, experiment.miners, phases)
    plan = LocalPlan(directory, name, experiment.miners, experiment.standing, phases=phases, rules=rules)
    nodes = SimulatedNodes(directory, plan, experiment.seed)
    if experiment.latency_milliseconds:
        least, most = (each * experiment.latency_milliseconds / 1_000 for each in DELAY_SPREAD)
        nodes.network.weather = LinkConditions(least, most)
    nodes.make_training = lambda _index: InProcessTraining(hashes_per_second=HASHES_PER_SECOND)
    await nodes.start()
    observed = DecisionCollector(nodes)
    try:
        shown = 0

        def has_reached() -> bool:
            nonlocal shown
            height = min(observed.collect(), experiment.blocks)
            if height > shown:
                shown = height
                note(name, height)
            return height >= experiment.blocks

        await nodes.wait_until(has_reached, PATIENCE_SECONDS * experiment.blocks)
        return observed.report(experiment, name)
    finally:
        await nodes.close()


def _release_delays(states: Sequence[ChainState], blocks: Sequence[AnyBlock]) -> list[int]:
    """Return how long after its start each height's test set was released, without the first and the empty ones."""
    pairs = zip(states, blocks[1:], strict=False)
    return [each.release.released_milliseconds - one.end_milliseconds for one, each in pairs if isinstance(each, Block)]


class DecisionCollector:
    """Collect what nodes decided while they run: their own memory of it is bounded."""

    def __init__(self, nodes: SimulatedNodes) -> None:
        self._nodes = nodes
        self._seen: list[dict[tuple[int, int, str, str], Decision]] = [{} for _ in nodes.places]
        self._reorganisations = 0
        self._head = b""

    def collect(self) -> int:
        """Take what is new from every node; return the lowest height that all have reached."""
        heights: list[int] = []
        for index in range(len(self._nodes.places)):
            node = self._nodes.node(index)
            for each in node.ports.decisions.recent:
                self._seen[index].setdefault((each.at_milliseconds, each.height, each.step, each.about), each)
            heights.append(node.ports.chain.round.head.height)
        state = self._nodes.node(0).ports.chain.round
        if self._head and state.head.block != self._head:
            ancestors = {each.state.block_hash for each in state.tree.branch(state.head.block)} | {state.tree.root}
            self._reorganisations += self._head not in ancestors
        self._head = state.head.block
        return min(heights)

    def report(self, experiment: Experiment, name: str) -> EngineReport:
        """Measure the branch of node 0 up to the wanted height, and the work of all miners below it."""
        ports = self._nodes.node(0).ports
        states = ports.archive.branch(ports.chain.round.head.block, 0)[: experiment.blocks]
        blocks = [ports.archive.block(each.block_hash) for each in states]
        rewards = self._rewards(states, experiment.miners)
        chained = {each.block_hash.hex() for each in states}
        every = (each for seen in self._seen for each in seen.values())
        known = {str(each.facts["hash"]) for each in every if each.step == "block" and each.height <= len(states)}
        won = {each.height: each.proposer for each in blocks if isinstance(each, Block)}
        work, useful, training = self._work(won, len(states))
        seconds = (states[-1].end_milliseconds - ports.chain.parameters.genesis_milliseconds) / 1000
        counted = [each for seen in self._seen for each in seen.values() if each.height <= len(states)]
        measured = [each.step for each in counted if each.step.startswith("measured ")]
        late = [each for each in counted if each.step == "not under the release"]
        return EngineReport(
            engine=name,
            blocks=len(blocks),
            empty_blocks=len(blocks) - len(won),
            intervals=intervals([later.end_milliseconds - one.end_milliseconds for one, later in pairwise(states)]),
            until_release=intervals(_release_delays(states, blocks) or [0]),
            forks=len(known - chained),
            reorganisations=self._reorganisations,
            late_solutions_per_block=round(len(late) / len(blocks), 4),
            work=round(work, 3),
            stale_share=round(1 - useful / work, 6) if work else 0.0,
            training_share=round(training / (experiment.miners * seconds), 6),
            evaluations_per_block=round(measured.count("measured count") / len(blocks), 4),
            measurements_per_block=round(len(measured) / len(blocks), 4),
            reward_gwei=dict(sorted(rewards.items())),
            reward_gini=round(float(gini([Fraction(each) for each in rewards.values()])), 6),
        )

    def _rewards(self, states: tuple[ChainState, ...], miners: int) -> dict[str, int]:
        """Return what every miner earned; what others are paid (a publisher's share) is no miner's income."""
        rewards = {self._address(index): 0 for index in range(1, miners + 1)}
        for payout in (each for state in states for each in state.reward.payouts):
            if payout.recipient.hex() in rewards:
                rewards[payout.recipient.hex()] += payout.amount_gwei
        return rewards

    def _address(self, index: int) -> str:
        address: str = self._nodes.node(index).ports.wallet.address.hex()
        return address

    def _work(self, won: dict[int, bytes], height: int) -> tuple[float, float, float]:
        """Return all work, the part of it that won, and the part of it that was training."""
        work = useful = training = 0.0
        for index, seen in enumerate(self._seen):
            address = bytes.fromhex(self._address(index))
            for each in seen.values():
                done = float(each.facts.get("training_seconds", each.facts.get("attempts", 0)))
                if each.step not in WORK_STEPS or each.height > height:
                    continue
                work += done
                useful += done if won.get(each.height) == address else 0.0
                training += done if "training_seconds" in each.facts else 0.0
        return work, useful, training


Report = dict[str, Any]
_COLOURS = ("#3b6ea5", "#c2593f", "#5f9e6e", "#8d6cab", "#b8860b", "#4a8f8f", "#8a8a8a", "#a85577")
_COLUMNS, _PANEL, _NAMES, _NUMBERS, _MARGIN = 2, 440, 112, 64, 16
_BAR, _PITCH, _HEAD, _GAP, _TOP, _FOOT = 14, 20, 42, 18, 64, 34
_INK, _PALE, _LINE = "#222", "#666", "#ccc"


@dataclass(frozen=True, slots=True)
class Figure:
    """Name one panel: what is drawn, in which unit, on a scale to `full` at least, and how a value is written."""

    title: str
    unit: str
    read: Callable[[Report], float]
    full: float
    form: str


_FIGURES = (
    Figure("Block interval, mean", "seconds", lambda each: each["intervals"]["mean_seconds"], 1.0, "{:.1f}"),
    Figure(
        "Block interval, variation", "% of the mean", lambda each: 100 * each["intervals"]["variation"], 1.0, "{:.1f}"
    ),
    Figure("Stale work", "% of all work", lambda each: 100 * each["stale_share"], 100.0, "{:.1f}"),
    Figure("Training share", "% of all miners' time", lambda each: 100 * each["training_share"], 100.0, "{:.1f}"),
    Figure(
        "Verification", "exact counts a block, all nodes", lambda each: each["evaluations_per_block"], 1.0, "{:.2f}"
    ),
    Figure(
        "Late solutions", "after the release, a block", lambda each: each["late_solutions_per_block"], 1.0, "{:.2f}"
    ),
    Figure("Forks", "blocks beside the branch", lambda each: each["forks"], 1.0, "{:.0f}"),
    Figure("Gini of rewards", "0 all alike, 1 one earns all", lambda each: each["reward_gini"], 1.0, "{:.3f}"),
)


def svg(result: dict[str, Any]) -> str:
    """Return the drawing; every bar carries its number, so that nothing has to be read off an axis."""
    reports: list[Report] = result["reports"]
    panel = _HEAD + _PITCH * len(reports) + _GAP
    rows = -(-len(_FIGURES) // _COLUMNS)
    width, height = _COLUMNS * _PANEL + _MARGIN, _TOP + rows * panel + _FOOT
    drawn = [
        _panel(figure, reports, _MARGIN + _PANEL * (place % _COLUMNS), _TOP + panel * (place // _COLUMNS))
        for place, figure in enumerate(_FIGURES)
    ]
    chosen = result["experiment"]
    title = ", ".join(each["engine"] for each in reports)
    setting = f"{chosen['blocks']} blocks, {chosen['miners']} equal miners, seed {chosen['seed']}, "
    setting += f"one-way delay {_delay(chosen)}, virtual time; training and hashing are real"
    foot = f"each panel has its own scale; digest {result['digest']}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    style = f'font-family="sans-serif" font-size="12" fill="{_INK}"><rect width="100%" height="100%" fill="white"/>'
    lines = (
        _text(_MARGIN, 26, f"Engines compared: {title}", 'font-size="16" font-weight="bold"'),
        _text(_MARGIN, 46, setting, f'fill="{_PALE}"'),
        *drawn,
        _text(_MARGIN, height - 14, foot, f'fill="{_PALE}" font-size="10"'),
    )
    return head + style + "".join(lines) + "</svg>\n"


def _panel(figure: Figure, reports: list[Report], left: int, top: int) -> str:
    """Return one figure of all engines; the longest bar ends before its number leaves the panel."""
    values = [float(figure.read(each)) for each in reports]
    longest, start = max(*values, figure.full), left + _NAMES
    room = _PANEL - _NAMES - _NUMBERS - _MARGIN
    parts = [
        f'<text x="{left}" y="{top + 14}"><tspan font-weight="bold">{escape(figure.title)}</tspan>'
        f'<tspan fill="{_PALE}">  {escape(figure.unit)}</tspan></text>'
    ]
    bottom = top + _HEAD - 16 + _PITCH * len(reports)
    parts.append(f'<path d="M{start} {top + _HEAD - 20}V{bottom}" stroke="{_LINE}"/>')
    for place, (report, value) in enumerate(zip(reports, values, strict=True)):
        upper, length = top + _HEAD - 16 + _PITCH * place, room * value / longest
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(_text(start - 8, upper + 11, report["engine"], 'text-anchor="end"'))
        parts.append(f'<rect x="{start}" y="{upper}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>')
        parts.append(_text(start + length + 6, upper + 11, figure.form.format(value), ""))
    return "".join(parts)


def _delay(chosen: dict[str, Any]) -> str:
    milliseconds = chosen["latency_milliseconds"]
    return f"{milliseconds / 1000:g} s in the mean" if milliseconds else "5 to 50 ms"


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {attributes}>{escape(text)}</text>'
