"""Say what an executed payload did that consensus must know: its links, its withdrawals, the tasks it posted, bonds.

Measure candidates: run the payload, look for the watermark, count exactly; live and when re-checking a store.

Which blobs the chain names, and how large each may be: a stranger's call makes this node fetch nothing else.
"""

from dataclasses import dataclass, field
from pathlib import Path

from learnchain.engines.contract import EngineParts, Rules
from learnchain.execution.engine import ExecutionEngine
from learnchain.execution.escrow import decode_bond_change, decode_task_posted
from learnchain.learning.jobs import EvaluationJob, Training, WatermarkJob
from learnchain.learning.trace import MAXIMUM_INDEX_BYTES
from learnchain.protocol.actions import MeasureCandidate
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, PayloadFacts
from learnchain.protocol.messages import AnyBlock, Block, Escrow, Reveal, Task, work_id
from learnchain.protocol.model_specification import (
    BYTES_PER_PARAMETER,
    ModelSpecification,
    count_committed_bytes,
    model_bytes,
)
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.payload import MAXIMUM_PAYLOAD_BYTES, ExecutionPayload, Log, PayloadStatusCode, decode_payload
from learnchain.protocol.selection import PostedTask
from learnchain.protocol.state import BondChange, ChainState
from learnchain.protocol.task_specification import Cid, TaskSpecification, decode_specification, specification_hash
from learnchain.protocol.training_terms import Watermark
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.archive import Archive
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.tasks.task_data import OpenedKeys, TaskData
from learnchain.verification.assurance import Trust


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
    task = Task(
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


def _escrow(task: Task) -> Escrow:
    """Return what the contract's own event says it locked; the contract refuses any other value."""
    return Escrow(task.task_id, task.reward_wei + task.bond_wei, task.deadline_seconds)


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
        work = work_id(self.parameters.chain_id, selection.parent, selection.task.task_id, reveal.miner)
        terms = self.rules.training_terms(selection, work)
        maximum_bytes = count_committed_bytes(specification.model, terms.weight_bits) + WEIGHTS_HEADER_BYTES
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

    async def _check_watermark(self, model: ModelSpecification, weights: Path, mark: Watermark) -> None:
        """Refuse weights that do not carry the mark that the engine demanded of training."""
        check = await self.evaluator.run(WatermarkJob(model, str(weights), mark))
        if not check.matches:
            detail = f"the rows reach {check.confidences}, {mark.threshold_millionths} millionths are needed"
            raise Rejected(RejectionReason.WATERMARK_MISSING, detail)


def build_claimed_measurement(parts: EngineParts, action: MeasureCandidate, reveal: Reveal) -> Measurement:
    """Return what the winner says of itself: all that header level knows; of an earlier model it says nothing here."""
    measure, count = action.request, (reveal.claim_correct, reveal.claim_total)
    if measure.kind is MeasurementKind.TRAINING:
        count = parts.training_count(reveal.training)
    if measure.kind is MeasurementKind.BASELINE:
        count = (0, 0)
    return Measurement(measure.candidate, measure.kind, Finding.ACCEPTED, "", *count)


def list_named_blobs(rules: Rules, block: AnyBlock, state: ChainState) -> tuple[Cid, ...]:
    """Return what a block names: payload, model, trace, cited models, and the data of tasks posted in it."""
    posted = (each.specification for each in state.posted_tasks)
    data = tuple(cid for specification in posted for cid in _data(specification))
    if not isinstance(block, Block):
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
        if isinstance(block, Block):
            model = self._rules.select_task(parent, self._parameters).posted_task.specification.model
            largest = BYTES_PER_PARAMETER * self._parameters.maximum_model_parameters
            # A cited model was trained for another height, maybe for another task.
            cited = self._rules.parts.list_cited_losers(block)
            found |= {each.model_cid: largest + WEIGHTS_HEADER_BYTES for each in cited}
            found[block.reveal.model_cid] = model_bytes(model) + WEIGHTS_HEADER_BYTES
            found[block.reveal.training.trace_cid] = MAXIMUM_INDEX_BYTES
        return found


def _data(specification: TaskSpecification) -> dict[Cid, int]:
    data = specification.data
    return {each.cid: each.ciphertext_bytes for each in (data.training, *data.test_sets)}
