"""Read the entries of a task table one by one: whatever is missing, wrong or unknown is refused under its own name.

A misspelt entry is refused too: read as absent, it would commission another model than its author meant.

Read a task file (TOML) into a draft: what a person writes when commissioning a model.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning.data import SOURCES, DataSet, permutation, select_rows, split
from learnchain.learning.sources.store import DataStore
from learnchain.learning.sources.synthetic import SYNTHETIC_SOURCES
from learnchain.protocol import task_specification
from learnchain.protocol.model_presets import parse_model_table
from learnchain.protocol.model_specification import ModelLimits, ModelSpecification, validate
from learnchain.rejection import Rejected, RejectionReason

Choice = TypeVar("Choice", bound=StrEnum)

BUILT_IN: Mapping[str, dict[str, Any]] = tomllib.loads(
    files("learnchain.tasks").joinpath("built_in_tasks.toml").read_text(encoding="utf-8")
)
"""Tasks that `--task NAME` takes; the demo's main job is digits."""

ENTRIES: Mapping[str, tuple[str, ...]] = {
    "": (
        *("name", "reward_ether", "bond_ether", "required_accuracy", "deadline_seconds", "time_limit_seconds"),
        *("metric", "encryption", "data", "model", "training", "local"),
    ),
    "data": ("source", "training_rows", "test_rows", "seed", "test_sets"),
    "training": (
        *("optimiser", "learning_rate", "momentum", "weight_decay", "batch_size"),
        *("checkpoint_interval_steps", "mode"),
    ),
    "local": (
        *("standing", "phases_milliseconds", "release_milliseconds", "reveal_milliseconds"),
        "evaluation_milliseconds",
    ),
}
"""What a task file may hold, table by table; the entries of `model` are those of its preset or layers."""

_LONGEST_NUMBER = 64
"""Characters of a decimal: what is longer names no amount that a contract holds."""


def check_tables(table: Any) -> Mapping[str, Any]:
    """Return the table of a task file; refuse what is none, and entries that no task file has."""
    if not isinstance(table, Mapping):
        raise _wrong_entry_error("the task", table, "is no table")
    for name, known in ENTRIES.items():
        part = table if not name else table.get(name, {})
        if not isinstance(part, Mapping):
            raise _wrong_entry_error(name, part, "is no table")
        for key in part:
            if key not in known:
                raise _wrong_entry_error(
                    _path(name, key), None, f"is no entry of a task file; known here: {', '.join(known)}"
                )
    return table


