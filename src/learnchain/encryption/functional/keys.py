"""Refuse queries before the inner products released so far let the data be solved for.

Every block releases one inner product a query, for every sample, under any encryption: the functionality itself leaks.
Once the released queries have full rank, the samples follow by linear algebra. A test set gets no master key at all.

Generate, derive and verify the keys of inner-product encryption (Abdalla et al. 2015; PoLe section 3.4).

Sixteen samples of one batch share one randomness, so a master key holds an independent scalar for every slot and
component: this is the scheme in dimension slots x dimension, under one data set and one master key.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from coincurve import PublicKey
from numpy.typing import NDArray

from learnchain.encoding.cryptography import shake256, tagged_hash
from learnchain.encryption.functional import group
from learnchain.protocol.training_terms import LEAK_BUDGET_DIVISOR
from learnchain.rejection import Rejected, RejectionReason

_MODULUS = 2**31 - 1


def exact_rank(queries: NDArray[np.integer]) -> int:
    """Return the rank modulo 2**31 - 1: never above the rank over the rationals, and equal but by rare chance."""
    rows = np.mod(queries.astype(np.int64), _MODULUS)
    rank = 0
    for column in range(rows.shape[1]):
        candidates = np.flatnonzero(rows[rank:, column])
        if not len(candidates):
            continue
        pivot = rank + int(candidates[0])
        rows[[rank, pivot]] = rows[[pivot, rank]]
        rows[rank] = rows[rank] * pow(int(rows[rank, column]), -1, _MODULUS) % _MODULUS
        below = rows[rank + 1 :]
        below[:] = (below - below[:, column : column + 1] * rows[rank] % _MODULUS) % _MODULUS
        rank += 1
        if rank == len(rows):
            break
    return rank


def leak_budget(dimension: int, used: Sequence[NDArray[np.integer]], queries: NDArray[np.integer]) -> int:
    """Return the rank that stays free after `queries`; refuse them when they go beyond a quarter of the dimension.

    Queries that say nothing new cost nothing: Algorithm 3 repeats 256 fixed sums of pixels, so its rank stops at 256.
    """
    released = np.concatenate([*used, queries])
    if released.shape[1] != dimension:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"queries of width {released.shape[1]} on {dimension}")
    limit = dimension // LEAK_BUDGET_DIVISOR
    spent = exact_rank(released)
    if spent > limit:
        raise Rejected(RejectionReason.LEAK_BUDGET_SPENT, f"rank {spent} released, {limit} of {dimension} allowed")
    return limit - spent


SLOTS = 16
MAXIMUM_DIMENSION = 1 << 16
MAXIMUM_QUERIES = 4_096
MAXIMUM_WEIGHT = 1 << 12
_SCALAR_BYTES = 32

_WIDE_BYTES = 48
"""A scalar is 384 bits reduced modulo the order: its bias lies below 2**-128."""

Queries = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class MasterSecret:
    """Keep what the data node must never show: the seed, and s of Step 1, slot by slot."""

    seed: bytes
    dimension: int
    slots: int
    scalars: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MasterPublic:
    """Hold h = g**s of Step 1, slot by slot: what everybody checks functional keys with."""

    dimension: int
    slots: int
    points: group.Coordinates

    def identity(self) -> bytes:
        """Return the hash that ciphertexts and functional keys name."""
        sizes = self.dimension.to_bytes(4, "big") + self.slots.to_bytes(2, "big")
        return tagged_hash("encryption/master", sizes, group.compress(self.points))


@dataclass(frozen=True, slots=True)
class FunctionalKey:
    """Hold eta = <s, z> for every slot and query of one block: it opens these inner products and nothing else."""

    master: bytes
    queries: bytes
    etas: tuple[int, ...]


def check_queries(queries: NDArray[np.integer], dimension: int) -> Queries:
    """Return the query matrix as 32-bit integers; refuse another width, too many rows or too large weights."""
    if queries.ndim != 2 or queries.shape[1] != dimension or not 0 < queries.shape[0] <= MAXIMUM_QUERIES:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{queries.shape} is no query matrix of width {dimension}")
    if not np.issubdtype(queries.dtype, np.integer) or max(int(queries.max()), -int(queries.min())) > MAXIMUM_WEIGHT:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"weights are integers up to {MAXIMUM_WEIGHT}")
    return np.ascontiguousarray(queries, dtype=np.int32)


def query_identity(queries: Queries) -> bytes:
    """Return the hash of a query matrix."""
    return tagged_hash(
        "encryption/queries", np.array(queries.shape, dtype=">u4").tobytes(), queries.astype(">i4").tobytes()
    )


def generate_master_keys(seed: bytes, dimension: int, slots: int = SLOTS) -> tuple[MasterSecret, MasterPublic]:
    """Carry out Step 1 of PoLe section 3.4 from 32 secret random bytes: draw s and publish h = g**s."""
    if len(seed) != 32 or not 0 < dimension <= MAXIMUM_DIMENSION or not 0 < slots <= 256:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"seed of {len(seed)} bytes, {dimension} x {slots}")
    stream = shake256("encryption/master secret", seed, _WIDE_BYTES * dimension * slots)
    parts = [stream[i : i + _WIDE_BYTES] for i in range(0, len(stream), _WIDE_BYTES)]
    scalars = tuple(int.from_bytes(part, "big") % (group.ORDER - 1) + 1 for part in parts)
    points = group.generator_multiples(list(scalars))
    return MasterSecret(seed, dimension, slots, scalars), MasterPublic(dimension, slots, points)


def encode_master(public: MasterPublic) -> bytes:
    """Return the compressed points of a master public key."""
    return group.compress(public.points)


def encode_key(key: FunctionalKey) -> bytes:
    """Return a functional key as bytes of a fixed layout: data set, queries, then 32 bytes an eta."""
    return key.master + key.queries + b"".join(eta.to_bytes(_SCALAR_BYTES, "big") for eta in key.etas)


def key_bytes(etas: int) -> int:
    """Return the size of a functional key with so many numbers."""
    return (2 + etas) * _SCALAR_BYTES


def decode_key(data: bytes, etas: int) -> FunctionalKey:
    """Return the functional key of hostile bytes; whether its numbers are right is up to `verify_key`."""
    if len(data) != key_bytes(etas):
        raise Rejected(RejectionReason.FUNCTIONAL_KEY_WRONG, f"{len(data)} bytes for a key of {etas} numbers")
    parts = [data[start : start + _SCALAR_BYTES] for start in range(0, len(data), _SCALAR_BYTES)]
    return FunctionalKey(parts[0], parts[1], tuple(int.from_bytes(part, "big") for part in parts[2:]))


def derive_key(secret: MasterSecret, public: MasterPublic, queries: NDArray[np.integer]) -> FunctionalKey:
    """Return eta = <s, z> for every slot and query: the data node issues it once the previous block is known."""
    matrix = check_queries(queries, secret.dimension)
    weights = matrix.astype(object)
    etas: list[int] = []
    for slot in range(secret.slots):
        scalars = np.array(secret.scalars[slot * secret.dimension : (slot + 1) * secret.dimension], dtype=object)
        etas.extend(int(eta) % group.ORDER for eta in weights @ scalars)
    return FunctionalKey(public.identity(), query_identity(matrix), tuple(etas))


def verify_key(public: MasterPublic, queries: NDArray[np.integer], key: FunctionalKey) -> None:
    """Refuse a functional key unless g**eta = prod h_j**z_j holds for every slot and query.

    All equations are checked at once, each raised to a 128-bit exponent that hangs on everything checked
    (Bellare, Garay, Rabin 1998): a wrong key passes with probability 2**-128.
    """
    matrix = check_queries(queries, public.dimension)
    if key.master != public.identity() or key.queries != query_identity(matrix):
        raise Rejected(RejectionReason.FUNCTIONAL_KEY_WRONG, "the key is for another data set or other queries")
    count = len(matrix)
    if len(key.etas) != public.slots * count or not all(0 <= eta < group.ORDER for eta in key.etas):
        raise Rejected(RejectionReason.FUNCTIONAL_KEY_WRONG, f"{len(key.etas)} numbers for {count} queries")
    group.check_on_curve(public.points)
    raw = b"".join(eta.to_bytes(32, "big") for eta in key.etas)
    stream = shake256("encryption/key check", key.master + key.queries + raw, 16 * len(key.etas))
    factors = [int.from_bytes(stream[i : i + 16], "big") for i in range(0, len(stream), 16)]
    left = sum(factor * eta for factor, eta in zip(factors, key.etas, strict=True)) % group.ORDER
    weights = matrix.T.astype(object)
    powers: list[int] = []
    for slot in range(public.slots):
        powers.extend(weights @ np.array(factors[slot * count : (slot + 1) * count], dtype=object))
    if not _is_generator_power(left, public.points, powers):
        raise Rejected(RejectionReason.FUNCTIONAL_KEY_WRONG, "the key does not fit the master public key")


def _is_generator_power(exponent: int, points: group.Coordinates, powers: list[int]) -> bool:
    """Return whether g**exponent is the product of the powers; g is added to both sides against infinity."""
    terms = [
        group.public_key(point).multiply((power % group.ORDER).to_bytes(32, "big"))
        for point, power in zip(points, powers, strict=True)
        if power % group.ORDER
    ]
    if not terms:
        return exponent == 0
    if exponent == 0:
        return False
    return PublicKey.combine_keys(terms).format(compressed=False)[1:] == group.generator_multiple(exponent).tobytes()
