"""Read a task file (TOML) into a draft: what a person writes when commissioning a model."""

import tomllib
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from learnchain.learning.data import SOURCES, DataSet, permutation, select_rows, split
from learnchain.learning.sources.store import DataStore
from learnchain.learning.sources.synthetic import SYNTHETIC_SOURCES
from learnchain.node.built_in_tasks import BUILT_IN
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.model_presets import from_table
from learnchain.primitives.model_specification import ModelSpecification
from learnchain.primitives.numbers import WEI_PER_ETHER
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import (
    MAXIMUM_TEST_SETS,
    MILLION,
    DataManifest,
    DataPart,
    Encryption,
    Metric,
    Optimiser,
    Range,
    TaskSpecification,
    TrainingMode,
    TrainingRules,
)

MAXIMUM_FILE_BYTES = 1 << 20
DENOMINATOR = 10_000
"""Required accuracies are written as decimals and kept in ten-thousandths."""


@dataclass(frozen=True)
class TaskDraft:
    """Hold a task before its data are encrypted and its transaction is sent."""

    name: str
    reward_wei: int
    bond_wei: int
    deadline_seconds: int
    required_numerator: int
    time_limit_seconds: int
    model: ModelSpecification
    training: TrainingRules
    training_data: DataSet
    test_data: DataSet
    source: str
    classes: int
    public: bool
    synthetic: bool = False
    metric: Metric = Metric.ACCURACY
    encryption: Encryption = Encryption.SYMMETRIC
    later_tests: tuple[DataSet, ...] = ()

    def specification(
        self, training: DataPart, test: DataPart, later_tests: tuple[DataPart, ...] = ()
    ) -> TaskSpecification:
        """Return the specification that is posted, once all files have their CIDs."""
        shape = self.training_data.sample_shape
        about = (shape, self.classes, self.public, self.synthetic)
        manifest = DataManifest(self.source, training, test, *about, later_tests)
        return TaskSpecification(
            name=self.name,
            model=self.model,
            data=manifest,
            metric=self.metric,
            required_numerator=self.required_numerator,
            required_denominator=DENOMINATOR,
            time_limit_seconds=self.time_limit_seconds,
            training=self.training,
            encryption=self.encryption,
        )


def read_task_file(name_or_path: str) -> dict[str, Any]:
    """Return the table of a built-in task or of a TOML file."""
    if name_or_path in BUILT_IN:
        return BUILT_IN[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(BUILT_IN))
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{name_or_path!r} is no file and no task; known: {known}")
    if path.stat().st_size > MAXIMUM_FILE_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"{path} is larger than {MAXIMUM_FILE_BYTES} bytes")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no TOML: {error}") from error


def task_draft(table: dict[str, Any], store: DataStore | None = None) -> TaskDraft:
    """Return the draft that a table describes; a missing or wrong entry is named.

    `data.source` names data inside the install, or a set of the store, by default that of `learnchain data`;
    `data.test_sets` deals the test rows into so many sets, one for each block that the task may span (PoDL III-B).
    """
    try:
        return _draft(table, _source(str(table["data"]["source"]), store or DataStore()))
    except (KeyError, TypeError, AttributeError, ValueError, InvalidOperation) as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the task table is wrong or incomplete: {error!r}") from error


@dataclass(frozen=True)
class _Source:
    """Hold what a task draws its rows from; without a test set of its own, the task splits the rows."""

    name: str
    rows: DataSet
    test: DataSet | None
    classes: int
    public: bool
    synthetic: bool


def _source(name: str, store: DataStore) -> _Source:
    if name in SOURCES or name in SYNTHETIC_SOURCES:
        made_up = name in SYNTHETIC_SOURCES
        rows = (SYNTHETIC_SOURCES if made_up else SOURCES)[name]()
        return _Source(name, rows, None, int(rows.labels.max()) + 1, True, made_up)
    stored = store.load(name)
    manifest = stored.manifest
    classes = max(2, len(manifest.classes))
    return _Source(name, stored.training, stored.test, classes, manifest.public, manifest.synthetic)