def part(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table inside a task's table."""
    found = entry(table, "", name)
    if not isinstance(found, Mapping):
        raise _wrong_entry_error(name, found, "is no table")
    return found


def entry(table: Mapping[str, Any], location: str, name: str) -> Any:
    """Return an entry that must be there."""
    if name not in table:
        raise _wrong_entry_error(_path(location, name), None, "is missing")
    return table[name]


def text(table: Mapping[str, Any], location: str, name: str) -> str:
    """Return a text that must be there: printable, since it is shown on everybody's terminal."""
    found = entry(table, location, name)
    if not isinstance(found, str) or not found.strip() or not found.isprintable():
        raise _wrong_entry_error(_path(location, name), found, "is no text that can be printed")
    return found


def whole(table: Mapping[str, Any], location: str, name: str, default: int) -> int:
    """Return a whole number, or the default of an entry that is not there."""
    found = table.get(name, default)
    if type(found) is not int:
        raise _wrong_entry_error(_path(location, name), found, "is no whole number")
    return found


def choice(table: Mapping[str, Any], location: str, name: str, default: Choice) -> Choice:
    """Return one of the values that an entry may have, or its default."""
    found = table.get(name, default)
    kind: type[Choice] = type(default)
    known = [str(each) for each in kind]
    if not isinstance(found, str) or found not in known:
        raise _wrong_entry_error(_path(location, name), found, f"is none of {', '.join(known)}")
    return kind(found)


def read_scaled(table: Mapping[str, Any], location: str, name: str, factor: int) -> int:
    """Return a decimal number that must be there as an integer of the factor's parts; nothing is rounded."""
    return _scale_decimal(entry(table, location, name), _path(location, name), factor)


def decimal_range(
    table: Mapping[str, Any], location: str, name: str, factor: int, default: Any = None
) -> task_specification.Range:
    """Return a range of two decimals, written as `[low, high]`; without a default it must be there."""
    low, high = _pair(table, location, name, default)
    return _check_order(
        task_specification.Range(
            _scale_decimal(low, _path(location, name), factor), _scale_decimal(high, _path(location, name), factor)
        ),
        name,
    )


def whole_range(table: Mapping[str, Any], location: str, name: str) -> task_specification.Range:
    """Return a range of two whole numbers that must be there."""
    low, high = _pair(table, location, name, None)
    for each in (low, high):
        if type(each) is not int:
            raise _wrong_entry_error(_path(location, name), each, "is no whole number")
    return _check_order(task_specification.Range(low, high), name)


def _pair(table: Mapping[str, Any], location: str, name: str, default: Any) -> tuple[Any, Any]:
    found = table.get(name, default) if default is not None else entry(table, location, name)
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != 2:
        raise _wrong_entry_error(_path(location, name), found, "is no range: write [low, high]")
    return found[0], found[1]


def _check_order(limits: task_specification.Range, name: str) -> task_specification.Range:
    if limits.minimum > limits.maximum:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{name}: the range is empty, its ends are swapped")
    return limits


def _scale_decimal(value: Any, path: str, factor: int) -> int:
    written = str(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(written) > _LONGEST_NUMBER:
        raise _wrong_entry_error(path, value, "is no decimal number")
    try:
        number = Decimal(written)
    except InvalidOperation as error:
        raise _wrong_entry_error(path, value, "is no decimal number") from error
    # Bounded before it is multiplied out: an exponent of nine digits would fill the memory.
    if not number.is_finite() or number < 0 or number.adjusted() > _LONGEST_NUMBER:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{path}: {written} is no amount")
    too_fine = number != 0 and number.adjusted() < -_LONGEST_NUMBER
    numerator, denominator = (0, 1) if too_fine else number.as_integer_ratio()
    if too_fine or numerator * factor % denominator:
        detail = f"{path}: {written} is finer than 1/{factor}"
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, detail)
    return numerator * factor // denominator


def _path(location: str, name: str) -> str:
    return f"{location}.{name}" if location else str(name)


def _wrong_entry_error(path: str, value: Any, what: str) -> Rejected:
    shown = "" if value is None else f"{value!r} "[:200]
    return Rejected(RejectionReason.ARGUMENT_INVALID, f"{path}: {shown}{what}")


MAXIMUM_FILE_BYTES = 1 << 20
DENOMINATOR = 10_000
"""Required accuracies are written as decimals and kept in ten-thousandths."""
MAXIMUM_WEI = 1 << 128
MAXIMUM_NAME_BYTES = 64
MAXIMUM_DEADLINE_SECONDS = 10 * 366 * 86_400


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
    training: task_specification.TrainingRules
    training_data: DataSet
    test_data: DataSet
    source: str
    classes: int
    public: bool
    synthetic: bool = False
    metric: task_specification.Metric = task_specification.Metric.ACCURACY
    encryption: task_specification.Encryption = task_specification.Encryption.SYMMETRIC
    later_tests: tuple[DataSet, ...] = ()

    def specification(
        self,
        training: task_specification.DataPart,
        test: task_specification.DataPart,
        later_tests: tuple[task_specification.DataPart, ...] = (),
    ) -> task_specification.TaskSpecification:
        """Return the specification that is posted, once all files have their CIDs."""
        shape = self.training_data.sample_shape
        about = (shape, self.classes, self.public, self.synthetic)
        manifest = task_specification.DataManifest(self.source, training, test, *about, later_tests)
        return task_specification.TaskSpecification(
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

    def check(self) -> None:
        """Refuse a draft that no chain of the default bounds would admit, before anything is encrypted or paid.

        The node checks once more by its engine's rules and its network's own bounds when the task is published.
        """
        if self.reward_wei == 0:
            raise Rejected(RejectionReason.REWARD_TOO_LOW, "reward_ether is 0")
        for name, value, maximum in (
            ("reward_ether and bond_ether together, in wei", self.reward_wei + self.bond_wei, MAXIMUM_WEI),
            ("deadline_seconds", self.deadline_seconds, MAXIMUM_DEADLINE_SECONDS),
        ):
            if not 1 <= value <= maximum:
                detail = f"{name}: {value} must lie between 1 and {maximum}"
                raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, detail)
        if len(self.name.encode()) > MAXIMUM_NAME_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"name: more than {MAXIMUM_NAME_BYTES} bytes")
        if self.metric is task_specification.Metric.DICE and self.training_data.labels.ndim == 1:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "metric: dice needs a label for every place of a sample")
        specification = self.build_expected_specification()
        specification.check_numbers()
        validate(specification.model, ModelLimits())
        # What the model takes is the engine's to judge: one with a mapping layer hands it features, not samples.
        specification.check_outputs()
        task_specification.encode_specification(specification)

    def build_expected_specification(self) -> task_specification.TaskSpecification:
        """Return the specification as it will be, under names that stand for files which are not encrypted yet."""
        sets = (self.training_data, self.test_data, *self.later_tests)
        training, test, *later = (
            task_specification.DataPart(
                bytes([index]) * 36, bytes([index]) * 32, bytes([index]) * 32, len(each), each.inputs.nbytes or 1
            )
            for index, each in enumerate(sets, start=1)
        )
        return self.specification(training, test, tuple(later))


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


