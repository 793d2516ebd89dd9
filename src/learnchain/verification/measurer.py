"""Measure candidates: run the payload, look for the watermark, count exactly; live and when re-checking a store."""

from dataclasses import dataclass, field
from pathlib import Path

from learnchain.learning.jobs import EvaluationJob, WatermarkJob
from learnchain.node.assurance import Trust
from learnchain.node.blobs.blob_store import BlobStore
from learnchain.node.execution.engine import ExecutionEngine
from learnchain.node.payload_facts import executed
from learnchain.node.ports import Training
from learnchain.node.task_data import OpenedKeys, TaskData
from learnchain.primitives.actions import MeasureCandidate
from learnchain.primitives.measurement import Finding, MeasureKind, Measurement
from learnchain.primitives.messages import Reveal, work_id
from learnchain.primitives.model_costs import committed_bytes
from learnchain.primitives.model_specification import ModelSpecification
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.payload import MAXIMUM_PAYLOAD_BYTES, decode_payload
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable
from learnchain.primitives.training_terms import FULL_BITS, Free, TrainingTerms, Watermark
from learnchain.rules.contract import Rules

WEIGHTS_HEADER_BYTES = 1 << 20
"""What a weights file may hold beyond its numbers: names and shapes."""


@dataclass(frozen=True)
class Measuring:
    """Carry out `MeasureCandidate`; a broken rule becomes a finding, a missing blob stays `Unavailable`."""

    rules: Rules
    parameters: ChainParameters
    blobs: BlobStore
    data: TaskData
    engine: ExecutionEngine
    trainer: Training
    trust: Trust = field(default_factory=Trust)

    async def measured(self, action: MeasureCandidate) -> Measurement:
        """Return the measurement; raise `Unavailable` when something it needs is not here."""
        try:
            if action.measure.kind is MeasureKind.PAYLOAD:
                return await self._payload(action)
            return await self._model(action)
        except Rejected as error:
            measure = action.measure
            return Measurement(measure.candidate, measure.kind, Finding.REJECTED, error.reason.value)

    async def _payload(self, action: MeasureCandidate) -> Measurement:
        data = await self.blobs.read(action.payload_cid, MAXIMUM_PAYLOAD_BYTES)
        payload = decode_payload(data)
        facts = await executed(self.engine, payload, action.selection.height, self.parameters)
        return Measurement(action.measure.candidate, action.measure.kind, Finding.ACCEPTED, facts=facts)

    async def _model(self, action: MeasureCandidate) -> Measurement:
        measure, reveal, selection = action.measure, action.reveal, action.selection
        if reveal is None:
            raise Unavailable("a reveal: an empty block has no model to measure")
        if self.trust.believes(action):
            return claimed(action, reveal)
        specification = selection.posted.specification
        work = work_id(self.parameters.chain_id, selection.parent, selection.task.task_id, reveal.miner)
        terms = self.rules.training_terms(selection, work)
        bits = terms.weight_bits if isinstance(terms, Free) else FULL_BITS
        maximum_bytes = committed_bytes(specification.model, bits) + WEIGHTS_HEADER_BYTES
        of_baseline = measure.kind is MeasureKind.BASELINE
        cid = selection.baseline if of_baseline else reveal.model_cid
        model = await self.blobs.fetch(cid, max_bytes=maximum_bytes)
        if measure.kind is MeasureKind.WATERMARK:
            await self._check_terms(specification.model, model, terms)
            return Measurement(measure.candidate, measure.kind, Finding.ACCEPTED)
        keys = OpenedKeys(action.training_key, action.functional_key)
        training = await self.data.training(keys, specification, terms)
        test = await self.data.opened(selection.test, action.test_key, specification)
        counted = training if measure.kind is MeasureKind.TRAINING else test
        mapping = await self.data.mapping_path(terms)
        paths = (str(model), str(training), str(counted))
        count = await self.trainer.evaluate(EvaluationJob(specification.model, *paths, specification.metric, mapping))
        claim = claimed(action, reveal)
        exact = of_baseline or (count.correct, count.total) == (claim.correct, claim.total)
        finding = Finding.ACCEPTED if exact else Finding.REJECTED
        reason = "" if exact else RejectionReason.CLAIM_NOT_EXACT.value
        return Measurement(measure.candidate, measure.kind, finding, reason, count.correct, count.total)

    async def _check_terms(self, model: ModelSpecification, weights: Path, terms: TrainingTerms) -> None:
        """Refuse weights that do not carry what the engine demanded of training."""
        if not isinstance(terms, Watermark):
            return
        check = await self.trainer.check_watermark(WatermarkJob(model, str(weights), terms))
        if not check.matches:
            detail = f"the rows reach {check.confidences}, {terms.threshold_millionths} millionths are needed"
            raise Rejected(RejectionReason.WATERMARK_MISSING, detail)


def claimed(action: MeasureCandidate, reveal: Reveal) -> Measurement:
    """Return what the winner says of itself: all that header level knows; of an earlier model it says nothing here."""
    measure, count = action.measure, (reveal.claim_correct, reveal.claim_total)
    if measure.kind is MeasureKind.TRAINING:
        count = (reveal.training.correct, reveal.training.total)
    if measure.kind is MeasureKind.BASELINE:
        count = (0, 0)
    return Measurement(measure.candidate, measure.kind, Finding.ACCEPTED, "", *count)
