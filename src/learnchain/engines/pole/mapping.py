"""The query vectors of the secure mapping layer: integers that follow from the previous block (PoLe 3.4, Algorithm 3).

`paper` is Algorithm 3 with reading POLE-R1: weight j is the k bits `[(j-1)k : jk]`, and the shift that the algorithm
leaves open is `truncate`, `rotate` or `grow`. It repeats a short word, so its rank is low and it loses accuracy.
`dense` and `sparse` draw signed weights of full rank from SHAKE-256 over previous block, task and data (POLE-R14).

Which mapping layer belongs to a height: from the previous hash, the task and the data root (PoLe 3.4; POLE-R14).

Lines 2 to 4 of Algorithm 1: a model whose input is flat gets the mapping layer of Figure 3, one whose input has the
image's height and width the convolutional one, with as many filters a channel as its input has channels for.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from math import isqrt, prod

from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import shake256, tagged_hash
from learnchain.protocol.citations import algorithm
from learnchain.protocol.messages import Task
from learnchain.protocol.state import Selection
from learnchain.protocol.task_specification import Encryption, TaskSpecification
from learnchain.protocol.training_terms import LEAK_BUDGET_DIVISOR, SecureMapping
from learnchain.rejection import Rejected, RejectionReason

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
    return SecureMapping(_pack_vectors(vectors))


def convolutional_layer(vectors: tuple[Vector, ...]) -> SecureMapping:
    """Return the terms that slide the vectors over each channel, with zeros around the image (CSML, 3.4)."""
    kernel = isqrt(len(vectors[0]))
    if kernel * kernel != len(vectors[0]) or kernel % 2 == 0:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{len(vectors[0])} weights are no odd square filter")
    return SecureMapping(_pack_vectors(vectors), kernel)


def _pack_vectors(vectors: tuple[Vector, ...]) -> tuple[bytes, ...]:
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


SPARSE_ENTRIES = 4
"""Products that each feature of the data enters in `sparse` mode."""

MAXIMUM_PARTS = 64

MAXIMUM_MAPPED_BYTES = 1 << 31
"""Mapped features are computed once per block and kept in memory, in float32."""


class MappingMode(StrEnum):
    """Choose how query vectors are drawn: Algorithm 3 as printed, or signed rows of full rank (POLE-R14)."""

    PAPER = "paper"
    SPARSE = "sparse"
    DENSE = "dense"


@dataclass(frozen=True, slots=True)
class MappingLayer:
    """Hold the parameters of the layer: k and the shift of `paper`, the width of convolutional filters.

    `parts` cuts a flat sample into so many pieces of equal length, each mapped by the same vectors (POLE-R23).
    `per_miner` gives every miner vectors of its own; data that are encrypted for one set of vectors forbid it.
    """

    mode: MappingMode = MappingMode.DENSE
    bits_per_weight: int = 3
    shift: Shift = Shift.TRUNCATE
    filter_width: int = 3
    per_miner: bool = False
    parts: int = 1

    def check(self) -> None:
        """Refuse parameters that no vectors can be drawn with."""
        if self.filter_width % 2 == 0 or not 1 <= self.filter_width <= 15:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"filters {self.filter_width} wide: odd numbers up to 15")
        if not 1 <= self.bits_per_weight <= MAXIMUM_BITS_PER_WEIGHT:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self.bits_per_weight} bits a weight: choose 1 to 15")
        if not 1 <= self.parts <= MAXIMUM_PARTS:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self.parts} parts of a sample: choose 1 to 64")
        if self.per_miner and self.mode is MappingMode.PAPER:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "Algorithm 3 knows the previous hash, not the miner")

    def identity(self, selection: Selection, work: Hash32) -> Hash32:
        """Return what the vectors follow from, and what a header names as its mapping (Algorithm 2, line 5)."""
        if self.mode is MappingMode.PAPER:
            return selection.parent
        rows = selection.posted_task.specification.data.training.plaintext_root
        parts = (selection.parent, selection.task.task_id, rows)
        return tagged_hash("pole/mapping", *parts, work) if self.per_miner else tagged_hash("pole/mapping", *parts)

    def terms(self, selection: Selection, work: Hash32) -> SecureMapping:
        """Return the layer of a height (Algorithm 1, line 3; Algorithm 2, line 1)."""
        return _build_terms(
            self, self.identity(selection, work), layer_shape(selection.posted_task.specification, self)
        )


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Say how many vectors of how many weights a layer has, and whether they slide over the image."""

    vectors: int
    dimension: int
    convolutional: bool


