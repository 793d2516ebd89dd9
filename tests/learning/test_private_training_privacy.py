"""The membership test tells apart what can be told apart, and nothing else."""

import numpy as np
import pytest

from learnchain.learning.data import DataSet
from learnchain.learning.model import initial_weights
from learnchain.learning.private_training import membership, row_losses
from learnchain.protocol.model_presets import mlp
from learnchain.rejection import Rejected, RejectionReason


@pytest.mark.parametrize(
    ("members", "strangers", "advantage", "area"),
    [
        ([0.0, 0.1], [1.0, 2.0], 1.0, 1.0),
        ([1.0, 2.0], [0.0, 0.1], 0.0, 0.0),
        ([1.0, 2.0], [1.0, 2.0], 0.0, 0.5),
        ([0.0, 2.0], [1.0, 3.0], 0.5, 0.75),
    ],
)
def test_membership(members: list[float], strangers: list[float], advantage: float, area: float):
    found = membership(np.array(members), np.array(strangers))
    assert (found.advantage, found.area) == (advantage, area)


def test_losses_are_cross_entropy():
    specification = mlp((2,), 2, hidden=())
    weights = {name: array * 0 for name, array in initial_weights(specification, b"").items()}
    data = DataSet(np.ones((3, 2), dtype=np.float32), np.array([0, 1, 0], dtype=np.uint8))
    assert np.allclose(row_losses(specification, weights, data), np.log(2))


def test_rows_of_both_kinds_are_needed():
    with pytest.raises(Rejected) as caught:
        membership(np.array([]), np.array([1.0]))
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
