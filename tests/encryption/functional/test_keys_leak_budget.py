"""The budget refuses queries well before they let the data be solved for."""

import numpy as np
import pytest

from learnchain.encryption.functional import exact_rank, leak_budget
from learnchain.rejection import Rejected, RejectionReason


@pytest.mark.parametrize(
    ("rows", "rank"),
    [([[0, 0, 0]], 0), ([[1, 2, 3], [2, 4, 6]], 1), ([[0, 1, 0], [1, 0, 0], [1, 1, 0]], 2), (np.eye(5, dtype=int), 5)],
)
def test_the_rank_is_exact(rows: list[list[int]], rank: int) -> None:
    assert exact_rank(np.array(rows)) == rank


def test_the_rank_equals_that_of_floats_where_those_can_be_trusted() -> None:
    random = np.random.default_rng(4)
    for _ in range(20):
        narrow = random.integers(-3, 4, (6, 4)) @ random.integers(-3, 4, (4, 9))
        assert exact_rank(narrow) == np.linalg.matrix_rank(narrow)


def test_the_budget_is_a_quarter_of_the_dimension() -> None:
    queries = np.eye(40, dtype=np.int32)
    assert leak_budget(40, [], queries[:7]) == 3
    assert leak_budget(40, [queries[:7]], queries[7:10]) == 0
    assert leak_budget(40, [queries[:10]], queries[:10]) == 0, "queries known already cost nothing"
    with pytest.raises(Rejected) as caught:
        leak_budget(40, [queries[:10]], queries[10:11])
    assert caught.value.reason is RejectionReason.LEAK_BUDGET_SPENT


def test_queries_of_another_width_are_refused() -> None:
    with pytest.raises(Rejected) as caught:
        leak_budget(40, [], np.eye(3, dtype=np.int32))
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
