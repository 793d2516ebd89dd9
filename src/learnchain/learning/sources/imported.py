"""Describe what an importer gives and what it may be asked: nouns that all layouts share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from learnchain.learning.data import DataSet
from learnchain.learning.safe_tensors import Array
from learnchain.learning.sources.files import Progress
from learnchain.primitives.rejection import Rejected, RejectionReason


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Say how to import: the shape to bring samples to, digests that files must have, whom to tell of progress.

    `sha256` maps the last part of a file's name to the digest of its plain bytes.
    """

    shape: tuple[int, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = lambda _count: None


@dataclass(frozen=True, slots=True, eq=False)
class ImportedData:
    """Hold what was read: the published split if there is one, the names of the classes, where it came from."""

    training: DataSet
    test: DataSet | None
    class_names: tuple[str, ...]
    sources: Mapping[str, str]
    licence: str = ""


def malformed(detail: str) -> Rejected:
    """Return the refusal of a file that is not what its layout promises."""
    return Rejected(RejectionReason.MALFORMED, detail)


def stacked(rows: Sequence[tuple[Array, Array | int]]) -> DataSet:
    """Return a data set of samples and labels, which must all have one shape."""
    if not rows:
        raise malformed("the source holds no samples of this layout")
    shapes = {row.shape for row, _ in rows}
    if len(shapes) != 1:
        raise malformed(f"samples have different shapes: {sorted(shapes)[:4]}")
    labels = np.array([label for _, label in rows], dtype=np.uint8)
    return DataSet(np.stack([row for row, _ in rows]), labels)


def stacked_or_none(rows: Sequence[tuple[Array, Array | int]]) -> DataSet | None:
    """Return a data set, or None without rows."""
    return stacked(rows) if rows else None
