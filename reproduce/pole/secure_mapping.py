"""Accuracy behind mapping layers, and behind the wrong one (PoLe 4.3, 4.4, Tables 2 and 3), on imported MNIST.

`python reproduce/pole/secure_mapping.py DATA_DIRECTORY [VARIANT]...` prints one JSON line a variant. DATA_DIRECTORY is
where `learnchain data import mnist PATH --name mnist` put the data. One core, one thread; the seed is printed.

`refitted` is the attack that a swapped layer does not stop: whoever has a model of another block fits its first layer
to this block's features, by least squares (no gradient step at all) or by gradient steps with the rest frozen.
"""

import json
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from learnchain.encoding.cryptography import tagged_hash
from learnchain.engines.pole import mapping as maps
from learnchain.engines.pole.mapping import Shift, Vector
from learnchain.learning.data import DataSet, permutation, select_rows
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.job_data import fit_mapping
from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.store import DataStore
from learnchain.learning.train import TrainingPlan, TrainingRun, Watcher, configure_torch, train
from learnchain.protocol.model_presets import mlp, strided_cnn
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Metric, Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, SecureMapping
from learnchain.rejection import Unavailable

PRINTED = {
    "Table 2, MNIST MLP, 400 epochs": {"secure": 99.90, "original": 99.52, "minutes": [14.55, 11.26]},
    "Table 3, MNIST, model and SML": {"own": 99.50, "replaced": 13.48},
}
"""What the paper prints; whether on training rows or test set, Table 2 does not say."""
SEED = tagged_hash("reproduce/pole/secure-mapping", b"1")
OTHER = tagged_hash("reproduce/pole/secure-mapping", b"2")
"""Stand for the hashes of two previous blocks."""
PIXELS, WIDTH = 784, 128
BACK_POINTS = 0.5
"""An old model is as good as trained when its test accuracy is back within so many points of the honest one's."""


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


@dataclass(frozen=True)
class Attack:
    """Hold what whoever reuses a model has: the plan of a full run, its end, and the new block's features."""

    plan: TrainingPlan
    weights: dict[str, Array]
    training: DataSet
    test: DataSet

    @property
    def steps(self) -> int:
        """Return the gradient steps of a full training."""
        batch = self.plan.hyper_parameters.batch_size
        return -(-len(self.training) // batch) * self.plan.hyper_parameters.epochs

    def accuracy(self, weights: dict[str, Array]) -> float:
        """Return the exact test accuracy in percent."""
        count = evaluate(self.plan.specification, weights, self.training, self.test, Metric.ACCURACY)
        return round(100 * count.correct / count.total, 2)

    def steps_to(self, mark: float, start: dict[str, Array], trained: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return after how many steps the mark is reached from a start; only `trained` tensors move, or all."""
        run = TrainingRun(self.plan, self.training)
        held = {name: array for name, array in start.items() if trained and name not in trained}
        for name, array in start.items():
            run.weights()[name][...] = array
        found = self.accuracy(run.weights())
        for place in _grid(self.steps):
            if found >= mark:
                break
            while run.step < place:
                run.advance_to(run.step + 1)
                for name, array in held.items():
                    run.weights()[name][...] = array
            found = self.accuracy(run.weights())
        return {"steps": run.step, "percent": round(100 * run.step / self.steps, 1), "test": found}


def _grid(steps: int) -> list[int]:
    """Return where is looked: every fifth more steps than before."""
    places = [1]
    while places[-1] < steps:
        places.append(min(steps, places[-1] * 6 // 5 + 1))
    return places


def refitted(attack: Attack, before: DataSet, honest: float) -> dict[str, Any]:
    """Fit a model of another block to this block's features, `before` being its own features of the same rows."""
    first = next(iter(attack.weights)).rsplit(".", 1)[0]
    names = (f"{first}.weight", f"{first}.bias")
    mark, start, answer = honest - BACK_POINTS, attack.weights, dict[str, Any]()
    if before.inputs.ndim == 2:
        fit = _least_squares(before.inputs, attack.training.inputs, [start[name] for name in names])
        start = {**start, **dict(zip(names, fit, strict=True))}
        answer["least_squares"] = attack.accuracy(start)
    answer["first_layer"] = attack.steps_to(mark, start, names)
    answer["all_layers"] = attack.steps_to(mark, start)
    answer["from_scratch"] = attack.steps_to(mark, TrainingRun(attack.plan, attack.training).weights())
    return {"back_at": round(mark, 2), "full_steps": attack.steps, **answer}


def _least_squares(before: Array, behind: Array, first: list[Array]) -> tuple[Array, Array]:
    """Return weights and bias that give on the new features what the first layer gave on the old ones."""
    wanted = before @ first[0].T + first[1]
    padded = np.concatenate([behind, np.ones((len(behind), 1), np.float32)], axis=1).astype(np.float64)
    # Algorithm 3's vectors depend on each other, so the least of many solutions is taken.
    solved = np.linalg.pinv(padded.T @ padded) @ (padded.T @ wanted)
    return solved[:-1].T.astype(np.float32), solved[-1].astype(np.float32)


def run(variant: Variant, store: DataStore) -> dict[str, Any]:
    """Train one variant and count exactly: on training rows, test set, and test set behind another hash's layer."""
    stored = store.load("mnist")
    if stored.test is None:
        raise Unavailable("the test set of MNIST")
    training, test = cut(stored.training, variant.rows[0]), cut(stored.test, variant.rows[1])
    layer, started = layer_of(variant.name, SEED), time.perf_counter()
    features = fit_mapping(layer, training) if layer else None
    seen = [features.of(each) if features else each for each in (training, test)]
    mapped_seconds = time.perf_counter() - started
    chosen = HyperParameters(1_000, 0, 0, 256 if variant.rows[0] == 60_000 else 64, variant.epochs)
    plan = TrainingPlan(variant.model, Optimiser.ADAM, chosen, FreeTraining(), SEED, 1_000_000)
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
        raw, fit = replace(features, mapping=other), fit_mapping(other, training)
        for name, swapped in (("swapped", raw), ("swapped_and_fitted", fit)):
            behind = Attack(plan, result.weights, swapped.of(training), swapped.of(test))
            answer[name] = behind.accuracy(result.weights)
        attack = Attack(replace(plan, work_id=OTHER), result.weights, fit.of(training), fit.of(test))
        answer["refitted"] = refitted(attack, seen[0], answer["test"])
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
