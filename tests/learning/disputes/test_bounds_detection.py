"""A changed byte is found with the stated probability, and no spoof of a trace is accepted."""

import hashlib
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from learnchain.consensus.audits import AuditFinding, detection_probability, draw_segments
from learnchain.learning.data import DataSet, iris, select_rows
from learnchain.learning.replay import SegmentAuditScope, audit_run
from learnchain.learning.train import TrainingPlan, TrainingRun
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from tests.learning.conftest import plan_of
from tests.learning.disputes.cheats import (
    CHANGES,
    glued,
    interpolated,
    tiny_steps,
    trained_on_other_data,
    with_changed_segment,
)
from tests.learning.disputes.conftest import CLOCK

AUDITED, SEGMENTS = 3, 10


def iris_plan(name):
    chosen = HyperParameters(50_000, 900_000, 0, 16, 2)
    seed = hashlib.sha256(name).digest()
    return TrainingPlan(mlp((4,), 3, (8,)), Optimiser.SGD, chosen, FreeTraining(), seed, 2)


def accepted(run, data, number, wanted=AUDITED):
    """Return whether an audit under a fresh challenge finds nothing, and the challenge."""
    seed = hashlib.sha256(b"challenge" + number.to_bytes(8, "big")).digest()
    challenge = draw_segments(seed, run.trace.root(), run.segments, wanted)
    return audit_run(
        run, data, SegmentAuditScope(challenge.indices), CLOCK
    ).finding is AuditFinding.REPRODUCED, challenge


@pytest.mark.parametrize("trials", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", sorted(CHANGES))
def test_one_changed_byte_is_found_exactly_when_its_segment_is_challenged(tmp_path, kind, trials):
    """Five kinds at 200 trials are the 1,000: the share found lies within four deviations of k / N."""
    data, found = iris(), 0
    for trial in range(trials):
        generator = np.random.default_rng([trial, sorted(CHANGES).index(kind)])
        # The last segment is always replayed, so only the others show the share of the draw.
        index = int(generator.integers(SEGMENTS - 1))
        plan = iris_plan(f"{kind} {trial}".encode())
        run = with_changed_segment(plan, data, tmp_path / str(trial), index, CHANGES[kind](generator))
        assert run.segments == SEGMENTS
        passed, challenge = accepted(run, data, trial)
        assert passed is (index not in challenge.indices)
        found += not passed
    expected = float(detection_probability(AUDITED, SEGMENTS, 1))
    assert expected == AUDITED / SEGMENTS
    assert abs(found / trials - expected) <= 4 * sqrt(expected * (1 - expected) / trials)


@pytest.fixture(scope="module")
def stolen(digit_sets):
    """Return the end state of somebody else's training on the same task: what a cheat would like to have made."""
    plan = plan_of(b"owner")
    run = TrainingRun(plan, digit_sets[0])
    run.advance_to(2 * run.steps_per_epoch)
    return {name: array.copy() for name, array in run.state().items()}


@pytest.mark.parametrize("trial", range(8))
def test_no_spoof_of_a_trace_is_accepted(tmp_path, digit_sets, stolen, trial):
    data, plan = digit_sets[0], plan_of(f"cheat {trial}".encode())
    half = select_rows(data, np.arange(len(data)) % 2 == trial % 2)
    other = DataSet(np.resize(half.inputs, data.inputs.shape), np.resize(half.labels, data.labels.shape))
    spoofs = {
        "interpolation": interpolated(plan, data, tmp_path / "interpolation", stolen),
        "tiny steps": tiny_steps(plan, data, tmp_path / "tiny", stolen, 10.0**-trial),
        "glue": glued(plan, data, tmp_path / "glue", stolen),
        "glue of two segments": glued(plan, data, tmp_path / "glue-2", stolen, 2),
        "other data": trained_on_other_data(plan, data, other, tmp_path / "other"),
    }
    passed = [name for name, run in spoofs.items() if accepted(run, data, trial, wanted=1)[0]]
    assert not passed


def test_a_stolen_trace_is_another_miners(tmp_path, digit_sets):
    from tests.learning.disputes.conftest import trained

    run = trained(tmp_path, digit_sets[0], plan_of(b"owner"))
    thief = replace(run, plan=plan_of(b"thief"))
    assert not accepted(thief, digit_sets[0], 1)[0]
