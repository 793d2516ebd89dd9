"""Run one node as a process: open its disk, its port and its training processes; stop when told to."""

import asyncio
import logging
import os
import random
from pathlib import Path

from learnchain.api.interface import open_interface
from learnchain.api.metrics import MetricsServer
from learnchain.execution.engine_api import Endpoints, EngineApiClient, HttpCaller, load_secret
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.pruning import PruningPolicy
from learnchain.execution.wallet import Wallet, load_keystore
from learnchain.learning.fork_server import ForkServer
from learnchain.learning.trainer import Trainer
from learnchain.network.concurrency import Clock, SystemClock
from learnchain.network.listening import ListenPlan, check_peers, discover, listen
from learnchain.network.transport import IDENTITY_NAME, load_identity
from learnchain.node.node import Node, Parts, await_genesis
from learnchain.node.settings import NodeSettings
from learnchain.protocol.actions import MoveHead
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.archive import check_format
from learnchain.storage.genesis import Genesis, load_genesis
from learnchain.storage.lmdb_store import LmdbStore
from learnchain.verification.assurance import NoTraining

logger = logging.getLogger(__name__)
PASSWORD_VARIABLE = "LEARNCHAIN_PASSWORD"
IDENTITY_BYTES = 32


class NodeService:
    """Assemble a node from its settings; `run` returns when `stop` was called or the wanted height is reached."""

    def __init__(
        self,
        settings: NodeSettings,
        clock: Clock | None = None,
        fork_server: ForkServer | None = None,
        *,
        awaits_genesis: bool = False,
    ) -> None:
        self._settings, self._fork_server = settings, fork_server
        self._clock = clock or SystemClock()
        self._awaits_genesis = awaits_genesis
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask the node to stop cleanly."""
        self._stopping.set()

    async def run(self) -> None:
        """Run the node until it is told to stop."""
        settings, directory = self._settings, Path(self._settings.data_directory)
        check_peers(settings.transport, settings.peers)
        judge = Trainer(fork_server=self._fork_server) if settings.verifies_models else NoTraining()
        trainer = Trainer(nice=settings.training_nice, fork_server=self._fork_server) if settings.is_miner else None
        if self._awaits_genesis:
            directory.mkdir(parents=True, exist_ok=True)
            if not await await_genesis(settings, (judge, trainer), self._stopping, self._clock):
                return
        genesis = load_genesis(Path(settings.genesis))
        wallet = load_wallet(Path(settings.wallet))
        stores = _open_stores(directory)
        transport = await listen(
            ListenPlan(
                load_identity(directory / IDENTITY_NAME),
                settings.listen_host,
                settings.listen_port,
                settings.transport,
                settings.relays,
            )
        )
        parts = Parts(
            clock=self._clock,
            transport=transport,
            store=stores[0],
            execution=await _execution(settings, genesis, stores[1], self._clock),
            evaluator=judge,
            trainer=trainer,
            random_source=random.SystemRandom(),
        )
        node = Node(settings, genesis, wallet, parts)
        node.on_head_moved = self._stop_at_height
        server = discovery = None
        metrics = MetricsServer(node, settings.metrics_port, directory) if settings.metrics_port else None
        try:
            await node.start()
            discovery = await discover(node.network, settings.local_discovery)
            server = await open_interface(node, settings, directory) if settings.rpc_port else None
            if metrics is not None:
                await metrics.start()
            logger.info("%s listens on %s", settings.name, node.network.address())
            await self._stopping.wait()
        finally:
            if metrics is not None:
                await metrics.close()
            if server is not None:
                await server.close()
            if discovery is not None:
                await discovery.close()
            await node.close()
            await transport.close()
            for store in stores:
                store.close()

    def _stop_at_height(self, action: MoveHead) -> None:
        logger.info("head is height %d, %s", action.head.height, action.head.block.hex()[:16])
        if 0 < self._settings.stop_after_height <= action.head.height:
            self.stop()


def _open_stores(directory: Path) -> tuple[LmdbStore, LmdbStore]:
    """Return the stores of chain and execution; a directory of another format is refused before anything is written."""
    chain = LmdbStore(directory / "chain")
    try:
        check_format(chain)
        return chain, LmdbStore(directory / "execution")
    except BaseException:
        chain.close()
        raise


async def _execution(
    settings: NodeSettings, genesis: Genesis, store: LmdbStore, clock: Clock
) -> PyEvmEngine | EngineApiClient:
    """Return the embedded engine, or the stock client that the settings name once it runs this network's genesis."""
    if not settings.engine_url:
        return PyEvmEngine(store, genesis.execution, PruningPolicy(settings.state_blocks))
    secret = load_secret(Path(settings.engine_secret))

    def now_seconds() -> int:
        return clock.now_milliseconds() // 1000

    engine = HttpCaller(settings.engine_url, secret, now_seconds)
    ethereum = HttpCaller(settings.ethereum_url, None, now_seconds) if settings.ethereum_url else engine
    client = EngineApiClient(Endpoints(engine, ethereum), genesis.execution)
    try:
        await client.check()
    except BaseException:
        await client.close()
        raise
    return client


def load_wallet(path: Path) -> Wallet:
    """Return the wallet of a keystore file, or of a plain key file as local networks have."""
    if not path.is_file():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} is no wallet; `learnchain wallet new` makes one")
    if path.suffix == ".json":
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"set {PASSWORD_VARIABLE} to open the keystore {path}")
        return load_keystore(path, password)
    try:
        return Wallet(bytes.fromhex(path.read_text().strip()))
    except ValueError as error:
        raise Rejected(RejectionReason.MALFORMED, f"{path} holds no private key in hex") from error
