"""A numeric mismatch is answered, bisected to one step and settled; honest miners win every dispute."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from learnchain.learning.data import save_data
from learnchain.learning.jobs import TrainingJob
from learnchain.learning.replay.auditing import run_plan
from learnchain.learning.replay.disputes import chain_finding, outlying_step, proves, write_answer
from learnchain.learning.replay.jobs import AFTER_NAME, BEFORE_NAME, DIGESTS_NAME, DisputeJob, SegmentJob
from learnchain.learning.replay.segments import AuditScope, audit_run
from learnchain.learning.trace import state_path
from learnchain.primitives.audit import AuditFinding, FraudProof, answer_digests, open_segment, open_step
from learnchain.primitives.dispute_messages import StepAnswer
from learnchain.primitives.merkle import list_root
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.signatures import UNSIGNED
from tests.learning.conftest import plan_of
from tests.learning.replay.cheats import CHANGES, glued, interpolated, with_changed_segment
from tests.learning.replay.conftest import CLOCK, trained

NOBODY, COMMITMENT, CID = bytes(20), b"\3" * 32, b"cid"


def job_of(run, directory):
    plan = run.plan
    return TrainingJob(
        plan.specification,
        plan.optimiser,
        plan.hyper_parameters,
        (),
        plan.work_id,
        plan.checkpoint_interval_steps,
        str(directory / "rows"),
        str(run.directory),
    )


def segment_job(run, index, directory):
    """Lay out the first state of a segment as the accused finds it."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(state_path(run.directory, index), state_path(directory, 0))
    leaves = run.trace.leaves
    return SegmentJob(job_of(run, directory), leaves[index], leaves[index + 1], str(directory))


def answer_for(digests, index):
    listed = answer_digests(digests)
    return StepAnswer(1, COMMITMENT, index, len(listed), list_root(listed), CID, CID, UNSIGNED)


def proof_of(run, index, finding, answer, steps=()):
    opening = open_segment(run.trace.leaves, index)
    return FraudProof(1, COMMITMENT, finding, (opening,), (answer,), tuple(steps), NOBODY, UNSIGNED)


def step_dispute(run, index, digests, offset, directory):
    """Return the dispute over one step of an answer whose states lie in the directory."""
    listed, place = answer_digests(digests), directory / "dispute"
    place.mkdir()
    shutil.copyfile(state_path(directory, offset), place / BEFORE_NAME)
    shutil.copyfile(state_path(directory, offset + 1), place / AFTER_NAME)
    answer, step = answer_for(digests, index), open_step(listed, offset, CID, CID)
    proof = proof_of(run, index, AuditFinding.FAULT_OUT_OF_BOUNDS, answer, [step])
    return DisputeJob(job_of(run, directory), proof, str(place))


def test_an_honest_miner_answers_and_has_no_step_out_of_bounds(tmp_path, digit_sets):
    run = trained(tmp_path / "run", digit_sets[0])
    for index in (0, 4):
        job = segment_job(run, index, tmp_path / str(index))
        digests = write_answer(job, digit_sets[0])
        answer = answer_for(digests, index)
        assert chain_finding(job.first, job.following, answer, digests) is AuditFinding.REPRODUCED
        assert outlying_step(job, digit_sets[0], digests) == -1
        dispute = step_dispute(run, index, digests, 3, tmp_path / str(index))
        assert proves(dispute, digit_sets[0])[0] is False
        chain = replace(dispute, proof=proof_of(run, index, AuditFinding.FAULT_STEP_CHAIN, answer))
        (tmp_path / str(index) / "dispute" / DIGESTS_NAME).write_bytes(digests)
        assert proves(chain, digit_sets[0])[0] is False


@pytest.mark.parametrize("kind", ["seed", "hyper-parameter", "order"])
def test_a_forged_segment_has_a_step_out_of_bounds_and_is_proven_by_it(tmp_path, digit_sets, kind):
    """The cheat answers as well as it can: honest steps up to the last one, which jumps to the state it committed."""
    data, plan = digit_sets[0], plan_of(b"cheat " + kind.encode())
    run = with_changed_segment(plan, data, tmp_path / "run", 2, CHANGES[kind](np.random.default_rng(4)))
    audit = audit_run(run, data, AuditScope((2,)), CLOCK)
    assert audit.finding is AuditFinding.NUMERIC_MISMATCH
    job = segment_job(run, 2, tmp_path / "answer")
    honest = write_answer(job, data)
    shutil.copyfile(state_path(run.directory, 3), state_path(tmp_path / "answer", 20))
    digests = honest[:-32] + job.following.digest
    assert chain_finding(job.first, job.following, answer_for(digests, 2), digests) is AuditFinding.REPRODUCED
    assert outlying_step(job, data, digests) == 19
    dispute = step_dispute(run, 2, digests, 19, tmp_path / "answer")
    assert proves(dispute, data)[0] is True
    dispute.proof.check_form(_record(run))


