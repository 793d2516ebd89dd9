"""Look for plain rows of a data set in bytes: as bytes, as float32, and as the fractions that training takes."""

from collections.abc import Iterable

import numpy as np

from learnchain.learning.data import DataSet

WINDOW = 14
"""Numbers of a row that are looked for: enough to be nobody else's; zeros at the ends would make the search slow."""


def traces_of(data: DataSet, count: int) -> list[bytes]:
    """Return the forms in which parts of some rows would lie in a file or in memory."""
    rows = data.inputs.reshape(len(data), -1)
    width = min(WINDOW, rows.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(rows, width, axis=1)
    full = np.argwhere((windows[:, :, 0] != 0) & (windows[:, :, -1] != 0))
    # One window of a row, the one whose numbers differ most.
    best: dict[int, tuple[int, bytes]] = {}
    chosen = []
    for row, place in full.tolist():
        different = len(set(windows[row, place].tolist()))
        if different > best.get(row, (0, b""))[0]:
            best[row] = (different, windows[row, place].tobytes())
    for _, raw in sorted(best.values(), reverse=True)[:count]:
        chosen.append(np.frombuffer(raw, dtype=rows.dtype))
    forms = [chosen]
    if rows.dtype == np.uint8:
        forms += [[row.astype(np.float32) for row in chosen], [row.astype(np.float32) / 256 for row in chosen]]
    return [row.tobytes() for form in forms for row in form]


def found_in(pieces: Iterable[bytes], traces: list[bytes]) -> set[bytes]:
    """Return the traces that appear in some piece."""
    left = set(traces)
    for piece in pieces:
        if left and piece.count(0) != len(piece):
            left -= {trace for trace in left if trace in piece}
    return set(traces) - left
