"""Look for plain rows of a data set in bytes: as bytes, as float32, and as the fractions that training takes."""

from collections.abc import Iterable

import numpy as np

from learnchain.learning.data import DataSet

SAMPLE = 40


def traces_of(data: DataSet) -> list[bytes]:
    """Return the forms in which some rows would lie in a file or in memory; the rows that say most are taken."""
    rows = data.inputs.reshape(len(data), -1)
    order = np.argsort((rows != 0).sum(axis=1))[::-1][:SAMPLE]
    chosen = rows[order]
    forms = [chosen]
    if chosen.dtype == np.uint8:
        wide = chosen.astype(np.float32)
        forms += [
            wide,
            wide / np.float32(256),
            wide / np.float32(255),
            chosen.astype(np.int64),
            wide.astype(np.float64),
        ]
    return [np.ascontiguousarray(row).tobytes() for form in forms for row in form]


def found_in(pieces: Iterable[bytes], traces: list[bytes]) -> int:
    """Return how many traces appear in some piece."""
    left = set(traces)
    for piece in pieces:
        left -= {trace for trace in left if trace in piece}
    return len(traces) - len(left)
