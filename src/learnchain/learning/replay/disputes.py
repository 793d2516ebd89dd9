"""Bisect a numeric mismatch to one step and settle it (the round, rule 11; Verde and TAO dispute the same way).

The accused miner answers with the state of every step of the segment, bound by one signed root. The accuser settles
its steps until one lies outside the bounds: a chain of steps that are all within them ends within them, so a forged
segment has one. Honest runs have none, on whatever machine: an accuser of another class finds no step to open.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from learnchain.learning.data import DataSet
from learnchain.learning.replay.reference import Settlement, settled
from learnchain.learning.replay.segments import (
    AuditedRun,
    read_run_state,
    rows_finding,
    state_shapes,
    whole_run_finding,
)
from learnchain.learning.safe_tensors import Array, write_tensors
from learnchain.learning.trace import read_state, read_trace, state_digest, state_path
from learnchain.learning.train import TrainingPlan, TrainingRun
from learnchain.primitives.audit import AuditFinding, FraudProof, StateLeaf, StepAnswer, answer_digests
from learnchain.primitives.merkle import list_root
from learnchain.primitives.messages import TrainingRecord
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable
from learnchain.primitives.task_specification import TrainingRules

State = dict[str, Array]


# --- the accused miner ----------------------------------------------------------------------------------------


def write_answer(run: AuditedRun, data: DataSet, index: int, directory: Path) -> bytes:
    """Train a segment again in this class and write the state of every step; return their digests, ends included."""
    first, following = run.trace.leaves[index], run.trace.leaves[index + 1]
    again = TrainingRun(run.plan, data)
    again.restore(first, read_run_state(run, index))
    digests = list[bytes]()
    for offset in range(following.step - first.step + 1):
        again.advance_to(first.step + offset)
        state = again.state()
        write_tensors(state_path(directory, offset), state)
        digests.append(state_digest(state))
    return b"".join(digests)


# --- the accuser ----------------------------------------------------------------------------------------------


def chain_finding(first: StateLeaf, following: StateLeaf, answer: StepAnswer, digests: bytes) -> AuditFinding:
    """Return whether an answer's digests begin and end in the committed states, one a step; no arithmetic."""
    try:
        listed = answer_digests(digests)
    except Rejected:
        return AuditFinding.FAULT_STEP_CHAIN
    steps = following.step - first.step
    ends = (listed[0], listed[-1]) == (first.digest, following.digest)
    counted = len(listed) == answer.states == steps + 1
    well = ends and counted and list_root(listed) == answer.root
    return AuditFinding.REPRODUCED if well else AuditFinding.FAULT_STEP_CHAIN


def outlying_step(plan: TrainingPlan, data: DataSet, first: StateLeaf, states: Iterator[State]) -> int | None:
    """Return the offset of the first step that no honest machine takes, or None if all may be honest."""
    before = next(states)
    for offset, after in enumerate(states):
        if not settled(plan, data, first.step + offset, before, after).within:
            return offset
        before = after
    return None


def answered_states(plan: TrainingPlan, directory: Path, digests: tuple[bytes, ...]) -> Iterator[State]:
    """Yield the states of an answer from their files, each only if it hashes to its digest."""
    shapes = state_shapes(plan)
    for offset, digest in enumerate(digests):
        yield read_state(state_path(directory, offset), digest, shapes)


# --- whoever judges -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """Hold what judging a proof needs: the committed run, and the files that its finding rests on.

    `directory` holds the trace's index and the states that the finding names; `answer_directory` the digests of an
    answer (`digests`), or the two states of an opened step (`before`, `after`).
    """

    plan: TrainingPlan
    rules: TrainingRules
    training: TrainingRecord
    directory: Path
    weights_path: Path
    answer_directory: Path
    origin: bytes | None = None


DIGESTS_NAME, BEFORE_NAME, AFTER_NAME = "digests", "before.safetensors", "after.safetensors"


def proves(judged: JudgedRun, data: DataSet, proof: FraudProof) -> tuple[bool, str]:
    """Return whether a proof shows the fault it names, and what was seen; its form was checked before."""
    finding = proof.finding
    if finding is AuditFinding.FAULT_MERKLE_PATH:
        return _unrooted(judged, proof)
    if finding is AuditFinding.FAULT_OUT_OF_BOUNDS:
        settlement = _settled_step(judged, data, proof)
        return not settlement.within, f"{settlement.deviation:.3g} radii in {settlement.tensor}"
    if finding is AuditFinding.FAULT_STEP_CHAIN:
        opening, (answer,) = proof.segments[0], proof.answers
        digests = (judged.answer_directory / DIGESTS_NAME).read_bytes()
        found = chain_finding(opening.first, opening.following, answer, digests)
        return found is finding, found.value
    if finding in (AuditFinding.FAULT_BATCH_ORDER, AuditFinding.FAULT_DATA_MEMBERSHIP):
        opening = proof.segments[0]
        found, detail = rows_finding(judged.plan, data, opening.first, opening.following)
        return found is finding, detail
    if finding is AuditFinding.FAULT_SEED:
        opening = proof.segments[0]
        seeds = {opening.first.seed, opening.following.seed}
        return seeds != {judged.plan.work_id}, "seeds of the opened states"
    return _of_the_run(judged, data, finding)


def _of_the_run(judged: JudgedRun, data: DataSet, finding: AuditFinding) -> tuple[bool, str]:
    if finding is AuditFinding.FAULT_HYPERPARAMETER_RANGE:
        try:
            judged.rules.check(judged.training.hyperparameters)
        except Rejected as error:
            return True, error.detail
        return False, "in range"
    trace = read_trace(judged.directory, judged.training.state_root)
    run = AuditedRun(judged.plan, judged.rules, trace, judged.directory, judged.weights_path, judged.origin)
    found, detail = whole_run_finding(run, len(data))
    return found is finding, detail


def _unrooted(judged: JudgedRun, proof: FraudProof) -> tuple[bool, str]:
    """Return whether the published index, or the opened segment's first state, is not what was committed."""
    try:
        trace = read_trace(judged.directory, judged.training.state_root)
        if len(trace.leaves) != judged.training.states:
            return True, "another number of states than revealed"
        if proof.segments:
            index = proof.segments[0].index
            path = state_path(judged.directory, index)
            if not path.exists():
                raise Unavailable(f"state {index} of the trace")
            read_state(path, trace.leaves[index].digest, state_shapes(judged.plan))
    except Rejected as error:
        return True, error.detail
    return False, "everything hashes to the root"


def _settled_step(judged: JudgedRun, data: DataSet, proof: FraudProof) -> Settlement:
    """Compare the opened step with the reference; a file that is not its digest's proves nothing."""
    opening, step = proof.segments[0], proof.steps[0]
    number = opening.first.step + step.offset
    if not opening.first.step <= number < opening.following.step:
        raise Rejected(RejectionReason.FRAUD_PROOF_INVALID, f"step {number} lies outside the segment")
    shapes = state_shapes(judged.plan)
    before = read_state(judged.answer_directory / BEFORE_NAME, step.before, shapes)
    after = read_state(judged.answer_directory / AFTER_NAME, step.after, shapes)
    return settled(judged.plan, data, number, before, after)
