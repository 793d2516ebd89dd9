"""Refuse queries before the inner products released so far let the data be solved for.

Every block releases one inner product a query, for every sample, under any encryption: the functionality itself leaks.
Once the released queries have full rank, the samples follow by linear algebra. A test set gets no master key at all.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.training_terms import LEAK_BUDGET_DIVISOR

_MODULUS = 2**31 - 1


def exact_rank(queries: NDArray[np.integer]) -> int:
    """Return the rank modulo 2**31 - 1: never above the rank over the rationals, and equal but by rare chance."""
    rows = np.mod(queries.astype(np.int64), _MODULUS)
    rank = 0
    for column in range(rows.shape[1]):
        candidates = np.flatnonzero(rows[rank:, column])
        if not len(candidates):
            continue
        pivot = rank + int(candidates[0])
        rows[[rank, pivot]] = rows[[pivot, rank]]
        rows[rank] = rows[rank] * pow(int(rows[rank, column]), -1, _MODULUS) % _MODULUS
        below = rows[rank + 1 :]
        below[:] = (below - below[:, column : column + 1] * rows[rank] % _MODULUS) % _MODULUS
        rank += 1
        if rank == len(rows):
            break
    return rank


def leak_budget(dimension: int, used: Sequence[NDArray[np.integer]], queries: NDArray[np.integer]) -> int:
    """Return the rank that stays free after `queries`; refuse them when they go beyond a quarter of the dimension.

    Queries that say nothing new cost nothing: Algorithm 3 repeats 256 fixed sums of pixels, so its rank stops at 256.
    """
    released = np.concatenate([*used, queries])
    if released.shape[1] != dimension:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"queries of width {released.shape[1]} on {dimension}")
    limit = dimension // LEAK_BUDGET_DIVISOR
    spent = exact_rank(released)
    if spent > limit:
        raise Rejected(RejectionReason.LEAK_BUDGET_SPENT, f"rank {spent} released, {limit} of {dimension} allowed")
    return limit - spent
