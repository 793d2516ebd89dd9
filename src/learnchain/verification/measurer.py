"""Measure what a candidate, its payload and evidence come to, before consensus decides.

Candidates: run the payload, look for the watermark, count exactly; live and when a store is checked again. Payloads:
links, withdrawals, tasks posted and bonds. Evidence: what bytes alone do not prove, such as changed data or forged
training. Blobs: which the chain names, and how large each may be, so that no call makes this node fetch more.
"""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from learnchain.consensus.audits import FraudProof, assign_segments
from learnchain.consensus.evidence import Statement, decode_statements, read_audit_proof, read_fraud_proof
from learnchain.engines.contract import EngineParts, Rules
from learnchain.execution.engine import ExecutionEngine
from learnchain.execution.escrow import decode_bond_change, decode_task_posted
from learnchain.learning.jobs import EvaluationJob, ReportedSegment, Training, WatermarkJob
from learnchain.learning.trace import MAXIMUM_INDEX_BYTES
from learnchain.protocol import messages, model_specification
from learnchain.protocol.actions import MeasureCandidate, MeasureEvidence, MeasureResponse
from learnchain.protocol.audit_messages import AuditReport
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, PayloadFacts
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.payload import MAXIMUM_PAYLOAD_BYTES, ExecutionPayload, Log, PayloadStatusCode, decode_payload
from learnchain.protocol.state import BondChange, BondRegistry, ChainState, HeightRecord, PostedTask, Selection
from learnchain.protocol.task_specification import Cid, TaskSpecification, decode_specification, specification_hash
from learnchain.protocol.training_terms import TrainingTerms, Watermark
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.archive import Archive
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.tasks.publishing import OpenedKeys, TaskData
from learnchain.verification.assurance import Trust
from learnchain.verification.state_disclosures import DisputedRun, StateDisclosures


class ProofChecker(Protocol):
    """Judge a fraud proof against the published trace: a replayer in a process of its own, or a simulation."""

    async def is_fault_proven(
        self, proof: FraudProof, block: messages.Block, selection: Selection, reported: tuple[ReportedSegment, ...] = ()
    ) -> bool:
        """Return whether the proof shows a fault; raise `Unavailable` while what it rests on is not here."""
        ...


