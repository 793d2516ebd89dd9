"""Fetch what a published run rests on and have it audited: for auditors, and for nodes that measure fraud proofs.

The assurance levels that train again: k of N segments of every winner's trace, or all of them (ROUND-10).

Which segments, the verifier draws from a secret of its own: nobody can know them while training. What replaying shows
differs by fault: one that needs no arithmetic refuses the block; bits that differ refuse nothing, since the miner may
be of another reproducibility class, and the block then counts at accuracy level.
"""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from learnchain.consensus import audits
from learnchain.encoding.codec import Hash32
from learnchain.engines.contract import Rules
from learnchain.learning import jobs
from learnchain.learning.trace import INDEX_NAME, MAXIMUM_INDEX_BYTES, state_path
from learnchain.protocol.audit_messages import MAXIMUM_STEP_STATES, AuditedSegment, StateLeaf
from learnchain.protocol.messages import Block, training_record_hash, work_id
from learnchain.protocol.model_specification import model_bytes
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import Selection
from learnchain.protocol.task_specification import TrainingMode
from learnchain.protocol.training_terms import TrainingTerms
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.archive import Archive
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.tasks.publishing import OpenedKeys, TaskData
from learnchain.verification import training_chain
from learnchain.verification.assurance import Level
from learnchain.verification.training_chain import earlier_runs

logger = logging.getLogger(__name__)

STATE_COPIES = 3
"""A training state holds the weights and at most two memories of the optimiser, each of the model's size."""

HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ReplayScope:
    """Say what of a run is checked."""

    indices: tuple[int, ...]
    whole: bool = True
    replay: bool = True
    forced: tuple[int, ...] = ()
    forced_seed: bytes = b"\0" * 32
    every: bool = False


