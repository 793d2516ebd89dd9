"""Wire one node from its parts: store, engine, network, chain, roles; the process and the simulation use the same.

The genesis of a local network is dated when every node is warm. Loading torch and the execution engine takes a busy
machine longer than the first phases last: a genesis dated in advance gave empty heights first, and struck the task that
was selected for them.
"""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learnchain.encoding.files import KeyValueStore, write_whole
from learnchain.encryption.process import EncryptionRunner, in_own_process
from learnchain.execution.engine import BlockingEngine
from learnchain.execution.engine_api import EngineApiClient, as_engine
from learnchain.execution.wallet import Wallet
from learnchain.learning.jobs import Training
from learnchain.network.concurrency import Clock, Tasks
from learnchain.network.gossip import ValidationResult
from learnchain.network.network import Network
from learnchain.network.transport import Transport, parse_address
from learnchain.node.chain import Chain, Decisions, KeptEvent, Ports
from learnchain.node.roles.auditor import Auditor, AuditTools
from learnchain.node.roles.disputes import Challenger, Respondent
from learnchain.node.roles.full_node import FullNode, Policy
from learnchain.node.roles.miner import HyperParameterStrategy, Miner
from learnchain.node.roles.publisher import Publisher
from learnchain.node.roles.reporter import Reporter
from learnchain.node.settings import NodeSettings
from learnchain.node.synchronising import RoundGossip, Synchroniser
from learnchain.protocol import actions
from learnchain.protocol.events import AuditMessageReceived, DisputeMessageReceived, EvidenceReported
from learnchain.rejection import Rejected, Unavailable
from learnchain.storage.archive import Archive
from learnchain.storage.blobs.origins import open_origin
from learnchain.storage.blobs.peer_blobs import PeerBlobs
from learnchain.storage.genesis import Genesis
from learnchain.tasks.publishing import TaskData, Vault
from learnchain.verification.assurance import Demand, Trust
from learnchain.verification.measurer import EvidenceMeasurer
from learnchain.verification.replay import TraceReplayer
from learnchain.verification.state_disclosures import StateDisclosures

AWAIT_GENESIS_FLAG = "--await-genesis"
"""Tells a node process that its genesis may still have to be written."""
AWAIT_GENESIS_SECONDS = 180.0
_READY_NAME = "ready"
_LOOK_SECONDS = 0.05


async def await_genesis(
    settings: NodeSettings, trainings: Iterable[Training | None], stopping: asyncio.Event, clock: Clock
) -> bool:
    """Return true once the genesis lies there, having warmed up and said so; false if the node is stopped before."""
    genesis, mark = Path(settings.genesis), Path(settings.data_directory) / _READY_NAME
    if genesis.is_file():
        return True
    limit, used = clock.monotonic_seconds() + AWAIT_GENESIS_SECONDS, [each for each in trainings if each is not None]
    try:
        await asyncio.gather(*(each.start() for each in used))
        write_whole(mark, str(os.getpid()).encode())
        while not genesis.is_file() and not stopping.is_set():
            if clock.monotonic_seconds() > limit:
                raise Unavailable(f"{genesis}: nobody founded the network within {AWAIT_GENESIS_SECONDS:.0f} s")
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        mark.unlink(missing_ok=True)
        if not genesis.is_file():
            await asyncio.gather(*(each.close() for each in used))
    return genesis.is_file()


def is_ready(directory: Path, process_id: int | None) -> bool:
    """Return whether this very process has said that it only waits for the genesis."""
    try:
        return (directory / _READY_NAME).read_text() == str(process_id)
    except OSError:
        return False


TRANSACTION_TOPIC = "transaction"
logger = logging.getLogger(__name__)
Handler = Callable[[Any], Awaitable[None]]
SynchronousHandler = Callable[[Any], None]


@dataclass(frozen=True)
class Roles:
    """Hold the roles that a node plays beside that of a full node."""

    full_node: FullNode
    publisher: Publisher | None
    miner: Miner | None
    reporter: Reporter
    auditor: Auditor | None = None
    respondent: Respondent | None = None


