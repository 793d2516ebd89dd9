"""Open the inner products of encrypted samples with a functional key (PoLe section 3.4, Step 4, Proposition 3.1).

Eight batches run in the eight lanes. The additions for ct_0**eta are shared by all slots and queries of a batch, those
for the components by all queries of a slot; the programs depend on queries and key alone and are written once a block.

Look up discrete logarithms in a known range: a table of up to 2**20 multiples of g, then giant steps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
from coincurve import PublicKey
from numba import njit
from numpy.typing import NDArray

from learnchain.encryption.functional import lane_kernels
from learnchain.encryption.functional.ciphertexts import CipherBatch, CipherHeader
from learnchain.encryption.functional.group import (
    ORDER,
    Coordinates,
    Lanes,
    empty_points,
    gather_from_lanes,
    generator_multiple,
    public_key,
    repeat_in_lanes,
    scratch_space,
    spread_over_lanes,
)
from learnchain.encryption.functional.keys import FunctionalKey, Queries, check_queries, query_identity
from learnchain.encryption.functional.lane_code import LANES
from learnchain.encryption.functional.programs import NONE, Places, ProgramStep, ProgramWriter, inner_products, run
from learnchain.protocol.citations import equation
from learnchain.rejection import Rejected, RejectionReason

GroupOfBatches = Sequence[CipherBatch]

Mapping = Callable[
    [Callable[[GroupOfBatches], NDArray[np.int64]], Iterable[GroupOfBatches]], Iterable[NDArray[np.int64]]
]
"""How groups are worked through: `map`, or that of a thread pool; kernels hold no interpreter lock."""


class Decryptor:
    """Hold what one block's key and queries need, whatever the number of batches: programs and logarithm table."""

    __slots__ = ("_header", "_key", "_logarithms", "_offset", "_plan", "_queries")

    def __init__(self, header: CipherHeader, key: FunctionalKey, queries: NDArray[np.integer]) -> None:
        matrix = check_queries(queries, header.dimension)
        if key.master != header.master or key.queries != query_identity(matrix):
            raise Rejected(RejectionReason.FUNCTIONAL_KEY_WRONG, "the key is for another data set or other queries")
        if len(key.etas) != header.slots * len(matrix):
            raise Rejected(RejectionReason.FUNCTIONAL_KEY_WRONG, f"{len(key.etas)} numbers for {len(matrix)} queries")
        self._header, self._key, self._queries = header, key, matrix
        wide = matrix.astype(np.int64)
        # Shifted by one constant, all results are positive: never infinity, and never a point's own inverse.
        self._offset = 1 + header.maximum * int(np.maximum(-wide, 0).sum(axis=1).max())
        limit = self._offset + header.maximum * int(np.maximum(wide, 0).sum(axis=1).max())
        self._logarithms: DiscreteLogarithms = discrete_logarithms(limit)
        self._plan = _Plan(header, key, matrix)

    def open_group(self, batches: GroupOfBatches) -> NDArray[np.int64]:
        """Return the inner products (batches * slots, queries) of one to eight batches."""
        count, slots, queries = len(batches), self._header.slots, len(self._queries)
        expected = (1 + slots * self._header.dimension, 2, 32)
        if not 0 < count <= LANES or any(batch.points.shape != expected for batch in batches):
            raise Rejected(RejectionReason.MALFORMED, f"a group of {count} batches, or a batch of another size")
        padded = [*batches, *([batches[-1]] * (LANES - count))]
        results = self._plan.carry_out(padded, self._offset)
        if results is None:
            results = np.concatenate([self._open_slowly(batch) for batch in padded[:count]])
            lanes = spread_over_lanes(results)
            values = self._logarithms.find(lanes).ravel()[: len(results)].reshape(count * slots, queries)
        else:
            found = self._logarithms.find(results).reshape(slots, queries, LANES)
            values = found.transpose(2, 0, 1)[:count].reshape(count * slots, queries)
        return values - self._offset

    def additions_per_sample(self) -> float:
        """Return how many point additions and doublings one sample takes, with its share of what a batch shares."""
        return self._plan.count_additions() / self._header.slots

    def _open_slowly(self, batch: CipherBatch) -> Coordinates:
        """Return the results of one batch by coincurve alone: for crafted points that meet themselves."""
        points = [public_key(point) for point in batch.points]
        offset = public_key(generator_multiple(self._offset))
        rows: list[Coordinates] = []
        for slot in range(self._header.slots):
            own = points[1 + slot * self._header.dimension : 1 + (slot + 1) * self._header.dimension]
            for number, query in enumerate(self._queries):
                terms = [_raise_point(own[j], int(query[j])) for j in np.flatnonzero(query)]
                eta = self._key.etas[slot * len(self._queries) + number]
                terms += [_raise_point(points[0], -eta)] if eta else []
                rows.append(_combine_points([offset, *terms]))
        return np.stack(rows)


def _raise_point(point: PublicKey, exponent: int) -> PublicKey:
    return point.multiply((exponent % ORDER).to_bytes(32, "big"))


