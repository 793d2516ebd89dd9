from dataclasses import replace

import numpy as np
import pytest

from learnchain.consensus.audits import AuditFinding, draw_segments
from learnchain.learning.data import DataSet
from learnchain.learning.replay import AuditedRun, SegmentAuditScope, audit_run, initial_state, state_shapes
from learnchain.learning.safe_tensors import write_tensors
from learnchain.learning.trace import Trace, state_digest, state_path
from learnchain.learning.train import TrainingRun
from learnchain.protocol.model_presets import keyword_cnn, mlp
from learnchain.protocol.task_specification import TrainingMode
from learnchain.protocol.training_terms import HyperParameters, Watermark
from learnchain.rejection import Unavailable
from tests.learning.conftest import plan_of
from tests.learning.disputes.conftest import CLOCK, OPTIMISERS, rules_of, trained

MARK = Watermark(bytes(range(64)), 100_000, 999_900)


def found(run: AuditedRun, data, wanted=64, whole=True, replay=True):
    challenge = draw_segments(b"\7" * 32, run.trace.root(), run.segments, wanted)
    return audit_run(run, data, SegmentAuditScope(challenge.indices, whole, replay), CLOCK)


@pytest.fixture(scope="module")
def honest(tmp_path_factory, digit_sets):
    return trained(tmp_path_factory.mktemp("honest"), digit_sets[0])


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("terms", [None, MARK])
def test_every_segment_of_an_honest_run_is_reproduced(tmp_path, digit_sets, optimiser, terms):
    run = trained(tmp_path, digit_sets[0], plan_of(optimiser=optimiser, terms=terms))
    audit = found(run, digit_sets[0])
    assert audit.finding is AuditFinding.REPRODUCED
    assert [check.segment for check in audit.checks] == [-1, 0, 1, 2, 3, 4]
    assert sum(check.steps for check in audit.checks) == 90


def test_dropout_and_normalisation_are_reproduced(tmp_path):
    generator = np.random.default_rng(1)
    data = DataSet(
        generator.integers(0, 256, (65, 1, 8, 8), dtype=np.uint8), generator.integers(0, 4, 65, dtype=np.int64)
    )
    run = trained(
        tmp_path, data, plan_of(specification=keyword_cnn((1, 8, 8), 4, width=4)), checkpoint_interval_steps=1
    )
    assert found(run, data).finding is AuditFinding.REPRODUCED


def test_a_free_run_is_not_audited(honest, digit_sets):
    free = replace(honest, rules=rules_of(honest.plan, TrainingMode.FREE))
    assert found(free, digit_sets[0]).finding is AuditFinding.NOT_AUDITED


def test_a_choice_outside_the_ranges_is_a_fault(honest, digit_sets):
    chosen = replace(honest.plan.hyper_parameters, learning_rate_millionths=1_000_001)
    run = replace(honest, plan=replace(honest.plan, hyper_parameters=chosen))
    assert found(run, digit_sets[0]).finding is AuditFinding.FAULT_HYPERPARAMETER_RANGE


def test_another_miners_run_is_a_fault(honest, digit_sets):
    run = replace(honest, plan=replace(honest.plan, work_id=b"\5" * 32))
    assert found(run, digit_sets[0]).finding is AuditFinding.FAULT_SEED


@pytest.mark.parametrize(
    "steps", [[0, 20, 40, 80, 90], [0, 20, 40, 60, 80], [0, 10, 40, 60, 80, 90], [0, 40, 20, 60, 80, 90]]
)
def test_states_at_other_steps_than_declared_are_a_fault(honest, digit_sets, steps):
    leaves = tuple(replace(honest.trace.leaves[min(place, 5)], step=step) for place, step in enumerate(steps))
    audit = found(replace(honest, trace=Trace(leaves)), digit_sets[0])
    assert audit.finding is AuditFinding.FAULT_END_POINTS


def test_a_first_state_that_nobody_derived_is_a_fault(honest, digit_sets):
    leaves = (replace(honest.trace.leaves[0], digest=b"\1" * 32), *honest.trace.leaves[1:])
    run = replace(honest, trace=Trace(leaves))
    assert found(run, digit_sets[0]).finding is AuditFinding.FAULT_FIRST_STATE