@dataclass(frozen=True)
class TraceReplayer:
    """Audit published runs from blobs alone; what is not here is `Unavailable`."""

    blobs: BlobStore
    data: TaskData
    evaluator: jobs.Training
    rules: Rules
    parameters: ChainParameters
    archive: Archive

    async def audit(self, block: Block, selection: Selection, scope: ReplayScope) -> tuple[jobs.AuditLine, ...]:
        """Return the lines of an audit of a block's winner.

        An index that cannot be read, and a run that goes on from what it may not, are faults that every machine sees.
        """
        if selection.posted_task.specification.training.mode is TrainingMode.FREE:
            return (jobs.AuditLine(jobs.WHOLE_RUN, audits.AuditFinding.NOT_AUDITED, "accuracy only", 0, 0.0, b""),)
        directory = Path(tempfile.mkdtemp(prefix="learnchain-audit-"))
        try:
            # The index first: what it cannot be read for has one finding, whether or not the run continues another.
            if faults := await self._provision(block, selection, scope, directory):
                return faults
            try:
                origin = await self._origin(block, selection)
            except Rejected as error:
                return _faulty(audits.AuditFinding.FAULT_FIRST_STATE, error.detail)
            return await self.evaluator.run(await self._job(block, selection, scope, origin, directory))
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    async def earlier_runs(self, block: Block) -> tuple[training_chain.EarlierRun, ...]:
        """Return the runs that a winner's rests on and that no block of their own examines (PODL-R10)."""
        return await earlier_runs(self.blobs, self.archive, self.rules, self.parameters, block)

    async def is_fault_proven(
        self,
        proof: audits.FraudProof,
        block: Block,
        selection: Selection,
        reported: tuple[jobs.ReportedSegment, ...] = (),
    ) -> bool:
        """Return whether a proof shows a fault; only what every machine finds alike decides (AUDIT-8).

        Against an auditor, `reported` is what it said of the segment.
        """
        if proof.disclosures:
            try:
                return await self._settle_dispute(proof, block, selection, reported)
            except Rejected as error:
                # Files that are not what the proof names prove nothing, and they are the same for everybody.
                logger.info("a proof rests on files that are not its own: %s", error)
                return False
        indices = tuple(each.index for each in proof.segments)
        if proof.finding not in audits.HARDWARE_INDEPENDENT_FINDINGS:
            return False
        lines = await self.audit(block, selection, ReplayScope(indices, whole=not indices, replay=False))
        return lines[-1].finding in audits.HARDWARE_INDEPENDENT_FINDINGS

    async def _settle_dispute(
        self, proof: audits.FraudProof, block: Block, selection: Selection, reported: tuple[jobs.ReportedSegment, ...]
    ) -> bool:
        """Return whether an answer is no chain of honest steps: by its ends, or by the opened step."""
        place = Path(tempfile.mkdtemp(prefix="learnchain-dispute-"))
        size = STATE_COPIES * model_bytes(selection.posted_task.specification.model) + HEADER_BYTES
        try:
            for answer in proof.disclosures:
                if not proof.steps:
                    digests = await self.blobs.fetch(answer.digests_cid, max_bytes=32 * MAXIMUM_STEP_STATES)
                    shutil.copyfile(digests, place / jobs.DIGESTS_NAME)
            for step in proof.steps:
                for cid, name in ((step.before_cid, jobs.BEFORE_NAME), (step.after_cid, jobs.AFTER_NAME)):
                    shutil.copyfile(await self.blobs.fetch(cid, max_bytes=size), place / name)
            if not proof.steps and any(each.forced_seed for each in reported):
                index = await training_chain.fetch_index(self.blobs, block.reveal.training)
                state = index.states[proof.segments[0].index]
                shutil.copyfile(await self.blobs.fetch(state, max_bytes=size), state_path(place, 0))
            run = await self.run(block, selection, place)
            return await self.evaluator.run(jobs.DisputeJob(run, proof, str(place), reported))
        finally:
            shutil.rmtree(place, ignore_errors=True)

    async def leaves(self, block: Block) -> tuple[StateLeaf, ...]:
        """Return the committed states of a block's winner, from its published index."""
        index = await training_chain.fetch_index(self.blobs, block.reveal.training)
        index.check_root(block.reveal.training.state_root)
        return index.trace().leaves

    async def replay_segments(
        self, block: Block, selection: Selection, given: audits.AuditAssignment
    ) -> tuple[jobs.AuditLine, ...]:
        """Return what this machine finds in the segments of an assignment; only a fault of the bytes ends it early."""
        named = (given.sample.indices, False, True, given.forced, given.seed)
        scope = ReplayScope(*named, every=True)
        return await self.audit(block, selection, scope)

    async def _origin(self, block: Block, selection: Selection) -> Hash32 | None:
        """Return the digest of the state that the run must begin with, if it is not the derived one (PODL-R3)."""
        if not selection.position.block_index:
            return None
        parent = self.archive.block(block.parent)
        return await training_chain.find_start_digest(self.blobs, parent, block, self.parameters.chain_id)

    async def _job(
        self, block: Block, selection: Selection, scope: ReplayScope, origin: Hash32 | None, directory: Path
    ) -> jobs.AuditJob:
        reveal, specification = block.reveal, selection.posted_task.specification
        weights = await self.blobs.fetch(reveal.model_cid, max_bytes=model_bytes(specification.model) + HEADER_BYTES)
        return jobs.AuditJob(
            run=await self.run(block, selection, directory),
            rules=specification.training,
            weights_path=str(weights),
            state_root=reveal.training.state_root,
            states=reveal.training.states,
            indices=scope.indices,
            whole=scope.whole,
            replay=scope.replay,
            origin=() if origin is None else (origin,),
            forced=scope.forced,
            forced_seed=scope.forced_seed,
            every=scope.every,
        )

    async def run(self, block: Block, selection: Selection, directory: Path) -> jobs.TrainingJob:
        """Return what the winner had to do."""
        work = work_id(self.parameters.chain_id, block.parent, selection.task.task_id, block.reveal.miner)
        terms = self.rules.training_terms(selection, work)
        seeds = training_chain.seeds_of(self.parameters.chain_id, selection, block.reveal.miner)
        data, mapping = await self._rows(block, selection, terms), await self.data.mapping_path(terms)
        chosen = block.reveal.training.hyperparameters
        return training_chain.build_training_job(selection, terms, seeds, chosen, (data, directory), mapping)

    async def _rows(self, block: Block, selection: Selection, terms: TrainingTerms) -> Path:
        keys = OpenedKeys(block.key_release.key, self.rules.parts.functional_key(block.key_release))
        return await self.data.training(keys, selection.posted_task.specification, terms)

    async def _provision(
        self, block: Block, selection: Selection, scope: ReplayScope, directory: Path
    ) -> tuple[jobs.AuditLine, ...]:
        """Put the index and the states that are needed where the audit looks for them; return what is faulty there.

        What a committed index names is the same for everybody, so an unreadable one is a fault and not a missing file.
        """
        training, model = block.reveal.training, selection.posted_task.specification.model
        try:
            states = (await training_chain.fetch_index(self.blobs, training)).states
        except Rejected as error:
            return _faulty(audits.AuditFinding.FAULT_MERKLE_PATH, error.detail)
        if len(states) != training.states:
            detail = f"the index names {len(states)} states, the reveal {training.states}"
            return _faulty(audits.AuditFinding.FAULT_END_POINTS, detail)
        shutil.copyfile(
            await self.blobs.fetch(training.trace_cid, max_bytes=MAXIMUM_INDEX_BYTES), directory / INDEX_NAME
        )
        maximum = STATE_COPIES * model_bytes(model) + HEADER_BYTES
        wanted = set(scope.indices) | ({len(states) - 1} if scope.whole else set())
        for number in sorted(wanted):
            if number >= len(states):
                raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the trace has no segment {number}")
            try:
                path = await self.blobs.fetch(states[number], max_bytes=maximum)
            except Rejected as error:
                return _faulty(audits.AuditFinding.FAULT_MERKLE_PATH, f"state {number}: {error.detail}")
            shutil.copyfile(path, state_path(directory, number))
        return ()