@dataclass(frozen=True)
class EvidenceMeasurer:
    """Carry out `MeasureEvidence`; what is missing stays `Unavailable` and is tried again."""

    rules: Rules
    parameters: ChainParameters
    archive: Archive
    data: TaskData
    proof_checker: ProofChecker
    verifies_models: bool = True

    async def measure(self, action: MeasureEvidence) -> Measurement:
        """Return whether the evidence holds; a node that measures no models believes the block's proposer."""
        holds = not self.verifies_models or await self.is_evidence_valid(
            action.evidence, action.record, action.registry
        )
        finding, reason = (
            (Finding.ACCEPTED, "") if holds else (Finding.REJECTED, RejectionReason.EVIDENCE_INVALID.value)
        )
        return Measurement(action.request.candidate, action.request.kind, finding, reason)

    async def measure_response(self, action: MeasureResponse, answers: StateDisclosures) -> Measurement:
        """Return whether the files of an answer are what it names; what is missing stays `Unavailable`."""
        finding, reason = Finding.ACCEPTED, ""
        block = self.archive.block(action.record.block)
        if self.verifies_models and isinstance(block, messages.Block):
            try:
                run = DisputedRun(block, self.selection(action.record))
                await answers.check_disclosure(run, action.response.disclosure, action.response.opening)
            except Rejected as error:
                finding, reason = Finding.REJECTED, error.reason.value
        return Measurement(action.request.candidate, action.request.kind, finding, reason)

    async def is_evidence_valid(self, evidence: messages.Evidence, fact: HeightRecord, book: BondRegistry) -> bool:
        """Return whether measured evidence holds, on every machine alike."""
        if evidence.fault is messages.Fault.DATA_CHANGED:
            (statement,) = decode_statements(evidence)
            return await self.is_data_changed(self.selection(fact), statement)
        block = self.archive.block(fact.block)
        if not isinstance(block, messages.Block):
            return False
        if evidence.fault is messages.Fault.TRACE_FORGED:
            return await self.proof_checker.is_fault_proven(
                read_fraud_proof(evidence, fact), block, self.selection(fact)
            )
        report, proof = read_audit_proof(evidence, fact, book)
        reported = self._build_reported_segment(report, proof.segments[0].index, fact, book)
        return await self.proof_checker.is_fault_proven(proof, block, self.selection(fact), (reported,))

    def _build_reported_segment(
        self, report: AuditReport, segment: int, fact: HeightRecord, book: BondRegistry
    ) -> ReportedSegment:
        """Return what a report says of a segment, and which seed corrupted where its auditor had to begin."""
        given = assign_segments(book, fact, report.auditor, self.parameters)
        forced = given is not None and segment in given.forced
        line = next(each for each in report.segments if each.segment == segment)
        return ReportedSegment(line, given.seed if given is not None and forced else b"")

    async def is_data_changed(self, selection: Selection, signed: Statement) -> bool:
        """Return whether keys open other data than the task promises; the files themselves are opened, not copies.

        A file of another length than declared is a broken promise too, and so is a functional key that does not verify;
        what is not here yet is `Unavailable`. A key release that every node refuses opened nothing.
        """
        if isinstance(signed, messages.KeyRelease):
            try:
                self.rules.parts.check(selection, signed)
            except Rejected:
                return False
        specification = selection.posted_task.specification
        with tempfile.TemporaryDirectory(prefix="learnchain-evidence-") as name:
            place = Path(name)
            try:
                if isinstance(signed, messages.KeyRelease):
                    keys = OpenedKeys(signed.key, self.rules.parts.functional_key(signed))
                    await self.data.reopen_training_data(keys, specification, self.terms(selection), place)
                elif isinstance(signed, messages.Release):
                    await self.data.reopen_part(selection.test_set, signed.key, specification, place / "rows")
            except Rejected:
                return True
        await asyncio.sleep(0)
        return False

    def terms(self, selection: Selection) -> TrainingTerms:
        """Return the terms of a height as its publisher has them: what all miners share is the same for everybody."""
        place = (self.parameters.chain_id, selection.parent, selection.task.task_id, selection.task.publisher)
        return self.rules.training_terms(selection, messages.work_id(*place))

    def selection(self, fact: HeightRecord) -> Selection:
        """Return what was assigned to the winner of a recent height, recomputed from the state before it."""
        selection = self.rules.select_task(self.archive.state(fact.parent), self.parameters)
        return selection.select_assignment(fact.winner) or selection


async def execute_payload(
    engine: ExecutionEngine, payload: ExecutionPayload, height: int, parameters: ChainParameters
) -> PayloadFacts:
    """Run a payload and return its facts; raise `Rejected(PAYLOAD_INVALID)` when the engine refuses it."""
    status = await engine.new_payload(payload, payload.beacon_root)
    if status.status is not PayloadStatusCode.VALID:
        raise Rejected(RejectionReason.PAYLOAD_INVALID, f"{status.status.value}: {status.detail}")
    posted: list[PostedTask] = []
    bonds: list[BondChange] = []
    for log in await engine.logs(payload.block_hash, parameters.escrow):
        change = decode_bond_change(log)
        if change is not None:
            bonds.append(change)
        task = _read_posted_task(log, height)
        if task is not None:
            posted.append(task)
    return PayloadFacts(
        payload_hash=payload.block_hash,
        parent_hash=payload.parent_hash,
        timestamp_seconds=payload.timestamp_seconds,
        previous_randao=payload.prev_randao,
        beacon_root=payload.beacon_root,
        fee_recipient=payload.fee_recipient,
        withdrawals=payload.withdrawals,
        posted=tuple(posted),
        escrows=tuple(_escrow(each.task) for each in posted),
        bonds=tuple(bonds),
    )


