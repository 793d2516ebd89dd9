"""A network in which one node runs the embedded engine and another drives a client over the Engine API."""

from pathlib import Path

import pytest

from learnchain.execution.engine_api import Endpoints, EngineApiClient
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain_conformance.engine_api_server import EngineApiServer
from tests.execution.mixed_network import both_kinds_agree

REMOTE = (1, 3)
"""Nodes whose engine stands behind the Engine API: a miner on each side of the partition."""


def _client(nodes: SimulatedNodes, embedded: PyEvmEngine) -> EngineApiClient:
    server = EngineApiServer(embedded)
    return EngineApiClient(Endpoints(server, server), nodes.genesis.execution, build_seconds=0.05)


@pytest.mark.slow
def test_both_kinds_of_engine_agree_on_twenty_heights_with_transactions_and_a_reorganisation(tmp_path: Path):
    run_simulated(both_kinds_agree(tmp_path, REMOTE, _client))
