"""Make up `synthetic_table.csv`: 480 rows of six whole numbers and a class, from one seed. Nothing in it was measured.

    python make_up_table.py > synthetic_table.csv

Three classes, each a bell curve around a centre of its own; they overlap, so that no model is right about every row.
"""

import random
import sys

SEED = 20_261_201
ROWS = 480
SPREAD = 55
CENTRES = ((60, 180, 90, 30, 140, 200), (110, 120, 150, 80, 90, 150), (170, 70, 100, 150, 160, 90))
COLUMNS = ("length", "width", "depth", "mass", "hardness", "shine")


def main() -> None:
    """Write the table as CSV, a header first."""
    source = random.Random(SEED)
    sys.stdout.write(",".join((*COLUMNS, "class")) + "\n")
    for row in range(ROWS):
        label = row % len(CENTRES)
        values = (max(0, min(255, round(source.gauss(centre, SPREAD)))) for centre in CENTRES[label])
        sys.stdout.write(",".join(str(value) for value in (*values, label)) + "\n")


if __name__ == "__main__":
    main()