class Dispatcher:
    """Hand each action of the spine to the roles that carry it out, in the order in which the spine gave them."""

    def __init__(self, ports: Ports, roles: Roles) -> None:
        self._ports = ports
        full, publisher, miner = roles.full_node, roles.publisher, roles.miner
        self._synchronous_handlers: dict[type, SynchronousHandler] = {
            actions.StoreBlock: full.store_block,
            actions.RefuseBlock: full.refuse_block,
            actions.RefuseTask: full.refuse_task,
        }
        self._handlers: dict[type, list[Handler]] = {
            actions.OpenHeight: [full.open_height],
            actions.MeasureCandidate: [full.measure_candidate],
            actions.MeasureEvidence: [roles.reporter.measure_evidence],
            actions.MeasureResponse: [roles.reporter.measure_response],
            actions.ForgetBlocks: [full.forget_blocks],
            actions.MoveHead: [full.move_head],
            actions.ProposeEmptyBlock: [full.propose_empty_block],
            actions.TrainModel: [],
            actions.SendCommitment: [],
            actions.ReleaseTestSet: [],
            actions.RevealModel: [full.close_reveals],
            actions.ProposeBlock: [],
        }
        self._handlers[actions.OpenHeight].append(roles.reporter.open_height)
        if roles.respondent is not None:
            self._handlers[actions.OpenHeight].append(roles.respondent.open_height)
        if roles.auditor is not None:
            self._handlers[actions.OpenHeight].append(roles.auditor.open_height)
        self._handlers[actions.TrainModel].append(roles.reporter.train_model)
        self._handlers[actions.RevealModel].append(roles.reporter.reveal_model)
        if publisher is not None:
            self._handlers[actions.OpenHeight].append(publisher.open_height)
            self._handlers[actions.ReleaseTestSet].append(publisher.release_test_set)
        if miner is not None:
            self._handlers[actions.TrainModel].append(miner.train_model)
            self._handlers[actions.SendCommitment].append(miner.send_commitment)
            self._handlers[actions.RevealModel].append(miner.reveal_model)
            self._handlers[actions.ProposeBlock].append(miner.propose_block)

    def perform(self, action: actions.Action) -> None:
        """Carry out one action: what must be on disk at once, the rest as supervised tasks."""
        immediate = self._synchronous_handlers.get(type(action))
        if immediate is not None:
            immediate(action)
            return
        for duty in self._handlers[type(action)]:
            self._ports.tasks.start(type(action).__name__, _carry_out(duty, action))


async def _carry_out(duty: Handler, action: actions.Action) -> None:
    await asyncio.sleep(0)
    await duty(action)


@dataclass(frozen=True)
class Parts:
    """Hold what differs between a real process and a simulated node; `trainer` is None where nobody mines."""

    clock: Clock
    transport: Transport
    store: KeyValueStore
    execution: BlockingEngine | EngineApiClient
    evaluator: Training
    trainer: Training | None
    random_source: random.Random
    encryption: EncryptionRunner = in_own_process


