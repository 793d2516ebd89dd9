"""Inner products of a mapping layer as a file: what decryption opens, so that training needs no plain row (PoLe).

Map samples through a secure mapping layer once per block: what a network with that layer trains on (PoLe 3.4).

The layer stays fixed during training, so its products are features of the data: they are computed once, not in every
step. They are exact integers, hence the same on every machine; float samples are discretised first, as the paper's
Step 2 does. Then each feature is centred and scaled by a power of two, both taken from the first training rows alone.

The data of a job as its model sees them: plain, or mapped through the layer of the height (PoLe 3.4).

Plain and mapped rows are kept between jobs, so that the products are computed once per block, not once per job or step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np

from learnchain.encoding.codec import Accuracy, decode
from learnchain.learning.data import DataSet, load_data
from learnchain.learning.fixed_point import ExactCounts, evaluate
from learnchain.learning.jobs import EvaluationJob, TrainingJob
from learnchain.learning.safe_tensors import Array, read_header, read_tensor, write_tensors
from learnchain.protocol.task_specification import MAXIMUM_DATA_BYTES, Metric
from learnchain.protocol.training_terms import SecureMapping
from learnchain.rejection import Rejected, RejectionReason

LARGEST_SAMPLE = 1 << 15
_DISCRETE = 256.0


@dataclass(frozen=True, slots=True, eq=False)
class MappedRows:
    """Hold the exact inner products of every row with the query vectors of one block, and the labels."""

    products: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.products)


def save_products(path: Path, products: Array, labels: Array) -> None:
    """Write inner products and labels."""
    whole = np.ascontiguousarray(products, dtype=np.int64)
    write_tensors(path, {"products": whole, "labels": np.ascontiguousarray(labels)})


def holds_products(path: Path) -> bool:
    """Return whether a file holds inner products in place of samples."""
    return "products" in read_header(path, MAXIMUM_DATA_BYTES, RejectionReason.MALFORMED)


def load_products(path: Path) -> MappedRows:
    """Return inner products and labels of a file that this machine wrote."""
    entries = read_header(path, MAXIMUM_DATA_BYTES, RejectionReason.MALFORMED)
    if set(entries) != {"products", "labels"} or entries["products"].dtype != "I64":
        raise Rejected(RejectionReason.MALFORMED, f"inner products and labels, not {sorted(entries)}")
    products, labels = entries["products"].shape, entries["labels"].shape
    if len(products) != 2 or not labels or products[0] != labels[0]:
        raise Rejected(RejectionReason.MALFORMED, f"products {products} do not fit labels {labels}")
    return MappedRows(read_tensor(path, entries["products"]), read_tensor(path, entries["labels"]))


def discretise(inputs: Array) -> Array:
    """Return samples as whole numbers in float64: bytes as they are, real numbers in steps of 1/256 (Step 2)."""
    if inputs.dtype == np.uint8:
        return inputs.astype(np.float64)
    rounded = np.rint(inputs.astype(np.float64) * _DISCRETE)
    if not np.isfinite(rounded).all() or float(np.abs(rounded).max()) > LARGEST_SAMPLE:
        raise Rejected(RejectionReason.PLAINTEXT_MISMATCH, "a sample is too large, or no number, to be discretised")
    return rounded


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


def fit_mapping(mapping: SecureMapping, training: DataSet | MappedRows) -> MappedFeatures:
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
    samples, weights = discretise(inputs), weights_of_rows(mapping).astype(np.float64)
    if float(np.abs(weights).sum(axis=1).max()) * LARGEST_SAMPLE >= 2.0**53:
        raise Rejected(RejectionReason.TOO_LARGE, "the products of these query vectors are not exact")
    if mapping.kernel:
        return _compute_convolution(samples, weights, mapping.kernel)
    flat = samples.reshape(len(samples), -1)
    if flat.shape[1] != weights.shape[1]:
        detail = f"vectors of {weights.shape[1]} weights do not fit samples of {flat.shape[1]} numbers"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    return flat @ weights.T


def _compute_convolution(samples: Array, weights: Array, kernel: int) -> Array:
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


MAXIMUM_MAPPING_BYTES = 1 << 28

_WORTH_COUNTING = 0.5
"""An epoch whose running accuracy is below this part of the requirement is not counted exactly: the mean over a first
epoch lies far below where it ends, and a count costs less than an epoch too many."""


def job_rows(path: str, training_path: str = "", mapping_path: str = "") -> DataSet:
    """Return the rows of a file, mapped as the training rows fix it when a mapping is named."""
    if not mapping_path:
        return _plain(*_version(path))
    return _map_rows(_version(path), _version(training_path), _version(mapping_path))


def training_rows(job: TrainingJob | EvaluationJob) -> DataSet:
    """Return the rows that a job trains on, or that calibrate its evaluation."""
    return job_rows(job.training_path, job.training_path, job.mapping_path)


def evaluation_rows(job: EvaluationJob) -> tuple[DataSet, DataSet]:
    """Return the training rows that calibrate an evaluation, and the rows that are counted."""
    return training_rows(job), job_rows(job.test_path, job.training_path, job.mapping_path)


@dataclass(frozen=True, slots=True)
class Requirement:
    """Count a run exactly on its own training rows, epoch by epoch, until it reaches what the task requires."""

    job: TrainingJob
    rows: DataSet

    def is_reached(self, weights: dict[str, Array], accuracy: float) -> bool:
        """Return whether training may end (PoLe Algorithm 1, line 9); a run without a requirement never may."""
        job = self.job
        if not job.required_denominator:
            return False
        near = _WORTH_COUNTING * job.required_numerator / job.required_denominator
        if job.metric is Metric.ACCURACY and accuracy < near:
            return False
        counted = self.count(weights)
        return Accuracy(counted.correct, counted.total).has_reached(job.required_numerator, job.required_denominator)

    def count(self, weights: dict[str, Array]) -> ExactCounts:
        """Return the exact count of these weights on the training rows."""
        return evaluate(self.job.specification, weights, self.rows, self.rows, self.job.metric)


def _version(path: str) -> tuple[str, int, int]:
    status = Path(path).stat()
    return path, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _plain(path: str, _modified: int, _size: int) -> DataSet:
    return load_data(Path(path))


@lru_cache(maxsize=2)
def _load_unmapped(path: str, _modified: int, _size: int) -> DataSet | MappedRows:
    """Return rows before their mapping is fitted; of encrypted rows only the products are known."""
    return load_products(Path(path)) if holds_products(Path(path)) else _plain(path, _modified, _size)


@lru_cache(maxsize=2)
def _features(training: tuple[str, int, int], mapping: tuple[str, int, int]) -> MappedFeatures:
    if mapping[2] > MAXIMUM_MAPPING_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a mapping layer of {mapping[2]} bytes")
    return fit_mapping(decode(SecureMapping, Path(mapping[0]).read_bytes()), _load_unmapped(*training))


@lru_cache(maxsize=3)
def _map_rows(rows: tuple[str, int, int], training: tuple[str, int, int], mapping: tuple[str, int, int]) -> DataSet:
    return _features(training, mapping).of(_load_unmapped(*rows))