def _combine_points(points: list[PublicKey]) -> Coordinates:
    try:
        raw = PublicKey.combine_keys(points).format(compressed=False)
    except ValueError as error:
        raise Rejected(RejectionReason.CIPHERTEXT_INVALID, "an inner product lies outside its range") from error
    return np.frombuffer(raw[1:], dtype=np.uint8).reshape(2, 32)


class _Plan:
    """Hold the programs of a block: places of the arena are ct_0, the constant, ct_0's tables, then one slot's own."""

    __slots__ = ("_components", "_etas", "_places", "_results", "_slot_steps", "_slot_sums", "_steps")

    def __init__(self, header: CipherHeader, key: FunctionalKey, queries: Queries) -> None:
        writer = ProgramWriter()
        base, constant = writer.reserve(1), writer.reserve(1)
        self._etas = _eta_powers(writer, base, constant, key.etas)
        self._steps: list[ProgramStep] = writer.steps
        self._results = writer.reserve(len(key.etas))
        self._components = writer.reserve(header.dimension)
        writer.steps = []
        self._slot_sums: Places = inner_products(writer, self._components, queries)
        self._slot_steps: list[ProgramStep] = writer.steps
        self._places = writer.places

    def count_additions(self) -> int:
        """Count the additions and doublings of one batch, in one lane."""
        shared, own = (
            sum(len(step.rows) for step in steps if step.kind != "negate") for steps in (self._steps, self._slot_steps)
        )
        slots = len(self._results) // len(self._slot_sums)
        return shared + slots * (own + int((self._slot_sums != NONE).sum()))

    def carry_out(self, batches: GroupOfBatches, offset: int) -> Lanes | None:
        """Return g**(offset + inner product) for every slot and query; None when a crafted point met itself."""
        arena, scratch = empty_points(self._places), scratch_space()
        origin = np.zeros(1, dtype=np.int64)
        for lane, batch in enumerate(batches):
            lane_kernels.place(batch.points[:1], arena, origin, lane)
        arena[1:2] = repeat_in_lanes(generator_multiple(offset))
        if not run(self._steps, arena, scratch):
            return None
        arena[self._results] = arena[self._etas]
        dimension, queries = len(self._components), len(self._slot_sums)
        live = np.flatnonzero(self._slot_sums != NONE)
        for slot in range(len(self._results) // queries):
            first = 1 + slot * dimension
            for lane, batch in enumerate(batches):
                lane_kernels.place(batch.points[first : first + dimension], arena, self._components, lane)
            totals = self._results[slot * queries : (slot + 1) * queries][live]
            final = ProgramStep("add", np.stack([totals, totals, self._slot_sums[live]], axis=1))
            if not run([*self._slot_steps, final], arena, scratch):
                return None
        return arena[self._results]


def _eta_powers(writer: ProgramWriter, base: Places, constant: Places, etas: tuple[int, ...]) -> Places:
    """Return the places of constant * ct_0**-eta, one for each eta."""
    raw = b"".join((-eta % ORDER).to_bytes(32, "little") for eta in etas)
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8).reshape(len(etas), 32), axis=1, bitorder="little")
    powers = [base]
    for _ in range(255):
        powers.append(writer.double(powers[-1]))
    operands = writer.bit_rows(np.concatenate(powers), bits == 1)
    return writer.sum_operands(np.concatenate([np.repeat(constant[None, :], len(etas), axis=0), operands], axis=1))


def _group_batches(batches: Iterable[CipherBatch]) -> Iterator[GroupOfBatches]:
    source = iter(batches)
    while group := list(islice(source, LANES)):
        yield group


@equation("pole", 1, r"\langle \tilde x, z \rangle = \log_g ( \prod_j ct_j^{z_j} \cdot ct_0^{-\eta} )")
def decrypt(
    header: CipherHeader,
    key: FunctionalKey,
    queries: NDArray[np.integer],
    batches: Iterable[CipherBatch],
    through: Mapping = map,
) -> NDArray[np.int64]:
    """Return the inner products (samples, queries) of a whole data set: Proposition 3.1 of PoLe, its Eq. 1.

    With eta = <s, z> the blinding is ct_0**eta, so it must be divided out: the printed formula lacks the minus sign
    that its own proof needs. A wrong key or a crafted ciphertext ends in `CIPHERTEXT_INVALID`.
    """
    decryptor = Decryptor(header, key, queries)
    results = np.empty((header.samples, len(queries)), dtype=np.int64)
    done = 0
    for values in through(decryptor.open_group, _group_batches(batches)):
        kept = min(len(values), header.samples - done)
        results[done : done + kept] = values[:kept]
        done += len(values)
    if done != header.batches() * header.slots:
        raise Rejected(RejectionReason.MALFORMED, f"{done // header.slots} batches where {header.batches()} belong")
    return results


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
def _look_up(points: np.ndarray, keys: np.ndarray, values: np.ndarray, results: np.ndarray) -> None:
    mask = np.uint64(keys.shape[0] - 1)
    for row in range(points.shape[0]):
        for lane in range(points.shape[3]):
            key = _key(points, row, lane)
            slot = (key * np.uint64(_MIX) >> np.uint64(20)) & mask
            results[row, lane] = 0
            while values[slot] != 0:
                if keys[slot] == key:
                    results[row, lane] = values[slot]
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
