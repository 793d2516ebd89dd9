"""Write nouns as JSON that people can read, and read them back by their annotations; only for vectors and documents.

Consensus never uses this form. Bytes are hexadecimal, exact numbers are text, one of several nouns is named.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from learnchain.primitives.rejection import Rejected, RejectionReason


def to_json(value: Any, annotation: Any) -> Any:
    """Return the JSON form of a value under its annotation."""
    kind, arguments = _opened(annotation)
    if value is None or isinstance(value, bool | int) or kind is str:
        return value
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, StrEnum | Decimal | Fraction):
        return str(value)
    if kind is Union:
        chosen = type(value)
        return {chosen.__name__: to_json(value, chosen)} if _is_named(arguments) else to_json(value, chosen)
    if kind is tuple:
        return [to_json(each, inner) for each, inner in _items(value, arguments)]
    if isinstance(value, Mapping):
        return [[to_json(key, arguments[0]), to_json(each, arguments[1])] for key, each in sorted(value.items())]
    if is_dataclass(value):
        hints = get_type_hints(type(value), include_extras=True)
        return {each.name: to_json(getattr(value, each.name), hints[each.name]) for each in fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_json(value: Any, annotation: Any) -> Any:
    """Return the value that `to_json` wrote; anything else is `MALFORMED`."""
    kind, arguments = _opened(annotation)
    try:
        return _read(value, kind, arguments)
    except (ValueError, KeyError, AttributeError, IndexError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{value!r} is no {annotation}") from error


def _read(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    if kind is Union:
        return _read_union(value, arguments)
    if kind is bytes:
        return bytes.fromhex(value.removeprefix("0x"))
    if kind is tuple:
        return tuple(from_json(each, inner) for each, inner in _items(value, arguments))
    if kind is dict:
        return {from_json(key, arguments[0]): from_json(each, arguments[1]) for key, each in value}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind, include_extras=True)
        return kind(**{each.name: from_json(value[each.name], hints[each.name]) for each in fields(kind)})
    if kind in (bool, int, str):
        return value
    return kind(value)


def _read_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    if value is None and NoneType in arguments:
        return None
    if not _is_named(arguments):
        return from_json(value, next(each for each in arguments if each is not NoneType))
    name, content = next(iter(value.items()))
    return from_json(content, {each.__name__: each for each in arguments if each is not NoneType}[name])


def _opened(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return what an annotation is made of, without its bounds."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, UnionType) or origin is Union:
        return Union, tuple(each for each in arguments)
    return (origin or annotation), arguments


def _is_named(arguments: tuple[Any, ...]) -> bool:
    """Return whether several nouns are possible, so that the chosen one must be named."""
    return len([each for each in arguments if each is not NoneType]) > 1


def _items(values: Any, arguments: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Pair the items of a tuple with their annotations; `tuple[X, ...]` repeats one."""
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return [(each, arguments[0]) for each in values]
    return list(zip(values, arguments, strict=True))
