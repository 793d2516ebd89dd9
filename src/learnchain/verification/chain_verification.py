"""Re-check a chain from its store: every block goes through the same spine again, on a fresh execution engine."""

import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from learnchain.consensus import Round, advance, begin
from learnchain.encoding.files import MemoryStore, directory_bytes
from learnchain.execution.engine import WorkerEngine
from learnchain.execution.escrow import decode_task, task_calldata
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.learning.jobs import Training
from learnchain.learning.trainer import Trainer
from learnchain.network.concurrency import Clock
from learnchain.protocol.actions import Action, MeasureCandidate, RefuseBlock, StoreBlock
from learnchain.protocol.events import BlockReceived, MeasurementFinished
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind
from learnchain.protocol.messages import AnyBlock, Block, work_id
from learnchain.protocol.payload import Settlement, SettlementOutcome
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.archive import Archive
from learnchain.storage.blobs.peer_blobs import PeerBlobs
from learnchain.storage.genesis import Genesis
from learnchain.storage.lmdb_store import LmdbStore
from learnchain.tasks.publishing import TaskData
from learnchain.verification.assurance import TRUSTED_CLAIM, Level, NoTraining, list_checks_at
from learnchain.verification.measurer import Measurer, build_claimed_measurement
from learnchain.verification.replay import ReplaySummary, SegmentReplayer, TraceReplayer
from learnchain.verification.training_chain import fetch_index

QUOTED_BLOCKS = 3
"""Trained blocks that a quote measures."""

BLOCK_CHECKS = (
    "links and signature",
    "selection and list of unselected tasks",
    "key release",
    "release proof",
    "opening of the commitment",
    "verdict",
    "payload and withdrawals",
    "settlement root",
)
"""What the spine itself checks of every trained block, besides what is measured."""


@dataclass(frozen=True)
class BlockCheck:
    """Report one block: what was checked, what was counted, how long it took, and the reason if it failed.

    `won_by` is `training`, `hashing`, or None for an empty block, as in the views of a block. `detection` is the
    chance, for display, with which one forged segment of the winner's training would have shown.
    """

    height: int
    block_hash: str
    won_by: str | None
    checks: tuple[str, ...]
    correct: int
    total: int
    seconds: float
    reason: str = ""
    level: str = Level.ACCURACY.value
    replayed: int = 0
    segments: int = 0
    detection: float = 0.0

    @property
    def is_trained(self) -> bool:
        """Return whether a model won the block."""
        return self.won_by == "training"

    @property
    def is_valid(self) -> bool:
        """Return whether the block stands."""
        return not self.reason


@dataclass(frozen=True)
class Quote:
    """Say what verifying will cost and prove, before most of it is done.

    `detection` is the smallest chance over the sampled blocks that one forged segment of `segments` is found.
    """

    level: str
    blocks: int
    seconds: float
    bytes_read: int
    proven: tuple[str, ...]
    believed: tuple[str, ...]
    detection: float = 0.0
    segments: int = 0


class VerificationSample:
    """Watch the first blocks of a walk go by; say what the rest will take at the rate of this machine and chain."""

    def __init__(self, verifier: "Verifier") -> None:
        self._verifier = verifier
        self._started = verifier.clock.monotonic_seconds()
        self._done, self._trained, self._first_seconds = 0, 0, 0.0
        self._replays: list[tuple[float, int]] = []

    def is_enough_with(self, check: BlockCheck) -> bool:
        """Count a block; return whether a quote can be given."""
        if not self._done:
            # Until here processes started: they do so once, however many blocks follow.
            self._first_seconds = self._verifier.clock.monotonic_seconds() - self._started
        self._done, self._trained = self._done + 1, self._trained + check.is_trained
        if check.segments:
            self._replays.append((check.detection, check.segments))
        return self._trained >= QUOTED_BLOCKS or self._done >= 4 * QUOTED_BLOCKS

    def quote(self, height: int) -> Quote:
        """Return the quote for a chain of this height."""
        spent = self._verifier.clock.monotonic_seconds() - self._started
        rate_seconds = (spent - self._first_seconds) / max(1, self._done - 1)
        seconds = spent + rate_seconds * max(0, height - self._done)
        level, directory = self._verifier.level, self._verifier.directory
        folders = ("chain", "blobs") if level.verifies_models else ("chain",)
        size = sum(directory_bytes(directory / each) for each in folders)
        believed = (TRUSTED_CLAIM,) if level is Level.HEADERS else ()
        return Quote(
            level.value, height, seconds, size, list_checks_at(level), believed, *min(self._replays, default=(0.0, 0))
        )


