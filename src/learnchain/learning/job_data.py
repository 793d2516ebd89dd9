"""The data of a job as its model sees them: plain, or mapped through the layer of the height (PoLe 3.4).

Plain and mapped rows are kept between jobs, so that the products are computed once per block, not once per job or step.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from learnchain.learning.data import DataSet, load_data
from learnchain.learning.fixed_point import ExactCounts, evaluate
from learnchain.learning.jobs import EvaluationJob, TrainingJob
from learnchain.learning.mapping import MappedFeatures, fitted
from learnchain.learning.products import MappedRows, holds_products, load_products
from learnchain.learning.safe_tensors import Array
from learnchain.primitives.codec import decode
from learnchain.primitives.numbers import Accuracy
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import Metric
from learnchain.primitives.training_terms import SecureMapping

MAXIMUM_MAPPING_BYTES = 1 << 28
_WORTH_COUNTING = 0.5
"""An epoch whose running accuracy is below this part of the requirement is not counted exactly: the mean over a first
epoch lies far below where it ends, and a count costs less than an epoch too many."""


def job_rows(path: str, training_path: str = "", mapping_path: str = "") -> DataSet:
    """Return the rows of a file, mapped as the training rows fix it when a mapping is named."""
    if not mapping_path:
        return _plain(*_version(path))
    return _mapped(_version(path), _version(training_path), _version(mapping_path))


def evaluation_rows(job: EvaluationJob) -> tuple[DataSet, DataSet]:
    """Return the training rows that calibrate an evaluation, and the rows that are counted."""
    training = job_rows(job.training_path, job.training_path, job.mapping_path)
    return training, job_rows(job.test_path, job.training_path, job.mapping_path)


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
        return Accuracy(counted.correct, counted.total).reaches(job.required_numerator, job.required_denominator)

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
def _unmapped(path: str, _modified: int, _size: int) -> DataSet | MappedRows:
    """Return rows before their mapping is fitted; of encrypted rows only the products are known."""
    return load_products(Path(path)) if holds_products(Path(path)) else _plain(path, _modified, _size)


@lru_cache(maxsize=2)
def _features(training: tuple[str, int, int], mapping: tuple[str, int, int]) -> MappedFeatures:
    if mapping[2] > MAXIMUM_MAPPING_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a mapping layer of {mapping[2]} bytes")
    return fitted(decode(SecureMapping, Path(mapping[0]).read_bytes()), _unmapped(*training))


@lru_cache(maxsize=3)
def _mapped(rows: tuple[str, int, int], training: tuple[str, int, int], mapping: tuple[str, int, int]) -> DataSet:
    return _features(training, mapping).of(_unmapped(*rows))
