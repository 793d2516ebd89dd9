"""Measure what fusion gives on the paper's split, without a chain: both strategies, both readings of Eq. 4."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning import fused_model
from learnchain.learning.data import DataSet
from learnchain.learning.fusion import FusionStrategy, FusionTerms, Outputs, predict
from learnchain.learning.model import load_weights
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import TrainingPlan, Watcher, train
from learnchain.market.contributors import LocalTrainingTerms
from learnchain.market.demo_cast import TABLE_2, PrivateData, Split, deal, recommended_model, train_private
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters

PAPER = {"strategy_1": 0.984, "strategy_2": 0.986}

VARIANTS = {
    "strategy_1": (FusionStrategy.FREE, Outputs.LITERAL),
    "strategy_1_by_label": (FusionStrategy.FREE, Outputs.BY_LABEL),
    "strategy_2": (FusionStrategy.GRADUAL, Outputs.LITERAL),
    "strategy_2_by_label": (FusionStrategy.GRADUAL, Outputs.BY_LABEL),
}


@dataclass(frozen=True, slots=True)
class FusionExperiment:
    """Fix what is measured: the scenario, how rows are dealt, how contributors train, and whether one trains on all."""

    scenario: int
    seed: int
    home: LocalTrainingTerms
    central: bool
    split: Split = TABLE_2


def fusion_figures(
    rows: DataSet, test: DataSet, wanted: FusionExperiment, directory: Path, clock: Callable[[], float]
) -> dict[str, Any]:
    """Return accuracies by number of fused models, on the verifiers' rows and on the published test rows.

    `central` adds what the same CNN reaches when one party trains it on the verifiers' training rows, and on all
    rows that anybody trains with: what no fusion of private models can be expected to pass by much.
    """
    sample, private = deal(rows, wanted.split, f"figures {wanted.seed}".encode())
    started = clock()
    models, own = _contributors(wanted, private, directory, clock)
    trained = clock()
    members = [fused_model.examine(model, sample) for model in models]
    seen = [fused_model.features_of(model, test) for model in models]
    curves: dict[str, Any] = {}
    seconds: dict[str, float] = {"contributors": trained - started, "features": clock() - trained}
    for name, (strategy, outputs) in VARIANTS.items():
        before = clock()
        terms = FusionTerms(10, strategy, outputs)
        curves[name] = [
            _measure_members(members[:count], seen[:count], (sample, test), terms)
            for count in range(1, 1 + len(members))
        ]
        seconds[name] = clock() - before
    central = _central(wanted, sample, private, test) if wanted.central else None
    return {
        "scenario": wanted.scenario,
        "seed": wanted.seed,
        "epochs": wanted.home.epochs,
        "learning_rate_millionths": wanted.home.learning_rate_millionths,
        "verification_rows": len(sample.verification),
        "test_rows": len(test),
        "own_accuracy": own,
        "curves": curves,
        "central": central,
        "paper": PAPER,
        "seconds": seconds,
    }


def _contributors(
    wanted: FusionExperiment, private: tuple[PrivateData, ...], directory: Path, clock: Callable[[], float]
) -> tuple[list[fused_model.SharedModel], list[float]]:
    models, own = list[fused_model.SharedModel](), list[float]()
    for index, each in enumerate(private):
        model = recommended_model(wanted.scenario, index, each.training.sample_shape)
        found = train_private(model, each, wanted.home, directory / str(index), clock)
        models.append(fused_model.SharedModel(model, load_weights(found.model.weights, model), each.labels))
        own.append(float(found.model.accuracy.share))
    return models, own


def _measure_members(
    members: list[fused_model.Examined],
    seen: list[Array],
    data: tuple[fused_model.VerifierData, DataSet],
    terms: FusionTerms,
) -> dict[str, float]:
    fused = fused_model.fuse_models(members, data[0], terms, b"figures")
    right = predict(fused.weights, seen) == data[1].labels
    return {"verification": float(fused.accuracy.share), "test": float(right.mean())}


def _central(
    wanted: FusionExperiment, sample: fused_model.VerifierData, private: tuple[PrivateData, ...], test: DataSet
) -> dict[str, dict[str, float]]:
    model = recommended_model(1, 0, sample.training.sample_shape)
    everything = [sample.training, *(each.training for each in private)]
    together = DataSet(
        np.concatenate([each.inputs for each in everything]), np.concatenate([each.labels for each in everything])
    )
    found: dict[str, dict[str, float]] = {}
    for name, rows in (("verifiers_rows", sample.training), ("all_rows", together)):
        chosen = HyperParameters(wanted.home.learning_rate_millionths, 0, 0, wanted.home.batch_size, wanted.home.epochs)
        seed = tagged_hash("market/central", len(rows).to_bytes(4, "big"))
        plan = TrainingPlan(model, Optimiser.ADAM, chosen, FreeTraining(), seed, 1 << 30)
        weights = train(plan, rows, Watcher(lambda: 0.0)).weights
        shares = {
            part: float((fused_model.answers_of(model, weights, data) == data.labels).mean())
            for part, data in (("verification", sample.verification), ("test", test))
        }
        found[name] = {"rows": len(rows), **shares}
    return found
