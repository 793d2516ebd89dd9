"""A05: an honest run but for one segment, in which the weights are replaced by a model that was trained elsewhere.

Train to the state before the last segment, put in a model that knows the test rows (or a stolen one), and train the
last segment honestly from there: the watermark holds, and all segments but one reproduce.

Earns: 360 of 360 rows (honest 348) at the price of an honest run; N segments and A auditors catch it with a chance of
1 - (1 - 2/N x 3/4)^A, which is 23 % for N = 12 and A = 2.
Kind: training is not enforced; real training and the real audit.
Wins today; to be turned around by the rule that stops it.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from learnchain.consensus.audits import AuditFinding
from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.model import save_weights
from learnchain.learning.replay import AuditedRun, SegmentAuditScope, audit_run
from learnchain.learning.trace import Trace, TraceWriter
from learnchain.learning.train import TrainingPlan, TrainingRun, Watcher, configure_torch, train
from learnchain.learning.watermark import check_watermark
from learnchain.protocol.training_terms import HyperParameters, Watermark
from learnchain.tasks.task_file import BUILT_IN, task_draft
from tests.attacks.leaked_rows import join_rows

WORK_ID = b"\7" * 32
TERMS = Watermark(WORK_ID, 100_000, 999_900)
EPOCHS, INTERVAL_STEPS = 4, 24


@dataclass(frozen=True)
class GluedRun:
    """On how many test rows each model is right, and what an audit of every segment finds."""

    honest_correct: int
    glued_correct: int
    rows: int
    watermark_holds: bool
    segments: int
    reproduced: int


def glue(plan: TrainingPlan, rows: DataSet, stolen: TrainingRun, directory: Path) -> tuple[Trace, TrainingRun]:
    """Train a run whose weights are replaced at the end of the segment before the last."""
    run, writer = TrainingRun(plan, rows), TraceWriter(directory)
    writer.add(run.leaf(), run.state())
    total, interval = plan.hyper_parameters.epochs * run.steps_per_epoch, plan.checkpoint_interval_steps
    replaced_at = ((total - 1) // interval) * interval
    while run.step < total:
        run.advance_to(min(total, run.step + interval))
        if run.step == replaced_at:
            weights = stolen.weights()
            for name, target in run.state().items():
                target[...] = weights.get(name, 0)
        writer.add(run.leaf(), run.state())
    return writer.finish(), run


def attack(directory: Path) -> GluedRun:
    """Glue a model that knows the test rows into an honest run, and audit every segment."""
    configure_torch()
    draft = task_draft(BUILT_IN["digits"])
    rules = replace(draft.training, checkpoint_interval_steps=INTERVAL_STEPS)
    choice = HyperParameters(100_000, 900_000, rules.weight_decay_millionths.minimum, 40, EPOCHS)
    plan = TrainingPlan(draft.model, rules.optimiser, choice, TERMS, WORK_ID, INTERVAL_STEPS)
    rows, test_rows = draft.training_data, draft.test_data
    honest = train(plan, rows, Watcher(time.perf_counter)).weights
    long = replace(plan, hyper_parameters=replace(choice, epochs=16))
    stolen = TrainingRun(long, join_rows(rows, test_rows))
    stolen.advance_to(16 * stolen.steps_per_epoch)
    trace, run = glue(plan, rows, stolen, directory)
    weights = run.weights()
    save_weights(directory / "model", weights)
    audited = AuditedRun(plan, rules, trace, directory, directory / "model")
    findings = [
        audit_run(audited, rows, SegmentAuditScope((index,), whole=index == 0), time.perf_counter).checks[-1].finding
        for index in range(audited.segments)
    ]
    return GluedRun(
        honest_correct=evaluate(draft.model, honest, rows, test_rows, draft.metric).correct,
        glued_correct=evaluate(draft.model, weights, rows, test_rows, draft.metric).correct,
        rows=len(test_rows),
        watermark_holds=check_watermark(weights, draft.model, TERMS).matches,
        segments=audited.segments,
        reproduced=sum(finding is AuditFinding.REPRODUCED for finding in findings),
    )


def test_all_segments_but_one_reproduce_and_the_model_is_better_than_an_honest_one(tmp_path: Path) -> None:
    result = attack(tmp_path)
    assert result.watermark_holds
    assert result.segments >= 4
    assert result.reproduced == result.segments - 1
    assert result.glued_correct > result.honest_correct
