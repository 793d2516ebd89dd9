"""Carry out an audit job: read the published trace, check the run, replay the segments, and witness the replay.

A witness is the digest of a state in the middle of a segment: nothing that is published tells it, so whoever names
it has trained the segment up to there.
"""

from collections.abc import Callable
from pathlib import Path

from learnchain.learning.data import DataSet
from learnchain.learning.replay.jobs import AuditJob, AuditLine
from learnchain.learning.replay.segments import AuditedRun, rows_finding, state_shapes, whole_run_finding
from learnchain.learning.trace import read_state, read_trace, state_digest, state_path
from learnchain.learning.train import TrainingPlan, TrainingRun
from learnchain.primitives.audit import AuditFinding, StateLeaf
from learnchain.primitives.rejection import Rejected, Unavailable
from learnchain.primitives.task_specification import TrainingMode
from learnchain.primitives.training_terms import Free

WHOLE_RUN = -1


def audited(job: AuditJob, data: DataSet, clock: Callable[[], float]) -> tuple[AuditLine, ...]:
    """Return one line a check, up to the first fault; raise `Unavailable` where a state is not here."""
    if job.rules.mode is TrainingMode.FREE:
        return (AuditLine(WHOLE_RUN, AuditFinding.NOT_AUDITED, "accuracy only", 0, 0.0, b""),)
    started, directory = clock(), Path(job.run.directory)
    try:
        trace = read_trace(directory, job.state_root)
    except Rejected as error:
        return (AuditLine(WHOLE_RUN, AuditFinding.FAULT_MERKLE_PATH, error.detail, 0, clock() - started, b""),)
    if len(trace.leaves) != job.states or max((*job.indices, 0)) >= len(trace.leaves) - 1:
        detail = f"the index names {len(trace.leaves)} states, the reveal {job.states}"
        return (AuditLine(WHOLE_RUN, AuditFinding.FAULT_END_POINTS, detail, 0, clock() - started, b""),)
    origin = job.origin[0] if job.origin else None
    run = AuditedRun(audit_plan(job), job.rules, trace, directory, Path(job.weights_path), origin)
    lines: list[AuditLine] = []
    if job.whole:
        finding, detail = whole_run_finding(run, len(data))
        lines.append(AuditLine(WHOLE_RUN, finding, detail, 0, clock() - started, b""))
    again = TrainingRun(run.plan, data) if job.replay else None
    for index in job.indices:
        if lines and lines[-1].finding is not AuditFinding.REPRODUCED:
            break
        started = clock()
        finding, detail, witness = _segment(run, data, again, index)
        steps = trace.leaves[index + 1].step - trace.leaves[index].step
        lines.append(AuditLine(index, finding, detail, steps, clock() - started, witness))
    return tuple(lines)


def audit_plan(job: AuditJob) -> TrainingPlan:
    """Return what the miner had to do."""
    run = job.run
    terms = run.watermarks[0] if run.watermarks else Free()
    return TrainingPlan(
        run.specification, run.optimiser, run.hyper_parameters, terms, run.work_id, run.checkpoint_interval_steps
    )


def _segment(run: AuditedRun, data: DataSet, again: TrainingRun | None, index: int) -> tuple[AuditFinding, str, bytes]:
    """Check the rows and the first state of a segment, then train it again by way of its middle."""
    first, following = run.trace.leaves[index], run.trace.leaves[index + 1]
    finding, detail = rows_finding(run.plan, data, first, following)
    if finding is not AuditFinding.REPRODUCED:
        return finding, detail, b""
    path = state_path(run.directory, index)
    if not path.exists():
        raise Unavailable(f"state {index} of the trace")
    try:
        state = read_state(path, first.digest, state_shapes(run.plan))
    except Rejected as error:
        return AuditFinding.FAULT_MERKLE_PATH, error.detail, b""
    if again is None:
        return AuditFinding.REPRODUCED, "rows and first state", b""
    again.restore(first, state)
    witness = _witness(run, again, first, following)
    if again.leaf() != following:
        detail = f"step {following.step} does not follow from step {first.step}"
        return AuditFinding.NUMERIC_MISMATCH, detail, witness
    return AuditFinding.REPRODUCED, f"steps {first.step} to {following.step}", witness


def _witness(run: AuditedRun, again: TrainingRun, first: StateLeaf, following: StateLeaf) -> bytes:
    """Train to the end of the segment; return the digest of the state in its middle."""
    again.advance_to((first.step + following.step + 1) // 2)
    middle = state_digest(again.state())
    again.advance_to(following.step)
    return middle
