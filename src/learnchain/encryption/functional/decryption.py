"""Open the inner products of encrypted samples with a functional key (PoLe section 3.4, Step 4, Proposition 3.1).

Eight batches run in the eight lanes. The additions for ct_0**eta are shared by all slots and queries of a batch, those
for the components by all queries of a slot; the programs depend on queries and key alone and are written once a block.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from coincurve import PublicKey
from numpy.typing import NDArray

from learnchain.encryption.functional import lane_kernels
from learnchain.encryption.functional.ciphertexts import CipherBatch, CipherHeader
from learnchain.encryption.functional.discrete_logarithms import DiscreteLogarithms, discrete_logarithms
from learnchain.encryption.functional.group import (
    ORDER,
    Coordinates,
    Lanes,
    empty_points,
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
