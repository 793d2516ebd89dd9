"""Mapped features: exact products, fitted on training rows alone, and good enough to learn from."""

import numpy as np
import pytest

from learnchain.learning.data import DataSet, digits, iris, select_rows
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.job_data import fit_mapping, weights_of_rows
from learnchain.learning.train import TrainingPlan, Watcher, configure_torch, train
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.task_specification import Metric, Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, SecureMapping
from learnchain.rejection import Rejected, RejectionReason

SOURCE = np.random.default_rng(5)


def layer(weights: np.ndarray, kernel: int = 0) -> SecureMapping:
    return SecureMapping(tuple((row + (1 << 15)).astype(">u2").tobytes() for row in weights), kernel)


def images(rows: int, channels: int = 3, edge: int = 6) -> DataSet:
    pixels = SOURCE.integers(0, 256, (rows, channels, edge, edge), dtype=np.uint8)
    return DataSet(pixels, SOURCE.integers(0, 4, rows).astype(np.uint8))


def test_products_are_those_of_python_integers() -> None:
    data, weights = images(5), SOURCE.integers(-(1 << 15), 1 << 15, (7, 108))
    found = fit_mapping(layer(weights), data)
    expected = [[sum(int(a) * int(b) for a, b in zip(x.ravel(), z, strict=True)) for z in weights] for x in data.inputs]
    centre = [sum(column) // 5 for column in zip(*expected, strict=True)]
    assert found.centre.ravel().tolist() == centre
    mapped = found.of(data).inputs
    exact = (np.array(expected) - np.array(centre)) / 2.0**found.shift
    assert mapped.dtype == np.float32
    assert (mapped == exact.astype(np.float32)).all()


def test_filters_see_each_channel_with_zeros_around_it() -> None:
    data, weights = images(2, channels=2, edge=4), SOURCE.integers(-7, 8, (3, 9))
    found = fit_mapping(layer(weights, kernel=3), data)
    mapped = found.of(data).inputs * 2.0**found.shift + found.centre
    assert mapped.shape == (2, 6, 4, 4)
    padded = np.pad(data.inputs.astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for channel, number, down, right in ((0, 0, 0, 0), (0, 2, 3, 1), (1, 1, 2, 3)):
        window = padded[1, channel, down : down + 3, right : right + 3]
        assert mapped[1, 3 * channel + number, down, right] == (window.ravel() * weights[number]).sum()


def test_the_test_set_moves_neither_centre_nor_scale() -> None:
    training, mapping = images(50), layer(SOURCE.integers(-1, 2, (4, 108)))
    found, test = fit_mapping(mapping, training), images(9)
    alone = found.of(select_rows(test, np.arange(1))).inputs
    assert (found.of(test).inputs[:1] == alone).all()


def test_real_numbers_are_discretised() -> None:
    lengths, weights = iris(), np.eye(4, dtype=np.int64)
    found = fit_mapping(layer(weights), lengths)
    exact = np.rint(lengths.inputs.astype(np.float64) * 256) - found.centre
    assert (found.of(lengths).inputs == (exact / 2.0**found.shift).astype(np.float32)).all()


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        (SecureMapping(()), RejectionReason.MODEL_SHAPE_MISMATCH),
        (SecureMapping((b"\0\0", b"\0\0\0\0")), RejectionReason.MODEL_SHAPE_MISMATCH),
        (SecureMapping((b"\x80\x01" * 107,)), RejectionReason.MODEL_SHAPE_MISMATCH),
        (SecureMapping((b"\x80\x01" * 9,), 2), RejectionReason.MODEL_SHAPE_MISMATCH),
    ],
)
def test_vectors_that_do_not_fit_are_refused(mapping: SecureMapping, reason: RejectionReason) -> None:
    with pytest.raises(Rejected) as refusal:
        fit_mapping(mapping, images(3))
    assert refusal.value.reason is reason


def test_a_sample_beyond_the_steps_is_refused() -> None:
    data = DataSet(np.array([[129.0, 1.0]], dtype=np.float32), np.zeros(1, dtype=np.uint8))
    with pytest.raises(Rejected) as refusal:
        fit_mapping(layer(np.ones((1, 2), dtype=np.int64)), data)
    assert refusal.value.reason is RejectionReason.PLAINTEXT_MISMATCH


def test_weights_come_back_from_their_bytes() -> None:
    weights = np.array([[-(1 << 15), 0, (1 << 15) - 1]])
    assert (weights_of_rows(layer(weights)) == weights).all()


def test_digits_are_learned_from_signs_and_lost_with_other_signs() -> None:
    configure_torch()
    data = digits()
    training, test = select_rows(data, np.arange(1_437)), select_rows(data, np.arange(1_437, 1_797))
    signs = [layer(1 - 2 * SOURCE.integers(0, 2, (64, 64))) for _ in range(2)]
    right, wrong = (fit_mapping(each, training) for each in signs)
    specification = mlp((64,), 10, (64,))
    chosen = HyperParameters(50_000, 900_000, 0, 32, 12)
    plan = TrainingPlan(specification, Optimiser.SGD, chosen, FreeTraining(), b"\7" * 32, 1_000)
    result = train(plan, right.of(training), Watcher(lambda: 0.0))
    accuracy = [
        evaluate(specification, result.weights, each.of(training), each.of(test), Metric.ACCURACY).correct / 360
        for each in (right, wrong)
    ]
    assert accuracy[0] > 0.85
    assert accuracy[1] < 0.4
