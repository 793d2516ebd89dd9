"""Train in this process and in virtual time: real models and real counts, seconds as the simulation says.

A whole network in one process and in virtual time: real nodes, engine and training on a simulated wire.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learnchain.app.service import load_wallet
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import shake256, tagged_hash
from learnchain.encoding.files import MemoryStore
from learnchain.encryption.process import in_this_process
from learnchain.execution.engine_api import EngineApiClient
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.learning import jobs
from learnchain.learning.job_data import Requirement, training_rows
from learnchain.learning.train import Watcher, configure_torch, plan_of, start_of, train
from learnchain.learning.worker import perform
from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.node.node import Node, Parts
from learnchain.node.settings import NodeSettings, load_settings
from learnchain.simulation.simulated_network import LinkConditions, SimulatedClock, SimulatedNetwork, SimulatedTransport
from learnchain.storage.genesis import Genesis, load_genesis
from learnchain.tasks.publishing import TaskPublisher, prepare_task
from learnchain.tasks.task_file import task_draft

SIMULATED_HASHES_PER_SECOND = 4_000
"""Few enough that a simulated hour of hashing takes seconds."""

SIMULATED_CLASS: Hash32 = tagged_hash("reproducibility-class", b"simulated")
"""What processes in one process share: their bits."""


class InProcessTraining:
    """Stand in for a training process; one epoch takes `epoch_seconds` of virtual time, at most `maximum_epochs`."""

    def __init__(
        self,
        epoch_seconds: float = 0.4,
        maximum_epochs: int = 8,
        hashes_per_second: int = SIMULATED_HASHES_PER_SECOND,
        named_class: Hash32 = SIMULATED_CLASS,
    ) -> None:
        configure_torch()
        self._class = named_class
        self._epoch_seconds = epoch_seconds
        self._maximum_epochs = maximum_epochs
        self._hashes_per_second = hashes_per_second
        self._finished = False

    async def start(self) -> None:
        """Nothing has to be loaded."""

    async def machine_class(self) -> Hash32:
        """Return the class that this node says it has."""
        return self._class

    async def run(self, job: jobs.Job[jobs.Answer], on_progress: jobs.OnProgress | None = None) -> jobs.Answer:
        """Do what a training process does, in the time that the simulation says; audits and disputes take none."""
        timed: dict[type[jobs.Job[Any]], Callable[[Any], Awaitable[Any]]] = {
            jobs.ProbeJob: self._probe,
            jobs.TrainingJob: lambda run: self.train(run, on_progress),
            jobs.EvaluationJob: self.evaluate,
            jobs.SearchJob: self._search,
        }
        return await timed[type(job)](job) if type(job) in timed else self._perform(job)

    async def _probe(self, _job: jobs.ProbeJob) -> float:
        await asyncio.sleep(self._epoch_seconds)
        return self._epoch_seconds

    async def train(self, job: jobs.TrainingJob, on_progress: jobs.OnProgress | None = None) -> jobs.TrainedFiles:
        """Train for real; the time that passes is the simulation's."""
        self._finished = False
        planned = min(job.hyper_parameters.epochs, self._maximum_epochs)
        if job.required_denominator:
            # How long the run takes is known only from the run itself: it is repeated if it is stopped before.
            rows, limited = training_rows(job), _limit_epochs(job, planned)
            watcher = Watcher(asyncio.get_running_loop().time, reached=Requirement(job, rows).is_reached)
            planned = train(plan_of(limited), rows, watcher, None, start_of(job)).epochs
        epochs = 0
        while epochs < planned and not self._finished:
            await asyncio.sleep(self._epoch_seconds)
            epochs += 1
        files: jobs.TrainedFiles = self._perform(_limit_epochs(job, epochs), on_progress)
        seconds = self._epoch_seconds * epochs
        return replace(files, training_seconds=seconds, process_seconds=seconds)

    async def finish_early(self) -> None:
        """End running training after its present epoch."""
        self._finished = True

    async def evaluate(self, job: jobs.EvaluationJob) -> jobs.Evaluation:
        """Return the exact counts of a model."""
        return self._perform(job)

    async def _search(self, job: jobs.SearchJob) -> jobs.Search:
        """Try salts for real, a twentieth of a virtual second of them at a time."""
        attempts = min(job.attempts, self._hashes_per_second // 20)
        search: jobs.Search = self._perform(replace(job, attempts=attempts))
        await asyncio.sleep(search.attempts / self._hashes_per_second)
        return search

    @staticmethod
    def _perform(job: jobs.Job[jobs.Answer], on_progress: jobs.OnProgress | None = None) -> jobs.Answer:
        clock = asyncio.get_running_loop().time
        return perform(job, Watcher(clock, on_progress or (lambda _progress: None)), clock())

    async def close(self) -> None:
        """Nothing runs."""


def _limit_epochs(job: jobs.TrainingJob, epochs: int) -> jobs.TrainingJob:
    return replace(job, hyper_parameters=replace(job.hyper_parameters, epochs=epochs))


@dataclass
class HostState:
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
        self.network = SimulatedNetwork(seed, LinkConditions())
        self._plan = replace(
            plan or LocalPlan(directory), directory=directory, random_source=random.Random(seed), rpc_port=1
        )
        self.places: list[HostState] = []
        self.make_training: Callable[[int], jobs.Training] = lambda _index: InProcessTraining()
        self.make_judge: Callable[[int], jobs.Training] = lambda _index: InProcessTraining()
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
        laid_out = await provision_network(self._plan, self.clock.now_milliseconds())
        for index, path in enumerate(laid_out.settings):
            transport = self.network.transport(shake256("simulated-peer", bytes([index]), 32))
            known = tuple(str(place.transport.address()) for place in self.places)
            plays = {"is_publisher": index in self.publishers, "is_auditor": index in self.auditors}
            settings = replace(load_settings(path), peers=known, **plays)
            self.places.append(HostState(self.change(settings), transport, MemoryStore(), MemoryStore()))
        for index in range(len(self.places)):
            await self.start_node(index)

    async def start_node(self, index: int) -> None:
        """Start a node on whatever its stores hold."""
        place = self.places[index]
        if place.transport.closed:
            place.transport = self.network.reopen_transport(place.transport)
        parts = Parts(
            clock=self.clock,
            transport=place.transport,
            store=place.store,
            execution=self.make_execution(index, PyEvmEngine(place.execution, self.genesis.execution)),
            evaluator=self.make_judge(index),
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
        specification = await prepare_task(
            draft, ports.blobs, ports.vault, directory, ports.random_source, in_this_process
        )
        publishing = TaskPublisher(ports.chain.parameters, ports.engine, ports.wallet, ports.clock)
        posting = await publishing.post(draft, specification)
        await node.submit_transaction(posting.raw)

    def heads(self) -> set[bytes]:
        """Return the heads of all running nodes; one element means that they agree."""
        return {place.node.ports.chain.round.head.block for place in self.places if place.node is not None}

    async def wait_until(self, condition: Callable[[], bool], within_seconds: float) -> None:
        """Wait in virtual time; raise TimeoutError when the condition does not come true."""
        async with asyncio.timeout(within_seconds):
            while not condition():
                await asyncio.sleep(0.05)

    async def wait_for_height(self, height: int, within_seconds: float) -> None:
        """Wait until every running node has a head of at least this height, and all agree."""

        def has_reached() -> bool:
            running = [place.node.ports.chain.round.head.height for place in self.places if place.node is not None]
            return min(running) >= height and len(self.heads()) == 1

        await self.wait_until(has_reached, within_seconds)
