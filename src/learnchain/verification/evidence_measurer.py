"""Measure what bytes alone do not prove of evidence: whether data are as promised, whether training was forged."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from learnchain.consensus.audits import FraudProof, assign_segments
from learnchain.consensus.evidence import Statement, decode_statements, read_audit_proof, read_fraud_proof
from learnchain.engines.contract import Rules
from learnchain.learning.jobs import ReportedSegment
from learnchain.protocol.actions import MeasureEvidence, MeasureResponse
from learnchain.protocol.audit_messages import AuditReport
from learnchain.protocol.measurement import Finding, Measurement
from learnchain.protocol.messages import Block, Evidence, Fault, KeyRelease, Release, work_id
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.selection import Selection
from learnchain.protocol.state import BondRegistry, HeightRecord
from learnchain.protocol.training_terms import TrainingTerms
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.archive import Archive
from learnchain.tasks.task_data import OpenedKeys, TaskData
from learnchain.verification.state_disclosures import DisputedRun, StateDisclosures


class ProofChecker(Protocol):
    """Judge a fraud proof against the published trace: a replayer in a process of its own, or a simulation."""

    async def is_fault_proven(
        self, proof: FraudProof, block: Block, selection: Selection, reported: tuple[ReportedSegment, ...] = ()
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
        if self.verifies_models and isinstance(block, Block):
            try:
                run = DisputedRun(block, self.selection(action.record))
                await answers.check_disclosure(run, action.response.disclosure, action.response.opening)
            except Rejected as error:
                finding, reason = Finding.REJECTED, error.reason.value
        return Measurement(action.request.candidate, action.request.kind, finding, reason)

    async def is_evidence_valid(self, evidence: Evidence, fact: HeightRecord, book: BondRegistry) -> bool:
        """Return whether measured evidence holds, on every machine alike."""
        if evidence.fault is Fault.DATA_CHANGED:
            (statement,) = decode_statements(evidence)
            return await self.is_data_changed(self.selection(fact), statement)
        block = self.archive.block(fact.block)
        if not isinstance(block, Block):
            return False
        if evidence.fault is Fault.TRACE_FORGED:
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
        if isinstance(signed, KeyRelease):
            try:
                self.rules.parts.check(selection, signed)
            except Rejected:
                return False
        specification = selection.posted_task.specification
        with tempfile.TemporaryDirectory(prefix="learnchain-evidence-") as name:
            place = Path(name)
            try:
                if isinstance(signed, KeyRelease):
                    keys = OpenedKeys(signed.key, self.rules.parts.functional_key(signed))
                    await self.data.reopen_training_data(keys, specification, self.terms(selection), place)
                elif isinstance(signed, Release):
                    await self.data.reopen_part(selection.test_set, signed.key, specification, place / "rows")
            except Rejected:
                return True
        await asyncio.sleep(0)
        return False

    def terms(self, selection: Selection) -> TrainingTerms:
        """Return the terms of a height as its publisher has them: what all miners share is the same for everybody."""
        place = (self.parameters.chain_id, selection.parent, selection.task.task_id, selection.task.publisher)
        return self.rules.training_terms(selection, work_id(*place))

    def selection(self, fact: HeightRecord) -> Selection:
        """Return what was assigned to the winner of a recent height, recomputed from the state before it."""
        selection = self.rules.select_task(self.archive.state(fact.parent), self.parameters)
        return selection.select_assignment(fact.winner) or selection
