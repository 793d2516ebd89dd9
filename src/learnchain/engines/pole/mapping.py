"""Which mapping layer belongs to a height: from the previous hash, the task and the data root (PoLe 3.4; POLE-R14).

Lines 2 to 4 of Algorithm 1: a model whose input is flat gets the mapping layer of Figure 3, one whose input has the
image's height and width the convolutional one, with as many filters a channel as its input has channels for.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from math import prod

from learnchain.primitives.codec import Hash32
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.messages import Task
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.selection import Selection
from learnchain.primitives.task_specification import Encryption, TaskSpecification
from learnchain.primitives.training_terms import LEAK_BUDGET_DIVISOR, SecureMapping
from learnchain.rules.pole import mapping as maps
from learnchain.rules.pole.mapping import Shift, Vector

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
        if not 1 <= self.bits_per_weight <= maps.MAXIMUM_BITS_PER_WEIGHT:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self.bits_per_weight} bits a weight: choose 1 to 15")
        if not 1 <= self.parts <= MAXIMUM_PARTS:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self.parts} parts of a sample: choose 1 to 64")
        if self.per_miner and self.mode is MappingMode.PAPER:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "Algorithm 3 knows the previous hash, not the miner")

    def identity(self, selection: Selection, work: Hash32) -> Hash32:
        """Return what the vectors follow from, and what a header names as its mapping (Algorithm 2, line 5)."""
        if self.mode is MappingMode.PAPER:
            return selection.parent
        rows = selection.posted.specification.data.training.plaintext_root
        parts = (selection.parent, selection.task.task_id, rows)
        return tagged_hash("pole/mapping", *parts, work) if self.per_miner else tagged_hash("pole/mapping", *parts)

    def terms(self, selection: Selection, work: Hash32) -> SecureMapping:
        """Return the layer of a height (Algorithm 1, line 3; Algorithm 2, line 1)."""
        return _terms(self, self.identity(selection, work), layer_shape(selection.posted.specification, self))


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
    if shape.vectors > maps.MAXIMUM_VECTORS or shape.dimension > maps.MAXIMUM_DIMENSION:
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
    elif layer.per_miner or task.standing:
        detail = "one set of products may leave a data set: neither one a miner, nor one a height"
    elif shape.vectors > shape.dimension // LEAK_BUDGET_DIVISOR:
        detail = f"{shape.vectors} products of {shape.dimension} numbers: a quarter of them is the budget"
    if detail:
        raise Rejected(RejectionReason.ENCRYPTION_UNSUITABLE, detail)


@lru_cache(maxsize=8)
def _terms(layer: MappingLayer, identity: Hash32, shape: LayerShape) -> SecureMapping:
    vectors = _vectors(layer, identity, shape)
    plain = maps.convolutional_layer(vectors) if shape.convolutional else maps.mapping_layer(vectors)
    return replace(plain, identity=identity)


def _vectors(layer: MappingLayer, identity: Hash32, shape: LayerShape) -> tuple[Vector, ...]:
    if shape.convolutional or layer.parts == 1:
        return _drawn(layer, identity, shape)
    width = shape.dimension // layer.parts
    drawn = _drawn(layer, identity, replace(shape, vectors=shape.vectors // layer.parts, dimension=width))
    places = range(0, shape.dimension, width)
    return tuple((0,) * place + each + (0,) * (shape.dimension - place - width) for place in places for each in drawn)


def _drawn(layer: MappingLayer, identity: Hash32, shape: LayerShape) -> tuple[Vector, ...]:
    if layer.mode is MappingMode.PAPER:
        return maps.query_vectors(identity, shape.dimension, shape.vectors, layer.bits_per_weight, layer.shift)
    if layer.mode is MappingMode.DENSE:
        return maps.dense_vectors(identity, shape.dimension, shape.vectors)
    return maps.sparse_vectors(identity, shape.dimension, shape.vectors, min(SPARSE_ENTRIES, shape.vectors))