def task_draft(table: Mapping[str, Any], store: DataStore | None = None) -> TaskDraft:
    """Return the checked draft that a table describes; a missing, wrong or unknown entry is named.

    `data.source` names data inside the install, or a set of the store, by default that of `learnchain data`;
    `data.test_sets` deals the test rows into so many sets, one for each block that the task may span (PoDL III-B).
    """
    table = check_tables(table)
    data = part(table, "data")
    draft = _draft(table, _source(text(data, "data", "source"), store or DataStore()))
    draft.check()
    return draft


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


def _parts(table: Mapping[str, Any], source: _Source) -> tuple[DataSet, DataSet]:
    """Return training and test rows: the published split or one drawn by the seed, each cut to the rows asked for."""
    seed = tagged_hash("data-split", str(table.get("seed", 0)).encode())
    if source.test is None:
        test_rows = whole(table, "data", "test_rows", max(1, len(source.rows) // 5))
        training, test = split(source.rows, seed, test_rows)
    else:
        test_rows = whole(table, "data", "test_rows", len(source.test))
        training, test = source.rows, _cut(source.test, test_rows, seed)
    return _cut(training, whole(table, "data", "training_rows", len(training)), seed), test


def _deal_test_sets(test: DataSet, sets: int) -> tuple[DataSet, ...]:
    """Deal the test rows, in their drawn order, into fresh sets of nearly equal size: one for each block of a task."""
    if not 1 <= sets <= min(task_specification.MAXIMUM_TEST_SETS, len(test)):
        detail = f"{sets} test sets of {len(test)} rows; a task has 1 to {task_specification.MAXIMUM_TEST_SETS}"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    if sets == 1:
        return (test,)
    order = permutation("test-sets", tagged_hash("test-sets", bytes([sets])), len(test))
    return tuple(select_rows(test, order[turn::sets]) for turn in range(sets))


def _cut(data: DataSet, rows: int, seed: bytes) -> DataSet:
    if not 1 <= rows <= len(data):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{rows} rows are asked for, the data have {len(data)}")
    return data if rows == len(data) else select_rows(data, permutation("cut", seed, len(data))[:rows])


def _draft(table: Mapping[str, Any], source: _Source) -> TaskDraft:
    data, chosen = part(table, "data"), part(table, "model")
    training_data, test_rows = _parts(data, source)
    test_data, *later_tests = _deal_test_sets(test_rows, whole(data, "data", "test_sets", 1))
    segments = training_data.labels.ndim > 1
    model = {"input_shape": list(training_data.sample_shape), **chosen}
    if "preset" in model:
        model = {"classes": source.classes, **model}
    elif "layers" not in model:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "model.preset: is missing, and so are layers")
    return TaskDraft(
        name=text(table, "", "name"),
        reward_wei=read_scaled(table, "", "reward_ether", WEI_PER_ETHER),
        bond_wei=read_scaled(table, "", "bond_ether", WEI_PER_ETHER),
        deadline_seconds=whole(table, "", "deadline_seconds", 86_400),
        required_numerator=read_scaled(table, "", "required_accuracy", DENOMINATOR),
        time_limit_seconds=whole(table, "", "time_limit_seconds", 3_600),
        model=parse_model_table(model),
        training=_training(part(table, "training")),
        training_data=training_data,
        test_data=test_data,
        source=source.name,
        classes=source.classes,
        public=source.public,
        synthetic=source.synthetic,
        metric=choice(
            table, "", "metric", task_specification.Metric.DICE if segments else task_specification.Metric.ACCURACY
        ),
        encryption=choice(table, "", "encryption", task_specification.Encryption.SYMMETRIC),
        later_tests=tuple(later_tests),
    )


def _training(table: Mapping[str, Any]) -> task_specification.TrainingRules:
    place, none = "training", ("0", "0")
    return task_specification.TrainingRules(
        optimiser=choice(table, place, "optimiser", task_specification.Optimiser.SGD),
        learning_rate_millionths=decimal_range(table, place, "learning_rate", task_specification.MILLION),
        momentum_millionths=decimal_range(table, place, "momentum", task_specification.MILLION, none),
        weight_decay_millionths=decimal_range(table, place, "weight_decay", task_specification.MILLION, none),
        batch_size=whole_range(table, place, "batch_size"),
        checkpoint_interval_steps=whole(table, place, "checkpoint_interval_steps", 200),
        mode=choice(table, place, "mode", task_specification.TrainingMode.DECLARED),
    )
