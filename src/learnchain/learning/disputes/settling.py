"""Bisect a numeric mismatch to one step and settle it (AUDIT-8; Verde and TAO dispute the same way).

The accused miner answers with the state of every step of the segment, bound by one signed root. The accuser settles
its steps until one lies outside the bounds: a chain of steps that are all within them ends within them, so a forged
segment has one. Honest runs have none, on whatever machine: an accuser of another class finds no step to open.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from learnchain.consensus.audits import AuditFinding, is_report_supported, parse_step_digests
from learnchain.encoding.cryptography import list_root
from learnchain.learning.data import DataSet
from learnchain.learning.disputes.reference import settled
from learnchain.learning.jobs import AFTER_NAME, BEFORE_NAME, DIGESTS_NAME, STATES_NAME, DisputeJob, SegmentJob
from learnchain.learning.replay import corrupted, run_plan, state_shapes
from learnchain.learning.safe_tensors import Array, write_tensors
from learnchain.learning.trace import read_state, state_digest, state_path
from learnchain.learning.train import TrainingPlan, TrainingRun
from learnchain.protocol.audit_messages import StateDisclosure, StateLeaf
from learnchain.rejection import Rejected, RejectionReason

State = dict[str, Array]


# --- the accused miner ----------------------------------------------------------------------------------------


def write_answer(job: SegmentJob, data: DataSet) -> bytes:
    """Train a segment again in this class and write the state of every step; return their digests, ends included.

    The segment's first state lies in the job's directory as state 0; it is replaced by the state that was begun with.
    """
    plan, directory = run_plan(job.run), Path(job.directory)
    run = TrainingRun(plan, data)
    run.restore(job.first, _beginning(plan, directory, job.first, (job.index, job.forced_seed)))
    digests = list[bytes]()
    for offset in range(job.following.step - job.first.step + 1):
        run.advance_to(job.first.step + offset)
        state = run.state()
        write_tensors(state_path(directory, offset), state)
        digests.append(state_digest(state))
    return b"".join(digests)


def join_answer(directory: Path, digests: bytes) -> None:
    """Write what an answer publishes: the digests, and the states one after the other."""
    (directory / DIGESTS_NAME).write_bytes(digests)
    with (directory / STATES_NAME).open("wb") as joined:
        for offset in range(len(digests) // 32):
            with state_path(directory, offset).open("rb") as state:
                shutil.copyfileobj(state, joined)


# --- whoever looks at an answer ---------------------------------------------------------------------------------


def split_answer(directory: Path) -> bytes:
    """Lay out the states of a published answer one by one and return their digests; refuse states of several sizes."""
    digests = (directory / DIGESTS_NAME).read_bytes()
    count, joined = len(parse_step_digests(digests)), directory / STATES_NAME
    size, rest = divmod(joined.stat().st_size, count)
    if rest or not size:
        raise Rejected(
            RejectionReason.RESPONSE_INVALID, f"{count} states of one size are not {joined.stat().st_size} bytes"
        )
    with joined.open("rb") as source:
        for offset in range(count):
            state_path(directory, offset).write_bytes(source.read(size))
    return digests


def check_states(job: SegmentJob) -> None:
    """Refuse an answer whose states are not those of its digests: steps that nobody can read prove nothing."""
    plan, directory = run_plan(job.run), Path(job.directory)
    for _ in _answered_states(plan, directory, parse_step_digests(split_answer(directory))):
        pass


def _beginning(plan: TrainingPlan, directory: Path, first: StateLeaf, forced: tuple[int, bytes]) -> State:
    """Return the state in which a segment's steps begin: the committed one, or that which the seed corrupts."""
    index, seed = forced
    state = read_state(state_path(directory, 0), first.digest, state_shapes(plan))
    return corrupted(plan, seed, index, state) if seed else state


# --- the accuser ----------------------------------------------------------------------------------------------


def chain_finding(first: StateLeaf, following: StateLeaf, answer: StateDisclosure, digests: bytes) -> AuditFinding:
    """Return whether an answer's digests begin and end in the committed states, one a step; no arithmetic."""
    try:
        listed = parse_step_digests(digests)
    except Rejected:
        return AuditFinding.FAULT_STEP_CHAIN
    steps = following.step - first.step
    ends = (listed[0], listed[-1]) == (first.digest, following.digest)
    counted = len(listed) == answer.states == steps + 1
    well = ends and counted and list_root(listed) == answer.root
    return AuditFinding.REPRODUCED if well else AuditFinding.FAULT_STEP_CHAIN


def outlying_step(job: SegmentJob, data: DataSet, digests: bytes) -> int:
    """Return the offset of the first step that no honest machine takes, or -1 if all may be honest.

    The answer's states lie in the job's directory; one that does not hash to its digest raises `Rejected`.
    """
    plan = run_plan(job.run)
    states = _answered_states(plan, Path(job.directory), parse_step_digests(digests))
    before = next(states)
    for offset, after in enumerate(states):
        if not settled(plan, data, job.first.step + offset, before, after).within:
            return offset
        before = after
    return -1


def _answered_states(plan: TrainingPlan, directory: Path, digests: tuple[bytes, ...]) -> Iterator[State]:
    shapes = state_shapes(plan)
    for offset, digest in enumerate(digests):
        yield read_state(state_path(directory, offset), digest, shapes)


# --- whoever judges -------------------------------------------------------------------------------------------


def proves(job: DisputeJob, data: DataSet) -> tuple[bool, str]:
    """Return whether a proof shows that an answer is no chain of honest steps, and what was seen.

    Its form and signatures were checked before. A state file that is not its digest's proves nothing: the reporter
    published it.
    """
    proof, directory = job.proof, Path(job.directory)
    opening, (answer,) = proof.segments[0], proof.disclosures
    if proof.finding is AuditFinding.FAULT_STEP_CHAIN:
        digests = (directory / DIGESTS_NAME).read_bytes()
        if job.reported:
            return _breaks_report(job, digests), "the steps of an auditor"
        found = chain_finding(opening.first, opening.following, answer, digests)
        return found is proof.finding, found.value
    if proof.finding is not AuditFinding.FAULT_OUT_OF_BOUNDS:
        raise Rejected(RejectionReason.FRAUD_PROOF_INVALID, f"{proof.finding.value} is not settled by one step")
    (step,), plan = proof.steps, run_plan(job.run)
    number = opening.first.step + step.offset
    if not opening.first.step <= number < opening.following.step:
        raise Rejected(RejectionReason.FRAUD_PROOF_INVALID, f"step {number} lies outside the segment")
    shapes = state_shapes(plan)
    before = read_state(directory / BEFORE_NAME, step.before, shapes)
    after = read_state(directory / AFTER_NAME, step.after, shapes)
    settlement = settled(plan, data, number, before, after)
    return not settlement.within, f"{settlement.deviation:.3g} times its bound in {settlement.tensor}"


def _breaks_report(job: DisputeJob, digests: bytes) -> bool:
    """Return whether an auditor's steps begin elsewhere, or come to something else, than what it reported."""
    opening, (answer,), (said,) = job.proof.segments[0], job.proof.disclosures, job.reported
    listed, start = parse_step_digests(digests), opening.first.digest
    if said.forced_seed:
        forced = (opening.index, said.forced_seed)
        start = state_digest(_beginning(run_plan(job.run), Path(job.directory), opening.first, forced))
    well = list_root(listed) == answer.root and len(listed) == answer.states
    return not well or not is_report_supported(said.line, opening, start, listed)
