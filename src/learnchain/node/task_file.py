"""Read a task file (TOML) into a draft: what a person writes when commissioning a model."""

import tomllib
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from learnchain.learning.data import DataSet, digits, iris, split
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.model_presets import from_table
from learnchain.primitives.model_specification import ModelSpecification
from learnchain.primitives.numbers import WEI_PER_ETHER
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import (
    MILLION,
    DataManifest,
    DataPart,
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

DATA_SOURCES = {"digits": digits, "iris": iris}
"""Real data inside the install: scikit-learn's 1,797 digits and Fisher's 150 irises; both are public."""

BUILT_IN = {
    "digits": {
        "name": "digits",
        "reward_ether": "2",
        "bond_ether": "0.1",
        "required_accuracy": "0.9",
        "data": {"source": "digits", "test_rows": 360},
        "model": {"preset": "strided_cnn", "channels": [16, 32], "hidden": 64},
        "training": {
            "optimiser": "sgd",
            "learning_rate": ["0.05", "0.15"],
            "momentum": ["0", "0.9"],
            "batch_size": [16, 64],
        },
    },
    "iris": {
        "name": "iris",
        "reward_ether": "0.5",
        "bond_ether": "0.1",
        "required_accuracy": "0.9",
        "data": {"source": "iris", "test_rows": 50},
        "model": {"preset": "mlp", "hidden": [32, 32]},
        "training": {
            "optimiser": "sgd",
            "learning_rate": ["0.02", "0.1"],
            "momentum": ["0", "0.9"],
            "batch_size": [8, 32],
        },
    },
}
"""Tasks that `--task NAME` takes: the demo's main job is digits."""


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
    classes: int
    public: bool

    def specification(self, training: DataPart, test: DataPart) -> TaskSpecification:
        """Return the specification that is posted, once both files have their CIDs."""
        shape = self.training_data.sample_shape
        manifest = DataManifest(self.name, training, test, shape, self.classes, self.public, False)
        return TaskSpecification(
            name=self.name,
            model=self.model,
            data=manifest,
            metric=Metric.ACCURACY,
            required_numerator=self.required_numerator,
            required_denominator=DENOMINATOR,
            time_limit_seconds=self.time_limit_seconds,
            training=self.training,
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


def task_draft(table: dict[str, Any]) -> TaskDraft:
    """Return the draft that a table describes; a missing or wrong entry is named."""
    try:
        return _draft(table)
    except (KeyError, TypeError, AttributeError, ValueError, InvalidOperation) as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the task table is wrong or incomplete: {error!r}") from error


def _draft(table: dict[str, Any]) -> TaskDraft:
    source = table["data"]["source"]
    if source not in DATA_SOURCES:
        known = ", ".join(sorted(DATA_SOURCES))
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"data.source is {source!r}; known: {known}")
    data = DATA_SOURCES[source]()
    test_rows = int(table["data"].get("test_rows", len(data) // 5))
    seed = tagged_hash("data-split", str(table["data"].get("seed", 0)).encode())
    training_data, test_data = split(data, seed, test_rows)
    classes = int(data.labels.max()) + 1
    model = {"input_shape": list(data.sample_shape), **table["model"]}
    if "preset" in model:
        model = {"classes": classes, **model}
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
        classes=classes,
        public=True,
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
