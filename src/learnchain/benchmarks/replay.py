"""Measure what audits cost beside the training they check, in one run: trace, audit, settlement, detection against k.

Images are random and marked synthetic: only times are taken from them. Detection is counted on Fisher's irises. Times
are processor seconds of one thread, so that what else runs on the machine changes ratios little.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from learnchain.benchmarks import Figures, figure
from learnchain.benchmarks.training import synthetic_images
from learnchain.consensus.audits import AuditFinding, detection_probability, draw_segments, sample_size
from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning.data import DataSet, iris
from learnchain.learning.disputes.machine_class import FAMILIES, PORTABLE, class_elsewhere
from learnchain.learning.disputes.reference import settled
from learnchain.learning.model import save_weights
from learnchain.learning.replay import AuditedRun, SegmentAuditScope, audit_run
from learnchain.learning.safe_tensors import Array, read_header, read_tensor, write_tensors
from learnchain.learning.trace import ShownRows, Trace, state_digest, state_path
from learnchain.learning.train import TrainingPlan, TrainingResult, TrainingRun, Watcher, configure_torch, train
from learnchain.protocol.model_presets import mlp, strided_cnn
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Optimiser, Range, TrainingMode, TrainingRules
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from learnchain.rejection import RejectionReason

_CLOCK = time.process_time
_CNN = strided_cnn((1, 28, 28), 10, channels=(32, 64), hidden=128)
_SEED = b"\1" * 32
_ROWS, _BATCH_ROWS = 3_840, 64

_SEGMENT_STEPS, _EPOCHS = 20, 25
"""75 segments of 20 steps: a twentieth of them are four."""

_SETTLED_STEPS = 5

_DEFAULT_SEGMENT_STEPS = 200
"""What a task file without an interval asks for."""

_INSTRUCTIONS: Mapping[str, Mapping[str, str]] = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}

_FEIGNED = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512F,-FMA,-ERMS", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
"""Hides instructions from what chooses by itself: the C library and MKL."""

_FEIGNED_NAME = "portable, other machine feigned"

_LOUDEST = ("residual", "transposed")
"""Normalised deep nets: whatever rounding does, they make much of it."""

_DETECTION_CHALLENGES = 10_000
_DRAWN = (1, 2, 3, 5, 8, 12, 16, 19)


def audit_cost() -> Figures:
    """Compare trace and audit of a twentieth of the segments with the training that they belong to."""
    configure_torch()
    data = synthetic_images(_ROWS)
    with TemporaryDirectory() as place:
        run, result = _publish_run(_plan(_CNN, _EPOCHS, _SEGMENT_STEPS), data, Path(place))
        shown = _measure_digest_seconds(run, data)
        training = result.training_seconds - shown
        trace = 100 * (result.trace_seconds + shown) / training
        drawn = sample_size(run.segments, 50)
        challenge = draw_segments(_SEED, run.trace.root(), run.segments, drawn)
        audit = audit_run(run, data, SegmentAuditScope(challenge.indices), _CLOCK)
        assert audit.finding is AuditFinding.REPRODUCED
    share = 100 * audit.seconds / training
    what = f"audit of {drawn} of {run.segments} segments and the last"
    figures = [
        figure(f"trace every {_SEGMENT_STEPS} steps, rows shown included", trace, "% of training", trace / 3, "3 %"),
        figure(what, share, "% of training", share / 7, "7 %"),
    ]
    return {"name": "audit", "synthetic": True, "figures": figures}


def settlement_cost() -> Figures:
    """Compare the reference computation of one step, which a fraud proof asks of everybody, with one segment."""
    configure_torch()
    data = synthetic_images(_ROWS)
    run = TrainingRun(_plan(_CNN, _EPOCHS, _DEFAULT_SEGMENT_STEPS), data)
    plan, seconds, steps, shares = (
        _plan(_CNN, _EPOCHS, _DEFAULT_SEGMENT_STEPS),
        list[float](),
        list[float](),
        list[float](),
    )
    for step in range(_SETTLED_STEPS + 1):
        before = {name: array.copy() for name, array in run.state().items()}
        started = _CLOCK()
        run.advance_to(step + 1)
        trained = _CLOCK()
        settlement = settled(plan, data, step, before, run.state())
        assert settlement.within
        if step:
            steps.append(trained - started)
            seconds.append(_CLOCK() - trained)
            shares.append(settlement.share)
    one, step = median(seconds), median(steps)
    against = f"training of a segment of {_DEFAULT_SEGMENT_STEPS} steps"
    figures = [
        figure("settlement of one step", one, "s", one / (_DEFAULT_SEGMENT_STEPS * step), against),
        figure("settlement of one step", one / step, "training steps", one / step, "one step"),
        figure("bound beside the step it bounds, median", median(shares), "of the change", median(shares), "one"),
    ]
    return {"name": "settlement", "synthetic": True, "figures": figures}


def detection_curve() -> Figures:
    """Count how often audits of k of 20 segments find one forged segment, and what they cost, beside the exact k/N."""
    configure_torch()
    data, figures = iris(), list[Figures]()
    with TemporaryDirectory() as place:
        run, result = _publish_run(_plan(mlp((4,), 3, (16,)), 4, 2), data, Path(place))
        training = result.training_seconds + result.trace_seconds
        costs = {drawn: _audit_seconds(run, data, drawn) / training for drawn in _DRAWN}
        forged = _with_forged_state(run, 7)
        wrong = {index for index in range(forged.segments) if not _is_reproduced(forged, data, index)}
        for drawn in _DRAWN:
            found = sum(bool(wrong & set(_indices(forged, drawn, number))) for number in range(_DETECTION_CHALLENGES))
            expected = float(detection_probability(drawn, forged.segments, len(wrong)))
            share, of = found / _DETECTION_CHALLENGES, f"k = {drawn} of {forged.segments} segments"
            what = f"{of}: {len(wrong)} forged are found"
            figures.append(figure(what, share, "of challenges", share / expected, f"exact {expected:.4f}"))
            cost = costs[drawn]
            figures.append(figure(f"{of}: cost", cost, "of training", cost * forged.segments / drawn, "k / N"))
    return {"name": "detection", "synthetic": False, "challenges": _DETECTION_CHALLENGES, "figures": figures}


def class_drift() -> Figures:
    """Compare the classes of this machine: which families keep their bits, how far states drift, what each costs."""
    settings = {
        f"{name}, {threads} threads": (environment, threads)
        for name, environment in _INSTRUCTIONS.items()
        for threads in (1, 2)
    }
    settings["portable"] = (PORTABLE, 1)
    settings[_FEIGNED_NAME] = ({**PORTABLE, **_FEIGNED}, 1)
    with TemporaryDirectory() as place:
        found = {name: _class_of(name, chosen, Path(place)) for name, chosen in settings.items()}
        figures = [
            each
            for name in settings
            for each in _class_figures(name, found, "portable" if name == _FEIGNED_NAME else "native, 1 threads")
        ]
    return {"name": "classes", "synthetic": True, "figures": figures}


BENCHMARKS: Mapping[str, Callable[[], Figures]] = {
    "audit": audit_cost,
    "settlement": settlement_cost,
    "detection": detection_curve,
    "classes": class_drift,
}
"""What `learnchain bench NAME` runs."""


def _class_of(name: str, chosen: tuple[Mapping[str, str], int], directory: Path) -> dict[str, Any]:
    states = directory / name
    states.mkdir()
    return {**class_elsewhere(chosen[0], chosen[1], states), "states": states}


def _class_figures(name: str, classes: Mapping[str, Mapping[str, Any]], other: str) -> list[Figures]:
    """Return one line of the table of classes: bits, drift without and with the loudest families, time."""
    each, against = classes[name], classes[other]
    equal = sum(each["families"][key] == against["families"][key] for key in FAMILIES)
    drifts = {key: _drift(each["states"], against["states"], key) for key in FAMILIES}
    calm = max(drift for key, drift in drifts.items() if key not in _LOUDEST)
    seconds, native = each["seconds"], classes["native, 1 threads"]["seconds"]
    of, largest = f"of {len(FAMILIES)}", max(drifts.values())
    return [
        figure(f"{name}: families equal", equal, of, equal / len(FAMILIES), other),
        figure(f"{name}: drift x 1e6 without {', '.join(_LOUDEST)}", calm * 1e6, "of the largest weight", calm, other),
        figure(f"{name}: drift x 1e6 of all", largest * 1e6, "of the largest weight", largest, other),
        figure(f"{name}: time", seconds, "s", seconds / native, "native, 1 threads"),
    ]


def _drift(one: Path, other: Path, family: str) -> float:
    """Return the largest difference of two final states, relative to the largest number in them.

    Not by tensor: a bias before a normalisation is nothing but rounding errors.
    """
    apart, largest, name = 0.0, 0.0, f"{family}.safetensors"
    for entry in read_header(one / name, 1 << 30, RejectionReason.MALFORMED).values():
        mine, theirs = read_tensor(one / name, entry), read_tensor(other / name, entry)
        apart = max(apart, float(np.abs(mine - theirs).max()))
        largest = max(largest, float(np.abs(theirs).max()))
    return apart / largest


def _plan(specification: ModelSpecification, epochs: int, interval: int) -> TrainingPlan:
    batch = _BATCH_ROWS if specification is _CNN else 16
    chosen = HyperParameters(50_000, 900_000, 0, batch, epochs)
    return TrainingPlan(specification, Optimiser.SGD, chosen, FreeTraining(), _SEED, interval)


def _publish_run(plan: TrainingPlan, data: DataSet, directory: Path) -> tuple[AuditedRun, TrainingResult]:
    result = train(plan, data, Watcher(_CLOCK), directory)
    weights = directory / "model.safetensors"
    save_weights(weights, result.weights)
    every = Range(0, 10_000_000)
    rules = TrainingRules(
        plan.optimiser, every, every, every, Range(1, 128), plan.checkpoint_interval_steps, TrainingMode.DECLARED
    )
    return AuditedRun(plan, rules, result.trace, directory, weights), result


def _measure_digest_seconds(run: AuditedRun, data: DataSet) -> float:
    """Return what digesting the rows shown takes of training: it happens inside the steps."""
    again = TrainingRun(run.plan, data)
    batches = [rows.numpy() for epoch in range(run.plan.hyper_parameters.epochs) for rows in again.batches(epoch)]
    shown, started = ShownRows(data), _CLOCK()
    for rows in batches:
        shown.add(rows)
    return _CLOCK() - started


def _with_forged_state(run: AuditedRun, index: int) -> AuditedRun:
    """Return the run with one state moved: the segments on both sides of it no longer follow."""
    state = {name: array + np.float32(1e-3) for name, array in _state_after(run, index).items()}
    write_tensors(state_path(run.directory, index), state)
    leaves = list(run.trace.leaves)
    leaves[index] = replace(leaves[index], digest=state_digest(state))
    return replace(run, trace=Trace(tuple(leaves)))


def _state_after(run: AuditedRun, index: int) -> dict[str, Array]:
    again = TrainingRun(run.plan, iris())
    again.advance_to(run.trace.leaves[index].step)
    return again.state()


def _audit_seconds(run: AuditedRun, data: DataSet, drawn: int) -> float:
    """Return the median of three audits; what a process pays once is paid before."""
    rounds = [audit_run(run, data, SegmentAuditScope(_indices(run, drawn, number)), _CLOCK) for number in range(4)]
    return median(each.seconds for each in rounds[1:])


def _is_reproduced(run: AuditedRun, data: DataSet, index: int) -> bool:
    audit = audit_run(run, data, SegmentAuditScope((index,), whole=False), _CLOCK)
    return audit.finding is AuditFinding.REPRODUCED


def _indices(run: AuditedRun, drawn: int, number: int) -> tuple[int, ...]:
    """Return the segments of one of many challenges; the last one is always among them and never forged here."""
    seed = tagged_hash("benchmark-challenge", number.to_bytes(8, "big"))
    return draw_segments(seed, run.trace.root(), run.segments, drawn).indices
