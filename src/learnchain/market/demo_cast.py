"""Who plays in a run of the market: data dealt as in BaaS Table II, models trained at home, hostile offers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning.data import DataSet, permutation, select_rows
from learnchain.learning.fused_model import VerifierData, rows_of_labels
from learnchain.market import contributors
from learnchain.protocol.model_presets import baas_cnn
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.rejection import Rejected, RejectionReason

ABSENT = "absent"

TABLE_2_LABELS = ((0, 1, 2, 3, 4), (0, 1, 2, 8, 9), (0, 6, 7, 8, 9), (0, 1, 5, 7, 8, 9), (5, 6, 7, 8, 9))
"""The labels of computing contributors 1 to 5."""


@dataclass(frozen=True, slots=True)
class Split:
    """Say how many rows everybody gets: (training, test, verification)."""

    verifiers: tuple[int, int, int]
    contributor: tuple[int, int, int]


TABLE_2 = Split((2_000, 500, 1_000), (500, 200, 500))

SMALL = Split((400, 100, 250), (90, 25, 25))
"""What the 1,797 digits of scikit-learn are enough for."""


@dataclass(frozen=True, slots=True, eq=False)
class PrivateData:
    """Hold what one contributor owns and never shows."""

    labels: tuple[int, ...]
    training: DataSet
    test: DataSet
    verification: DataSet


def deal(data: DataSet, split: Split, seed: bytes) -> tuple[VerifierData, tuple[PrivateData, ...]]:
    """Deal disjoint rows to the verifiers and to five contributors, by Table II's labels."""
    order = permutation("market/deal", seed, len(data))
    shared, rest = order[: sum(split.verifiers)], order[sum(split.verifiers) :]
    sample = VerifierData(*_split_rows(data, shared, split.verifiers))
    private: list[PrivateData] = []
    for index, labels in enumerate(TABLE_2_LABELS):
        places = np.array(rows_of_labels(select_rows(data, rest), labels), dtype=np.int64)
        # Drawn anew for each: the front of `rest` lacks the labels that earlier contributors took.
        drawn = permutation(f"market/deal/{index}", seed, len(places))
        fitting = places[drawn][: sum(split.contributor)]
        if len(fitting) < sum(split.contributor):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"too few rows with labels {labels}")
        private.append(PrivateData(labels, *_split_rows(data, rest[fitting], split.contributor)))
        rest = np.delete(rest, fitting)
    return sample, tuple(private)


def recommended_model(scenario: int, index: int, shape: tuple[int, ...]) -> ModelSpecification:
    """Return Table I's CNN: each contributor's own in scenario I, contributor 1's for all in scenario II."""
    return baas_cnn(shape, 10, index + 1 if scenario == 1 else 1)


def train_private(
    specification: ModelSpecification,
    own: PrivateData,
    terms: contributors.LocalTrainingTerms,
    directory: Path,
    clock: Callable[[], float],
) -> contributors.LocalTrainingResult:
    """Train one contributor's model; seeds follow from its rows, so a play is the same every time."""
    secret = tagged_hash("market/home", own.training.inputs.tobytes()[:4_096])
    data = contributors.HeldOutSplit(own.labels, own.training, own.verification)
    return contributors.train_locally(
        specification, data, terms, directory, contributors.LocalTrainingTools(clock, secret)
    )


def build_hostile_model(
    kind: str, honest: contributors.LocallyTrainedModel, directory: Path
) -> contributors.LocallyTrainedModel:
    """Return what a hostile contributor offers: `nan` weights, `oversized` bytes, another `shape`, or `garbage`.

    `absent` is a good model that nobody can fetch in time: the play takes it away once it is announced.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path, content = directory / f"{kind}.safetensors", bytearray(honest.weights.read_bytes())
    if kind == "nan":
        content[-4:] = b"\x00\x00\xc0\x7f"
    elif kind == "oversized":
        content += bytes(8 << 20)
    elif kind == "garbage":
        content = bytearray(b"\xff" * 4_096)
    elif kind == ABSENT:
        pass
    elif kind == "shape":
        content[8:] = content[8:].replace(b'"shape":[10,', b'"shape":[11,')
    else:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"no hostile contributor is called {kind!r}")
    path.write_bytes(content)
    return contributors.LocallyTrainedModel(honest.manifest, path, honest.accuracy)


def _split_rows(data: DataSet, rows: np.ndarray, counts: tuple[int, int, int]) -> tuple[DataSet, DataSet, DataSet]:
    first, second = counts[0], counts[0] + counts[1]
    return select_rows(data, rows[:first]), select_rows(data, rows[first:second]), select_rows(data, rows[second:])
