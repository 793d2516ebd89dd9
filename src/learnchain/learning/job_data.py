"""Map samples through a secure mapping layer once per block: what a network with that layer trains on (PoLe 3.4).

The layer stays fixed during training, so its products are features of the data: they are computed once, not in every
step. They are exact integers, hence the same on every machine; float samples are discretised first, as the paper's
Step 2 does. Then each feature is centred and scaled by a power of two, both taken from the first training rows alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.products import LARGEST_SAMPLE, MappedRows, discretised
from learnchain.learning.safe_tensors import Array
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.training_terms import SecureMapping

REFERENCE_ROWS = 1_024
"""Training rows from which centre and scale are taken."""
_BATCH_ROWS = 2_048
_BATCH_PRODUCTS = 1 << 20
"""Sliding filters make many products of a sample: so many at a time stay in the processor's cache."""
_OFFSET = 1 << 15


@dataclass(frozen=True, slots=True)
class MappedFeatures:
    """Hold what maps any part of a task's data: the vectors, and centre and scale of each feature."""

    mapping: SecureMapping
    centre: Array
    shift: int

    def of(self, data: DataSet | MappedRows) -> DataSet:
        """Return the mapped samples with their labels, in float32."""
        mapped: Array | None = None
        for start, products in _batches(data, len(data), self.mapping):
            if mapped is None:
                mapped = np.empty((len(data), *products.shape[1:]), dtype=np.float32)
            mapped[start : start + len(products)] = np.ldexp(products - self.centre, -self.shift)
        if mapped is None:
            raise Rejected(RejectionReason.MALFORMED, "there are no samples to map")
        return DataSet(mapped, data.labels)


def fitted(mapping: SecureMapping, training: DataSet | MappedRows) -> MappedFeatures:
    """Return the map with centre and scale of the first training rows; integers decide, so all nodes agree.

    The scale is one power of two for all features: their relative sizes are part of what was mapped.
    """
    rows = min(REFERENCE_ROWS, len(training))
    sums, size, features = 0, 0, 1
    for _start, products in _batches(training, rows, mapping):
        axes = (0, *range(2, products.ndim))
        sums = sums + products.astype(np.int64).sum(axis=axes, keepdims=True)
        size, features = size + products.size, products.shape[1]
    centre = np.asarray(sums) // (size // features)
    # The mean absolute deviation becomes a number between one half and one.
    deviations = (np.abs(each.astype(np.int64) - centre).sum() for _start, each in _batches(training, rows, mapping))
    spread = sum(int(each) for each in deviations) // size
    return MappedFeatures(mapping, centre.astype(np.float64), spread.bit_length())


def weights_of_rows(mapping: SecureMapping) -> Array:
    """Return the query vectors as a matrix of integers, one row an output."""
    lengths = {len(row) for row in mapping.rows}
    if len(lengths) != 1 or lengths == {0} or lengths.pop() % 2:
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, "the query vectors differ in length, or there are none")
    return np.stack([np.frombuffer(row, dtype=">u2").astype(np.int64) - _OFFSET for row in mapping.rows])


def _batches(data: DataSet | MappedRows, rows: int, mapping: SecureMapping) -> Iterator[tuple[int, Array]]:
    """Give the products of the first rows, batch by batch, each with the number of its first row."""
    step = _BATCH_ROWS
    if mapping.kernel and isinstance(data, DataSet):
        step = max(1, min(step, _BATCH_PRODUCTS // (prod(data.sample_shape) * len(mapping.rows))))
    for start in range(0, rows, step):
        yield start, _products_of(data, start, min(start + step, rows), mapping)


def _products_of(data: DataSet | MappedRows, start: int, end: int, mapping: SecureMapping) -> Array:
    """Return the products of some rows; those of encrypted rows were opened before and are only looked up."""
    if isinstance(data, DataSet):
        return _products(data.inputs[start:end], mapping)
    if data.products.shape[1] != len(mapping.rows) or mapping.kernel:
        detail = f"{data.products.shape[1]} products a row where the mapping has {len(mapping.rows)} vectors"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    return data.products[start:end].astype(np.float64)


def _products(inputs: Array, mapping: SecureMapping) -> Array:
    """Return the inner products of samples and vectors: integers below 2**53, exact in float64 in any order."""
    samples, weights = discretised(inputs), weights_of_rows(mapping).astype(np.float64)
    if float(np.abs(weights).sum(axis=1).max()) * LARGEST_SAMPLE >= 2.0**53:
        raise Rejected(RejectionReason.TOO_LARGE, "the products of these query vectors are not exact")
    if mapping.kernel:
        return _convolved(samples, weights, mapping.kernel)
    flat = samples.reshape(len(samples), -1)
    if flat.shape[1] != weights.shape[1]:
        detail = f"vectors of {weights.shape[1]} weights do not fit samples of {flat.shape[1]} numbers"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    return flat @ weights.T


def _convolved(samples: Array, weights: Array, kernel: int) -> Array:
    """Return L products for every channel and place, with zeros around the image (CSML, 3.4)."""
    if samples.ndim != 4 or weights.shape[1] != kernel * kernel or kernel % 2 == 0:
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, "a convolutional mapping takes images and odd filters")
    rows, channels, height, width = samples.shape
    margin = kernel // 2
    padded = np.pad(samples, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    out = np.zeros((rows, channels, len(weights), height, width))
    for place in range(kernel * kernel):
        down, right = divmod(place, kernel)
        window = padded[:, :, down : down + height, right : right + width]
        out += window[:, :, None] * weights[:, place][None, None, :, None, None]
    return out.reshape(rows, channels * len(weights), height, width)