def layer_shape(specification: TaskSpecification, layer: MappingLayer) -> LayerShape:
    """Return L and D of a task, from the shapes of its samples and of its model's input; refuse what does not fit."""
    sample, wanted = specification.data.sample_shape, specification.model.input_shape
    if len(wanted) == 1:
        shape = LayerShape(wanted[0], prod(sample), False)
    elif len(sample) == len(wanted) == 3 and sample[1:] == wanted[1:] and wanted[0] % sample[0] == 0:
        shape = LayerShape(wanted[0] // sample[0], layer.filter_width**2, True)
    else:
        detail = f"no mapping layer leads from samples of {sample} to a model for {wanted}"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    if not shape.convolutional and (shape.vectors % layer.parts or shape.dimension % layer.parts):
        detail = f"{shape.vectors} products of {shape.dimension} numbers cannot come from {layer.parts} equal parts"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    if shape.vectors > MAXIMUM_VECTORS or shape.dimension > MAXIMUM_DIMENSION:
        raise Rejected(RejectionReason.MODEL_TOO_LARGE, f"{shape.vectors} query vectors of {shape.dimension} weights")
    rows = specification.data.training.rows + specification.data.test.rows
    if 4 * rows * prod(wanted) > MAXIMUM_MAPPED_BYTES:
        detail = f"{rows} samples of {prod(wanted)} mapped features do not fit into {MAXIMUM_MAPPED_BYTES} bytes"
        raise Rejected(RejectionReason.MODEL_TOO_LARGE, detail)
    return shape


def check_encryption(task: Task, specification: TaskSpecification, layer: MappingLayer) -> None:
    """Refuse rows encrypted for a layer that would give them away, or that nobody can hold a key for (POLE-R14).

    A 3x3 filter with zeros around gives as many equations as pixels: convolutional tasks keep rows symmetric, their key
    comes once the previous hash is known. A standing task would release products at height after height.
    """
    if specification.encryption is not Encryption.INNER_PRODUCT:
        return
    shape, detail = layer_shape(specification, layer), ""
    if shape.convolutional:
        detail = "a convolutional mapping gives as many equations as pixels: use symmetric encryption"
    elif layer.per_miner or task.is_standing:
        detail = "one set of products may leave a data set: neither one a miner, nor one a height"
    elif shape.vectors > shape.dimension // LEAK_BUDGET_DIVISOR:
        detail = f"{shape.vectors} products of {shape.dimension} numbers: a quarter of them is the budget"
    if detail:
        raise Rejected(RejectionReason.ENCRYPTION_UNSUITABLE, detail)


@lru_cache(maxsize=8)
def _build_terms(layer: MappingLayer, identity: Hash32, shape: LayerShape) -> SecureMapping:
    vectors = _build_vectors(layer, identity, shape)
    plain = convolutional_layer(vectors) if shape.convolutional else mapping_layer(vectors)
    return replace(plain, identity=identity)


def _build_vectors(layer: MappingLayer, identity: Hash32, shape: LayerShape) -> tuple[Vector, ...]:
    if shape.convolutional or layer.parts == 1:
        return _draw_vectors(layer, identity, shape)
    width = shape.dimension // layer.parts
    drawn = _draw_vectors(layer, identity, replace(shape, vectors=shape.vectors // layer.parts, dimension=width))
    places = range(0, shape.dimension, width)
    return tuple((0,) * place + each + (0,) * (shape.dimension - place - width) for place in places for each in drawn)


def _draw_vectors(layer: MappingLayer, identity: Hash32, shape: LayerShape) -> tuple[Vector, ...]:
    if layer.mode is MappingMode.PAPER:
        return query_vectors(identity, shape.dimension, shape.vectors, layer.bits_per_weight, layer.shift)
    if layer.mode is MappingMode.DENSE:
        return dense_vectors(identity, shape.dimension, shape.vectors)
    return sparse_vectors(identity, shape.dimension, shape.vectors, min(SPARSE_ENTRIES, shape.vectors))
