"""Write inner products as straight-line programs of point additions, so that queries and samples share work.

A program is a list of steps on numbered places of an arena; the additions of one step are independent, so that they
share inversions. Three structures are found in a plain integer matrix: equal columns are folded into one point first
(Algorithm 3 of PoLe repeats its 256-bit word, so any dimension folds to 256 points), then equal bit columns of the
weights are folded again, and bits are read off through tables of subset sums; sparse rows are summed directly.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from learnchain.encryption.functional import lane_kernels
from learnchain.encryption.functional.group import Lanes

Places = NDArray[np.int64]

_PARALLEL = 512
"""Sums that run side by side where lists can be split: as many as share one inversion."""

_MAXIMUM_TABLE_BITS = 8
NONE = -1


@dataclass(frozen=True, slots=True)
class ProgramStep:
    """Hold independent operations of one kind: rows of (out, left, right)."""

    kind: str
    rows: Places


@dataclass(slots=True)
class ProgramWriter:
    """Collect steps while places are handed out; a place is written once, except for running sums."""

    places: int = 0
    steps: list[ProgramStep] = field(default_factory=list)

    def reserve(self, count: int) -> Places:
        """Return fresh places."""
        self.places += count
        return np.arange(self.places - count, self.places, dtype=np.int64)

    def write(self, kind: str, out: Places, left: Places, right: Places) -> None:
        """Append a step; an empty one is dropped."""
        if len(out):
            self.steps.append(ProgramStep(kind, np.ascontiguousarray(np.stack([out, left, right], axis=1))))

    def double(self, points: Places) -> Places:
        """Return places of the doubles."""
        out = self.reserve(len(points))
        self.write("double", out, points, points)
        return out

    def negate(self, points: Places) -> Places:
        """Return places of the inverses."""
        out = self.reserve(len(points))
        self.write("negate", out, points, points)
        return out

    def sum_operands(self, operands: Places) -> Places:
        """Return for each row the place of the sum of its operands, `NONE` aside; an empty row gives `NONE`."""
        count, width = operands.shape
        parts = min(-(-_PARALLEL // max(count, 1)), width // 4)
        if parts > 1:
            padded = np.full((count, -(-width // parts) * parts), NONE, dtype=np.int64)
            padded[:, :width] = operands
            return self.sum_operands(self.sum_operands(padded.reshape(count * parts, -1)).reshape(count, parts))
        result, totals = np.full(count, NONE, dtype=np.int64), self.reserve(count)
        for column in operands.T:
            present = column != NONE
            adding = np.flatnonzero(present & (result != NONE))
            self.write("add", totals[adding], result[adding], column[adding])
            fresh = present & (result == NONE)
            result[adding] = totals[adding]
            result[fresh] = column[fresh]
        return result

    def bit_rows(self, points: Places, bits: NDArray[np.bool_]) -> Places:
        """Return operands (rows, groups) whose sums are bits @ points, read off tables of subset sums."""
        rows, columns = bits.shape
        width = table_bits(rows, columns)
        groups = -(-columns // width)
        padded = np.zeros((rows, groups * width), dtype=np.int64)
        padded[:, :columns] = bits
        chosen = padded.reshape(rows, groups, width) @ (1 << np.arange(width, dtype=np.int64))
        tables = self.reserve(groups << width).reshape(groups, 1 << width)
        at = np.full(groups * width, NONE, dtype=np.int64)
        at[:columns] = points
        at = at.reshape(groups, width)
        tables[:, 0] = NONE
        for bit in range(width):
            single = at[:, bit]
            live = np.flatnonzero(single != NONE)
            tables[:, 1 << bit] = single
            below = tables[live, 1 : 1 << bit]
            out = tables[live, (1 << bit) + 1 : 2 << bit]
            self.write("add", out.ravel(), below.ravel(), np.repeat(single[live], below.shape[1]))
        return tables[np.arange(groups)[None, :], chosen]


def table_bits(rows: int, columns: int) -> int:
    """Return how many columns one table serves: the width with the fewest additions."""
    widths = range(1, _MAXIMUM_TABLE_BITS + 1)
    return min(widths, key=lambda width: -(-columns // width) * ((1 << width) - width - 1 + rows))


def run(steps: list[ProgramStep], arena: Lanes, scratch: Lanes) -> bool:
    """Carry out a program in an arena; False when a crafted point met itself."""
    for step in steps:
        if step.kind == "negate":
            lane_kernels.negate_indexed(arena, step.rows)
        elif step.kind == "double":
            if not lane_kernels.double_indexed(arena, step.rows, scratch):
                return False
        elif not lane_kernels.add_indexed(arena, step.rows, scratch):
            return False
    return True


# --- structure of a query matrix -----------------------------------------------------------------------------------


def _group_operands(labels: NDArray[np.int64], members: Places) -> Places:
    """Return one row of operands for each label."""
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    starts = np.searchsorted(sorted_labels, np.arange(int(sorted_labels[-1]) + 1))
    ranks = np.arange(len(order)) - starts[sorted_labels]
    operands = np.full((len(starts), int(ranks.max()) + 1), NONE, dtype=np.int64)
    operands[sorted_labels, ranks] = members[order]
    return operands


def merge_columns(
    writer: ProgramWriter, points: Places, weights: NDArray[np.int64]
) -> tuple[Places, NDArray[np.int64]]:
    """Return points and weights with zero columns dropped and equal columns merged into the sum of their points."""
    live = np.flatnonzero(weights.any(axis=0))
    points, weights = points[live], weights[:, live]
    if not len(live):
        return points, weights
    distinct, labels = np.unique(weights.T, axis=0, return_inverse=True)
    if len(distinct) == len(points):
        return points, weights
    return writer.sum_operands(_group_operands(labels.ravel().astype(np.int64), points)), distinct.T


def _double_points(writer: ProgramWriter, points: Places, magnitudes: NDArray[np.int64]) -> list[Places]:
    """Return the doubled points by power of two, each as far as the column's largest magnitude needs it."""
    powers, power = [points], 0
    while (magnitudes >> (power + 1)).any():
        needed = np.flatnonzero(magnitudes >> (power + 1))
        following = np.full(len(points), NONE, dtype=np.int64)
        following[needed] = writer.double(powers[-1][needed])
        powers.append(following)
        power += 1
    return powers


