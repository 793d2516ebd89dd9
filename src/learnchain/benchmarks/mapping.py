"""Measure what a mapping layer costs: an epoch on its features beside one on the samples themselves (PoLe 4.3).

The paper's layer is part of the network and costs 29 % more time an epoch; ours is applied once per block. Inputs are
random, so marked synthetic: only time is measured, and rounds alternate.
"""

import time
from collections.abc import Callable

import numpy as np

from learnchain.benchmarks import training
from learnchain.benchmarks.training import Figures, alternate, figure, synthetic_images
from learnchain.encoding.hashing import shake256
from learnchain.learning.data import DataSet
from learnchain.learning.job_data import fit_mapping
from learnchain.learning.train import TrainingPlan, Watcher, configure_torch, train
from learnchain.protocol.model_presets import mlp, vgg16
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, SecureMapping

_SEED = b"\2" * 32
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
    images = synthetic_images(training.TRAINING_ROWS)
    plain = mlp((1, 28, 28), 10, _HIDDEN)
    real = DataSet((images.inputs / np.float32(256)).astype(np.float32), images.labels)
    narrow, wide = _signs(128, _PIXELS), _signs(_PIXELS, _PIXELS)
    epoch = _epoch(plain, images)
    mapped, anchor = alternate(_epoch(mlp((128,), 10, _HIDDEN), fit_mapping(narrow, images).of(images)), epoch)
    equal, as_real = alternate(
        _epoch(mlp((_PIXELS,), 10, _HIDDEN), fit_mapping(wide, images).of(images)), _epoch(plain, real)
    )
    once, one = alternate(lambda: _mapping(narrow, images), epoch)
    figures = [
        figure("epoch behind 128 query vectors", mapped, "s", mapped / anchor, "the MLP 784-256-128-10 on pixels"),
        figure("epoch behind as many vectors as pixels", equal, "s", equal / as_real, "that MLP on real-valued pixels"),
        figure("mapping, once per block", once, "s", once / one, "one epoch on pixels"),
        _convolutional(),
    ]
    return {"name": "mapping", "synthetic": True, "figures": figures}


def _convolutional() -> Figures:
    """Compare VGG-16 on the channels of a convolutional layer with the same network on plain input as deep."""
    rows = max(8, training.TRAINING_ROWS // _VGG_ROWS_DIVISOR)
    pixels = np.frombuffer(shake256("benchmark/rgb", _SEED, rows * 3 * _IMAGE**2), dtype=np.uint8)
    labels = synthetic_images(rows).labels
    images = DataSet(pixels.reshape(rows, 3, _IMAGE, _IMAGE).copy(), labels)
    features = fit_mapping(_signs(_FILTERS, 9, 3), images).of(images)
    deep = DataSet(np.concatenate([images.inputs] * _FILTERS, axis=1), labels)
    model = vgg16((3 * _FILTERS, _IMAGE, _IMAGE), 10, _VGG_WIDTH, 64)
    mapped, anchor = alternate(_epoch(model, features), _epoch(model, deep))
    return figure("VGG-16 epoch behind CSML", mapped, "s", mapped / anchor, "VGG-16 on plain input of 12 channels")


def _signs(vectors: int, dimension: int, kernel: int = 0) -> SecureMapping:
    """Return rows of +1 and -1."""
    drawn = np.frombuffer(shake256("benchmark/signs", _SEED, vectors * dimension), dtype=np.uint8) & 1
    signs = ((1 << 15) + 1 - 2 * drawn.astype(np.int64)).astype(">u2").reshape(vectors, dimension)
    return SecureMapping(tuple(row.tobytes() for row in signs), kernel)


def _epoch(model: ModelSpecification, data: DataSet) -> Callable[[], float]:
    plan = TrainingPlan(
        model, Optimiser.SGD, HyperParameters(50_000, 900_000, 0, 64, 1), FreeTraining(), _SEED, 1_000_000
    )
    return lambda: train(plan, data, Watcher(time.perf_counter)).training_seconds


def _mapping(layer: SecureMapping, data: DataSet) -> float:
    started = time.perf_counter()
    fit_mapping(layer, data).of(data)
    return time.perf_counter() - started


BENCHMARKS: dict[str, Callable[[], Figures]] = {"mapping": mapping_cost}
"""What `learnchain bench NAME` runs."""
