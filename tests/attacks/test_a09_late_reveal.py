"""A09: the best miner opens its model late, when the second best has won already and the chain went on.

Nothing on the chain says when a model was opened. The best miner stays silent in time; whenever it likes it publishes
its block, and the better sibling voids its rival's block and the next one, with the payments in them.

Earns: up to two blocks voided (double spending) for the best model of one height.
Kind: the chain is owned at no cost; pure round; engines that count answers.
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass

import pytest

from learnchain.protocol.actions import ProposeBlock
from learnchain.protocol.events import BlockReceived
from learnchain.simulation.scenario import HeightPlan, build_proposed_block, open_height, reveal_models, run_height
from learnchain_conformance.engine_scenarios import EngineScenario, find_scenario, shipped_engines

COUNTING = tuple(find_scenario(name) for name in shipped_engines() if name != "proof_of_work")


@dataclass(frozen=True)
class LateOpening:
    """What a block did that was withheld while others were built on its rival."""

    reorganised: bool
    voided_blocks: int


def attack(play: EngineScenario, blocks_on_top: int) -> LateOpening:
    """Withhold the best model of height 2 until so many blocks stand on its rival's."""
    node = play.start_node()
    run_height(node)
    parent = node.parent
    plan = HeightPlan(correct={"miner-1": 99, "miner-2": 90}, silent_miners=frozenset({"miner-1"}))
    candidates = open_height(node, plan)
    actions = reveal_models(node, plan, candidates)
    proposal = next(action for action in actions if isinstance(action, ProposeBlock))
    node.receive(build_proposed_block(node.builder, proposal, candidates))
    for _ in range(blocks_on_top):
        run_height(node, HeightPlan(correct={"miner-2": 91}))
    head = node.round.head
    best = next(candidate for candidate in candidates if candidate.miner == "miner-1")
    late = node.builder.build_block(parent, candidates, winner=best)
    node.feed(BlockReceived(late, node.round.selection.schedule.commitment_milliseconds - 1))
    reorganised = node.round.head.block != head.block
    return LateOpening(reorganised, head.height - parent.height if reorganised else 0)


@pytest.mark.parametrize("blocks_on_top", [0, 1])
@pytest.mark.parametrize("play", COUNTING, ids=lambda play: play.rules.name)
def test_a_late_opening_voids_its_rival_and_the_next_block(play: EngineScenario, blocks_on_top: int) -> None:
    result = attack(play, blocks_on_top)
    assert result.reorganised
    assert result.voided_blocks == blocks_on_top + 1


@pytest.mark.parametrize("play", COUNTING, ids=lambda play: play.rules.name)
def test_a_third_block_is_out_of_its_reach(play: EngineScenario) -> None:
    assert not attack(play, blocks_on_top=2).reorganised
