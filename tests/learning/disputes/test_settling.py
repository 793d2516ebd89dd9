"""A numeric mismatch is answered, bisected to one step and settled; honest miners win every dispute."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from learnchain.consensus.audits import AuditFinding, FraudProof, open_segment, open_step, parse_step_digests
from learnchain.encoding.cryptography import UNSIGNED, list_root
from learnchain.learning.data import save_data
from learnchain.learning.disputes.settling import (
    chain_finding,
    check_states,
    join_answer,
    outlying_step,
    proves,
    split_answer,
    write_answer,
)
from learnchain.learning.jobs import (
    AFTER_NAME,
    BEFORE_NAME,
    DIGESTS_NAME,
    STATES_NAME,
    DisputeJob,
    ReportedSegment,
    SegmentJob,
    TrainingJob,
)
from learnchain.learning.replay import SegmentAuditScope, audit_run, run_plan
from learnchain.learning.trace import state_path
from learnchain.protocol.audit_messages import AuditedSegment, StateDisclosure
from learnchain.rejection import Rejected, RejectionReason
from tests.learning.conftest import plan_of
from tests.learning.disputes.cheats import CHANGES, glued, interpolated, with_changed_segment
from tests.learning.disputes.conftest import CLOCK, trained

NOBODY, COMMITMENT, CID = bytes(20), b"\3" * 32, b"cid"


def job_of(run, directory):
    plan = run.plan
    return TrainingJob(
        plan.specification,
        plan.optimiser,
        plan.hyper_parameters,
        plan.terms,
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
    listed = parse_step_digests(digests)
    return StateDisclosure(1, COMMITMENT, index, len(listed), list_root(listed), CID, CID, UNSIGNED)


def proof_of(run, index, finding, answer, steps=()):
    opening = open_segment(run.trace.leaves, index)
    return FraudProof(1, COMMITMENT, finding, (opening,), (answer,), tuple(steps), NOBODY, UNSIGNED)


def step_dispute(run, index, digests, offset, directory):
    """Return the dispute over one step of an answer whose states lie in the directory."""
    listed, place = parse_step_digests(digests), directory / "dispute"
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
    audit = audit_run(run, data, SegmentAuditScope((2,)), CLOCK)
    assert audit.finding is AuditFinding.NUMERIC_MISMATCH
    job = segment_job(run, 2, tmp_path / "response")
    honest = write_answer(job, data)
    shutil.copyfile(state_path(run.directory, 3), state_path(tmp_path / "response", 20))
    digests = honest[:-32] + job.following.digest
    assert chain_finding(job.first, job.following, answer_for(digests, 2), digests) is AuditFinding.REPRODUCED
    assert outlying_step(job, data, digests) == 19
    dispute = step_dispute(run, 2, digests, 19, tmp_path / "response")
    assert proves(dispute, data)[0] is True
    dispute.proof.check_form(_record(run))


def test_the_honest_answer_to_a_forged_segment_does_not_end_in_it(tmp_path, digit_sets):
    data, plan = digit_sets[0], plan_of(b"cheat")
    run = with_changed_segment(plan, data, tmp_path / "run", 1, CHANGES["seed"](np.random.default_rng(4)))
    job = segment_job(run, 1, tmp_path / "response")
    digests = write_answer(job, data)
    answer = answer_for(digests, 1)
    assert chain_finding(job.first, job.following, answer, digests) is AuditFinding.FAULT_STEP_CHAIN
    (tmp_path / "response" / DIGESTS_NAME).write_bytes(digests)
    proof = proof_of(run, 1, AuditFinding.FAULT_STEP_CHAIN, answer)
    assert proves(DisputeJob(job.run, proof, str(tmp_path / "response")), data)[0] is True


@pytest.mark.parametrize("spoof", [interpolated, glued])
def test_spoofed_segments_are_proven_too(tmp_path, digit_sets, spoof):
    data, plan = digit_sets[0], plan_of(b"spoof")
    end = trained(tmp_path / "owner", data, plan_of(b"owner"))
    from learnchain.learning.replay import read_run_state

    run = spoof(plan, data, tmp_path / "run", read_run_state(end, end.segments))
    index = run.segments - 1
    job = segment_job(run, index, tmp_path / "response")
    digests = write_answer(job, data)
    last = len(digests) // 32 - 1
    shutil.copyfile(state_path(run.directory, index + 1), state_path(tmp_path / "response", last))
    assert outlying_step(job, data, digests[:-32] + job.following.digest) == last - 1


@pytest.mark.parametrize("damage", ["short", "long", "start", "end", "root", "torn"])
def test_an_answer_that_is_no_chain_is_a_fault_without_arithmetic(tmp_path, digit_sets, damage):
    run = trained(tmp_path / "run", digit_sets[0])
    job = segment_job(run, 0, tmp_path / "response")
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
    job = segment_job(run, 0, tmp_path / "response")
    digests = write_answer(job, digit_sets[0])
    dispute = step_dispute(run, 0, digits := digests, 2, tmp_path / "response")
    assert len(digits) == 21 * 32
    shutil.copyfile(state_path(tmp_path / "response", 7), tmp_path / "response" / "dispute" / AFTER_NAME)
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
    from learnchain.protocol.messages import TrainingRecord

    leaves = run.trace.leaves
    return TrainingRecord(run.trace.root(), len(leaves), CID, run.plan.hyper_parameters)


# --- answers as files, and the steps of auditors ---------------------------------------------------------------


def published(run, index, data, directory, forced_seed=b""):
    """Let somebody answer for a segment; return the job and the digests as they are published."""
    job = replace(segment_job(run, index, directory), index=index, forced_seed=forced_seed)
    digests = write_answer(job, data)
    join_answer(directory, digests)
    for each in directory.glob("state-*"):
        each.unlink()
    return job, digests


def test_a_published_answer_is_read_back_step_by_step(tmp_path, digit_sets):
    run = trained(tmp_path / "run", digit_sets[0])
    job, digests = published(run, 1, digit_sets[0], tmp_path / "response")
    check_states(job)
    assert split_answer(tmp_path / "response") == digests
    assert outlying_step(job, digit_sets[0], digests) == -1


@pytest.mark.parametrize("damage", ["torn", "exchanged", "empty", "other"])
def test_states_that_are_not_those_of_the_digests_are_refused(tmp_path, digit_sets, damage):
    run = trained(tmp_path / "run", digit_sets[0])
    job, digests = published(run, 1, digit_sets[0], tmp_path / "response")
    states = tmp_path / "response" / STATES_NAME
    whole = states.read_bytes()
    size = len(whole) // (len(digests) // 32)
    spoiled = {
        "torn": whole[:-1],
        "exchanged": whole[size : 2 * size] + whole[:size] + whole[2 * size :],
        "empty": b"",
        "other": b"\0" * len(whole),
    }[damage]
    states.write_bytes(spoiled)
    with pytest.raises(Rejected) as caught:
        check_states(job)
    wanted = {"torn": RejectionReason.RESPONSE_INVALID, "empty": RejectionReason.RESPONSE_INVALID}
    assert caught.value.reason is wanted.get(damage, RejectionReason.TRACE_MISMATCH)


@pytest.mark.parametrize("seed", [b"", b"\5" * 32], ids=["given", "forced"])
@pytest.mark.parametrize("lie", ["", "middle_state_hash", "reproduced", "start"])
def test_an_auditor_is_held_to_its_report_by_its_own_steps(tmp_path, digit_sets, seed, lie):
    run = trained(tmp_path / "run", digit_sets[0])
    forced = (2,) if seed else ()
    scope = SegmentAuditScope((2,), False, True, forced, seed or bytes(32))
    check = audit_run(run, digit_sets[0], scope, CLOCK).checks[-1]
    line = AuditedSegment(2, check.finding is AuditFinding.REPRODUCED, check.witness)
    if lie == "middle_state_hash":
        line = replace(line, middle_state_hash=b"\1" * 32)
    elif lie == "reproduced":
        line = replace(line, reproduced=not line.reproduced)
    other = b"" if seed else b"\5" * 32
    _, digests = published(run, 2, digit_sets[0], tmp_path / "response", other if lie == "start" else seed)
    proof = proof_of(run, 2, AuditFinding.FAULT_STEP_CHAIN, answer_for(digests, 2))
    place = tmp_path / "dispute"
    place.mkdir()
    (place / DIGESTS_NAME).write_bytes(digests)
    shutil.copyfile(state_path(run.directory, 2), state_path(place, 0))
    job = DisputeJob(job_of(run, tmp_path), proof, str(place), (ReportedSegment(line, seed),))
    assert proves(job, digit_sets[0])[0] is bool(lie)


def test_an_audit_of_every_segment_goes_on_after_one_that_differs(tmp_path, digit_sets):
    data, plan = digit_sets[0], plan_of(b"cheat")
    run = with_changed_segment(plan, data, tmp_path / "run", 1, CHANGES["seed"](np.random.default_rng(4)))
    stopped = audit_run(run, data, SegmentAuditScope((0, 1, 2), False), CLOCK).checks
    whole = audit_run(run, data, SegmentAuditScope((0, 1, 2), False, every=True), CLOCK).checks
    assert [each.segment for each in stopped] == [0, 1]
    assert [each.finding for each in whole] == [
        AuditFinding.REPRODUCED,
        AuditFinding.NUMERIC_MISMATCH,
        AuditFinding.REPRODUCED,
    ]
