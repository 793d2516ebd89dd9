"""Turn a CSV table of numbers into the four IDX files that `learnchain data import idx` reads.

    python table_to_idx.py TABLE.csv FOLDER

The first line names the columns, the last column is the class (0, 1, 2, ...), all others are numbers. One row in
four goes to the test set. IDX holds bytes, so each column is scaled to 0..255 between the smallest and the largest
value of its training rows; what lies outside in the test set is cut. A row becomes a picture one pixel high.
"""

# ruff: noqa: T201

import csv
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

TEST_EVERY = 4
UNSIGNED_BYTE = 8

Row = tuple[float, ...]


def read_table(path: Path) -> tuple[list[Row], list[int]]:
    """Return the rows and the class of each; a line of another length than the header's is an error."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    if any(len(line) != len(header) for line in lines):
        raise SystemExit(f"{path}: every line must have {len(header)} entries")
    return [tuple(float(entry) for entry in line[:-1]) for line in lines], [int(line[-1]) for line in lines]


def scale(rows: Sequence[Row], training: Sequence[Row]) -> list[bytes]:
    """Return each row as bytes; the training rows alone decide the scale, so the test set tells nothing of itself."""
    low = [min(column) for column in zip(*training, strict=True)]
    high = [max(column) for column in zip(*training, strict=True)]
    return [
        bytes(
            max(0, min(255, round(255 * (value - small) / (large - small)))) if large > small else 0
            for value, small, large in zip(row, low, high, strict=True)
        )
        for row in rows
    ]


def write_idx(path: Path, shape: Sequence[int], content: bytes) -> None:
    """Write one IDX file: two zero bytes, the type, the number of dimensions, their sizes, the bytes."""
    path.write_bytes(struct.pack(f">BBBB{len(shape)}I", 0, 0, UNSIGNED_BYTE, len(shape), *shape) + content)


def main() -> None:
    """Read the table, split it, write the four files."""
    table, folder = Path(sys.argv[1]), Path(sys.argv[2])
    rows, labels = read_table(table)
    folder.mkdir(parents=True, exist_ok=True)
    test = list(range(0, len(rows), TEST_EVERY))
    training = sorted(set(range(len(rows))) - set(test))
    pixels = scale(rows, [rows[index] for index in training])
    for part, chosen in (("train", training), ("t10k", test)):
        write_idx(
            folder / f"{part}-images-idx3-ubyte", (len(chosen), 1, len(rows[0])), b"".join(pixels[i] for i in chosen)
        )
        write_idx(folder / f"{part}-labels-idx1-ubyte", (len(chosen),), bytes(labels[i] for i in chosen))
    print(f"{folder}: {len(training)} training rows, {len(test)} test rows, {len(rows[0])} columns")


if __name__ == "__main__":
    main()