class Node:
    """Join the parts and play the roles; `start` continues where the store ended, `close` stops everything cleanly."""

    def __init__(self, settings: NodeSettings, genesis: Genesis, wallet: Wallet, parts: Parts) -> None:
        directory = Path(settings.data_directory)
        self._settings, self._parts = settings, parts
        self.genesis = genesis
        self.network = Network(parts.transport, genesis.hash, parts.clock, parts.random_source)
        self.engine = as_engine(parts.execution)
        self.on_head_moved: Callable[[actions.MoveHead], None] = lambda _action: None
        archive = Archive(parts.store, genesis.state())
        blobs = PeerBlobs(directory / "blobs", self.network, origin=open_origin(settings.blob_store))
        self._close_blobs = blobs.close
        chain = Chain(genesis.rules, genesis.parameters, parts.clock)
        self._gossip = RoundGossip(self.network, chain)
        self.ports = Ports(
            clock=parts.clock,
            chain=chain,
            network=self._gossip,
            blobs=blobs,
            data=TaskData(directory / "data", blobs, parts.encryption),
            engine=self.engine,
            evaluator=parts.evaluator,
            archive=archive,
            wallet=wallet,
            vault=Vault(directory / "vault"),
            tasks=Tasks(),
            decisions=Decisions(),
            random_source=parts.random_source,
            encryption=parts.encryption,
        )
        self._synchroniser = Synchroniser(self.network, chain, archive, parts.clock)
        self._synchroniser.enable_early_execution(blobs, self.engine)
        self.roles = self._roles(directory)
        self._dispatcher = Dispatcher(self.ports, self.roles)
        self.network.on_topic(TRANSACTION_TOPIC, self._validate_transaction)

    async def start(self) -> None:
        """Open the round on what is stored, then join the network."""
        archive = self.ports.archive
        final = archive.state(archive.head().finalized)
        later = tuple((each.block, each.state) for each in archive.records_above(final) if each.block is not None)
        self.ports.tasks.start("start of the training processes", self._start_training_processes())
        self.ports.chain.start(final, later, archive.head(), self._dispatcher.perform)
        self._remember(archive)
        await self.network.start(parse_address(each) for each in self._settings.peers)
        self.ports.tasks.start("synchronising", self._synchroniser.run())
        self.ports.tasks.start("keeping again what recent blocks rest on", self.roles.full_node.resume_fetching())

    def _remember(self, archive: Archive) -> None:
        """Go on with what an earlier life heard: the messages of the height, and those that wait for a block."""
        chain = self.ports.chain

        def keep(event: KeptEvent) -> None:
            if isinstance(event, EvidenceReported):
                archive.store_pending_message(event.evidence)
            elif isinstance(event, AuditMessageReceived | DisputeMessageReceived):
                archive.store_pending_message(event.message)
            else:
                archive.keep_round_message(event)

        waiting = (chain.event(each) for each in archive.load_pending_messages())
        chain.remember((*archive.round_messages(chain.round.head.block), *waiting), keep)

    async def _start_training_processes(self) -> None:
        """Start trainer and judge side by side, as both may be due at once; measure whose bits they share.

        The judge measures: it has nothing to do before the first model is revealed. Training need not wait for it, and
        the trainer finds the class where the judge has written it.
        """
        here = [each for each in (self._parts.trainer, self._parts.evaluator) if each is not None]
        try:
            await asyncio.gather(*(each.start() for each in here))
        finally:
            self.roles.full_node.is_ready = True
        if self._settings.is_miner or self._settings.is_auditor:
            await self._parts.evaluator.machine_class()

    async def close(self) -> None:
        """Stop in the reverse order of the start."""
        await self.ports.tasks.close()
        await asyncio.gather(
            *(each.close() for each in (self._parts.trainer, self._parts.evaluator) if each is not None)
        )
        await self.network.close()
        await self._close_blobs()
        await self.engine.close()

    async def submit_transaction(self, raw: bytes) -> str:
        """Put a raw transaction into our own pool and spread it; return its hash."""
        sent: str = await self.engine.rpc("eth_sendRawTransaction", ["0x" + raw.hex()])
        await self.network.publish(TRANSACTION_TOPIC, raw)
        return sent

    def _roles(self, directory: Path) -> Roles:
        strategy = replace(HyperParameterStrategy(), learning_rate_thousandths=self._settings.learning_rate_thousandths)
        answers = StateDisclosures(self._build_trace_replayer())
        miner, auditing = None, self._auditing(answers)
        if self._settings.is_miner and self._parts.trainer is not None:
            miner = Miner(self.ports, self._parts.trainer, directory / "training", strategy)
        return Roles(
            full_node=FullNode(self.ports, self._handle_head_move, self._policy()),
            publisher=Publisher(self.ports) if self._settings.is_publisher else None,
            miner=miner,
            reporter=self._reporter(auditing.measuring, answers),
            # A node that ever mined or audited may be asked, whatever its settings say now.
            respondent=Respondent(self.ports, auditing.measuring, answers) if self._settings.verifies_models else None,
            auditor=Auditor(self.ports, auditing) if self._settings.is_auditor else None,
        )

    def _build_trace_replayer(self) -> TraceReplayer:
        chain, ports = self.ports.chain, self.ports
        return TraceReplayer(
            ports.blobs, ports.data, self._parts.evaluator, chain.rules, chain.parameters, ports.archive
        )

    def _auditing(self, answers: StateDisclosures) -> AuditTools:
        chain, archive, judge = self.ports.chain, self.ports.archive, answers.replayer
        judges = self._settings.verifies_models
        measuring = EvidenceMeasurer(chain.rules, chain.parameters, archive, self.ports.data, judge, judges)
        return AuditTools(judge, measuring, Challenger(self.ports, measuring, answers))

    def _reporter(self, measuring: EvidenceMeasurer, answers: StateDisclosures) -> Reporter:
        reporter = Reporter(self.ports, measuring, answers)
        self._gossip.on_received = reporter.compare
        return reporter

    def _policy(self) -> Policy:
        started = self._parts.clock.now_milliseconds()
        trust = Trust(Demand(self._settings.sync_level), self._settings.verifies_models, started)
        return Policy(trust, self._settings.retain_blocks)

    def _handle_head_move(self, action: actions.MoveHead) -> None:
        self.on_head_moved(action)

    async def _validate_transaction(self, peer_id: bytes, raw: bytes) -> ValidationResult:
        try:
            await self.engine.rpc("eth_sendRawTransaction", ["0x" + raw.hex()])
        except Rejected as error:
            # Known, outdated or unaffordable here: an honest peer on another branch may see it differently.
            logger.debug("a gossiped transaction is not taken: %s", error)
            return ValidationResult.IGNORE
        return ValidationResult.ACCEPT
