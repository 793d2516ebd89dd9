"""Play heights of DLBC; every wrong event that all engines must refuse is first of all one of a DLBC chain."""

from dataclasses import replace

from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.engines.dlbc import INTERPRETATIONS, Dlbc, rules
from learnchain.engines.dlbc.rules import Phases, Ranking
from learnchain.protocol.state import ChainState, PostedTask
from learnchain.simulation.chain_builder import ChainBuilder
from learnchain.simulation.sample_tasks import build_sample_specification, build_sample_task
from learnchain.simulation.scenario import ScenarioNode, start_from_genesis
from learnchain_conformance.bad_inputs import BAD_INPUTS
from learnchain_conformance.engine_scenarios import EngineScenario

MILLION = 1_000_000

DLBC = Dlbc(
    phases=Phases(60_000, 540_000, 60_000, 15_000, 35_000),
    ranking=Ranking(32, MILLION, 12_500_000, 10_000_000_000),
    watermark_strength_millionths=100_000,
    watermark_threshold_millionths=999_900,
)
"""Every number is written out: a changed default must not change a vector."""

DLBC_CALLS = (
    rules.queue_index,
    rules.network_difficulty,
    rules.computation_difficulty,
    rules.ranking_score,
    rules.publisher_share,
    rules.miner_share,
    Phases.schedule_height,
)


def start_dlbc_node() -> ScenarioNode:
    """Return a fresh node on the sample chain."""
    return start_from_genesis(ChainBuilder(DLBC))


def build_three_tasks() -> tuple[PostedTask, ...]:
    """Return tasks that differ in reward, size and FLOPs; `small` has the best score although it pays least."""
    return (
        build_sample_task("small", WEI_PER_ETHER, specification=build_sample_specification("small", (8,), 400)),
        build_sample_task(
            "rich", 3 * WEI_PER_ETHER, specification=build_sample_specification("rich", (512, 512), 40_000)
        ),
        build_sample_task(
            "middle", 2 * WEI_PER_ETHER, specification=build_sample_specification("middle", (64,), 4_000)
        ),
    )


def build_queued_state(tasks: tuple[PostedTask, ...]) -> ChainState:
    """Return a genesis state whose list holds these tasks."""
    return replace(
        start_dlbc_node().builder.build_genesis(), queued_tasks=tuple(sorted(tasks, key=lambda each: each.task.task_id))
    )


SCENARIO = EngineScenario(DLBC, INTERPRETATIONS, DLBC_CALLS, BAD_INPUTS, start_dlbc_node)
