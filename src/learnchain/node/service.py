"""Run one node: open its stores, join its network, play its roles until it is told to stop."""

import asyncio
import logging
import os
import random
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.node.api.json_rpc import JsonRpcServer, JsonRpcSettings
from learnchain.node.api.views import LearnInterface
from learnchain.node.blobs.peer_blobs import PeerBlobs
from learnchain.node.chain import Chain
from learnchain.node.clock import Clock, SystemClock
from learnchain.node.decisions import Decisions
from learnchain.node.execution.engine import WorkerEngine
from learnchain.node.genesis import Genesis, load_genesis
from learnchain.node.network.gossip import Verdict
from learnchain.node.network.network import Network
from learnchain.node.network.tls_transport import TlsTransport
from learnchain.node.network.transport import parse_address
from learnchain.node.node import Dispatcher, Roles
from learnchain.node.ports import Ports, Tasks
from learnchain.node.roles.full_node import FullNode
from learnchain.node.roles.miner import Miner, Strategy
from learnchain.node.roles.publisher import Publisher
from learnchain.node.round_gossip import RoundGossip
from learnchain.node.settings import NodeSettings
from learnchain.node.storage.archive import Archive
from learnchain.node.storage.lmdb_store import LmdbStore
from learnchain.node.synchronising import Synchroniser
from learnchain.node.task_data import TaskData
from learnchain.node.trainer import Trainer
from learnchain.node.vault import Vault
from learnchain.node.wallet import Wallet
from learnchain.primitives.actions import MoveHead
from learnchain.primitives.rejection import Rejected, Unavailable

logger = logging.getLogger(__name__)

TRANSACTION_TOPIC = "transaction"


@dataclass(frozen=True)
class Machinery:
    """Hold what must be closed when the node stops."""

    ports: Ports
    network: Network
    transport: TlsTransport
    engine: WorkerEngine
    stores: tuple[LmdbStore, ...]
    trainers: tuple[Trainer, ...]
    rpc: JsonRpcServer | None


class NodeService:
    """Assemble a node from its settings; `run` returns when `stop` was called or the wanted height is reached."""

    def __init__(self, settings: NodeSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask the node to stop cleanly."""
        self._stopping.set()

    async def run(self) -> None:
        """Run the node."""
        machinery = await self._assembled()
        try:
            logger.info("%s listens on %s", self._settings.name, machinery.network.address())
            await self._stopping.wait()
        finally:
            await _close(machinery)

    async def _assembled(self) -> Machinery:
        settings, directory = self._settings, Path(self._settings.data_directory)
        directory.mkdir(parents=True, exist_ok=True)
        genesis = load_genesis(Path(settings.genesis))
        stores = (LmdbStore(directory / "chain"), LmdbStore(directory / "execution"))
        archive = Archive(stores[0], genesis.state())
        engine = WorkerEngine(PyEvmEngine(stores[1], genesis.execution))
        identity = _identity(directory / "identity.key")
        transport = await TlsTransport.listen(identity, settings.listen_host, settings.listen_port)
        network = Network(transport, genesis.hash, self._clock, random.SystemRandom())
        blobs = PeerBlobs(directory / "blobs", network)
        chain = Chain(genesis.rules, genesis.parameters, self._clock)
        trainers = (Trainer(), Trainer(nice=settings.training_nice))
        ports = Ports(
            clock=self._clock,
            chain=chain,
            network=RoundGossip(network, chain),
            blobs=blobs,
            data=TaskData(directory / "data", blobs),
            engine=engine,
            trainer=trainers[0],
            archive=archive,
            wallet=Wallet(bytes.fromhex(Path(settings.wallet).read_text().strip())),
            vault=Vault(directory / "vault"),
            tasks=Tasks(),
            decisions=Decisions(),
        )
        synchroniser = Synchroniser(network, chain, archive)
        dispatcher = Dispatcher(ports, self._roles(ports, trainers[1], directory))
        rpc = await self._interface(ports, network, genesis, directory)
        self._gossip_transactions(ports, network)
        final = archive.state(archive.head().finalized)
        later = tuple((each.block, each.state) for each in archive.records_above(final) if each.block is not None)
        for trainer in trainers[: 2 if settings.is_miner else 1]:
            ports.tasks.start(trainer.start(), "start of a training process")
        chain.start(final, later, dispatcher.perform)
        await network.start(parse_address(each) for each in settings.peers)
        ports.tasks.start(synchroniser.run(), "synchronising")
        return Machinery(ports, network, transport, engine, stores, trainers, rpc)

    def _roles(self, ports: Ports, trainer: Trainer, directory: Path) -> Roles:
        strategy = replace(Strategy(), learning_rate_thousandths=self._settings.learning_rate_thousandths)
        return Roles(
            full_node=FullNode(ports, self._head_moved),
            publisher=Publisher(ports) if self._settings.is_publisher else None,
            miner=Miner(ports, trainer, directory / "training", strategy) if self._settings.is_miner else None,
        )

    def _head_moved(self, action: MoveHead) -> None:
        logger.info("head is height %d, %s", action.head.height, action.head.block.hex()[:16])
        if 0 < self._settings.stop_after_height <= action.head.height:
            self.stop()

    async def _interface(
        self, ports: Ports, network: Network, genesis: Genesis, directory: Path
    ) -> JsonRpcServer | None:
        if not self._settings.rpc_port:
            return None

        async def gossip(raw: bytes) -> None:
            await network.publish(TRANSACTION_TOPIC, raw)

        server = JsonRpcServer(ports.engine, JsonRpcSettings(port=self._settings.rpc_port), gossip)
        LearnInterface(ports, network, genesis, directory).register(server)
        await server.start()
        return server

    def _gossip_transactions(self, ports: Ports, network: Network) -> None:
        async def validate(peer_id: bytes, raw: bytes) -> Verdict:
            try:
                await ports.engine.rpc("eth_sendRawTransaction", ["0x" + raw.hex()])
            except Rejected as error:
                # Known, outdated or unaffordable here: an honest peer on another branch may see it differently.
                logger.debug("a gossiped transaction is not taken: %s", error)
                return Verdict.IGNORE
            return Verdict.ACCEPT

        network.on_topic(TRANSACTION_TOPIC, validate)


def _identity(path: Path) -> bytes:
    """Return the node's ed25519 key, made on the first start."""
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()


async def _close(machinery: Machinery) -> None:
    """Stop in the reverse order of the start; whatever fails is logged and does not keep the rest open."""
    await machinery.ports.tasks.close()
    if machinery.rpc is not None:
        await machinery.rpc.close()
    for trainer in machinery.trainers:
        await trainer.close()
    await machinery.network.close()
    try:
        await machinery.transport.close()
    except Unavailable as error:
        logger.info("closing the transport: %s", error)
    await machinery.engine.close()
    for store in machinery.stores:
        store.close()
