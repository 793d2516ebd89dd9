"""Programs share work: equal columns, equal bits, sparse rows."""

import numpy as np
import pytest

from learnchain.encryption.functional.programs import NONE, ProgramWriter, inner_products, merge_columns, table_bits


def additions(queries: np.ndarray) -> int:
    writer = ProgramWriter()
    inner_products(writer, writer.reserve(queries.shape[1]), queries)
    return sum(len(step.rows) for step in writer.steps if step.kind == "add")


def carried_out(writer: ProgramWriter, values: np.ndarray) -> np.ndarray:
    """Carry the program out with integers in place of points."""
    arena = np.zeros(writer.places, dtype=np.int64)
    arena[: len(values)] = values
    for step in writer.steps:
        out, left, right = step.rows.T
        arena[out] = {"add": arena[left] + arena[right], "double": 2 * arena[left], "negate": -arena[left]}[step.kind]
    return arena


@pytest.mark.parametrize(
    "weights", [(0, 1), (-1, 1), (0, 0, 0, 0, 1, -1), tuple(range(8)), (-7, -3, 5), (-300, 0, 4096)]
)
@pytest.mark.parametrize("outputs", [1, 5, 64])
def test_a_program_computes_the_product(weights: tuple[int, ...], outputs: int) -> None:
    random = np.random.default_rng(outputs)
    queries = random.choice(weights, (outputs, 90))
    queries[0] = 0
    values = random.integers(0, 256, 90)
    writer = ProgramWriter()
    places = inner_products(writer, writer.reserve(90), queries)
    arena = carried_out(writer, values)
    assert places[0] == NONE or outputs > 1
    assert np.array_equal(np.where(places == NONE, 0, arena[places]), queries @ values)


def test_additions_of_one_step_do_not_wait_for_each_other() -> None:
    random = np.random.default_rng(8)
    for weights in ((0, 1), (-1, 1), (0, 0, 0, 1), tuple(range(-3, 4))):
        writer = ProgramWriter()
        inner_products(writer, writer.reserve(50), random.choice(weights, (12, 50)))
        for step in writer.steps:
            out, left, right = step.rows.T
            assert len(set(out.tolist())) == len(out)
            own = {int(o): {int(a), int(b)} for o, a, b in zip(out, left, right, strict=True)}
            written = set(out.tolist())
            assert all((reads & written) <= {place} for place, reads in own.items())


def test_equal_columns_are_one_point() -> None:
    writer = ProgramWriter()
    weights = np.array([[1, 0, 1, 2, 1], [3, 0, 3, 4, 3]])
    places, kept = merge_columns(writer, writer.reserve(5), weights)
    assert len(places) == 2
    arena = carried_out(writer, np.array([10, 20, 30, 40, 50]))
    assert sorted(zip(arena[places].tolist(), map(tuple, kept.T.tolist()), strict=True)) == [(40, (2, 4)), (90, (1, 3))]


def test_a_word_that_repeats_costs_little_more_than_its_length() -> None:
    random = np.random.default_rng(9)
    word = random.integers(0, 8, (16, 32))
    once, repeated = additions(word), additions(np.tile(word, (1, 20)))
    assert once < repeated <= once + 19 * 32


def test_sparse_rows_cost_their_entries() -> None:
    queries = np.zeros((40, 200), dtype=np.int64)
    queries[np.arange(200) % 40, np.arange(200)] = np.where(np.arange(200) % 3, 1, -1)
    assert additions(queries) <= 200


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (2048, 8)])
def test_tables_grow_with_their_use(rows: int, width: int) -> None:
    assert table_bits(rows, 256) >= width
