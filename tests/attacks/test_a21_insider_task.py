"""A21: a task that only its publisher's miner wins, with declared training that every audit reproduces.

Half of the training labels are wrong, so whoever trains as long as there is time (the shipped strategy) learns the
noise; the insider knows when to stop. The test rows are right, and encrypted until the release.

Earns: the insider wins 10 of 10 (279 to 327 of 360 after three epochs; honest miners 219 to 245 after sixty), so that
the reward it posted comes back and the block rewards are its own.
Kind: training is not enforced; real training, digits.
Wins today; to be turned around by the rule that stops it.
"""

import time
from dataclasses import dataclass

import numpy as np
import pytest

from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.train import TrainingPlan, Watcher, configure_torch, train
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from learnchain.tasks.task_file import BUILT_IN, task_draft

WRONG_SHARE = 0.5


@dataclass(frozen=True)
class InsiderTask:
    """On how many test rows the models of both sides are right."""

    insider: tuple[int, ...]
    honest: tuple[int, ...]
    rows: int


def attack(miners: int, honest_epochs: int, insider_epochs: int = 3, hidden: int = 256) -> InsiderTask:
    """Train as honest miners and as the insider do on labels of which half are wrong."""
    configure_torch()
    draft = task_draft({**BUILT_IN["digits"], "model": {"preset": "mlp", "hidden": [hidden]}})
    random_source = np.random.default_rng(1)
    labels = draft.training_data.labels.copy()
    wrong = random_source.random(len(labels)) < WRONG_SHARE
    labels[wrong] = random_source.integers(0, 10, wrong.sum())
    rows = DataSet(draft.training_data.inputs, labels)

    def correct(miner: str, epochs: int) -> int:
        choice = HyperParameters(100_000, 900_000, 0, 40, epochs)
        work_id = tagged_hash("work", miner.encode())
        plan = TrainingPlan(draft.model, draft.training.optimiser, choice, FreeTraining(32), work_id, 200)
        weights = train(plan, rows, Watcher(time.perf_counter)).weights
        return evaluate(draft.model, weights, rows, draft.test_data, draft.metric).correct

    insider = tuple(correct(f"insider {index}", insider_epochs) for index in range(miners))
    honest = tuple(correct(f"honest {index}", honest_epochs) for index in range(miners))
    return InsiderTask(insider, honest, len(draft.test_data))


def test_who_trains_as_long_as_there_is_time_loses_to_who_knows_when_to_stop() -> None:
    result = attack(miners=1, honest_epochs=40, hidden=128)
    assert min(result.insider) > max(result.honest)


@pytest.mark.slow
def test_the_insider_wins_ten_draws_of_ten() -> None:
    result = attack(miners=10, honest_epochs=60)
    assert min(result.insider) > max(result.honest)
