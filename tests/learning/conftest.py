import hashlib

import pytest

from learnchain.learning.data import digits, split
from learnchain.learning.train import TrainingPlan, configure_torch
from learnchain.protocol.model_presets import strided_cnn
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters

DIGITS_CNN = strided_cnn((1, 8, 8), 10)


@pytest.fixture(autouse=True)
def _pinned_torch():
    configure_torch()


@pytest.fixture(scope="session")
def digit_sets():
    return split(digits(), b"split", 360)


def plan_of(name=b"miner", terms=None, epochs=2, optimiser=Optimiser.SGD, specification=DIGITS_CNN):
    rate, momentum = (50_000, 900_000) if optimiser is Optimiser.SGD else (2_000, 0)
    chosen = HyperParameters(rate, momentum, 0, 32, epochs)
    return TrainingPlan(specification, optimiser, chosen, terms or FreeTraining(), hashlib.sha256(name).digest(), 20)
