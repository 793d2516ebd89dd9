"""Measure the learning room against its anchors, side by side in one run: a bare PyTorch loop and forward pass.

Every function returns `{name, figures: [{what, value, unit, ratio, against}]}`. Inputs are random, so marked
synthetic: only time is measured, and rounds alternate, so that a busy machine slows both sides alike.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from learnchain.encoding.hashing import shake256
from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point import compile_model
from learnchain.learning.model import build_model, initial_weights, set_weights
from learnchain.learning.train import TrainingPlan, Watcher, configure_torch, train
from learnchain.protocol.model_presets import mlp, strided_cnn
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, LoopTerms, Watermark

Figures = dict[str, Any]
_SPECIFICATION = strided_cnn((1, 28, 28), 10, channels=(32, 64), hidden=128)
_LINEAR = mlp((1, 28, 28), 10, (500,))
_ROUNDS, _TERM_ROUNDS = 5, 3
TRAINING_ROWS = 4_096
_EVALUATION_ROWS = 10_000
_BATCH_ROWS = 64
_SEED = b"\1" * 32


def synthetic_images(rows: int) -> DataSet:
    """Return random images of MNIST's shape: good for timing, for nothing else."""
    pixels = np.frombuffer(shake256("benchmark/images", _SEED, rows * 784), dtype=np.uint8)
    labels = np.frombuffer(shake256("benchmark/labels", _SEED, rows), dtype=np.uint8) % 10
    return DataSet(pixels.reshape(rows, 1, 28, 28).copy(), labels)


def training_throughput() -> Figures:
    """Compare one epoch of our loop, trace left out, with a bare loop of the same model and optimiser."""
    configure_torch()
    data = synthetic_images(TRAINING_ROWS)
    ours, bare = alternate(lambda: _train_seconds(data, FreeTraining()), lambda: _bare_epoch(data))
    measured = figure("training throughput", TRAINING_ROWS / ours, "samples/s", bare / ours, "bare PyTorch loop")
    return {"name": "training", "synthetic": True, "figures": [measured]}


def watermark_cost() -> Figures:
    """Compare an epoch with the term of DLBC Eq. 7, the 256 bits of a work identity, with one without: processor time.

    The linear model is the dearest case: its marked weights are nearly all of the model, and each is used once a row.
    """
    configure_torch()
    data, figures = synthetic_images(TRAINING_ROWS), list[Figures]()
    terms = Watermark(shake256("benchmark/mark", _SEED, 32), 100_000, 999_900)
    for name, specification in (("MLP 784-500-10", _LINEAR), ("strided CNN", _SPECIFICATION)):

        def epoch(terms: LoopTerms, chosen: ModelSpecification = specification) -> float:
            return _train_seconds(data, terms, chosen, time.process_time)

        marked, plain = alternate(partial(epoch, terms), partial(epoch, FreeTraining()), _TERM_ROUNDS)
        figures.append(figure(f"{name}: epoch with watermark", marked, "s", marked / plain, "epoch without"))
    return {"name": "watermark", "synthetic": True, "figures": figures}


def trace_cost() -> Figures:
    """Compare hashing and writing a full training state every 50 steps with the training between."""
    configure_torch()
    data, shares = synthetic_images(TRAINING_ROWS), list[float]()
    for _ in range(_ROUNDS):
        with TemporaryDirectory() as directory:
            result = train(_plan(FreeTraining(), 3), data, Watcher(time.perf_counter), Path(directory))
        shares.append(result.trace_seconds / result.training_seconds)
    share = median(shares)
    measured = figure("trace of full states", 100 * share, "% of training", 1 + share, "training without trace")
    return {"name": "trace", "synthetic": True, "figures": [measured]}


def exact_evaluation() -> Figures:
    """Compare the exact evaluation of 10,000 images, compilation included, with a bare float32 forward pass."""
    configure_torch()
    data = synthetic_images(_EVALUATION_ROWS)
    weights = initial_weights(_SPECIFICATION, _SEED)
    model = build_model(_SPECIFICATION)
    set_weights(model, weights)
    model.eval()
    images = torch.from_numpy(data.inputs).to(torch.float32).div_(256)

    def bare() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            for batch in images.split(256):
                model(batch).argmax(1)
        return time.perf_counter() - started

    def exact() -> float:
        started = time.perf_counter()
        np.argmax(compile_model(_SPECIFICATION, weights, data.inputs).logits(data.inputs), axis=1)
        return time.perf_counter() - started

    ours, anchor = alternate(exact, bare)
    measured = figure(
        f"exact evaluation of {_EVALUATION_ROWS:,} images", ours, "s", ours / anchor, "float32 forward pass"
    )
    return {"name": "evaluation", "synthetic": True, "figures": [measured]}


BENCHMARKS: dict[str, Callable[[], Figures]] = {
    "training": training_throughput,
    "watermark": watermark_cost,
    "trace": trace_cost,
    "evaluation": exact_evaluation,
}
"""What `learnchain bench NAME` runs."""


def figure(what: str, value: float, unit: str, ratio: float, against: str) -> Figures:
    """Return one figure beside its anchor."""
    return {"what": what, "value": round(value, 4), "unit": unit, "ratio": round(ratio, 4), "against": against}


def alternate(first: Callable[[], float], second: Callable[[], float], times: int = 1) -> tuple[float, float]:
    """Return the medians of both after one unmeasured round; `times` as many rounds where a difference is small."""
    first(), second()
    rounds = [(first(), second()) for _ in range(times * _ROUNDS)]
    return median(pair[0] for pair in rounds), median(pair[1] for pair in rounds)


def _plan(
    terms: LoopTerms, epochs: int, interval: int = 50, specification: ModelSpecification = _SPECIFICATION
) -> TrainingPlan:
    chosen = HyperParameters(50_000, 900_000, 0, _BATCH_ROWS, epochs)
    return TrainingPlan(specification, Optimiser.SGD, chosen, terms, _SEED, interval)


def _train_seconds(
    data: DataSet,
    terms: LoopTerms,
    specification: ModelSpecification = _SPECIFICATION,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    return train(_plan(terms, 1, 1_000_000, specification), data, Watcher(clock)).training_seconds


def _bare_epoch(data: DataSet) -> float:
    """Train as any PyTorch tutorial does, the running loss included."""
    inputs = torch.from_numpy(data.inputs).to(torch.float32).div_(256)
    labels = torch.from_numpy(data.labels.astype(np.int64))
    model = build_model(_SPECIFICATION)
    set_weights(model, initial_weights(_SPECIFICATION, _SEED))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    total = 0.0
    started = time.perf_counter()
    for rows in torch.randperm(len(labels)).split(_BATCH_ROWS):
        loss = functional.cross_entropy(model(inputs[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
    return time.perf_counter() - started
