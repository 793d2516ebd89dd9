"""Measure what a model brings to a fusion: what a verification contributor runs, and the initiator at the end."""

from collections.abc import Sequence
from pathlib import Path

from learnchain.learning.data import DataSet, load_data
from learnchain.learning.fused_model import Examined, Fused, SharedModel, VerifierData, examine, export, fuse_models
from learnchain.learning.fusion import FusionTerms
from learnchain.learning.model import load_weights
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.model_specification import ModelSpecification


def load_sample(training: Path, test: Path, verification: Path) -> VerifierData:
    """Return the initiator's sample from its three files."""
    return VerifierData(load_data(training), load_data(test), load_data(verification))


class FusionJudge:
    """Keep the features of every model that was examined, and fuse any of them.

    The seed follows from the task and the places that are fused: honest verifiers with equal machines agree exactly,
    with unlike ones within the tolerance of the terms.
    """

    def __init__(self, task_id: bytes, sample: VerifierData, terms: FusionTerms) -> None:
        self._task_id = task_id
        self._sample = sample
        self._terms = terms
        self._examined: dict[int, Examined] = {}
        self._measured: dict[tuple[int, ...], Fused] = {}

    def add(self, place: int, specification: ModelSpecification, labels: tuple[int, ...], weights: Path) -> None:
        """Load a model and compute its features; raise `Rejected` for one that cannot be used."""
        model = SharedModel(specification, load_weights(weights, specification), labels)
        self._examined[place] = examine(model, self._sample)

    def known(self, place: int) -> bool:
        """Return whether a model was added."""
        return place in self._examined

    def measure(self, accepted: tuple[int, ...], place: int) -> int:
        """Return the right answers of the fusion of the accepted models and one more."""
        return self.fused((*accepted, place)).accuracy.correct

    def fused(self, places: tuple[int, ...]) -> Fused:
        """Return the fusion of the models at these places, learned once."""
        found = self._measured.get(places)
        if found is None:
            members = [self._examined[place] for place in places]
            found = fuse_models(members, self._sample, self._terms, self._seed(places))
            self._measured[places] = found
        return found

    def export(self, places: tuple[int, ...], directory: Path) -> tuple[Path, Path]:
        """Write the fusion of these models as one model: weights and architecture."""
        return export(self.fused(places), directory)

    def _seed(self, places: tuple[int, ...]) -> bytes:
        return tagged_hash("market/fusion", self._task_id, bytes(places))


def fusion_curve(members: Sequence[Examined], sample: VerifierData, terms: FusionTerms, seed: bytes) -> list[int]:
    """Return the right answers of the fusions of the first one, two, ... models (BaaS Fig. 7 and 9)."""
    return [fuse_models(members[:count], sample, terms, seed).accuracy.correct for count in range(1, len(members) + 1)]


def rows_of_labels(data: DataSet, labels: tuple[int, ...]) -> list[int]:
    """Return the places of the rows whose label is one of these (BaaS Table II)."""
    return [index for index, label in enumerate(data.labels.tolist()) if label in labels]
