"""How evenly training ends blocks, beside hashing (PoLe 4.2, Figure 4, Table 1).

`python reproduce/pole/block_times.py [DATA_DIRECTORY NAME [MODE [BLOCKS]]]` prints one JSON line a protocol; without
arguments it takes the digits of scikit-learn behind `sparse` layers. As in the paper: 50 blocks, 3 consensus nodes, one
learning problem again and again, the height ends when the first of them is right on 0.8 of the training rows, and the
unit of time is chosen so that one node alone would need 300 seconds in the mean. Every block has its own mapping layer,
every node its own initialisation and batch order. Hashing is a search for a SHA-256 hash under a target of as many
seconds in the mean.

Nothing but gradient descent and hashing varies here: machines are equal and nothing is sent. What a network adds is in
`learnchain lab compare`. All follows from the printed seed.
"""

import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

from learnchain.encoding.cryptography import tagged_hash
from learnchain.engines.pole import mapping as maps
from learnchain.engines.pole.mapping import Shift, Vector
from learnchain.learning.data import DataSet, digits, permutation, select_rows
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.job_data import fit_mapping
from learnchain.learning.sources.store import DataStore
from learnchain.learning.train import TrainingPlan, TrainingRun, configure_torch
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.puzzle import LARGEST_TARGET
from learnchain.protocol.task_specification import Metric, Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters

PRINTED = {
    "PoLe": {"average": 222.64, "maximum": 247.65, "minimum": 203.50, "variance": 140.28, "variation": 0.0532},
    "PoW": {"average": 293.72, "maximum": 1498.0, "minimum": 3.0, "variance": 130548.84, "variation": 1.2301},
}
"""Table 1; the variation is the root of the printed variance over the printed average."""
NODES, AIM_SECONDS = 3, 300
WIDTH, WATCHED_ROWS, BATCH = 128, 2_000, 64
REQUIRED = (8, 10)
ATTEMPTS_A_SECOND = 20
"""Tries of one node in one second of the table: only ratios of times are compared, so few tell as much as many."""


class _Meter:
    """Listen to nothing: the exact count decides."""

    def add(self, loss: float, accuracy: float) -> None:
        """Forget what a batch says."""


@dataclass(frozen=True)
class Problem:
    """Hold the rows, those that are watched while training, and how often they are."""

    name: str
    training: DataSet
    mode: str
    every_steps: int


def seed_of(*parts: int | str) -> bytes:
    """Return what a chain would derive from the hash of a previous block."""
    return tagged_hash("reproduce/pole/block-times", *(str(each).encode() for each in parts))


def problem(directory: str, name: str, mode: str) -> Problem:
    """Return the digits of scikit-learn, or an imported set of images."""
    if directory:
        return Problem(name, DataStore(Path(directory)).load(name).training, mode, 10)
    return Problem("digits", digits(), mode, 2)


def vectors(mode: str, previous_hash: bytes, pixels: int) -> tuple[Vector, ...]:
    """Return the query vectors of a block."""
    if mode == "paper":
        return maps.query_vectors(previous_hash, pixels, WIDTH, 3, Shift.TRUNCATE)
    chosen = maps.dense_vectors if mode == "dense" else maps.sparse_vectors
    return chosen(previous_hash, pixels, WIDTH)


def steps_needed(known: Problem, block: int) -> list[int]:
    """Return the steps after which each node is right on the required part of the watched rows, at this block."""
    pixels = known.training.inputs[0].size
    layer = maps.mapping_layer(vectors(known.mode, seed_of("block", block), pixels))
    mapped = fit_mapping(layer, known.training).of(known.training)
    watched = select_rows(mapped, permutation("watched", seed_of("watched"), len(mapped))[:WATCHED_ROWS])
    return [_steps(known, mapped, watched, seed_of("node", block, node)) for node in range(NODES)]


def _steps(known: Problem, mapped: DataSet, watched: DataSet, seed: bytes) -> int:
    specification = mlp(mapped.sample_shape, 10, (256, 128))
    plan = TrainingPlan(
        specification, Optimiser.SGD, HyperParameters(10_000, 0, 0, BATCH, 1), FreeTraining(), seed, 1 << 30
    )
    run, epoch = TrainingRun(plan, mapped), 0
    while True:
        for rows in run.batches(epoch):
            run.advance(rows, _Meter())
            if run.step % known.every_steps == 0:
                count = evaluate(specification, run.weights(), watched, watched, Metric.ACCURACY)
                if count.correct * REQUIRED[1] >= REQUIRED[0] * count.total:
                    return run.step
        epoch += 1


def searches(blocks: int) -> Iterator[float]:
    """Return the seconds after which the first of three equal searchers finds a SHA-256 solution, block after block."""
    target = LARGEST_TARGET // (NODES * AIM_SECONDS * ATTEMPTS_A_SECOND)
    for block in range(blocks):
        tried = 1
        seed = seed_of("search", block)
        while int.from_bytes(sha256(seed + tried.to_bytes(8, "big")).digest(), "big") > target:
            tried += 1
        yield tried / (NODES * ATTEMPTS_A_SECOND)


def table(name: str, seconds: list[float]) -> dict[str, Any]:
    """Return a line of Table 1, with what it does not print: variation, so that different averages can be compared."""
    mean, variance = fmean(seconds), pvariance(seconds)
    return {
        "protocol": name,
        "average": round(mean, 2),
        "maximum": round(max(seconds), 2),
        "minimum": round(min(seconds), 2),
        "variance": round(variance, 2),
        "variation": round(variance**0.5 / mean, 4),
    }


def main() -> None:
    """Print what the paper prints, then both protocols."""
    configure_torch()
    directory, name = (sys.argv[1], sys.argv[2]) if len(sys.argv) > 2 else ("", "digits")
    mode = sys.argv[3] if len(sys.argv) > 3 else "sparse"
    blocks = int(sys.argv[4]) if len(sys.argv) > 4 else 50
    known = problem(directory, name, mode)
    machine = f"{platform.machine()}, one thread, python {platform.python_version()}"
    said = {"printed": PRINTED, "data": known.name, "mode": mode, "blocks": blocks, "nodes": NODES, "machine": machine}
    sys.stdout.write(json.dumps({**said, "seed": seed_of("block", 0).hex()}) + "\n")
    needed = [steps_needed(known, block) for block in range(blocks)]
    alone = fmean(each for block in needed for each in block)
    ended = [AIM_SECONDS * min(block) / alone for block in needed]
    second = [AIM_SECONDS * sorted(block)[1] / alone for block in needed]
    lines = (("PoLe, first solution", ended), ("PoLe, two solutions", second), ("PoW", list(searches(blocks))))
    for line in lines:
        sys.stdout.write(json.dumps({**table(*line), "steps_alone": round(alone, 1)}) + "\n")


if __name__ == "__main__":
    main()
