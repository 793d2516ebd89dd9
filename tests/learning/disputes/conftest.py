"""Small runs with everything that an auditor holds of them."""

import itertools
from dataclasses import replace

import pytest

from learnchain.learning.data import digits, split
from learnchain.learning.model import save_weights
from learnchain.learning.replay import AuditedRun
from learnchain.learning.train import Watcher, configure_torch, train
from learnchain.protocol.task_specification import Optimiser, Range, TrainingMode, TrainingRules
from tests.learning.conftest import plan_of

CLOCK = itertools.count().__next__


@pytest.fixture(autouse=True)
def _pinned_torch():
    configure_torch()


@pytest.fixture(scope="session")
def digit_sets():
    return split(digits(), b"split", 360)


def rules_of(plan, mode=TrainingMode.DECLARED):
    rate, momentum = Range(1, 1_000_000), Range(0, 999_999)
    return TrainingRules(
        plan.optimiser, rate, momentum, Range(0, 10_000), Range(1, 128), plan.checkpoint_interval_steps, mode
    )


def trained(directory, data, plan=None, **changes):
    """Train honestly and return what the miner publishes."""
    plan = replace(plan or plan_of(), **changes)
    result = train(plan, data, Watcher(CLOCK), directory / "trace")
    save_weights(directory / "model.safetensors", result.weights)
    return AuditedRun(plan, rules_of(plan), result.trace, directory / "trace", directory / "model.safetensors")


OPTIMISERS = list(Optimiser)