def _sparse_operands(writer: ProgramWriter, points: Places, weights: NDArray[np.int64]) -> Places:
    magnitudes = np.abs(weights)
    rows: list[NDArray[np.int64]] = []
    members: list[Places] = []
    for power, doubled in enumerate(_double_points(writer, points, magnitudes.max(axis=0))):
        used = (magnitudes >> power) & 1 == 1
        minus = np.flatnonzero((used & (weights < 0)).any(axis=0))
        negative = np.full(len(points), NONE, dtype=np.int64)
        negative[minus] = writer.negate(doubled[minus])
        row, column = np.nonzero(used)
        rows.append(row)
        members.append(np.where(weights[row, column] < 0, negative[column], doubled[column]))
    row_of, place_of = np.concatenate(rows), np.concatenate(members)
    # A label for every row, also for those without an operand.
    labels = np.concatenate([row_of, np.arange(len(weights))])
    return _group_operands(labels, np.concatenate([place_of, np.full(len(weights), NONE, dtype=np.int64)]))


def _dense_operands(writer: ProgramWriter, points: Places, weights: NDArray[np.int64]) -> Places:
    """Write z = m + w with m the negative minimum of each column: w >= 0 goes bit by bit, m into one shared point."""
    minimum = np.minimum(weights.min(axis=0), 0)
    rest = weights - minimum
    powers = _double_points(writer, points, np.maximum(rest.max(axis=0), -minimum))
    columns: list[Places] = []
    bits: list[NDArray[np.int64]] = []
    shared: list[Places] = []
    for power, doubled in enumerate(powers):
        bit = (rest >> power) & 1
        live = np.flatnonzero(bit.any(axis=0))
        columns.append(doubled[live])
        bits.append(bit[:, live])
        shared.append(doubled[(-minimum >> power) & 1 == 1])
    places, bit_columns = merge_columns(writer, np.concatenate(columns), np.concatenate(bits, axis=1))
    operands = writer.bit_rows(places, bit_columns == 1) if len(places) else np.full((len(weights), 0), NONE)
    negative = np.concatenate(shared)
    if not len(negative):
        return operands
    offset = writer.negate(writer.sum_operands(negative[None, :]))
    return np.concatenate([operands, np.repeat(offset[None, :], len(weights), axis=0)], axis=1)


def inner_products(writer: ProgramWriter, points: Places, queries: NDArray[np.integer]) -> Places:
    """Return for each query the place of prod point_j**z_j; `NONE` for a query of zeros."""
    places, weights = merge_columns(writer, points, queries.astype(np.int64))
    if not len(places):
        return np.full(len(queries), NONE, dtype=np.int64)
    magnitudes, digits = np.abs(weights), 0
    while magnitudes.any():
        digits += int((magnitudes & 1).sum())
        magnitudes >>= 1
    minimum = np.minimum(weights.min(axis=0), 0)
    spread = weights - minimum
    bit_columns = sum(int(((spread >> power) & 1).any(axis=0).sum()) for power in range(int(spread.max()).bit_length()))
    bit_columns = min(bit_columns, 1 << min(len(queries), 40))
    width = table_bits(len(queries), bit_columns)
    dense = -(-bit_columns // width) * ((1 << width) - width - 1 + len(queries))
    choose = _sparse_operands if digits <= dense else _dense_operands
    return writer.sum_operands(choose(writer, places, weights))