def test_the_honest_answer_to_a_forged_segment_does_not_end_in_it(tmp_path, digit_sets):
    data, plan = digit_sets[0], plan_of(b"cheat")
    run = with_changed_segment(plan, data, tmp_path / "run", 1, CHANGES["seed"](np.random.default_rng(4)))
    job = segment_job(run, 1, tmp_path / "answer")
    digests = write_answer(job, data)
    answer = answer_for(digests, 1)
    assert chain_finding(job.first, job.following, answer, digests) is AuditFinding.FAULT_STEP_CHAIN
    (tmp_path / "answer" / DIGESTS_NAME).write_bytes(digests)
    proof = proof_of(run, 1, AuditFinding.FAULT_STEP_CHAIN, answer)
    assert proves(DisputeJob(job.run, proof, str(tmp_path / "answer")), data)[0] is True


@pytest.mark.parametrize("spoof", [interpolated, glued])
def test_spoofed_segments_are_proven_too(tmp_path, digit_sets, spoof):
    data, plan = digit_sets[0], plan_of(b"spoof")
    end = trained(tmp_path / "owner", data, plan_of(b"owner"))
    from learnchain.learning.replay.segments import read_run_state

    run = spoof(plan, data, tmp_path / "run", read_run_state(end, end.segments))
    index = run.segments - 1
    job = segment_job(run, index, tmp_path / "answer")
    digests = write_answer(job, data)
    last = len(digests) // 32 - 1
    shutil.copyfile(state_path(run.directory, index + 1), state_path(tmp_path / "answer", last))
    assert outlying_step(job, data, digests[:-32] + job.following.digest) == last - 1


@pytest.mark.parametrize("damage", ["short", "long", "start", "end", "root", "torn"])
def test_an_answer_that_is_no_chain_is_a_fault_without_arithmetic(tmp_path, digit_sets, damage):
    run = trained(tmp_path / "run", digit_sets[0])
    job = segment_job(run, 0, tmp_path / "answer")
    digests = write_answer(job, digit_sets[0])
    answer = answer_for(digests, 0)
    changed = {
        "short": digests[:32] + digests[64:],
        "long": digests[:32] + digests,
        "start": b"\1" * 32 + digests[32:],
        "end": digests[:-32] + b"\1" * 32,
        "torn": digests[:-1],
        "root": digests,
    }[damage]
    if damage == "root":
        answer = replace(answer, root=b"\1" * 32)
    elif damage != "torn":
        answer = answer_for(changed, 0)
    assert chain_finding(job.first, job.following, answer, changed) is AuditFinding.FAULT_STEP_CHAIN


def test_files_that_are_not_the_digests_prove_nothing(tmp_path, digit_sets):
    run = trained(tmp_path / "run", digit_sets[0])
    job = segment_job(run, 0, tmp_path / "answer")
    digests = write_answer(job, digit_sets[0])
    dispute = step_dispute(run, 0, digits := digests, 2, tmp_path / "answer")
    assert len(digits) == 21 * 32
    shutil.copyfile(state_path(tmp_path / "answer", 7), tmp_path / "answer" / "dispute" / AFTER_NAME)
    with pytest.raises(Rejected) as caught:
        proves(dispute, digit_sets[0])
    assert caught.value.reason is RejectionReason.TRACE_MISMATCH
    beyond = replace(dispute.proof.steps[0], offset=25)
    outside = replace(dispute, proof=replace(dispute.proof, steps=(beyond,)))
    with pytest.raises(Rejected) as caught:
        proves(outside, digit_sets[0])
    assert caught.value.reason is RejectionReason.FRAUD_PROOF_INVALID


def test_the_plan_of_a_job_is_the_plan_of_the_run(tmp_path, digit_sets):
    run = trained(tmp_path, digit_sets[0])
    save_data(tmp_path / "rows", digit_sets[0])
    assert run_plan(job_of(run, tmp_path)) == run.plan


def _record(run):
    from learnchain.primitives.messages import TrainingRecord

    leaves = run.trace.leaves
    return TrainingRecord(run.trace.root(), len(leaves), CID, run.plan.hyper_parameters)
