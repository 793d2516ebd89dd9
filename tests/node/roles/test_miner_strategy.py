import pytest

from learnchain.node.roles.miner import MAXIMUM_EPOCHS, HyperParameterStrategy


@pytest.mark.parametrize(
    ("left_milliseconds", "epoch_seconds", "epochs"),
    [(5_000, 0.5, 11), (5_000, 0.0, MAXIMUM_EPOCHS), (600, 0.5, 1), (-4_000, 0.5, 1), (5_000, 60.0, 1)],
)
def test_a_run_is_planned_with_a_reserve_and_ends_before_commitments_close(left_milliseconds, epoch_seconds, epochs):
    closing = 1_000_000
    planned, stopping = HyperParameterStrategy().plan_epochs(closing, closing - left_milliseconds, epoch_seconds)
    assert planned == epochs
    assert stopping == closing - HyperParameterStrategy().margin_milliseconds - int(1_500 * epoch_seconds)
