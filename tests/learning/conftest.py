import hashlib

import pytest
import torch

from learnchain.learning.data import digits, split
from learnchain.learning.train import TrainingPlan, configure_torch, to_float
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


def float_accuracy(model, test):
    """Return the accuracy of the float32 model: what exact counts are compared with."""
    model.eval()
    with torch.inference_mode():
        logits = model(to_float(torch.from_numpy(test.inputs.copy())))
    return int((logits.argmax(1) == torch.from_numpy(test.labels.copy())).sum()) / test.labels.size
