"""A08: a cheat fills all places of a height's commitments but one with throw-away keys and takes the last one itself.

Places are first come and need no stake while bonds are kept back from the reward (the default), whatever the bond.
Honest miners are refused (`commitments_full`), and a model of a single epoch wins.

Earns: every block, for one signature a place and height (63 as shipped, 7 here); nobody is banned.
Kind: the chain stops or is owned at no cost; real nodes with real training in virtual time.
Wins today; to be turned around by the rule that stops it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from learnchain.encoding.cryptography import UNSIGNED, address_of, sign, tagged_hash
from learnchain.learning.jobs import TrainedFiles, TrainingJob, TrainingProgress
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Commitment
from learnchain.rejection import Rejected, Unavailable
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from tests.attacks.simulated_chain import address_of_node, trained_blocks

CHEAT, BLOCKS, PLACES = 1, 1, 8
PARAMETERS = {
    "maximum_commitments": PLACES,
    "minimum_commitment_bond_wei": 10**18,
    "challenge_cost_gwei": 10**6,
}


@dataclass(frozen=True)
class FilledPlaces:
    """Who won while the places were taken, with models right on how many of the test rows."""

    blocks: int
    won_by_cheat: int
    honest_commitments: int
    commitments: int
    correct: tuple[int, ...]
    rows: int


class OneEpoch(InProcessTraining):
    """Train a single epoch, so that the model is ready before anybody's."""

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
        short = replace(job, hyper_parameters=replace(job.hyper_parameters, epochs=1))
        return await super().train(short, on_progress)


async def fill_places(nodes: SimulatedNodes) -> None:
    """Announce commitments of throw-away keys at the start of every height, one fewer than there are places."""
    ports, seen = nodes.node(CHEAT).ports, None
    while True:
        await asyncio.sleep(0.02)
        selection, parameters = ports.chain.round.selection, ports.chain.parameters
        if selection.parent == seen:
            continue
        seen = selection.parent
        await ports.clock.sleep_until(selection.schedule.start_milliseconds)
        for index in range(parameters.maximum_commitments - 1):
            key = tagged_hash("throw-away", seen, bytes([index]))
            commitment = Commitment(
                parameters.chain_id,
                selection.height,
                selection.parent,
                selection.task.task_id,
                address_of(key),
                tagged_hash("nothing", key),
                parameters.minimum_commitment_bond_wei,
                b"",
                UNSIGNED,
            )
            with suppress(Rejected, Unavailable):
                await ports.announce(sign(commitment, key))
            await asyncio.sleep(0.005)


async def play(directory: Path) -> FilledPlaces:
    """Let one cheat and two honest miners compete for some blocks."""
    plan = LocalPlan(directory, miners=3, parameters=PARAMETERS)
    nodes = SimulatedNodes(directory, plan, seed=7)
    nodes.make_training = lambda index: OneEpoch(epoch_seconds=0.01) if index == CHEAT else InProcessTraining(0.3, 2)
    await nodes.start()
    filling = asyncio.create_task(fill_places(nodes))
    await nodes.wait_until(lambda: nodes.node(0).ports.chain.round.head.height >= BLOCKS, 300)
    filling.cancel()
    won = trained_blocks(nodes)
    honest = {address_of_node(nodes, index) for index in (2, 3)}
    committed = [commitment.miner for block in won for commitment in block.commitments]
    result = FilledPlaces(
        blocks=nodes.node(0).ports.chain.round.head.height,
        won_by_cheat=sum(block.proposer == address_of_node(nodes, CHEAT) for block in won),
        honest_commitments=sum(miner in honest for miner in committed),
        commitments=len(committed),
        correct=tuple(block.verdict.correct for block in won),
        rows=won[0].verdict.total if won else 0,
    )
    await nodes.close()
    return result


def attack(directory: Path) -> FilledPlaces:
    """Run the attack in virtual time."""
    return run_simulated(play(directory))


def test_throw_away_keys_win_every_block_for_a_model_of_one_epoch(tmp_path: Path) -> None:
    result = attack(tmp_path)
    assert result.won_by_cheat == result.blocks == BLOCKS
    assert result.honest_commitments == 0
    assert result.commitments == BLOCKS * PLACES
