"""A network that was off as a whole: it goes on with what it was doing, and loses one height."""

import asyncio
from pathlib import Path

import pytest

from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Block, Deadline, EmptyBlock
from learnchain.protocol.payload import SettlementOutcome
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from tests.node.test_node import DIGITS, blocks, branch

MINERS = 2


class Loading(InProcessTraining):
    """Take as long to start as a process that loads torch on a busy machine."""

    async def start(self) -> None:
        await asyncio.sleep(9)


def restarted(directory: Path, into_height_seconds: float, off_seconds: float) -> tuple[list[Block | EmptyBlock], list]:
    """Return the blocks after an outage in the height of a commissioned task, and how the task ended."""
    found: list = []

    async def main() -> None:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=MINERS, finality_depth=2), seed=11)
        await nodes.start()
        await nodes.publish(DIGITS)
        chain = nodes.node(0).ports.chain
        await nodes.wait_until(lambda: not chain.round.selection.task.is_standing, 120)
        selection = chain.round.selection
        await nodes.clock.sleep_until(selection.schedule.start_milliseconds + int(1000 * into_height_seconds))
        for index in range(MINERS + 1):
            await nodes.kill(index)
        await asyncio.sleep(off_seconds)
        nodes.make_training = nodes.make_judge = lambda _index: Loading()
        for index in range(MINERS + 1):
            await nodes.start_node(index)
        await nodes.wait_for_height(selection.height + 3, 240)
        for index in range(MINERS + 1):
            # Everybody ended the height; what lost is forgotten once another one is final.
            assert len(nodes.node(index).ports.archive.at_height(selection.height)) == 1
        settled = [each for state in branch(nodes) for each in state.reward.settlements]
        found.extend((blocks(nodes)[selection.height - 1 :], [each.outcome for each in settled]))
        assert branch(nodes)[-1].ledger.locked_wei == 0
        await nodes.close()

    run_simulated(main())
    return found[0], found[1]


@pytest.mark.parametrize("off_seconds", [4.0, 300.0])
def test_a_network_that_was_off_goes_on_with_its_task_after_one_empty_height(
    tmp_path: Path, off_seconds: float
) -> None:
    after, outcomes = restarted(tmp_path, 3.0, off_seconds)
    assert [isinstance(each, EmptyBlock) for each in after][:3] == [True, False, False]
    assert isinstance(after[0], EmptyBlock)
    assert after[0].missed is Deadline.BLOCK
    assert outcomes == [SettlementOutcome.PAID]


def test_what_was_committed_to_is_refunded(tmp_path: Path) -> None:
    after, outcomes = restarted(tmp_path, 6.2, 300.0)
    assert [isinstance(each, EmptyBlock) for each in after][:3] == [True, False, False]
    assert outcomes == [SettlementOutcome.REFUNDED]
