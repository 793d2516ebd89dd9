"""The query vectors of the secure mapping layer: integers that follow from the previous block (PoLe 3.4, Algorithm 3).

`paper` is Algorithm 3 with reading POLE-R1: weight j is the k bits `[(j-1)k : jk]`, and the shift that the algorithm
leaves open is `truncate`, `rotate` or `grow`. It repeats a short word, so its rank is low and it loses accuracy.
`dense` and `sparse` draw signed weights of full rank from SHAKE-256 over previous block, task and data (POLE-R14).
"""

from enum import StrEnum
from math import isqrt

from learnchain.primitives.citation import algorithm
from learnchain.primitives.codec import Hash32
from learnchain.primitives.hashing import shake256
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.training_terms import SecureMapping

HASH_BITS = 256
MAXIMUM_VECTORS = 4_096
MAXIMUM_DIMENSION = 32_768
MAXIMUM_BITS_PER_WEIGHT = 15
_OFFSET = 1 << 15

Vector = tuple[int, ...]


class Shift(StrEnum):
    """Choose what `bPHS << i` does to the bits that leave the word (POLE-R1)."""

    TRUNCATE = "truncate"
    ROTATE = "rotate"
    GROW = "grow"


@algorithm("pole", 3, r"z^i_j = \text{int}\big((P \oplus (P \ll i))^{\infty}[(j-1)k : jk]\big)")
def query_vectors(
    previous_hash: Hash32, dimension: int, count: int, bits_per_weight: int, shift: Shift
) -> tuple[Vector, ...]:
    """Return the I query vectors of a previous hash: `dimension` D, `count` I, `bits_per_weight` k (POLE-R1).

    The binary form of the hash keeps its leading zeros: 256 bits, whatever the number is.
    """
    _check(dimension, count)
    if not 1 <= bits_per_weight <= MAXIMUM_BITS_PER_WEIGHT:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{bits_per_weight} bits a weight: choose 1 to 15")
    vectors: list[Vector] = []
    for number in range(1, count + 1):
        primary = _primary_weight(int.from_bytes(previous_hash, "big"), number, shift)
        repeats = -(-bits_per_weight * dimension // len(primary))
        master = primary * repeats
        starts = range(0, bits_per_weight * dimension, bits_per_weight)
        vectors.append(tuple(int(master[start : start + bits_per_weight], 2) for start in starts))
    return tuple(vectors)


def dense_vectors(seed: Hash32, dimension: int, count: int) -> tuple[Vector, ...]:
    """Return rows of +1 and -1, one bit each, drawn from SHAKE-256 of the seed and the row's number."""
    _check(dimension, count)
    rows: list[Vector] = []
    for number in range(count):
        drawn = shake256("pole/dense", seed + number.to_bytes(4, "big"), -(-dimension // 8))
        rows.append(tuple(1 - 2 * (drawn[place // 8] >> (place % 8) & 1) for place in range(dimension)))
    return tuple(rows)


def sparse_vectors(seed: Hash32, dimension: int, count: int, entries: int = 4) -> tuple[Vector, ...]:
    """Return rows in which each feature of the data enters `entries` of the products, with a random sign."""
    _check(dimension, count)
    if not 1 <= entries <= count:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{entries} entries a feature of {count} vectors")
    rows = [[0] * dimension for _ in range(count)]
    for place in range(dimension):
        drawn = shake256("pole/sparse", seed + place.to_bytes(4, "big"), 8 * count)
        keys = [int.from_bytes(drawn[8 * row : 8 * row + 8], "big") for row in range(count)]
        for row in sorted(range(count), key=lambda each, keys=keys: (keys[each], each))[:entries]:
            rows[row][place] = 1 - 2 * (keys[row] & 1)
    return tuple(tuple(row) for row in rows)


def mapping_layer(vectors: tuple[Vector, ...]) -> SecureMapping:
    """Return the terms that fix a network's first layer to the vectors (3.4, Figure 3)."""
    return SecureMapping(_packed(vectors))


def convolutional_layer(vectors: tuple[Vector, ...]) -> SecureMapping:
    """Return the terms that slide the vectors over each channel, with zeros around the image (CSML, 3.4)."""
    kernel = isqrt(len(vectors[0]))
    if kernel * kernel != len(vectors[0]) or kernel % 2 == 0:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{len(vectors[0])} weights are no odd square filter")
    return SecureMapping(_packed(vectors), kernel)


def _packed(vectors: tuple[Vector, ...]) -> tuple[bytes, ...]:
    return tuple(b"".join((weight + _OFFSET).to_bytes(2, "big") for weight in vector) for vector in vectors)


def _primary_weight(number: int, places: int, shift: Shift) -> str:
    """Return XOR(bPHS, bPHS << i) as bits (line 3 of Algorithm 3)."""
    width, word = HASH_BITS, (1 << HASH_BITS) - 1
    if shift is Shift.GROW:
        width, shifted = HASH_BITS + places, number << places
    elif shift is Shift.TRUNCATE:
        shifted = number << places & word
    else:
        turned = places % HASH_BITS
        shifted = (number << turned | number >> (HASH_BITS - turned)) & word
    return format(number ^ shifted, f"0{width}b")


def _check(dimension: int, count: int) -> None:
    if not (1 <= dimension <= MAXIMUM_DIMENSION and 1 <= count <= MAXIMUM_VECTORS):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{count} vectors of {dimension} weights")
