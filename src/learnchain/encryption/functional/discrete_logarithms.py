"""Look up discrete logarithms in a known range: a table of up to 2**20 multiples of g, then giant steps."""

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from learnchain.encryption.functional import lane_kernels
from learnchain.encryption.functional.group import (
    Coordinates,
    Lanes,
    empty_points,
    gather_from_lanes,
    generator_multiple,
    repeat_in_lanes,
    scratch_space,
    spread_over_lanes,
)
from learnchain.encryption.functional.lane_code import LANES
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_TABLE = 1 << 20
MAXIMUM_RANGE = 1 << 28
_LEVELS = 11
_BLOCK = LANES << _LEVELS
_MIX = 0x9E3779B97F4A7C15


@njit(cache=True, nogil=True)
def _key(points: np.ndarray, row: int, lane: int) -> np.uint64:
    """Return 63 bits of a canonical x and the parity of y: tells a point from its inverse; never zero in a table."""
    low = np.uint64(points[row, 0, 0, lane]) | (np.uint64(points[row, 0, 1, lane]) << np.uint64(26))
    low |= np.uint64(points[row, 0, 2, lane]) << np.uint64(52)
    return (low << np.uint64(1)) | np.uint64(points[row, 1, 0, lane] & 1)


@njit(cache=True, nogil=True)
def _insert(points: np.ndarray, count: int, start: int, keys: np.ndarray, values: np.ndarray) -> None:
    """Enter start + lane * count + row for every point; rows are the canonical multiples of one block."""
    mask = np.uint64(keys.shape[0] - 1)
    for lane in range(points.shape[3]):
        for row in range(count):
            key = _key(points, row, lane)
            slot = (key * np.uint64(_MIX) >> np.uint64(20)) & mask
            while values[slot] != 0:
                slot = (slot + np.uint64(1)) & mask
            keys[slot] = key
            values[slot] = start + lane * count + row


@njit(cache=True, nogil=True)
def _look_up(points: np.ndarray, keys: np.ndarray, values: np.ndarray, found: np.ndarray) -> None:
    mask = np.uint64(keys.shape[0] - 1)
    for row in range(points.shape[0]):
        for lane in range(points.shape[3]):
            key = _key(points, row, lane)
            slot = (key * np.uint64(_MIX) >> np.uint64(20)) & mask
            found[row, lane] = 0
            while values[slot] != 0:
                if keys[slot] == key:
                    found[row, lane] = values[slot]
                    break
                slot = (slot + np.uint64(1)) & mask


class DiscreteLogarithms:
    """Find v in 1 .. limit from g**v, for many points at once."""

    __slots__ = ("_keys", "_table", "_values", "limit")

    def __init__(self, limit: int) -> None:
        if not 0 < limit <= MAXIMUM_RANGE:
            raise Rejected(RejectionReason.TOO_LARGE, f"inner products over a range of {limit}")
        self.limit = limit
        blocks = -(-min(limit, MAXIMUM_TABLE) // _BLOCK)
        self._table = blocks * _BLOCK
        size = 1 << (2 * self._table - 1).bit_length()
        self._keys = np.zeros(size, dtype=np.uint64)
        self._values = np.zeros(size, dtype=np.int32)
        self._fill(blocks)

    def _fill(self, blocks: int) -> None:
        """Enter all multiples: lanes hold eight runs of a block; blocks follow by adding one constant."""
        count, scratch = 1 << _LEVELS, scratch_space()
        lanes = empty_points(count + 1)
        starts = np.stack([generator_multiple(1 + lane * count) for lane in range(LANES)])
        lanes[:1] = spread_over_lanes(starts)
        step = np.array([count], dtype=np.int64)
        for level in range(_LEVELS):
            lanes[count:] = repeat_in_lanes(generator_multiple(1 << level))
            known = np.arange(1 << level, dtype=np.int64)
            rows = np.stack([known + len(known), known, np.repeat(step, len(known))], axis=1)
            self._add(lanes, rows, scratch, 1 << level)
        lanes[count:] = repeat_in_lanes(generator_multiple(_BLOCK))
        every = np.arange(count, dtype=np.int64)
        for block in range(blocks):
            if block:
                rows = np.stack([every, every, np.repeat(step, count)], axis=1)
                self._add(lanes, rows, scratch, _BLOCK, (block - 1) * _BLOCK)
            lane_kernels.canonicalise(lanes)
            _insert(lanes, count, 1 + block * _BLOCK, self._keys, self._values)

    @staticmethod
    def _add(lanes: Lanes, rows: NDArray[np.int64], scratch: Lanes, constant: int, start: int = 0) -> None:
        """Add a constant to known multiples; where one of them is the constant itself, double it apart."""
        # Lane 0 of row (constant - 1) holds g**constant when the run is long enough: an addition would fail there.
        own = constant - 1 - start
        run = 1 << _LEVELS
        meets = 0 <= own < LANES * run and bool((rows[:, 1] == own % run).any())
        if not meets:
            if not lane_kernels.add_indexed(lanes, np.ascontiguousarray(rows), scratch):
                raise RuntimeError("multiples of the generator met each other")
            return
        apart = rows[:, 1] == own % run
        DiscreteLogarithms._add(lanes, rows[~apart], scratch, 0, 1)
        for out, left, _ in rows[apart]:
            values = [1 + start + left + lane * run + constant for lane in range(LANES)]
            lanes[out : out + 1] = spread_over_lanes(np.stack([generator_multiple(int(value)) for value in values]))

    def find(self, lanes: Lanes) -> NDArray[np.int64]:
        """Return the logarithms (points, lanes), or refuse points beyond the range; brings them into canonical form."""
        lane_kernels.canonicalise(lanes)
        found = np.zeros((len(lanes), LANES), dtype=np.int64)
        _look_up(lanes, self._keys, self._values, found)
        missing = np.argwhere(found == 0)
        if len(missing):
            plain = gather_from_lanes(lanes.copy(), len(lanes) * LANES)
            found[missing[:, 0], missing[:, 1]] = self._giant_steps(plain[missing[:, 0] * LANES + missing[:, 1]])
        if int(found.max()) > self.limit:
            raise Rejected(RejectionReason.CIPHERTEXT_INVALID, "an inner product lies outside its range")
        return found

    def _giant_steps(self, points: Coordinates) -> NDArray[np.int64]:
        """Subtract the table's size from all points that are left, until every one of them is in the table."""
        result, left, scratch = np.zeros(len(points), dtype=np.int64), np.arange(len(points)), scratch_space()
        back = repeat_in_lanes(generator_multiple(-self._table))
        for step in range(1, -(-self.limit // self._table)):
            count = -(-len(left) // LANES)
            lanes = np.concatenate([spread_over_lanes(points[left]), back])
            index = np.arange(count, dtype=np.int64)
            rows = np.stack([index, index, np.full(count, count, dtype=np.int64)], axis=1)
            if not lane_kernels.add_indexed(lanes, rows, scratch):
                break
            points[left] = gather_from_lanes(lanes[:count], len(left))
            found = np.zeros((count, LANES), dtype=np.int64)
            _look_up(lanes[:count], self._keys, self._values, found)
            values = found.ravel()[: len(left)]
            result[left] = np.where(values > 0, values + step * self._table, 0)
            left = left[values == 0]
            if not len(left):
                return result
        raise Rejected(RejectionReason.CIPHERTEXT_INVALID, "an inner product lies outside its range")


@lru_cache(maxsize=2)
def discrete_logarithms(limit: int) -> DiscreteLogarithms:
    """Return the table for a range; tables of the last two ranges are kept."""
    return DiscreteLogarithms(limit)
