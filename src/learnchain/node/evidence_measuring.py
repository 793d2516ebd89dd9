"""Measure what bytes alone do not prove of evidence: whether data are as promised, whether training was forged."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from learnchain.node.storage.archive import Archive
from learnchain.node.task_data import OpenedKeys, TaskData
from learnchain.primitives.actions import MeasureEvidence
from learnchain.primitives.audit import FraudProof
from learnchain.primitives.audit_messages import AuditedSegment, AuditReport
from learnchain.primitives.audit_rules import Assignment, assignment
from learnchain.primitives.bonds import BondBook, RoundFact
from learnchain.primitives.codec import decode
from learnchain.primitives.evidence import Statement, fraud_proof, statements
from learnchain.primitives.measurement import Finding, Measurement
from learnchain.primitives.messages import Block, Fault, KeyRelease, Release, work_id
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable
from learnchain.primitives.selection import Selection
from learnchain.primitives.training_terms import TrainingTerms
from learnchain.rules.contract import Rules


class ProofJudge(Protocol):
    """Judge a fraud proof against the published trace: a replayer in a process of its own, or a simulation."""

    async def holds(self, proof: FraudProof, block: Block, selection: Selection) -> bool:
        """Return whether the proof shows a fault; raise `Unavailable` while what it rests on is not here."""
        ...

    async def reported(self, block: Block, selection: Selection, given: Assignment) -> tuple[AuditedSegment, ...]:
        """Return what an honest auditor with this assignment finds."""
        ...


@dataclass(frozen=True)
class EvidenceMeasuring:
    """Carry out `MeasureEvidence`; what is missing stays `Unavailable` and is tried again."""

    rules: Rules
    parameters: ChainParameters
    archive: Archive
    data: TaskData
    judge: ProofJudge
    judges: bool = True

    async def measured(self, action: MeasureEvidence) -> Measurement:
        """Return whether the evidence holds; a node that measures no models believes the block's proposer."""
        holds = True
        if self.judges:
            held = {
                Fault.DATA_CHANGED: self._data_changed,
                Fault.TRACE_FORGED: self._forged,
                Fault.AUDIT_FALSE: self._falsely_audited,
            }[action.evidence.fault]
            holds = await held(action)
        finding, reason = (
            (Finding.ACCEPTED, "") if holds else (Finding.REJECTED, RejectionReason.EVIDENCE_INVALID.value)
        )
        return Measurement(action.measure.candidate, action.measure.kind, finding, reason)

    async def _data_changed(self, action: MeasureEvidence) -> bool:
        """Return whether the key that the publisher signed opens anything else than it committed to at posting."""
        (statement,) = statements(action.evidence)
        return await self.is_changed(self.selection(action.fact), statement)

    async def is_changed(self, selection: Selection, signed: Statement) -> bool:
        """Return whether keys open other data than the task promises; the files themselves are opened, not copies.

        A file of another length than declared is a broken promise too, and so is a functional key that does not verify;
        what is not here yet is `Unavailable`.
        """
        specification = selection.posted.specification
        with tempfile.TemporaryDirectory(prefix="learnchain-evidence-") as name:
            place = Path(name)
            try:
                if isinstance(signed, KeyRelease):
                    keys = OpenedKeys(signed.key, signed.functional_key)
                    await self.data.trained_on_anew(keys, specification, self.terms(selection), place)
                elif isinstance(signed, Release):
                    await self.data.opened_anew(selection.test, signed.key, specification, place / "rows")
            except Rejected:
                return True
        await asyncio.sleep(0)
        return False

    def terms(self, selection: Selection) -> TrainingTerms:
        """Return the terms of a height as its publisher has them: what all miners share is the same for everybody."""
        place = (self.parameters.chain_id, selection.parent, selection.task.task_id, selection.task.publisher)
        return self.rules.training_terms(selection, work_id(*place))

    async def _forged(self, action: MeasureEvidence) -> bool:
        block = self.archive.block(action.fact.block)
        if not isinstance(block, Block):
            return False
        proof = fraud_proof(action.evidence, action.fact)
        return await self.judge.holds(proof, block, self.selection(action.fact))

    async def _falsely_audited(self, action: MeasureEvidence) -> bool:
        """Return whether replaying the auditor's segments comes to something else than it reported."""
        report = decode(AuditReport, action.evidence.statements[0])
        return await self.is_false(report, action.fact, action.book)

    async def is_false(self, report: AuditReport, fact: RoundFact, book: BondBook) -> bool:
        """Return whether a report is not what an honest auditor of this machine's class finds."""
        given = assignment(book, fact, report.auditor, self.parameters)
        if given is None:
            raise Unavailable(f"the seed of audits of height {fact.height}")
        block = self.archive.block(fact.block)
        if not isinstance(block, Block):
            return True
        return await self.judge.reported(block, self.selection(fact), given) != report.lines

    def selection(self, fact: RoundFact) -> Selection:
        """Return what was selected at a recent height, recomputed from the state before it."""
        return self.rules.select_task(self.archive.state(fact.parent), self.parameters)
