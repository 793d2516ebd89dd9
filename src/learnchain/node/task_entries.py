"""Read the entries of a task table one by one: whatever is missing, wrong or unknown is refused under its own name.

A misspelt entry is refused too: read as absent, it would commission another model than its author meant.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, TypeVar

from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import Range

Choice = TypeVar("Choice", bound=StrEnum)

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


def checked_tables(table: Any) -> Mapping[str, Any]:
    """Return the table of a task file; refuse what is none, and entries that no task file has."""
    if not isinstance(table, Mapping):
        raise _wrong("the task", table, "is no table")
    for name, known in ENTRIES.items():
        part = table if not name else table.get(name, {})
        if not isinstance(part, Mapping):
            raise _wrong(name, part, "is no table")
        for key in part:
            if key not in known:
                raise _wrong(_path(name, key), None, f"is no entry of a task file; known here: {', '.join(known)}")
    return table


def part(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table inside a task's table."""
    found = entry(table, "", name)
    if not isinstance(found, Mapping):
        raise _wrong(name, found, "is no table")
    return found


def entry(table: Mapping[str, Any], place: str, name: str) -> Any:
    """Return an entry that must be there."""
    if name not in table:
        raise _wrong(_path(place, name), None, "is missing")
    return table[name]


def text(table: Mapping[str, Any], place: str, name: str) -> str:
    """Return a text that must be there: printable, since it is shown on everybody's terminal."""
    found = entry(table, place, name)
    if not isinstance(found, str) or not found.strip() or not found.isprintable():
        raise _wrong(_path(place, name), found, "is no text that can be printed")
    return found


def whole(table: Mapping[str, Any], place: str, name: str, default: int) -> int:
    """Return a whole number, or the default of an entry that is not there."""
    found = table.get(name, default)
    if type(found) is not int:
        raise _wrong(_path(place, name), found, "is no whole number")
    return found


def choice(table: Mapping[str, Any], place: str, name: str, default: Choice) -> Choice:
    """Return one of the values that an entry may have, or its default."""
    found = table.get(name, default)
    kind: type[Choice] = type(default)
    known = [str(each) for each in kind]
    if not isinstance(found, str) or found not in known:
        raise _wrong(_path(place, name), found, f"is none of {', '.join(known)}")
    return kind(found)


def scaled(table: Mapping[str, Any], place: str, name: str, factor: int) -> int:
    """Return a decimal number that must be there as an integer of the factor's parts; nothing is rounded."""
    return _scaled(entry(table, place, name), _path(place, name), factor)


def decimal_range(table: Mapping[str, Any], place: str, name: str, factor: int, default: Any = None) -> Range:
    """Return a range of two decimals, written as `[low, high]`; without a default it must be there."""
    low, high = _pair(table, place, name, default)
    return _ordered(Range(_scaled(low, _path(place, name), factor), _scaled(high, _path(place, name), factor)), name)


def whole_range(table: Mapping[str, Any], place: str, name: str) -> Range:
    """Return a range of two whole numbers that must be there."""
    low, high = _pair(table, place, name, None)
    for each in (low, high):
        if type(each) is not int:
            raise _wrong(_path(place, name), each, "is no whole number")
    return _ordered(Range(low, high), name)


def _pair(table: Mapping[str, Any], place: str, name: str, default: Any) -> tuple[Any, Any]:
    found = table.get(name, default) if default is not None else entry(table, place, name)
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != 2:
        raise _wrong(_path(place, name), found, "is no range: write [low, high]")
    return found[0], found[1]


def _ordered(found: Range, name: str) -> Range:
    if found.minimum > found.maximum:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{name}: the range is empty, its ends are swapped")
    return found


def _scaled(value: Any, path: str, factor: int) -> int:
    written = str(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(written) > _LONGEST_NUMBER:
        raise _wrong(path, value, "is no decimal number")
    try:
        number = Decimal(written)
    except InvalidOperation as error:
        raise _wrong(path, value, "is no decimal number") from error
    # Bounded before it is multiplied out: an exponent of nine digits would fill the memory.
    if not number.is_finite() or number < 0 or number.adjusted() > _LONGEST_NUMBER:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{path}: {written} is no amount")
    too_fine = number != 0 and number.adjusted() < -_LONGEST_NUMBER
    numerator, denominator = (0, 1) if too_fine else number.as_integer_ratio()
    if too_fine or numerator * factor % denominator:
        detail = f"{path}: {written} is finer than 1/{factor}"
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, detail)
    return numerator * factor // denominator


def _path(place: str, name: str) -> str:
    return f"{place}.{name}" if place else str(name)


def _wrong(path: str, value: Any, what: str) -> Rejected:
    shown = "" if value is None else f"{value!r} "[:200]
    return Rejected(RejectionReason.ARGUMENT_INVALID, f"{path}: {shown}{what}")