async def quote(verifier: "Verifier") -> Quote:
    """Verify the first blocks only, and multiply."""
    sample, checks = VerificationSample(verifier), verifier.run()
    try:
        async for check in checks:
            if sample.is_enough_with(check):
                break
    finally:
        await checks.aclose()
    return sample.quote(verifier.height())


@dataclass
class Verifier:
    """Walk the head's branch of a data directory from genesis; nothing in the directory is changed or believed."""

    directory: Path
    genesis: Genesis
    clock: Clock
    level: Level = Level.ACCURACY
    make_training: Callable[[], Training] = Trainer
    segments: int = 0
    secret: bytes = b"\0" * 32
    _believed: bool = False
    _replayed: ReplaySummary | None = None
    _measurements: list[str] = field(default_factory=list)

    def height(self) -> int:
        """Return how many blocks the walk has."""
        store = LmdbStore(self.directory / "chain")
        try:
            return Archive(store, self.genesis.state()).head().height
        finally:
            store.close()

    async def run(self) -> AsyncGenerator[BlockCheck, None]:
        """Yield one report a block, lowest first, and stop at the first that fails."""
        store = LmdbStore(self.directory / "chain")
        scratch = Path(tempfile.mkdtemp(prefix="learnchain-verify-"))
        trainer = self.make_training() if self.level.verifies_models else NoTraining()
        engine = WorkerEngine(PyEvmEngine(MemoryStore(), self.genesis.execution))
        try:
            archive = Archive(store, self.genesis.state())
            blobs = PeerBlobs(self.directory / "blobs", None)
            data = TaskData(scratch, blobs)
            measuring = Measurer(self.genesis.rules, self.genesis.parameters, blobs, data, engine, trainer)
            async for check in self._walk(archive, measuring):
                yield check
        finally:
            await trainer.close()
            await engine.close()
            store.close()
            shutil.rmtree(scratch, ignore_errors=True)

    async def _walk(self, archive: Archive, measuring: Measurer) -> AsyncGenerator[BlockCheck, None]:
        state, _ = begin(self.genesis.rules, self.genesis.parameters, self.genesis.state())
        for stored in archive.branch(archive.head().block, 0):
            started = self.clock.monotonic_seconds()
            self._measurements.clear()
            self._believed, self._replayed = self.level is Level.HEADERS, None
            block = archive.block(stored.block_hash)
            reason, won_by = "", "training" if isinstance(block, Block) else None
            try:
                state = await self._admit_stored_block(state, stored, archive, measuring)
                if isinstance(block, Block) and not self._is_trained(block, archive):
                    won_by = "hashing"
                elif isinstance(block, Block) and not self._believed:
                    await self._check_trace(block, measuring)
                    await self._check_replay(block, archive, measuring)
                await self._check_escrow(stored, archive, measuring)
            except Rejected as error:
                reason = error.reason.value
            except Unavailable as error:
                reason = f"unavailable: {error.what}"
            verdict = (block.verdict.correct, block.verdict.total) if isinstance(block, Block) else (0, 0)
            seconds = self.clock.monotonic_seconds() - started
            checks = (*BLOCK_CHECKS, *self._measurements) if isinstance(block, Block) else tuple(self._measurements)
            yield BlockCheck(
                height=block.height,
                block_hash=stored.block_hash.hex(),
                won_by=won_by,
                checks=checks,
                correct=verdict[0],
                total=verdict[1],
                seconds=seconds,
                reason=reason,
                level=self._find_reached_level(block),
                replayed=self._replayed.replayed if self._replayed else 0,
                segments=self._replayed.segments if self._replayed else 0,
                detection=float(self._replayed.detection) if self._replayed else 0.0,
            )
            if reason:
                return

    async def _admit_stored_block(
        self, state: Round, stored: ChainState, archive: Archive, measuring: Measurer
    ) -> Round:
        """Feed one block to the spine and measure all it asks for, until the block is admitted with equal state."""
        block = archive.block(stored.block_hash)
        at = max(block.end_milliseconds, self.clock.now_milliseconds())
        state, actions = advance(state, BlockReceived(block, at))
        waiting: list[Action] = list(actions)
        while waiting:
            action = waiting.pop(0)
            if isinstance(action, RefuseBlock):
                raise Rejected(_reason(action.reason), f"block {action.block.hex()[:16]} is refused: {action.reason}")
            if isinstance(action, StoreBlock) and action.state.block_hash != stored.block_hash:
                raise Rejected(RejectionReason.WRONG_HASH, "another block was admitted")
            if isinstance(action, MeasureCandidate):
                found = await self._measure_or_trust(action, measuring)
                self._measurements.append(f"measured {found.kind.value}")
                if found.finding is Finding.REJECTED:
                    raise Rejected(_reason(found.reason), f"{found.kind.value} fails")
                state, more = advance(state, MeasurementFinished(found, at))
                waiting.extend(more)
        if stored.block_hash not in state.tree or state.tree.state(stored.block_hash) != stored:
            raise Rejected(RejectionReason.RESULT_ROOT_WRONG, "the stored state is not the recomputed one")
        await measuring.engine.set_head(stored.payload_hash, stored.payload_hash, stored.payload_hash)
        return state

    async def _measure_or_trust(self, action: MeasureCandidate, measuring: Measurer) -> Measurement:
        """Measure, or take the claim at header level and where storage relief deleted the model (DLBC IV-H)."""
        reveal = action.reveal
        if self.level.verifies_models or action.request.kind is MeasurementKind.PAYLOAD or reveal is None:
            try:
                return await measuring.measure(action)
            except Unavailable:
                if action.request.kind is MeasurementKind.PAYLOAD or reveal is None:
                    raise
                self._believed = True
        return build_claimed_measurement(self.genesis.rules.parts, action, reveal)

    def _find_reached_level(self, block: AnyBlock) -> str:
        """Return the level that a block was really checked at: what is gone or of another class lowers it."""
        if self._believed and isinstance(block, Block):
            return Level.HEADERS.value
        if self.level.replays and self._replayed is not None and not self._replayed.is_reproduced:
            return Level.ACCURACY.value
        return self.level.value

    async def _check_replay(self, block: Block, archive: Archive, measuring: Measurer) -> None:
        """Train the challenged segments of the winner again, at the levels that do."""
        if not self.level.replays:
            return
        rules, parameters = self.genesis.rules, self.genesis.parameters
        judge = TraceReplayer(measuring.blobs, measuring.data, measuring.evaluator, rules, parameters, archive)
        selection = rules.select_task(archive.state(block.parent), parameters)
        level = SegmentReplayer(judge, self.level, self.segments, self.secret)
        self._replayed = await level.check_block(block, selection)
        self._measurements.append(self._replayed.text)

    def _is_trained(self, block: Block, archive: Archive) -> bool:
        """Return whether the engine asked for training at this height: a puzzle leaves no trace."""
        rules, parameters = self.genesis.rules, self.genesis.parameters
        selection = rules.select_task(archive.state(block.parent), parameters)
        work = work_id(parameters.chain_id, block.parent, selection.task.task_id, block.proposer)
        return rules.training_terms(selection, work).puzzle is None

    async def _check_trace(self, block: Block, measuring: Measurer) -> None:
        """Refuse a published trace whose index is not under the committed root."""
        training = block.reveal.training
        try:
            index = await fetch_index(measuring.blobs, training)
        except Unavailable:
            # The winner may have gone before it served the index; the committed root stands all the same.
            self._measurements.append("trace not here")
            return
        index.check(training)
        self._measurements.append("trace root")

    async def _check_escrow(self, stored: ChainState, archive: Archive, measuring: Measurer) -> None:
        """Refuse a chain whose contract settled a task otherwise than consensus did; unclaimed ones stay open."""
        settled = archive.settlements(stored.block_hash)
        for each in settled[-4:]:
            if each.outcome is SettlementOutcome.SLASHED:
                # A share of a pot has no status of its own; the contract pays it once, by its place in the history.
                continue
            status = await self._contract_status(each, measuring)
            if status not in (4, each.outcome.code):
                raise Rejected(RejectionReason.ESCROW_MISMATCH, f"the contract says {status} of {each.outcome.value}")
            self._measurements.append("escrow")

    async def _contract_status(self, settlement: Settlement, measuring: Measurer) -> int:
        escrow = self.genesis.parameters.escrow
        call = {"to": "0x" + escrow.hex(), "data": "0x" + task_calldata(settlement.task_id).hex()}
        answer = await measuring.engine.rpc("eth_call", [call, "latest"])
        return decode_task(bytes.fromhex(answer[2:])).status


def _reason(value: str) -> RejectionReason:
    return RejectionReason(value) if value in set(RejectionReason) else RejectionReason.VERDICT_WRONG
