"""Query vectors: Algorithm 3 against a second way to write it, its rank, and the modes that replace it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.engines.pole.mapping import (
    Shift,
    convolutional_layer,
    dense_vectors,
    mapping_layer,
    query_vectors,
    sparse_vectors,
)
from learnchain.rejection import Rejected, RejectionReason

HASH = bytes.fromhex("00f3" + "9c5a" * 15)
HASHES = st.binary(min_size=32, max_size=32)


def by_the_book(previous_hash: bytes, number: int, k: int, j: int, shift: Shift) -> int:
    """Weight j of vector i, bit by bit, from the periodic word: no strings, no repetition."""
    bits = [previous_hash[place // 8] >> (7 - place % 8) & 1 for place in range(256)]
    if shift is Shift.GROW:
        width = 256 + number
        word = [0] * number + bits
        moved = bits + [0] * number
    else:
        width, word = 256, bits
        moved = bits[number:] + ([0] * number if shift is Shift.TRUNCATE else bits[:number])
    weight = 0
    for place in range((j - 1) * k, j * k):
        weight = 2 * weight + (word[place % width] ^ moved[place % width])
    return weight


@pytest.mark.parametrize("shift", list(Shift))
@given(previous_hash=HASHES, k=st.integers(1, 15), number=st.integers(1, 200), j=st.integers(1, 60))
def test_algorithm_3_line_by_line(shift: Shift, previous_hash: bytes, k: int, number: int, j: int) -> None:
    vectors = query_vectors(previous_hash, 60, number, k, shift)
    assert len(vectors) == number
    assert vectors[-1][j - 1] == by_the_book(previous_hash, number, k, j, shift)
    assert all(0 <= weight < 2**k for weight in vectors[-1])


@pytest.mark.parametrize(("k", "period"), [(3, 256), (4, 64), (8, 32)])
def test_the_paper_repeats_a_short_word(k: int, period: int) -> None:
    vectors = query_vectors(HASH, 784, 8, k, Shift.TRUNCATE)
    assert all(vector[place] == vector[place - period] for vector in vectors for place in range(period, 784))


def test_another_previous_hash_gives_other_vectors() -> None:
    other = bytes([HASH[0] ^ 1]) + HASH[1:]
    assert query_vectors(HASH, 64, 4, 3, Shift.ROTATE) != query_vectors(other, 64, 4, 3, Shift.ROTATE)
    assert dense_vectors(HASH, 64, 4) != dense_vectors(other, 64, 4)
    assert sparse_vectors(HASH, 64, 8) != sparse_vectors(other, 64, 8)


def test_dense_rows_are_signs_and_nearly_orthogonal() -> None:
    rows = dense_vectors(HASH, 1_024, 16)
    assert {weight for row in rows for weight in row} == {1, -1}
    for one in range(16):
        for other in range(one):
            assert abs(sum(a * b for a, b in zip(rows[one], rows[other], strict=True))) < 5 * 32


@given(st.integers(1, 6))
def test_every_feature_enters_as_many_products_as_asked(entries: int) -> None:
    rows = sparse_vectors(HASH, 50, 8, entries)
    assert all(sum(abs(row[place]) for row in rows) == entries for place in range(50))
    assert {weight for row in rows for weight in row} <= {-1, 0, 1}


@pytest.mark.parametrize(("dimension", "count", "k"), [(0, 1, 3), (32_769, 1, 3), (4, 0, 3), (4, 4_097, 3), (4, 1, 16)])
def test_sizes_beyond_the_bounds_are_refused(dimension: int, count: int, k: int) -> None:
    with pytest.raises(Rejected) as refusal:
        query_vectors(HASH, dimension, count, k, Shift.GROW)
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


def test_only_odd_squares_are_filters() -> None:
    assert convolutional_layer(dense_vectors(HASH, 9, 2)).kernel == 3
    assert mapping_layer(dense_vectors(HASH, 9, 2)).kernel == 0
    for length in (4, 8):
        with pytest.raises(Rejected) as refusal:
            convolutional_layer(dense_vectors(HASH, length, 2))
        assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID
