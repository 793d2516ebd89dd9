"""Carry out the jobs of a process that audits: read what was published into a run, and check or dispute it."""

from collections.abc import Callable
from pathlib import Path

from learnchain.learning.data import DataSet
from learnchain.learning.jobs import TrainingJob
from learnchain.learning.replay.jobs import WHOLE_RUN, AuditJob, AuditLine
from learnchain.learning.replay.segments import AuditedRun, AuditScope, audit_run
from learnchain.learning.trace import read_trace
from learnchain.learning.train import TrainingPlan, plan_of
from learnchain.primitives.audit import AuditFinding
from learnchain.primitives.rejection import Rejected
from learnchain.primitives.task_specification import TrainingMode


def audited(job: AuditJob, data: DataSet, clock: Callable[[], float]) -> tuple[AuditLine, ...]:
    """Return one line a check, up to the first fault; raise `Unavailable` where a state is not here."""
    started, directory = clock(), Path(job.run.directory)
    if job.rules.mode is TrainingMode.FREE:
        return (AuditLine(WHOLE_RUN, AuditFinding.NOT_AUDITED, "accuracy only", 0, 0.0, b""),)
    try:
        trace = read_trace(directory, job.state_root)
    except Rejected as error:
        return (AuditLine(WHOLE_RUN, AuditFinding.FAULT_MERKLE_PATH, error.detail, 0, clock() - started, b""),)
    if len(trace.leaves) != job.states:
        detail = f"the index names {len(trace.leaves)} states, the reveal {job.states}"
        return (AuditLine(WHOLE_RUN, AuditFinding.FAULT_END_POINTS, detail, 0, clock() - started, b""),)
    origin = job.origin[0] if job.origin else None
    run = AuditedRun(run_plan(job.run), job.rules, trace, directory, Path(job.weights_path), origin)
    scope = AuditScope(job.indices, job.whole, job.replay, job.forced, job.forced_seed, job.every)
    audit = audit_run(run, data, scope, clock)
    return tuple(
        AuditLine(each.segment, each.finding, each.detail, each.steps, each.seconds, each.witness)
        for each in audit.checks
    )


def run_plan(run: TrainingJob) -> TrainingPlan:
    """Return what the miner had to do."""
    return plan_of(run)
