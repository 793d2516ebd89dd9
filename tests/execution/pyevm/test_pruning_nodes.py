"""Nodes that let old states go follow forks, restarts and late joiners as nodes do that keep them all."""

from pathlib import Path

import pytest

from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.pruning import PruningPolicy
from learnchain.execution.pyevm.records import Records
from learnchain.execution.wallet import development_accounts
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC, LocalPlan
from learnchain.rejection import Unavailable
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain_conformance.instant_training import InstantTraining

MINERS = 2
TEST_ROWS = 360
KEEPING = PruningPolicy(blocks=1, least_bytes=1, step_nodes=200)
ARCHIVE = 1
"""This node keeps every state, so that the others can be compared with it."""


@pytest.mark.slow
def test_a_network_that_lets_states_go_agrees_with_an_archive_through_forks_and_restarts(tmp_path: Path):
    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=MINERS, finality_depth=4), seed=12)
        nodes.make_training = nodes.make_judge = lambda _index: InstantTraining(TEST_ROWS)
        nodes.make_execution = lambda index, _engine: PyEvmEngine(
            nodes.places[index].execution, nodes.genesis.execution, PruningPolicy() if index == ARCHIVE else KEEPING
        )
        await nodes.start()
        spender = development_accounts(DEVELOPMENT_MNEMONIC, MINERS + 2)[-1]
        for nonce in range(30):
            fields = {"chainId": 1337, "nonce": nonce, "to": (nonce + 2**80).to_bytes(20, "big"), "value": 1}
            fees = {"gas": 21_000, "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}
            await nodes.node(nonce % 3).submit_transaction(spender.sign_transaction(fields | fees))
            await nodes.wait_for_height(nonce + 1, 400)
            if nonce in (12, 21):
                await nodes.kill(2)
                await nodes.start_node(2)
            if nonce == 16:
                await part_and_join(nodes)
        engines = [nodes.node(index).engine for index in range(MINERS + 1)]
        head = (await engines[0].capabilities()).head
        for engine in engines:
            assert await engine.balance(head, spender.address) == await engines[ARCHIVE].balance(head, spender.address)
        early = nodes.node(ARCHIVE).ports.archive
        first = early.on_branch(nodes.node(ARCHIVE).ports.chain.round.head, 2).payload_hash
        assert await engines[ARCHIVE].balance(first, spender.address) > 0
        for index in (0, 2):
            state = Records(nodes.places[index].execution).nodes.state
            assert (state.generation >= 2, state.floor > 4) == (True, True), state
            with pytest.raises(Unavailable):
                await engines[index].balance(first, spender.address)
        await nodes.close()

    run_simulated(scenario())


async def part_and_join(nodes: SimulatedNodes) -> None:
    identities = [place.transport.peer_id for place in nodes.places]
    fork = nodes.node(0).ports.chain.round.head.height
    nodes.network.partition({identities[0]}, {identities[1], identities[2]})
    await nodes.wait_until(lambda: min(nodes.node(each).ports.chain.round.head.height for each in (0, 1)) > fork, 400)
    nodes.network.heal()
    await nodes.wait_for_height(fork + 1, 400)