def _read_posted_task(log: Log, height: int) -> PostedTask | None:
    """Return the task that a log of the escrow contract announces; a specification nobody can read is no task."""
    event = decode_task_posted(log)
    if event is None:
        return None
    try:
        specification = decode_specification(event.specification)
    except Rejected:
        return None
    task = messages.Task(
        task_id=event.task_id,
        publisher=event.publisher,
        specification_hash=specification_hash(specification),
        reward_wei=event.reward_wei,
        bond_wei=event.bond_wei,
        deadline_seconds=event.deadline_seconds,
        posted_height=height,
        is_standing=False,
    )
    return PostedTask(task, specification)


def _escrow(task: messages.Task) -> messages.Escrow:
    """Return what the contract's own event says it locked; the contract refuses any other value."""
    return messages.Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)


WEIGHTS_HEADER_BYTES = 1 << 20
"""What a weights file may hold beyond its numbers: names and shapes."""


@dataclass(frozen=True)
class Measurer:
    """Carry out `MeasureCandidate`; a broken rule becomes a finding, a missing blob stays `Unavailable`."""

    rules: Rules
    parameters: ChainParameters
    blobs: BlobStore
    data: TaskData
    engine: ExecutionEngine
    evaluator: Training
    trust: Trust = field(default_factory=Trust)

    async def measure(self, action: MeasureCandidate) -> Measurement:
        """Return the measurement; raise `Unavailable` when something it needs is not here."""
        try:
            if action.request.kind is MeasurementKind.PAYLOAD:
                return await self._payload(action)
            return await self._model(action)
        except Rejected as error:
            measure = action.request
            return Measurement(measure.candidate, measure.kind, Finding.REJECTED, error.reason.value)

    async def _payload(self, action: MeasureCandidate) -> Measurement:
        data = await self.blobs.read(action.payload_cid, MAXIMUM_PAYLOAD_BYTES)
        payload = decode_payload(data)
        facts = await execute_payload(self.engine, payload, action.selection.height, self.parameters)
        return Measurement(action.request.candidate, action.request.kind, Finding.ACCEPTED, facts=facts)

    async def _model(self, action: MeasureCandidate) -> Measurement:
        measure, reveal, selection = action.request, action.reveal, action.selection
        if reveal is None:
            raise Unavailable("a reveal: an empty block has no model to measure")
        if self.trust.is_trusted(action):
            return build_claimed_measurement(self.rules.parts, action, reveal)
        specification = selection.posted_task.specification
        work = messages.work_id(self.parameters.chain_id, selection.parent, selection.task.task_id, reveal.miner)
        terms = self.rules.training_terms(selection, work)
        maximum_bytes = (
            model_specification.count_committed_bytes(specification.model, terms.weight_bits) + WEIGHTS_HEADER_BYTES
        )
        of_baseline = measure.kind is MeasurementKind.BASELINE
        cid = self.rules.parts.baseline_model(selection) if of_baseline else reveal.model_cid
        model = await self.blobs.fetch(cid, max_bytes=maximum_bytes)
        if measure.kind is MeasurementKind.WATERMARK:
            if terms.watermark is not None:
                await self._check_watermark(specification.model, model, terms.watermark)
            return Measurement(measure.candidate, measure.kind, Finding.ACCEPTED)
        keys = OpenedKeys(action.training_key, action.functional_key)
        training = await self.data.training(keys, specification, terms)
        test = await self.data.open_part(selection.test_set, action.test_key, specification)
        counted = training if measure.kind is MeasurementKind.TRAINING else test
        mapping = await self.data.mapping_path(terms)
        paths = (str(model), str(training), str(counted))
        count = await self.evaluator.run(EvaluationJob(specification.model, *paths, specification.metric, mapping))
        claim = build_claimed_measurement(self.rules.parts, action, reveal)
        exact = of_baseline or (count.correct, count.total) == (claim.correct, claim.total)
        finding = Finding.ACCEPTED if exact else Finding.REJECTED
        reason = "" if exact else RejectionReason.CLAIM_NOT_EXACT.value
        return Measurement(measure.candidate, measure.kind, finding, reason, count.correct, count.total)

    async def _check_watermark(
        self, model: model_specification.ModelSpecification, weights: Path, mark: Watermark
    ) -> None:
        """Refuse weights that do not carry the mark that the engine demanded of training."""
        check = await self.evaluator.run(WatermarkJob(model, str(weights), mark))
        if not check.matches:
            detail = f"the rows reach {check.confidences}, {mark.threshold_millionths} millionths are needed"
            raise Rejected(RejectionReason.WATERMARK_MISSING, detail)


