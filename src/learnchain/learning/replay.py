"""Audit k of N segments of a committed trace: what the bytes alone show first, then training again (ROUND-11).

The run as a whole is checked in every audit, whatever is drawn: ranges, seeds, steps, the first state's derivation
and the last state's model. A drawn segment is checked for its rows, then replayed from its committed first state;
inside one reproducibility class every bit follows. A difference is a `NUMERIC_MISMATCH`, which `disputes` settles.

Carry out the jobs of a process that audits: read what was published into a run, and check or dispute it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learnchain.consensus.audits import AuditFinding
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import shake256
from learnchain.learning.data import DataSet
from learnchain.learning.jobs import WHOLE_RUN, AuditJob, AuditLine, TrainingJob
from learnchain.learning.model import initial_weights, load_weights, round_as_committed
from learnchain.learning.safe_tensors import Array
from learnchain.learning.trace import FIRST_DIGEST, ShownRows, Trace, read_state, read_trace, state_digest, state_path
from learnchain.learning.train import TrainingPlan, TrainingRun, plan_of, segment_rows, steps_per_epoch
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.protocol.model_specification import tensors
from learnchain.protocol.task_specification import Optimiser, TrainingMode, TrainingRules
from learnchain.rejection import Rejected, Unavailable


@dataclass(frozen=True, slots=True)
class AuditedRun:
    """Hold what commitment, task and chain say of a run, and where its trace and model lie.

    `origin` is the digest of the miner's own committed end state of an earlier block, for tasks that last several
    blocks (PoDL III-B); without it the run starts at the initialisation that its seed derives.
    """

    plan: TrainingPlan
    rules: TrainingRules
    trace: Trace
    directory: Path
    weights_path: Path
    origin: Hash32 | None = None

    @property
    def segments(self) -> int:
        """Return N."""
        return len(self.trace.leaves) - 1


@dataclass(frozen=True, slots=True)
class SegmentAudit:
    """Report one check: the segment, or -1 for the run as a whole, what was found, the steps trained, seconds.

    `witness` is the digest of the state in the segment's middle: nothing that is published tells it, so whoever names
    it has trained the segment up to there.
    """

    segment: int
    finding: AuditFinding
    detail: str
    steps: int
    seconds: float
    witness: bytes = b""


@dataclass(frozen=True, slots=True)
class RunAudit:
    """Report an audit: one line a check; it ends at the first that fails."""

    checks: tuple[SegmentAudit, ...]

    @property
    def finding(self) -> AuditFinding:
        """Return what the audit found: a fault, a mismatch, or that everything was reproduced."""
        return self.checks[-1].finding

    @property
    def seconds(self) -> float:
        """Return the time it took."""
        return sum(check.seconds for check in self.checks)


@dataclass(frozen=True, slots=True)
class SegmentAuditScope:
    """Say what of a run is checked; without `replay` only what the bytes show, the same on every machine.

    The `forced` segments are trained from a state that `forced_seed` corrupts: they must not reproduce. With `every`
    a segment whose bits differ does not end the audit.
    """

    indices: tuple[int, ...]
    whole: bool = True
    replay: bool = True
    forced: tuple[int, ...] = ()
    forced_seed: Hash32 = b"\0" * 32
    every: bool = False


def audit_run(run: AuditedRun, data: DataSet, scope: SegmentAuditScope, clock: Callable[[], float]) -> RunAudit:
    """Check the run and the challenged segments; raise `Unavailable` where a state is not here.

    `data` were checked against the task's data root when they were opened. A `free` run is not audited (ROUND-8).
    """
    if run.rules.mode is TrainingMode.FREE:
        return RunAudit((SegmentAudit(WHOLE_RUN, AuditFinding.NOT_AUDITED, "accuracy only", 0, 0.0),))
    if max((*scope.indices, 0)) >= run.segments:
        detail = f"a segment of {scope.indices} is none of {run.segments}"
        return RunAudit((SegmentAudit(WHOLE_RUN, AuditFinding.FAULT_END_POINTS, detail, 0, 0.0),))
    checks = list[SegmentAudit]()
    for check in _checks(run, data, scope, clock):
        checks.append(check)
        goes_on = check.segment in scope.forced or (scope.every and check.finding is AuditFinding.NUMERIC_MISMATCH)
        if check.finding is not AuditFinding.REPRODUCED and not goes_on:
            break
    return RunAudit(tuple(checks))


def _checks(
    run: AuditedRun, data: DataSet, scope: SegmentAuditScope, clock: Callable[[], float]
) -> Iterator[SegmentAudit]:
    started = clock()
    if scope.whole:
        finding, detail = whole_run_finding(run, len(data))
        yield SegmentAudit(WHOLE_RUN, finding, detail, 0, clock() - started)
    again = TrainingRun(run.plan, data) if scope.replay and scope.indices else None
    for index in scope.indices:
        started = clock()
        seed = scope.forced_seed if index in scope.forced else None
        finding, detail, witness = segment_finding(run, data, again, index, seed)
        steps = run.trace.leaves[index + 1].step - run.trace.leaves[index].step
        yield SegmentAudit(index, finding, detail, steps, clock() - started, witness)


# --- the run as a whole: hardware-free ------------------------------------------------------------------------


def whole_run_finding(run: AuditedRun, rows: int) -> tuple[AuditFinding, str]:
    """Return what ranges, seeds, steps, first and last state show, without training and on any hardware."""
    try:
        run.rules.check(run.plan.hyper_parameters)
    except Rejected as error:
        return AuditFinding.FAULT_HYPERPARAMETER_RANGE, error.detail
    leaves, plan = run.trace.leaves, run.plan
    if any(leaf.seed != plan.work_id for leaf in leaves):
        return AuditFinding.FAULT_SEED, "a state names a seed that is not this miner's at this height"
    total = plan.hyper_parameters.epochs * steps_per_epoch(plan, rows)
    expected = [*range(0, total, plan.checkpoint_interval_steps), total]
    if [leaf.step for leaf in leaves] != expected:
        return AuditFinding.FAULT_END_POINTS, f"the states are not those of {total} steps at the declared interval"
    first = run.origin if run.origin is not None else initial_digest(plan)
    if leaves[0] != StateLeaf(0, plan.work_id, FIRST_DIGEST, FIRST_DIGEST, first):
        return AuditFinding.FAULT_FIRST_STATE, "the first state is not the derived one"
    return _last_state(run)


def initial_digest(plan: TrainingPlan) -> Hash32:
    """Return the digest of the state that the seed derives: initial weights, and memories of zeros."""
    return state_digest(initial_state(plan))


def initial_state(plan: TrainingPlan) -> dict[str, Array]:
    """Return the state before the first step: drawn weights, running statistics and memories as they begin."""
    state = initial_weights(plan.specification, plan.initial_seed)
    return {name: state.get(name, np.zeros(shape, np.float32)) for name, shape in state_shapes(plan).items()}


def state_shapes(plan: TrainingPlan) -> dict[str, tuple[int, ...]]:
    """Return the shapes of every tensor of a state in canonical order; no model is built for it."""
    found = {tensor.name: tuple(tensor.shape) for tensor in tensors(plan.specification)}
    memories = ("exp_avg", "exp_avg_sq") if plan.optimiser is Optimiser.ADAM else ("momentum_buffer",)
    if plan.optimiser is not Optimiser.ADAM and not plan.hyper_parameters.momentum_millionths:
        memories = ()
    for tensor in tensors(plan.specification):
        if tensor.trained:
            found.update({f"{memory}/{tensor.name}": tuple(tensor.shape) for memory in memories})
    return found


def _last_state(run: AuditedRun) -> tuple[AuditFinding, str]:
    """Compare the last state's model with the committed model's file, both under digests of their own."""
    path, leaf = state_path(run.directory, run.segments), run.trace.leaves[-1]
    try:
        state = read_run_state(run, run.segments)
        weights = load_weights(run.weights_path, run.plan.specification)
    except Rejected as error:
        return AuditFinding.FAULT_MERKLE_PATH, f"{path.name} at step {leaf.step}: {error.detail}"
    committed = round_as_committed({name: state[name] for name in weights}, run.plan.terms.weight_bits)
    if any(committed[name].tobytes() != array.tobytes() for name, array in weights.items()):
        return AuditFinding.FAULT_END_POINTS, "the last state is not the committed model"
    return AuditFinding.REPRODUCED, "ranges, seeds, steps, first state, last state"


# --- one segment ----------------------------------------------------------------------------------------------


def segment_finding(
    run: AuditedRun, data: DataSet, again: TrainingRun | None, index: int, forced_seed: bytes | None = None
) -> tuple[AuditFinding, str, bytes]:
    """Check the rows and the first state of a segment, then train it again by way of its middle."""
    first, following = run.trace.leaves[index], run.trace.leaves[index + 1]
    finding, detail = rows_finding(run.plan, data, first, following)
    if finding is not AuditFinding.REPRODUCED:
        return finding, detail, b""
    try:
        state = read_run_state(run, index)
    except Rejected as error:
        return AuditFinding.FAULT_MERKLE_PATH, error.detail, b""
    if again is None:
        return AuditFinding.REPRODUCED, "rows and first state", b""
    again.restore(first, state if forced_seed is None else corrupted(run.plan, forced_seed, index, state))
    again.advance_to((first.step + following.step + 1) // 2)
    witness = state_digest(again.state())
    again.advance_to(following.step)
    if again.leaf() != following:
        detail = f"step {following.step} does not follow from step {first.step}"
        return AuditFinding.NUMERIC_MISMATCH, detail, witness
    return AuditFinding.REPRODUCED, f"steps {first.step} to {following.step}", witness


def corrupted(plan: TrainingPlan, seed: bytes, index: int, state: dict[str, Array]) -> dict[str, Array]:
    """Return a state with one weight moved by one, drawn from the seed: a forced error that training keeps."""
    names = [each.name for each in tensors(plan.specification) if each.trained]
    drawn = shake256("forced-error", seed + index.to_bytes(8, "big"), 16)
    name = names[int.from_bytes(drawn[:8], "big") % len(names)]
    moved = state[name].copy()
    moved.reshape(-1)[int.from_bytes(drawn[8:], "big") % moved.size] += np.float32(1)
    return {**state, name: moved}


def rows_finding(plan: TrainingPlan, data: DataSet, first: StateLeaf, following: StateLeaf) -> tuple[AuditFinding, str]:
    """Compare the digests of a segment's rows with those that the seed draws from the data; no arithmetic."""
    if not 0 < following.step - first.step <= plan.checkpoint_interval_steps:
        return AuditFinding.FAULT_END_POINTS, "two states lie further apart than the checkpoint interval"
    shown = ShownRows(data, first.order, first.points)
    for rows in segment_rows(plan, len(data), first.step, following.step):
        shown.add(rows)
    order, points = shown.close()
    if order != following.order:
        return AuditFinding.FAULT_BATCH_ORDER, f"the rows up to step {following.step} are not those that the seed draws"
    if points != following.points:
        return AuditFinding.FAULT_DATA_MEMBERSHIP, f"the points up to step {following.step} are not those of the data"
    return AuditFinding.REPRODUCED, "rows"


def read_run_state(run: AuditedRun, index: int) -> dict[str, Array]:
    """Return a published state if it hashes to its leaf; raise `Unavailable` where it is not here."""
    path = state_path(run.directory, index)
    if not path.exists():
        raise Unavailable(f"state {index} of the trace")
    return read_state(path, run.trace.leaves[index].digest, state_shapes(run.plan))


def audit_published_run(job: AuditJob, data: DataSet, clock: Callable[[], float]) -> tuple[AuditLine, ...]:
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
    scope = SegmentAuditScope(job.indices, job.whole, job.replay, job.forced, job.forced_seed, job.every)
    audit = audit_run(run, data, scope, clock)
    return tuple(
        AuditLine(each.segment, each.finding, each.detail[:200], each.steps, each.seconds, each.witness)
        for each in audit.checks
    )


def run_plan(run: TrainingJob) -> TrainingPlan:
    """Return what the miner had to do."""
    return plan_of(run)
