"""What the spread of event-driven intervals is made of: the search itself, whole epochs, the minimum time (PoLe 4.2).

`python reproduce/pole/spread.py [HEIGHTS]` prints JSON lines. It trains what `learnchain lab compare` trains for PoLe,
without a network: at every height three miners behind one layer, each until nine tenths of its training rows are right.
They are counted every other step. From that follows when a release would come: with the second of three, at any step or
at an epoch's end only (POLE-R21), with and without the minimum time, an epoch being 0.4 s as in the simulation.
"""

import json
import platform
import sys
from statistics import fmean, pstdev
from typing import Any

from learnchain.encoding.cryptography import tagged_hash
from learnchain.engines.pole import mapping as maps
from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.job_data import fit_mapping
from learnchain.learning.train import TrainingPlan, TrainingRun, configure_torch
from learnchain.node.roles.miner import HyperParameterStrategy
from learnchain.protocol.task_specification import Metric
from learnchain.protocol.training_terms import FreeTraining, HyperParameters
from learnchain.tasks.task_file import BUILT_IN, TaskDraft, task_draft

MINERS, EVERY_STEPS, MOST_EPOCHS = 3, 2, 20
EPOCH_SECONDS, MINIMUM_SECONDS, AFTER_SECONDS = 0.4, 1.0, 2.0
"""Of the simulation: an epoch, the least time before a release, and what follows it whatever happened before."""


def plan_of(draft: TaskDraft, seed: bytes) -> TrainingPlan:
    """Return the run of a miner with the strategy that nodes have by default."""
    rules, chosen = draft.training, HyperParameterStrategy()

    def within(low: int, high: int, thousandths: int) -> int:
        return low + (high - low) * thousandths // 1_000

    rate, momentum, size = rules.learning_rate_millionths, rules.momentum_millionths, rules.batch_size
    parameters = HyperParameters(
        within(rate.minimum, rate.maximum, chosen.learning_rate_thousandths),
        within(momentum.minimum, momentum.maximum, chosen.momentum_thousandths),
        rules.weight_decay_millionths.minimum,
        within(size.minimum, size.maximum, chosen.batch_size_thousandths),
        MOST_EPOCHS,
    )
    return TrainingPlan(draft.model, rules.optimiser, parameters, FreeTraining(), seed, 1 << 30)


def needed(draft: TaskDraft, rows: DataSet, seed: bytes) -> tuple[float, int]:
    """Return after how many epochs the requirement is reached: as a fraction at any step, and at an epoch's end."""
    run = TrainingRun(plan_of(draft, seed), rows)
    each, first = run.steps_per_epoch, 0
    while run.step < MOST_EPOCHS * each:
        run.advance_to(min(run.step + EVERY_STEPS, (run.step // each + 1) * each))
        if first and run.step % each:
            continue
        count = evaluate(draft.model, run.weights(), rows, rows, Metric.ACCURACY)
        if 10 * count.correct >= 9 * count.total:
            first = first or run.step
            if run.step % each == 0:
                break
    return first / each, run.step // each


def layer_of(draft: TaskDraft, height: int) -> DataSet:
    """Return the rows behind a height's layer: as many signed 3 x 3 filters as the model has inputs a channel."""
    sample, wanted = draft.training_data.sample_shape, draft.model.input_shape
    seed = tagged_hash("reproduce/pole/spread", b"height", height.to_bytes(4, "big"))
    layer = maps.convolutional_layer(maps.dense_vectors(seed, 9, wanted[0] // sample[0]))
    return fit_mapping(layer, draft.training_data).of(draft.training_data)


def line(name: str, heights: list[list[float]], minimum_seconds: float) -> dict[str, Any]:
    """Return mean and spread of the time until the second of three is there, and of an interval made of it."""
    seconds = [max(minimum_seconds, EPOCH_SECONDS * sorted(each)[1]) for each in heights]
    mean, spread = fmean(seconds), pstdev(seconds)
    return {
        "counted": name,
        "minimum_seconds": minimum_seconds,
        "mean_seconds": round(mean, 3),
        "deviation_seconds": round(spread, 3),
        "variation": round(spread / mean, 4),
        "variation_of_interval": round(spread / (mean + AFTER_SECONDS), 4),
    }


def main() -> None:
    """Print the parts."""
    configure_torch()
    heights = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    draft = task_draft(dict(BUILT_IN["digits-in-blocks"]))
    found: list[list[tuple[float, int]]] = []
    for height in range(heights):
        rows = layer_of(draft, height)
        seeds = (tagged_hash("reproduce/pole/spread", bytes([miner]), b"%d" % height) for miner in range(MINERS))
        found.append([needed(draft, rows, seed) for seed in seeds])
    steps = [[fraction for fraction, _ in each] for each in found]
    epochs = [[float(whole) for _, whole in each] for each in found]
    machine = f"{platform.machine()}, one thread, python {platform.python_version()}"
    lines: list[dict[str, Any]] = [{"heights": heights, "miners": MINERS, "machine": machine}]
    for minimum in (MINIMUM_SECONDS, 0.0):
        lines += [line("at an epoch's end", epochs, minimum), line("every other step", steps, minimum)]
    middles = [fmean(each) for each in steps]
    between, within = pstdev(middles), fmean(pstdev(each) for each in steps)
    lines.append({"epochs_between_heights": round(between, 3), "epochs_between_miners": round(within, 3)})
    for each in lines:
        sys.stdout.write(json.dumps(each) + "\n")


if __name__ == "__main__":
    main()
