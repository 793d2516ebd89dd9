"""Probe the machine before anything runs on it: a short, fixed training run on real data, and its digests."""

from collections.abc import Callable
from typing import Any

import torch

from learnchain.learning.data import digits, split
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.train import TrainingPlan, Watcher, configure_torch, train
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.model_presets import strided_cnn
from learnchain.primitives.task_specification import Metric, Optimiser
from learnchain.primitives.training_terms import Free, HyperParameters

_EPOCHS = 40
_TEST_ROWS = 360


def machine_probe(clock: Callable[[], float]) -> dict[str, Any]:
    """Train the digits CNN for a few seconds and count exactly; equal digests mean equal bits on two machines.

    The training digest is over every weight and may differ between kinds of processors (AUDIT-1); the exact
    evaluation of given weights must not.
    """
    threads = torch.get_num_threads()
    configure_torch()
    training, test = split(digits(), tagged_hash("data-split", b"doctor"), _TEST_ROWS)
    specification = strided_cnn((1, 8, 8), 10, channels=(16, 32), hidden=64)
    chosen = HyperParameters(50_000, 900_000, 0, 32, _EPOCHS)
    seed = tagged_hash("machine-probe", b"")
    plan = TrainingPlan(specification, Optimiser.SGD, chosen, Free(), seed, 1_000_000)
    result = train(plan, training, Watcher(clock))
    counts = evaluate(specification, result.weights, training, test, Metric.ACCURACY)
    weights = b"".join(result.weights[name].tobytes() for name in sorted(result.weights))
    return {
        "torch": torch.__version__,
        "torch_threads": threads,
        "processor_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.is_available(),
        "training_seconds": result.training_seconds,
        "samples_per_second": _EPOCHS * len(training) / result.training_seconds,
        "weights_digest": tagged_hash("machine-probe-weights", weights).hex(),
        "evaluation_digest": counts.digest.hex(),
        "correct": counts.correct,
        "total": counts.total,
    }
