"""Accuracy behind mapping layers, and behind the wrong one (PoLe 4.3, 4.4, Tables 2 and 3), on imported MNIST.

`python reproduce/pole/secure_mapping.py DATA_DIRECTORY [VARIANT]...` prints one JSON line a variant. DATA_DIRECTORY is
where `learnchain data import mnist PATH --name mnist` put the data. One core, one thread; the seed is printed.
"""

import json
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learnchain.learning.data import DataSet, permutation, select_rows
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.mapping import fitted
from learnchain.learning.sources.store import DataStore
from learnchain.learning.train import TrainingPlan, Watcher, configure_torch, train
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.model_presets import mlp, strided_cnn
from learnchain.primitives.model_specification import ModelSpecification
from learnchain.primitives.rejection import Unavailable
from learnchain.primitives.task_specification import Metric, Optimiser
from learnchain.primitives.training_terms import Free, HyperParameters, SecureMapping
from learnchain.rules.pole import mapping as maps
from learnchain.rules.pole.mapping import Shift, Vector

PRINTED = {
    "Table 2, MNIST MLP, 400 epochs": {"secure": 99.90, "original": 99.52, "minutes": [14.55, 11.26]},
    "Table 3, MNIST, model and SML": {"own": 99.50, "replaced": 13.48},
}
"""What the paper prints; whether on training rows or test set, Table 2 does not say."""
SEED = tagged_hash("reproduce/pole/secure-mapping", b"1")
OTHER = tagged_hash("reproduce/pole/secure-mapping", b"2")
"""Stand for the hashes of two previous blocks."""
PIXELS, WIDTH = 784, 128


@dataclass(frozen=True)
class Variant:
    """Name a way to map, or none, and what is trained behind it; `rows` cut the data where features are large."""

    name: str
    model: ModelSpecification
    epochs: int
    rows: tuple[int, int] = (60_000, 10_000)


def _mlp(name: str) -> Variant:
    return Variant(name, mlp((WIDTH,), 10, (256, 128)), 8)


def _cnn(name: str, channels: int) -> Variant:
    return Variant(name, strided_cnn((channels, 28, 28), 10, (16, 32), 64), 5, (3_000, 1_000))


VARIANTS = {
    each.name: each
    for each in (
        Variant("pixels", mlp((1, 28, 28), 10, (256, 128)), 8),
        _mlp("paper"),
        _mlp("paper-grow"),
        _mlp("paper-4x32"),
        _mlp("dense"),
        _mlp("sparse"),
        _cnn("pixels-cnn", 1),
        _cnn("csml-dense", 64),
        _cnn("csml-paper", 64),
    )
}


def layer_of(name: str, previous_hash: bytes) -> SecureMapping | None:
    """Return the layer of a variant that follows from a previous hash."""
    if name.startswith("pixels"):
        return None
    if name == "csml-dense":
        return maps.convolutional_layer(maps.dense_vectors(previous_hash, 9, 64))
    if name == "csml-paper":
        return maps.convolutional_layer(maps.query_vectors(previous_hash, 9, 64, 3, Shift.TRUNCATE))
    return maps.mapping_layer(_flat(name, previous_hash))


def _flat(name: str, previous_hash: bytes) -> tuple[Vector, ...]:
    if name == "dense":
        return maps.dense_vectors(previous_hash, PIXELS, WIDTH)
    if name == "sparse":
        return maps.sparse_vectors(previous_hash, PIXELS, WIDTH)
    if name == "paper-4x32":
        quarter = maps.query_vectors(previous_hash, PIXELS // 4, WIDTH // 4, 3, Shift.TRUNCATE)
        places = range(0, PIXELS, PIXELS // 4)
        return tuple((0,) * at + each + (0,) * (PIXELS - at - PIXELS // 4) for at in places for each in quarter)
    shift = Shift.GROW if name == "paper-grow" else Shift.TRUNCATE
    return maps.query_vectors(previous_hash, PIXELS, WIDTH, 3, shift)


def cut(data: DataSet, rows: int) -> DataSet:
    """Return so many rows, drawn by the seed."""
    return data if rows >= len(data) else select_rows(data, permutation("reproduce", SEED, len(data))[:rows])


def run(variant: Variant, store: DataStore) -> dict[str, Any]:
    """Train one variant and count exactly: on training rows, test set, and test set behind another hash's layer."""
    stored = store.load("mnist")
    if stored.test is None:
        raise Unavailable("the test set of MNIST")
    training, test = cut(stored.training, variant.rows[0]), cut(stored.test, variant.rows[1])
    layer, started = layer_of(variant.name, SEED), time.perf_counter()
    features = fitted(layer, training) if layer else None
    seen = [features.of(each) if features else each for each in (training, test)]
    mapped_seconds = time.perf_counter() - started
    chosen = HyperParameters(1_000, 0, 0, 256 if variant.rows[0] == 60_000 else 64, variant.epochs)
    plan = TrainingPlan(variant.model, Optimiser.ADAM, chosen, Free(), SEED, 1_000_000)
    result = train(plan, seen[0], Watcher(time.perf_counter))
    right = [evaluate(variant.model, result.weights, seen[0], each, Metric.ACCURACY) for each in seen]
    answer: dict[str, Any] = {
        "variant": variant.name,
        "rows": variant.rows,
        "epochs": variant.epochs,
        "train": round(100 * right[0].correct / right[0].total, 2),
        "test": round(100 * right[1].correct / right[1].total, 2),
        "mapping_seconds": round(mapped_seconds, 2),
        "epoch_seconds": round(result.training_seconds / variant.epochs, 2),
    }
    other = layer_of(variant.name, OTHER)
    if features and other:
        raw = replace(features, mapping=other)
        for name, swapped in (("swapped", raw), ("swapped_and_fitted", fitted(other, training))):
            behind = [swapped.of(each) for each in (training, test)]
            count = evaluate(variant.model, result.weights, behind[0], behind[1], Metric.ACCURACY)
            answer[name] = round(100 * count.correct / count.total, 2)
    return answer


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the named variants, or all."""
    configure_torch()
    store = DataStore(Path(sys.argv[1]))
    machine = f"{platform.machine()}, one thread, python {platform.python_version()}"
    _say({"seed": SEED.hex(), "machine": machine, "printed": PRINTED})
    for name in sys.argv[2:] or VARIANTS:
        _say(run(VARIANTS[name], store))


if __name__ == "__main__":
    main()