def _parts(table: dict[str, Any], source: _Source) -> tuple[DataSet, DataSet]:
    """Return training and test rows: the published split or one drawn by the seed, each cut to the rows asked for."""
    seed = tagged_hash("data-split", str(table.get("seed", 0)).encode())
    if source.test is None:
        test_rows = int(table.get("test_rows", max(1, len(source.rows) // 5)))
        training, test = split(source.rows, seed, test_rows)
    else:
        training, test = source.rows, _cut(source.test, int(table.get("test_rows", len(source.test))), seed)
    return _cut(training, int(table.get("training_rows", len(training))), seed), test


def _dealt(test: DataSet, sets: int) -> tuple[DataSet, ...]:
    """Deal the test rows, in their drawn order, into fresh sets of nearly equal size: one for each block of a task."""
    if not 1 <= sets <= min(MAXIMUM_TEST_SETS, len(test)):
        detail = f"{sets} test sets of {len(test)} rows; a task has 1 to {MAXIMUM_TEST_SETS}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    if sets == 1:
        return (test,)
    order = permutation("test-sets", tagged_hash("test-sets", bytes([sets])), len(test))
    return tuple(select_rows(test, order[turn::sets]) for turn in range(sets))


def _cut(data: DataSet, rows: int, seed: bytes) -> DataSet:
    if not 1 <= rows <= len(data):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{rows} rows are asked for, the data have {len(data)}")
    return data if rows == len(data) else select_rows(data, permutation("cut", seed, len(data))[:rows])


def _draft(table: dict[str, Any], source: _Source) -> TaskDraft:
    training_data, test_rows = _parts(table["data"], source)
    test_data, *later_tests = _dealt(test_rows, int(table["data"].get("test_sets", 1)))
    segments = training_data.labels.ndim > 1
    metric = Metric(table.get("metric", Metric.DICE if segments else Metric.ACCURACY))
    model = {"input_shape": list(training_data.sample_shape), **table["model"]}
    if "preset" in model:
        model = {"classes": source.classes, **model}
    return TaskDraft(
        name=str(table["name"]),
        reward_wei=_wei(table["reward_ether"]),
        bond_wei=_wei(table["bond_ether"]),
        deadline_seconds=int(table.get("deadline_seconds", 86_400)),
        required_numerator=_scaled(table["required_accuracy"], DENOMINATOR),
        time_limit_seconds=int(table.get("time_limit_seconds", 3_600)),
        model=from_table(model),
        training=_training(table["training"]),
        training_data=training_data,
        test_data=test_data,
        source=source.name,
        classes=source.classes,
        public=source.public,
        synthetic=source.synthetic,
        metric=metric,
        encryption=Encryption(table.get("encryption", Encryption.SYMMETRIC)),
        later_tests=tuple(later_tests),
    )


def _training(table: dict[str, Any]) -> TrainingRules:
    low, high = table["batch_size"]
    return TrainingRules(
        optimiser=Optimiser(table.get("optimiser", "sgd")),
        learning_rate_millionths=_range(table["learning_rate"]),
        momentum_millionths=_range(table.get("momentum", ["0", "0"])),
        weight_decay_millionths=_range(table.get("weight_decay", ["0", "0"])),
        batch_size=Range(int(low), int(high)),
        checkpoint_interval_steps=int(table.get("checkpoint_interval_steps", 200)),
        mode=TrainingMode(table.get("mode", "declared")),
    )


def _range(pair: list[Any]) -> Range:
    low, high = pair
    return Range(_scaled(low, MILLION), _scaled(high, MILLION))


def _scaled(value: Any, factor: int) -> int:
    """Return a decimal number as an integer of the factor's parts; anything finer is refused, not rounded."""
    scaled = Decimal(str(value)) * factor
    if scaled != scaled.to_integral_value() or scaled < 0:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{value} is no whole number of 1/{factor}")
    return int(scaled)


def _wei(value: Any) -> int:
    return _scaled(value, WEI_PER_ETHER)
