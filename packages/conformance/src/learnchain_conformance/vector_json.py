"""Write messages and states as JSON that people can read, and read them back by their annotations; only for vectors.

Consensus never uses this form. Bytes are hexadecimal, exact numbers are text, one of several types is named.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from learnchain.rejection import Rejected, RejectionReason

Memory = dict[tuple[int, Any], tuple[Any, Any]]
"""What was read before, by the identity of the JSON and its type; the JSON stands beside it, so that it stays alive."""


class Record(dict[str, Any]):
    """Hold the JSON of a dataclass; `kind` is its name."""

    kind: str


class Listing(list[Any]):
    """Hold the JSON of a field that is a list; `kind` is the field's name."""

    kind: str = ""


def to_json(value: Any, annotation: Any, field: str = "") -> Any:
    """Return the JSON form of a value under its annotation; records and lists remember what they are."""
    kind, arguments = unwrap_annotation(annotation)
    if value is None or isinstance(value, bool | int) or kind is str:
        return value
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, StrEnum | Decimal | Fraction):
        return str(value)
    if kind is Union:
        chosen = type(value)
        if not _is_name_needed(arguments):
            return to_json(value, chosen, field)
        return {chosen.__name__: to_json(value, chosen)}
    if kind is tuple:
        return _listing(field, [to_json(each, inner) for each, inner in _pair_items(value, arguments)])
    if isinstance(value, Mapping):
        pairs = [[to_json(key, arguments[0]), to_json(each, arguments[1])] for key, each in sorted(value.items())]
        return _listing(field, pairs)
    if is_dataclass(value):
        hints = _list_fields(type(value))
        return _record(type(value).__name__, {name: to_json(getattr(value, name), hint, name) for name, hint in hints})
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_json(value: Any, annotation: Any, memory: Memory | None = None) -> Any:
    """Return the value that `to_json` wrote; anything else is `MALFORMED`. What is in the memory is not read again."""
    kind, arguments = unwrap_annotation(annotation)
    if memory is None or not isinstance(value, dict):
        return _read_value(value, annotation, kind, arguments, memory)
    key = (id(value), annotation)
    if key not in memory:
        memory[key] = (value, _read_value(value, annotation, kind, arguments, memory))
    return memory[key][1]


def unwrap_annotation(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return what an annotation is made of, without its bounds."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, UnionType) or origin is Union:
        return Union, tuple(each for each in arguments)
    return (origin or annotation), arguments


def _record(kind: str, content: dict[str, Any]) -> Record:
    record = Record(content)
    record.kind = kind
    return record


def _listing(kind: str, content: list[Any]) -> Listing:
    listing = Listing(content)
    listing.kind = kind
    return listing


@cache
def _list_fields(kind: type) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((each.name, hints[each.name]) for each in fields(kind))  # type: ignore[arg-type]


def _read_value(value: Any, annotation: Any, kind: Any, arguments: tuple[Any, ...], memory: Memory | None) -> Any:
    try:
        if kind is Union:
            return _read_union(value, arguments, memory)
        if kind is bytes:
            return bytes.fromhex(value.removeprefix("0x"))
        if kind is tuple:
            return tuple(from_json(each, inner, memory) for each, inner in _pair_items(value, arguments))
        if kind is dict:
            return {from_json(key, arguments[0]): from_json(each, arguments[1], memory) for key, each in value}
        if is_dataclass(kind) and isinstance(kind, type):
            return kind(**{name: from_json(value[name], hint, memory) for name, hint in _list_fields(kind)})
        return value if kind in (bool, int, str) else kind(value)
    except (ValueError, KeyError, AttributeError, IndexError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{value!r} is no {annotation}") from error


def _read_union(value: Any, arguments: tuple[Any, ...], memory: Memory | None) -> Any:
    if value is None and NoneType in arguments:
        return None
    if not _is_name_needed(arguments):
        return from_json(value, next(each for each in arguments if each is not NoneType), memory)
    name, content = next(iter(value.items()))
    return from_json(content, {each.__name__: each for each in arguments if each is not NoneType}[name], memory)


def _is_name_needed(arguments: tuple[Any, ...]) -> bool:
    """Return whether several types are possible, so that the chosen one must be named."""
    return len([each for each in arguments if each is not NoneType]) > 1


def _pair_items(values: Any, arguments: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Pair the items of a tuple with their annotations; `tuple[X, ...]` repeats one."""
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return [(each, arguments[0]) for each in values]
    return list(zip(values, arguments, strict=True))