def build_claimed_measurement(parts: EngineParts, action: MeasureCandidate, reveal: messages.Reveal) -> Measurement:
    """Return what the winner says of itself: all that header level knows; of an earlier model it says nothing here."""
    measure, count = action.request, (reveal.claim_correct, reveal.claim_total)
    if measure.kind is MeasurementKind.TRAINING:
        count = parts.training_count(reveal.training)
    if measure.kind is MeasurementKind.BASELINE:
        count = (0, 0)
    return Measurement(measure.candidate, measure.kind, Finding.ACCEPTED, "", *count)


def list_named_blobs(rules: Rules, block: messages.AnyBlock, state: ChainState) -> tuple[Cid, ...]:
    """Return what a block names: payload, model, trace, cited models, and the data of tasks posted in it."""
    posted = (each.specification for each in state.posted_tasks)
    data = tuple(cid for specification in posted for cid in _data(specification))
    if not isinstance(block, messages.Block):
        return (block.payload_cid, *data)
    cited = tuple(each.model_cid for each in rules.parts.list_cited_losers(block))
    return (block.payload_cid, block.reveal.model_cid, block.reveal.training.trace_cid, *cited, *data)


class NamedBlobs:
    """Look up blobs by what the chain says of them."""

    def __init__(self, archive: Archive, rules: Rules, parameters: ChainParameters) -> None:
        self._archive, self._rules, self._parameters = archive, rules, parameters
        self._standing: dict[Cid, int] = {}
        for _, specification in parameters.standing_tasks():
            self._standing |= _data(specification)

    def maximum_bytes(self, cid: Cid) -> int:
        """Return how large a named blob may be; refuse one that no block, no task and no genesis names."""
        if cid in self._standing:
            return self._standing[cid]
        naming = self._archive.blobs.naming_block(cid)
        found = {} if naming is None else self._bounds(naming)
        if cid not in found:
            raise Rejected(RejectionReason.BLOB_NOT_NAMED, "no block of this chain and no task in it names the blob")
        return found[cid]

    def _bounds(self, block_hash: bytes) -> dict[Cid, int]:
        try:
            block, state = self._archive.block(block_hash), self._archive.state(block_hash)
            parent = self._archive.state(state.parent)
        except Unavailable:
            # The block lost and was forgotten.
            return {}
        found = {cid: size for each in state.posted_tasks for cid, size in _data(each.specification).items()}
        found[block.payload_cid] = MAXIMUM_PAYLOAD_BYTES
        if isinstance(block, messages.Block):
            model = self._rules.select_task(parent, self._parameters).posted_task.specification.model
            largest = model_specification.BYTES_PER_PARAMETER * self._parameters.maximum_model_parameters
            # A cited model was trained for another height, maybe for another task.
            cited = self._rules.parts.list_cited_losers(block)
            found |= {each.model_cid: largest + WEIGHTS_HEADER_BYTES for each in cited}
            found[block.reveal.model_cid] = model_specification.model_bytes(model) + WEIGHTS_HEADER_BYTES
            found[block.reveal.training.trace_cid] = MAXIMUM_INDEX_BYTES
        return found


def _data(specification: TaskSpecification) -> dict[Cid, int]:
    data = specification.data
    return {each.cid: each.ciphertext_bytes for each in (data.training, *data.test_sets)}
