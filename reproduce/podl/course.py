"""One task over many blocks of PoDL, one run per miner: what the scripts of this folder share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning.data import DataSet, digits, permutation, select_rows
from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.store import DataStore
from learnchain.learning.trace import state_path
from learnchain.learning.train import Start, TrainingPlan, Watcher, train
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from learnchain.rejection import Unavailable

HIDDEN = 128
BATCH = 64
_DIGITS_TEST_ROWS = 640


@dataclass(frozen=True)
class Task:
    """Hold the rows that are trained on, a fresh test set for every block, and the model."""

    name: str
    training: DataSet
    tests: tuple[DataSet, ...]
    model: ModelSpecification
    learning_rate_millionths: int

    def described(self) -> dict[str, object]:
        """Return what a figure must carry about its data."""
        rows = {"training_rows": len(self.training), "test_rows_a_block": len(self.tests[0])}
        return {"data": self.name, **rows, "model": f"MLP {self.model.input_shape}-{HIDDEN}-10"}


def seed_of(*parts: int | str) -> bytes:
    """Return the seed that stands for what a chain would derive: a miner's work at a height."""
    return tagged_hash("reproduce/podl", *(str(each).encode() for each in parts))


def task(blocks: int, directory: str = "", name: str = "digits") -> Task:
    """Return the digits of scikit-learn, or an imported set of images, with its test rows dealt into the blocks."""
    if directory:
        stored = DataStore(Path(directory)).load(name)
        if stored.test is None:
            raise Unavailable(f"a test set of {name}")
        training, test = stored.training, stored.test
    else:
        order = permutation("reproduce-split", seed_of("split"), len(digits()))
        training = select_rows(digits(), order[_DIGITS_TEST_ROWS:])
        test = select_rows(digits(), order[:_DIGITS_TEST_ROWS])
    dealt = permutation("reproduce-deal", seed_of("deal"), len(test))
    each = len(test) // blocks
    tests = tuple(select_rows(test, dealt[at * each : (at + 1) * each]) for at in range(blocks))
    # Slow enough that there is something left to gain in later blocks, as a model worth many blocks has.
    rate = 1_000 if directory else 10_000
    return Task(name, training, tests, mlp(training.sample_shape, 10, (HIDDEN,)), rate)


def run(known: Task, miner: int | str, blocks: int, epochs: int) -> Iterator[tuple[dict[str, Array], float]]:
    """Return one miner's model and training seconds after each block; a block goes on from its own last state (III-B).

    Initialisation and batch order follow from the miner and the block, as on the chain (ROUND-9).
    """
    start: Start | None = None
    with TemporaryDirectory(prefix="learnchain-reproduce-") as directory:
        for block in range(blocks):
            chosen = HyperParameters(known.learning_rate_millionths, 0, 0, BATCH, epochs)
            order, initial = seed_of(miner, "order", block), seed_of(miner, "initial")
            plan = TrainingPlan(known.model, Optimiser.SGD, chosen, FreeTraining(), order, 1 << 30, initial)
            place = Path(directory) / str(block)
            done = train(plan, known.training, Watcher(perf_counter), place, start)
            start = Start(state_path(place, len(done.trace.leaves) - 1), done.trace.leaves[-1].digest)
            yield {name: np.array(array) for name, array in done.weights.items()}, done.training_seconds
