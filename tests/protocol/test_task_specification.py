from dataclasses import replace

import pytest

from learnchain.encoding.codec import Accuracy
from learnchain.protocol.task_specification import Metric, TaskSpecification
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.sample_tasks import TEST_ROWS, build_sample_specification


def specification(metric: Metric) -> TaskSpecification:
    plain = build_sample_specification("claims")
    data = replace(plain.data, sample_shape=(1, 4, 5), classes=2)
    return replace(plain, metric=metric, data=data)


PLACES = TEST_ROWS * 4 * 5


@pytest.mark.parametrize(
    ("metric", "correct", "total"),
    [
        (Metric.ACCURACY, 0, TEST_ROWS),
        (Metric.ACCURACY, 51, TEST_ROWS),
        (Metric.DICE, 2, 2),
        (Metric.DICE, 0, 7),
        (Metric.DICE, 2 * PLACES, 2 * PLACES),
    ],
)
def test_a_claim_within_its_bounds_is_admitted(metric: Metric, correct: int, total: int) -> None:
    specification(metric).check_claim(Accuracy(correct, total))


@pytest.mark.parametrize(
    ("metric", "correct", "total"),
    [
        (Metric.ACCURACY, 51, TEST_ROWS + 1),
        (Metric.ACCURACY, 51, TEST_ROWS - 1),
        (Metric.ACCURACY, 2, 2),
        (Metric.DICE, 3, 7),
        (Metric.DICE, 2, 2 * PLACES + 1),
    ],
)
def test_a_claim_that_no_model_reaches_is_out_of_range(metric: Metric, correct: int, total: int) -> None:
    with pytest.raises(Rejected) as caught:
        specification(metric).check_claim(Accuracy(correct, total))
    assert caught.value.reason is RejectionReason.CLAIM_OUT_OF_RANGE