def _faulty(finding: audits.AuditFinding, detail: str) -> tuple[jobs.AuditLine, ...]:
    """Return the one line of an audit that ends before anything is trained again."""
    return (jobs.AuditLine(jobs.WHOLE_RUN, finding, detail, 0, 0.0, b""),)


def fault_of(lines: tuple[jobs.AuditLine, ...]) -> audits.AuditFinding:
    """Return what an audit came to."""
    return lines[-1].finding


def convert_to_segments(lines: tuple[jobs.AuditLine, ...]) -> tuple[AuditedSegment, ...]:
    """Return what an auditor says of segments that it replayed."""
    return tuple(
        AuditedSegment(each.segment, each.finding is audits.AuditFinding.REPRODUCED, each.witness or b"\0" * 32)
        for each in lines
    )


DEFAULT_THOUSANDTHS = 50
"""Without `--segments`, replay level trains a twentieth of every trace again."""


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """Say what replaying one block came to: how many segments of how many, and whether every bit followed.

    `runs` holds both numbers of the winner's run and of every earlier one that it rests on (PODL-R10).
    """

    replayed: int
    segments: int
    is_reproduced: bool
    text: str
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def detection(self) -> Fraction:
        """Return the chance with which one forged segment would have been found, wherever among these runs it lies."""
        if not self.is_reproduced or not self.segments:
            return Fraction(0)
        return min(audits.detection_probability(*each, 1) for each in self.runs or ((self.replayed, self.segments),))


@dataclass(frozen=True, slots=True)
class SegmentReplayer:
    """Replay blocks at a level; `wanted` segments of each run, 0 for the default share, all at full level."""

    judge: TraceReplayer
    level: Level
    wanted: int
    secret: bytes

    async def check_block(self, block: Block, selection: Selection) -> ReplaySummary:
        """Replay a block's challenged segments; refuse a fault; say so where bits differ or states are gone.

        Runs that lost but that the winner's goes on from are replayed alike: no other block would examine them.
        """
        found = [await self._run(block, selection)]
        if found[0].is_reproduced:
            try:
                for each in await self.judge.earlier_runs(block):
                    found.append(await self._run(each.block, each.selection))
            except Unavailable as error:
                found.append(ReplaySummary(0, 0, False, f"an earlier run is not replayed: {error.what} is not here"))
        return _combine_summaries(found)

    async def _run(self, block: Block, selection: Selection) -> ReplaySummary:
        training = block.reveal.training
        segments = training.states - 1
        if segments < 1:
            raise Rejected(RejectionReason.TRACE_MISMATCH, f"a trace of {training.states} states")
        drawn = self._sample_size(segments)
        indices = range(segments) if self.level is Level.FULL else ()
        if self.level is Level.REPLAY:
            indices = audits.draw_segments(self.secret, training_record_hash(training), segments, drawn).indices
        try:
            lines = await self.judge.audit(block, selection, ReplayScope(tuple(indices)))
        except Unavailable as error:
            return ReplaySummary(0, segments, False, f"not replayed: {error.what} is not here")
        return _summary(lines, drawn, segments)

    def _sample_size(self, segments: int) -> int:
        if self.level is Level.FULL:
            return segments
        return min(self.wanted, segments) if self.wanted else audits.sample_size(segments, DEFAULT_THOUSANDTHS)


def _combine_summaries(summaries: list[ReplaySummary]) -> ReplaySummary:
    """Return what the winner's run and the earlier ones came to; the first that did not follow is what is told."""
    own, *earlier = summaries
    if not earlier:
        return own
    failed = next((each for each in earlier if not each.is_reproduced), None)
    if failed is not None:
        return ReplaySummary(own.replayed, own.segments, False, f"{own.text}; of an earlier run: {failed.text}")
    runs = tuple((each.replayed, each.segments) for each in summaries)
    text = f"{own.text}; {len(earlier)} earlier runs: " + ", ".join(each.text for each in earlier)
    return ReplaySummary(sum(each for each, _ in runs), sum(each for _, each in runs), True, text, runs)


def _summary(lines: tuple[jobs.AuditLine, ...], drawn: int, segments: int) -> ReplaySummary:
    last = lines[-1]
    if last.finding in audits.HARDWARE_INDEPENDENT_FINDINGS:
        raise Rejected(RejectionReason.TRACE_MISMATCH, f"{last.finding.value}: {last.detail}")
    done = sum(line.segment >= 0 and line.finding is audits.AuditFinding.REPRODUCED for line in lines)
    if last.finding is audits.AuditFinding.NOT_AUDITED:
        return ReplaySummary(0, segments, False, "free training: accuracy only")
    if last.finding is audits.AuditFinding.NUMERIC_MISMATCH:
        text = f"segment {last.segment} differs in this machine's class: not settled"
        return ReplaySummary(done, segments, False, text)
    return ReplaySummary(drawn, segments, True, f"replayed {done} of {segments} segments")
