"""Measure the learning room against its anchors, side by side in one run: a bare PyTorch loop and forward pass.

Every function returns `{name, figures: [{what, value, unit, ratio, against}]}`. Inputs are random, so marked
synthetic: only time is measured, and rounds alternate, so that a busy machine slows both sides alike.

Measure what a mapping layer costs: an epoch on its features beside one on the samples themselves (PoLe 4.3).

The paper's layer is part of the network and costs 29 % more time an epoch; ours is applied once per block. Inputs are
random, so marked synthetic: only time is measured, and rounds alternate.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.nn import functional

from learnchain.benchmarks import Figures, figure, measure_seconds
from learnchain.encoding.cryptography import shake256
from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point import compile_model
from learnchain.learning.job_data import fit_mapping
from learnchain.learning.model import build_model, initial_weights, set_weights
from learnchain.learning.train import TrainingPlan, Watcher, configure_torch, train
from learnchain.protocol.model_presets import mlp, strided_cnn, vgg16
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, LoopTerms, SecureMapping, Watermark

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

    def bare() -> None:
        with torch.inference_mode():
            for batch in images.split(256):
                model(batch).argmax(1)

    def exact() -> None:
        np.argmax(compile_model(_SPECIFICATION, weights, data.inputs).logits(data.inputs), axis=1)

    ours, anchor = alternate(partial(measure_seconds, exact), partial(measure_seconds, bare))
    measured = figure(
        f"exact evaluation of {_EVALUATION_ROWS:,} images", ours, "s", ours / anchor, "float32 forward pass"
    )
    return {"name": "evaluation", "synthetic": True, "figures": [measured]}


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


_MAPPING_SEED = b"\2" * 32
_PIXELS = 784
_HIDDEN = (256, 128)
_FILTERS = 4
_IMAGE = 32
_VGG_WIDTH = 16

_VGG_ROWS_DIVISOR = 16
"""A convolutional network takes about so many times as long for a row."""


def mapping_cost() -> Figures:
    """Compare an epoch on cached mapped features with one on pixels: 128 products, equal width, VGG-16 with CSML."""
    configure_torch()
    images = synthetic_images(TRAINING_ROWS)
    plain = mlp((1, 28, 28), 10, _HIDDEN)
    real = DataSet((images.inputs / np.float32(256)).astype(np.float32), images.labels)
    narrow, wide = _signs(128, _PIXELS), _signs(_PIXELS, _PIXELS)
    epoch = _epoch(plain, images)
    mapped, anchor = alternate(_epoch(mlp((128,), 10, _HIDDEN), fit_mapping(narrow, images).of(images)), epoch)
    equal, as_real = alternate(
        _epoch(mlp((_PIXELS,), 10, _HIDDEN), fit_mapping(wide, images).of(images)), _epoch(plain, real)
    )
    once, one = alternate(lambda: measure_seconds(lambda: fit_mapping(narrow, images).of(images)), epoch)
    figures = [
        figure("epoch behind 128 query vectors", mapped, "s", mapped / anchor, "the MLP 784-256-128-10 on pixels"),
        figure("epoch behind as many vectors as pixels", equal, "s", equal / as_real, "that MLP on real-valued pixels"),
        figure("mapping, once per block", once, "s", once / one, "one epoch on pixels"),
        _convolutional(),
    ]
    return {"name": "mapping", "synthetic": True, "figures": figures}


def _convolutional() -> Figures:
    """Compare VGG-16 on the channels of a convolutional layer with the same network on plain input as deep."""
    rows = max(8, TRAINING_ROWS // _VGG_ROWS_DIVISOR)
    pixels = np.frombuffer(shake256("benchmark/rgb", _MAPPING_SEED, rows * 3 * _IMAGE**2), dtype=np.uint8)
    labels = synthetic_images(rows).labels
    images = DataSet(pixels.reshape(rows, 3, _IMAGE, _IMAGE).copy(), labels)
    features = fit_mapping(_signs(_FILTERS, 9, 3), images).of(images)
    deep = DataSet(np.concatenate([images.inputs] * _FILTERS, axis=1), labels)
    model = vgg16((3 * _FILTERS, _IMAGE, _IMAGE), 10, _VGG_WIDTH, 64)
    mapped, anchor = alternate(_epoch(model, features), _epoch(model, deep))
    return figure("VGG-16 epoch behind CSML", mapped, "s", mapped / anchor, "VGG-16 on plain input of 12 channels")


def _signs(vectors: int, dimension: int, kernel: int = 0) -> SecureMapping:
    """Return rows of +1 and -1."""
    drawn = np.frombuffer(shake256("benchmark/signs", _MAPPING_SEED, vectors * dimension), dtype=np.uint8) & 1
    signs = ((1 << 15) + 1 - 2 * drawn.astype(np.int64)).astype(">u2").reshape(vectors, dimension)
    return SecureMapping(tuple(row.tobytes() for row in signs), kernel)


def _epoch(model: ModelSpecification, data: DataSet) -> Callable[[], float]:
    plan = TrainingPlan(
        model, Optimiser.SGD, HyperParameters(50_000, 900_000, 0, 64, 1), FreeTraining(), _MAPPING_SEED, 1_000_000
    )
    return lambda: train(plan, data, Watcher(time.perf_counter)).training_seconds


BENCHMARKS: dict[str, Callable[[], Figures]] = {
    "training": training_throughput,
    "watermark": watermark_cost,
    "trace": trace_cost,
    "evaluation": exact_evaluation,
    "mapping": mapping_cost,
}
"""What `learnchain bench NAME` runs."""
