"""A network with a stock client in one of its nodes; `test_stock_client` starts this in a namespace of its own."""

import time
from contextlib import ExitStack
from pathlib import Path

from learnchain.execution.engine_api import Endpoints, EngineApiClient, load_secret
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.rejection import Unavailable
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from tests.execution.mixed_network import both_kinds_agree
from tests.execution.stock_process import ENGINE, SECRET_NAME, START_SECONDS, WALLETS, WaitingCaller, stock_client

REMOTE = 1
"""A miner and publisher: its client builds payloads, judges those of others, and reorganises with the rest."""


def test_a_miner_with_a_stock_client_agrees_with_embedded_ones_through_a_reorganisation(tmp_path: Path):
    clients: list[EngineApiClient] = []
    place = tmp_path / "client"
    place.mkdir()
    with ExitStack() as running:

        def start(nodes: SimulatedNodes, _embedded: PyEvmEngine) -> EngineApiClient:
            running.enter_context(stock_client(place, dict(nodes.genesis.execution)))
            endpoints = Endpoints(WaitingCaller(ENGINE, load_secret(place / SECRET_NAME)), WaitingCaller(WALLETS, None))
            wait_until_it_answers(endpoints)
            client = EngineApiClient(endpoints, nodes.genesis.execution, build_seconds=0.05)
            clients.append(client)
            return client

        async def story() -> None:
            await both_kinds_agree(tmp_path, (REMOTE,), start)

        run_simulated(story())
    assert len(clients) == 1


def wait_until_it_answers(endpoints: Endpoints) -> None:
    """Wait in real time until the client serves its engine port."""
    ends = time.monotonic() + START_SECONDS
    while True:
        try:
            # A coroutine that never waits runs to its end in one step.
            endpoints.engine.call("engine_exchangeCapabilities", [[]]).send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        except Unavailable:
            assert time.monotonic() < ends, "the client does not start"
            time.sleep(0.2)