def test_a_run_may_continue_from_the_miners_own_earlier_state(honest, digit_sets):
    assert (
        found(replace(honest, origin=honest.trace.leaves[0].digest), digit_sets[0]).finding is AuditFinding.REPRODUCED
    )
    audit = found(replace(honest, origin=b"\1" * 32), digit_sets[0])
    assert audit.finding is AuditFinding.FAULT_FIRST_STATE


def test_a_last_state_that_is_not_the_committed_model_is_a_fault(tmp_path, honest, digit_sets):
    other = trained(tmp_path, digit_sets[0], plan_of(b"other"))
    audit = found(replace(honest, weights_path=other.weights_path), digit_sets[0])
    assert audit.finding is AuditFinding.FAULT_END_POINTS


def test_a_state_file_that_does_not_hash_to_its_leaf_is_a_fault(tmp_path, digit_sets):
    run = trained(tmp_path, digit_sets[0])
    path = state_path(run.directory, 2)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    audit = found(run, digit_sets[0])
    assert audit.finding is AuditFinding.FAULT_MERKLE_PATH
    assert audit.checks[-1].segment == 2


def test_rows_in_another_order_or_with_other_content_are_faults_without_arithmetic(honest, digit_sets):
    for field, fault in (("order", AuditFinding.FAULT_BATCH_ORDER), ("points", AuditFinding.FAULT_DATA_MEMBERSHIP)):
        leaves = list(honest.trace.leaves)
        leaves[3] = replace(leaves[3], **{field: b"\1" * 32})
        audit = found(replace(honest, trace=Trace(tuple(leaves))), digit_sets[0])
        assert audit.finding is fault
        assert audit.checks[-1].segment == 2
    changed = DataSet(digit_sets[0].inputs.copy(), digit_sets[0].labels)
    changed.inputs[7, 0, 3, 3] ^= 1
    assert found(honest, changed).finding is AuditFinding.FAULT_DATA_MEMBERSHIP


def test_a_state_that_does_not_follow_is_a_numeric_mismatch(tmp_path, digit_sets):
    run = trained(tmp_path, digit_sets[0])
    again = TrainingRun(run.plan, digit_sets[0])
    state = {name: array.copy() for name, array in again.state().items()}
    state[next(iter(state))] += np.float32(1e-7)
    write_tensors(state_path(run.directory, 3), state)
    leaves = list(run.trace.leaves)
    leaves[3] = replace(leaves[3], digest=state_digest(state))
    audit = found(replace(run, trace=Trace(tuple(leaves))), digit_sets[0])
    assert audit.finding is AuditFinding.NUMERIC_MISMATCH
    assert audit.checks[-1].segment == 2


def test_a_state_that_is_not_here_is_unavailable(tmp_path, digit_sets):
    run = trained(tmp_path, digit_sets[0])
    state_path(run.directory, 1).unlink()
    with pytest.raises(Unavailable):
        found(run, digit_sets[0])


def test_a_segment_that_the_trace_does_not_have_is_a_fault(honest, digit_sets):
    audit = audit_run(honest, digit_sets[0], SegmentAuditScope((honest.segments,)), CLOCK)
    assert audit.finding is AuditFinding.FAULT_END_POINTS


def test_a_witness_is_known_only_to_who_trained_the_segment(honest, digit_sets):
    replayed, looked_at = found(honest, digit_sets[0]), found(honest, digit_sets[0], replay=False)
    assert looked_at.finding is AuditFinding.REPRODUCED
    published = {leaf.digest for leaf in honest.trace.leaves}
    witnesses = [check.witness for check in replayed.checks[1:]]
    assert len(set(witnesses)) == 5
    assert not published & set(witnesses)
    assert not any(check.witness for check in looked_at.checks)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("momentum", [0, 900_000])
@pytest.mark.parametrize("specification", [keyword_cnn((1, 8, 8), 10, width=4), mlp((1, 8, 8), 10)])
def test_the_first_state_follows_without_a_model(digit_sets, optimiser, momentum, specification):
    plan = plan_of(optimiser=optimiser, specification=specification)
    plan = replace(plan, hyper_parameters=HyperParameters(1_000, momentum, 0, 32, 1))
    state = TrainingRun(plan, digit_sets[0]).state()
    assert list(state_shapes(plan)) == list(state)
    assert state_digest(initial_state(plan)) == state_digest(state)
