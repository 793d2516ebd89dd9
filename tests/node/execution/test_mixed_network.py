"""A network in which one node runs the embedded engine and another drives a client over the Engine API."""

from pathlib import Path

import pytest

from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.node.execution.engine_api import Endpoints, EngineApiClient
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC, LocalPlan
from learnchain.node.wallet import development_accounts
from learnchain.testing.engine_api_server import EngineApiServer
from learnchain.testing.simulated_clock import run_simulated
from learnchain.testing.simulated_nodes import SimulatedNodes
from tests.execution.chain import ETHER

HEIGHTS = 20
MINERS = 3
REMOTE = (1, 3)
"""Nodes whose engine stands behind the Engine API: a miner on each side of the partition."""


@pytest.mark.slow
def test_both_kinds_of_engine_agree_on_twenty_heights_with_transactions_and_a_reorganisation(tmp_path: Path):
    moves: dict[bytes, int] = {}

    def execution(nodes: SimulatedNodes, index: int, embedded: PyEvmEngine) -> PyEvmEngine | EngineApiClient:
        if index not in REMOTE:
            return embedded
        server = EngineApiServer(embedded)
        return EngineApiClient(Endpoints(server, server), nodes.genesis.execution, build_seconds=0.05)

    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=MINERS), seed=11)
        nodes.publishers = {0, 1}
        nodes.make_execution = lambda index, embedded: execution(nodes, index, embedded)
        await nodes.start()
        for index in range(MINERS + 1):
            node = nodes.node(index)
            node.engine.signals.head_listeners.append(lambda head, index=index: moves.update({head: index}))
        spender = development_accounts(DEVELOPMENT_MNEMONIC, MINERS + 2)[-1]
        sent = 0

        async def spend(index: int) -> None:
            nonlocal sent
            fields = {"chainId": 1337, "nonce": sent, "to": b"\x99" * 20, "value": ETHER, "gas": 21_000}
            fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}
            await nodes.node(index).submit_transaction(spender.sign_transaction(fields | fees))
            sent += 1

        for height in range(1, 6):
            await spend(height % 4)
            await nodes.until_height(height, 200)
        identities = [place.transport.peer_id for place in nodes.places]
        fork = nodes.node(0).ports.chain.round.head.height
        nodes.network.partition({identities[0], identities[1]}, {identities[2], identities[3]})
        await nodes.until(
            lambda: min(nodes.node(index).ports.chain.round.head.height for index in (0, 2)) > fork, within_seconds=300
        )
        assert len(nodes.heads()) == 2
        nodes.network.heal()
        await nodes.until_height(fork + 2, 300)
        for height in range(nodes.node(0).ports.chain.round.head.height + 1, HEIGHTS + 1):
            await spend(height % 4)
            await nodes.until_height(height, 200)
        engines = [nodes.node(index).engine for index in range(MINERS + 1)]
        infos = [await engine.capabilities() for engine in engines]
        assert len({info.head for info in infos}) == 1
        assert [info.name for info in infos].count("engine-api") == len(REMOTE)
        assert infos[0].head_number >= HEIGHTS
        balances = {await engine.balance(infos[0].head, b"\x99" * 20) for engine in engines}
        assert len(balances) == 1
        assert balances.pop() >= (sent - 1) * ETHER
        # More heads were chosen than the chain is long: some of them left it again.
        assert len(moves) > infos[0].head_number
        await nodes.close()

    run_simulated(scenario())
