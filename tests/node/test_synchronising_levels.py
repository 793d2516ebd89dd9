"""A judging node that joins a network which freed its old models: what is there is judged, the rest is said."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.api.views import LearnInterface
from learnchain.encoding.files import MemoryStore
from learnchain.learning.jobs import Evaluation, EvaluationJob
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Block
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.verification.assurance import Demand, Level
from learnchain_conformance.instant_training import InstantTraining

WINDOW = 4
BRIEF = {"audit_window_blocks": 4, "response_blocks": 1, "proof_blocks": 1}
"""Nobody keeps states for longer than the window because it may be asked for their steps."""
TEST_ROWS = 360
PRUNED_HEIGHT = 14
LATE = 2


class Strict(InstantTraining):
    """Judge honestly what the others flatter."""

    def __init__(self, test_rows: int) -> None:
        super().__init__(test_rows)
        self.judged = 0

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        self.judged += 1
        found = await super().evaluate(job)
        return replace(found, correct=found.correct - 1)


async def pruned_network(directory: Path, judge: Callable[[], InstantTraining]) -> SimulatedNodes:
    """Return a network at a height far beyond its window, one of whose nodes never ran."""
    nodes = SimulatedNodes(directory, LocalPlan(directory, miners=LATE, finality_depth=3, parameters=BRIEF), seed=2)
    nodes.make_training = lambda _index: InstantTraining(TEST_ROWS)
    nodes.make_judge = lambda index: judge() if index == LATE else InstantTraining(TEST_ROWS)
    nodes.change = lambda settings: replace(settings, retain_blocks=WINDOW)
    await nodes.start()
    await nodes.kill(LATE)
    place = nodes.places[LATE]
    place.store, place.execution = MemoryStore(), MemoryStore()
    await nodes.wait_for_height(PRUNED_HEIGHT, 600)
    return nodes


async def join(nodes: SimulatedNodes, demand: Demand) -> None:
    place = nodes.places[LATE]
    directory = Path(place.settings.data_directory) / "again"
    place.settings = replace(
        place.settings, sync_level=demand.value, is_miner=False, is_publisher=False, data_directory=str(directory)
    )
    await nodes.start_node(LATE)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    run_simulated(main())


def models_there(nodes: SimulatedNodes) -> dict[int, bool]:
    """Return for every trained height whether a node that was there from the start still has its model."""
    ports = nodes.node(1).ports
    found: dict[int, bool] = {}
    for state in ports.archive.branch(ports.chain.round.head.block, 0):
        block = ports.archive.block(state.block_hash)
        if isinstance(block, Block):
            found[block.height] = ports.blobs.path(block.reveal.model_cid) is not None
    return found


def levels(nodes: SimulatedNodes) -> dict[int, str]:
    """Return what the late node says of every trained block, as its interface does."""
    node = nodes.node(LATE)
    place = Path(nodes.places[LATE].settings.data_directory)
    views = LearnInterface(node.ports, node.network, node.genesis, place)
    head = node.ports.chain.round.head
    found = [views._block_view(state) for state in node.ports.archive.branch(head.block, 0)]
    return {each["height"]: each["level"] for each in found if each["trained"]}


@pytest.mark.parametrize("demand", [Demand.AVAILABLE, Demand.HEADERS])
def test_a_late_judge_agrees_and_says_which_level_each_block_got(tmp_path: Path, demand: Demand) -> None:
    async def scenario() -> None:
        nodes = await pruned_network(tmp_path, lambda: InstantTraining(TEST_ROWS))
        there = models_there(nodes)
        joined = nodes.node(1).ports.chain.round.selection.height
        await join(nodes, demand)
        await nodes.wait_for_height(PRUNED_HEIGHT + 6, 600)
        found = levels(nodes)
        old = {height for height in found if height <= PRUNED_HEIGHT - WINDOW - 1}
        headers = {height for height in old if demand is Demand.HEADERS or not there[height]}
        assert headers
        assert {height for height in old if found[height] == Level.HEADERS.value} == headers
        # What is decided from now on is judged, and so is what is there where that was asked for.
        assert {found[height] for height in found if height > joined} == {Level.ACCURACY.value}
        if demand is Demand.AVAILABLE:
            assert {found[height] for height in found if height >= PRUNED_HEIGHT} == {Level.ACCURACY.value}
        await nodes.close()

    run(scenario)


def test_a_late_judge_that_demands_accuracy_waits_at_the_first_model_that_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await pruned_network(tmp_path, lambda: InstantTraining(TEST_ROWS))
        gone = min(height for height, here in models_there(nodes).items() if not here)
        await join(nodes, Demand.ACCURACY)
        await nodes.wait_until(lambda: nodes.node(0).ports.chain.round.head.height >= PRUNED_HEIGHT + 6, 600)
        late = nodes.node(LATE).ports
        assert late.chain.round.head.height == gone - 1
        assert set(levels(nodes).values()) <= {Level.ACCURACY.value}
        await nodes.close()

    run(scenario)


def test_a_late_judge_refuses_a_false_claim_whose_model_is_there(tmp_path: Path) -> None:
    """To a stricter counter every claim of this chain is false: it shows wherever the model can be had."""

    async def scenario() -> None:
        judges: list[Strict] = []

        def strict() -> InstantTraining:
            judges.append(Strict(TEST_ROWS))
            return judges[-1]

        nodes = await pruned_network(tmp_path, strict)
        there = models_there(nodes)
        first = min(height for height, here in there.items() if here)
        await join(nodes, Demand.AVAILABLE)
        await nodes.wait_until(lambda: nodes.node(0).ports.chain.round.head.height >= PRUNED_HEIGHT + 3, 600)
        late = nodes.node(LATE).ports
        assert judges[-1].judged >= 1
        theirs = nodes.node(0).ports
        refused = theirs.archive.branch(theirs.chain.round.head.block, first - 1)[0].block_hash
        assert refused not in late.chain.round.tree
        assert refused not in late.archive.at_height(first)
        await nodes.close()

    run(scenario)


def test_settings_with_another_demand_are_refused(tmp_path: Path) -> None:
    from learnchain.node.settings import NodeSettings, load_settings

    NodeSettings("n", "g", str(tmp_path), "w", sync_level="most").save(tmp_path / "settings.json")
    with pytest.raises(Rejected) as refused:
        load_settings(tmp_path / "settings.json")
    assert refused.value.reason is RejectionReason.ARGUMENT_INVALID
