"""A whole network in one process and in virtual time: real nodes, engine and training on a simulated wire."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.node.encryption.process import in_this_process
from learnchain.node.execution.engine_api import EngineApiClient
from learnchain.node.genesis import Genesis, load_genesis
from learnchain.node.local_network import LocalPlan, lay_out
from learnchain.node.node import Node, Parts
from learnchain.node.ports import Training
from learnchain.node.publishing import Publishing, prepared
from learnchain.node.service import load_wallet
from learnchain.node.settings import NodeSettings, load_settings
from learnchain.node.task_file import task_draft
from learnchain.primitives.hashing import shake256
from learnchain.primitives.key_value import MemoryStore
from learnchain.testing.in_process_training import InProcessTraining
from learnchain.testing.simulated_clock import SimulatedClock
from learnchain.testing.simulated_network import SimulatedNetwork, SimulatedTransport, Weather


@dataclass
class Place:
    """Hold what survives the death of a simulated node: its settings, its directory and its stores."""

    settings: NodeSettings
    transport: SimulatedTransport
    store: MemoryStore
    execution: MemoryStore
    node: Node | None = None


class SimulatedNodes:
    """Start, kill, restart and partition nodes; node 0 publishes, the others mine."""

    def __init__(self, directory: Path, plan: LocalPlan | None = None, seed: int = 0) -> None:
        self._seed = seed
        self.clock = SimulatedClock()
        self.network = SimulatedNetwork(seed, Weather())
        self._plan = replace(
            plan or LocalPlan(directory), directory=directory, random_source=random.Random(seed), rpc_port=1
        )
        self.places: list[Place] = []
        self.make_training: Callable[[int], Training] = lambda _index: InProcessTraining()
        self.make_judge: Callable[[int], Training] = lambda _index: InProcessTraining()
        self.make_execution: Callable[[int, PyEvmEngine], PyEvmEngine | EngineApiClient] = lambda _index, engine: engine
        self.publishers = {0}
        self.auditors: set[int] = set()
        self.change: Callable[[NodeSettings], NodeSettings] = lambda settings: settings

    @property
    def genesis(self) -> Genesis:
        """Return the network's genesis."""
        return load_genesis(self._plan.directory / "genesis.json")

    def node(self, index: int) -> Node:
        """Return a running node."""
        found = self.places[index].node
        if found is None:
            raise AssertionError(f"node {index} does not run")
        return found

    async def start(self) -> None:
        """Lay out the network and start every node."""
        laid_out = await lay_out(self._plan, self.clock.now_milliseconds())
        for index, path in enumerate(laid_out.settings):
            transport = self.network.transport(shake256("simulated-peer", bytes([index]), 32))
            known = tuple(str(place.transport.address()) for place in self.places)
            plays = {"is_publisher": index in self.publishers, "is_auditor": index in self.auditors}
            settings = replace(load_settings(path), peers=known, **plays)
            self.places.append(Place(self.change(settings), transport, MemoryStore(), MemoryStore()))
        for index in range(len(self.places)):
            await self.start_node(index)

    async def start_node(self, index: int) -> None:
        """Start a node on whatever its stores hold."""
        place = self.places[index]
        if place.transport.closed:
            place.transport = self.network.reopened(place.transport)
        parts = Parts(
            clock=self.clock,
            transport=place.transport,
            store=place.store,
            execution=self.make_execution(index, PyEvmEngine(place.execution, self.genesis.execution)),
            judge=self.make_judge(index),
            trainer=self.make_training(index) if place.settings.is_miner else None,
            random_source=random.Random(f"{self._seed}/{index}/{self.clock.now_milliseconds()}"),
            encryption=in_this_process,
        )
        place.node = Node(place.settings, self.genesis, load_wallet(Path(place.settings.wallet)), parts)
        await place.node.start()

    async def kill(self, index: int) -> None:
        """End a node at once: nothing is said to anybody, only what its stores hold remains."""
        place = self.places[index]
        node, place.node = self.node(index), None
        self.network.break_connections(place.transport.peer_id)
        await node.ports.tasks.close()
        await place.transport.close()
        await node.network.close()

    async def close(self) -> None:
        """Stop everything."""
        for place in self.places:
            if place.node is not None:
                await place.node.close()
                await place.transport.close()

    async def publish(self, table: dict[str, Any], index: int = 0) -> None:
        """Commission a model from one node's account."""
        node = self.node(index)
        draft = task_draft(table)
        directory = Path(self.places[index].settings.data_directory) / "publishing"
        ports = node.ports
        specification = await prepared(draft, ports.blobs, ports.vault, directory, ports.random_source, in_this_process)
        publishing = Publishing(ports.chain.parameters, ports.engine, ports.wallet, ports.clock)
        posting = await publishing.post(draft, specification)
        await node.submit_transaction(posting.raw)

    def heads(self) -> set[bytes]:
        """Return the heads of all running nodes; one element means that they agree."""
        return {place.node.ports.chain.round.head.block for place in self.places if place.node is not None}

    async def until(self, condition: Callable[[], bool], within_seconds: float) -> None:
        """Wait in virtual time; raise TimeoutError when the condition does not come true."""
        async with asyncio.timeout(within_seconds):
            while not condition():
                await asyncio.sleep(0.05)

    async def until_height(self, height: int, within_seconds: float) -> None:
        """Wait until every running node has a head of at least this height, and all agree."""

        def reached() -> bool:
            running = [place.node.ports.chain.round.head.height for place in self.places if place.node is not None]
            return min(running) >= height and len(self.heads()) == 1

        await self.until(reached, within_seconds)
