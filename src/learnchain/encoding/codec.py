"""Exact numbers and canonical bytes: what two nodes must write alike.

Consensus compares integers, cross-products and fixed-context decimals, never binary floats. JSON from strangers is
bounded in nesting before the parser sees it: the parser recurses in C, and the embedded execution engine raises
Python's recursion limit for the whole process, so deep nesting would overflow the stack and end it.

Nouns are RLP (Ethereum Yellow Paper, appendix B) driven by the dataclass annotations. One noun has exactly one
encoding. The decoder walks the schema, never the data: depth is bounded by the types, every length is compared with
its bound before a slice is taken, and anything non-canonical is `MALFORMED`.
"""

import decimal
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from learnchain.rejection import Rejected, RejectionReason

WEI_PER_GWEI = 10**9
WEI_PER_ETHER = 10**18
SIGNIFICANT_DIGITS = 18
"""Digits on which two decimal results must agree; the context carries far more, so that rounding never decides."""

CONTEXT = decimal.Context(
    prec=50,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
"""The one decimal context of the rules. Underflow is not trapped: it gives the nearest representable number."""

_COMPARISON = decimal.Context(
    prec=SIGNIFICANT_DIGITS, rounding=decimal.ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999, traps=[]
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Hold an accuracy as the exact pair of counts that consensus compares (ROUND-6)."""

    correct: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total or self.total == 0:
            raise Rejected(RejectionReason.CLAIM_OUT_OF_RANGE, f"{self.correct} of {self.total} is no accuracy")

    def __lt__(self, other: "Accuracy") -> bool:
        return self.correct * other.total < other.correct * self.total

    @property
    def share(self) -> Fraction:
        """Return the exact share: Dice counts have totals of their own, so claims are ordered by it."""
        return Fraction(self.correct, self.total)

    def has_reached(self, numerator: int, denominator: int) -> bool:
        """Return whether the accuracy is at least the fraction, by cross-multiplication."""
        return self.correct * denominator >= numerator * self.total


def logarithm(value: Decimal) -> Decimal:
    """Return the natural logarithm in the fixed context; correctly rounded by the decimal specification."""
    return CONTEXT.ln(value)


def power(base: Decimal, exponent: Decimal) -> Decimal:
    """Return base ** exponent for base >= 0 as exp(exponent * ln(base)): the form whose rounding is specified."""
    if base == 0:
        return Decimal(0) if exponent > 0 else Decimal(1)
    return CONTEXT.exp(CONTEXT.multiply(exponent, CONTEXT.ln(base)))


def quantise(value: Decimal) -> Decimal:
    """Return the value at the digits that decide, rounded half to even."""
    return _COMPARISON.plus(value)


MAXIMUM_DEPTH = 64
"""Deeper than anything that the interfaces or files of this chain hold."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def parse_json(data: bytes | str, maximum_depth: int = MAXIMUM_DEPTH, **hooks: Any) -> Any:
    """Return the value of a JSON text; raise ValueError when it is none, or nested deeper than the bound.

    `hooks` are those of `json.loads`.
    """
    raw = data.encode() if isinstance(data, str) else data
    depth = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if match.group() in b"[{" else -1
        if depth > maximum_depth:
            raise ValueError(f"nested deeper than {maximum_depth}")
    return json.loads(raw, **hooks)


FORMAT_VERSION = 2
"""The version of every byte that leaves a process: messages of peers, genesis files, data directories (ROUND-15).

Raise it with any change that a program of the old version would misread. 0.1.0 wrote 1 or no version at all.
"""
Message = TypeVar("Message")
MAXIMUM_INTEGER_BYTES = 32
"""Integers are unsigned and at most as wide as an EVM word."""
DEFAULT_MAXIMUM_BYTES = 65_536
DEFAULT_MAXIMUM_ITEMS = 1_024


@dataclass(frozen=True, slots=True)
class Bound:
    """Bound a byte string, a text or a tuple: `Annotated[bytes, Bound(4096)]`."""

    maximum: int


@dataclass(frozen=True, slots=True)
class Exact:
    """Fix the length of a byte string: `Annotated[bytes, Exact(32)]`."""

    length: int


Hash32 = Annotated[bytes, Exact(32)]
Address = Annotated[bytes, Exact(20)]
Signature = Annotated[bytes, Exact(65)]
PublicKey = Annotated[bytes, Exact(32)]
_Encoder = Callable[[Any], bytes]
_Decoder = Callable[[bytes, int, int], tuple[Any, int]]


def encode(noun: object) -> bytes:
    """Return the canonical bytes of a noun; raise `Rejected` when a field is out of its bound."""
    return _coder(type(noun))[0](noun)


def decode(kind: type[Message], data: bytes) -> Message:
    """Return the noun that `data` is the one canonical encoding of; anything else is `MALFORMED` or `TOO_LARGE`."""
    value, end = _coder(kind)[1](data, 0, len(data))
    if end != len(data):
        raise Rejected(RejectionReason.MALFORMED, f"{len(data) - end} bytes follow the {kind.__name__}")
    return value


def decode_prefix(kind: type[Message], data: bytes) -> Message:
    """Return a noun whose fields are the first of the longer one in `data`: for what this node wrote itself.

    Whoever only wants to know where a block stands need not decode all that is known after it.
    """
    position, stop = _open_list(data, 0, len(data))
    values: list[Any] = []
    for decode_field in _field_decoders(kind):
        value, position = decode_field(data, position, stop)
        values.append(value)
    return kind(*values)


@cache
def _field_decoders(kind: type) -> "tuple[_Decoder, ...]":
    hints = get_type_hints(kind, include_extras=True)
    return tuple(_coder(hints[field.name])[1] for field in fields(kind))


# --- RLP items -----------------------------------------------------------------------------------------------


def _malformed_error(detail: str) -> Rejected:
    return Rejected(RejectionReason.MALFORMED, detail)


def _big_endian(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


_BYTES = tuple(bytes([value]) for value in range(256))
"""Made once: a block has thousands of short items, and encoding them is what following a chain costs."""


def _encode_length(length: int, offset: int) -> bytes:
    if length < 56:
        return _BYTES[offset + length]
    size = _big_endian(length)
    return _BYTES[offset + 55 + len(size)] + size


def _encode_string(data: bytes) -> bytes:
    length = len(data)
    if length == 1 and data[0] < 0x80:
        return data
    if length < 56:
        return _BYTES[0x80 + length] + data
    return _encode_length(length, 0x80) + data


def _encode_list(items: Iterable[bytes]) -> bytes:
    body = b"".join(items)
    return _encode_length(len(body), 0xC0) + body


def _read_long_length(data: bytes, start: int, size: int, end: int) -> int:
    if start + size > end:
        raise _malformed_error("a length runs past the end")
    if data[start] == 0:
        raise _malformed_error("a length has a leading zero")
    length = int.from_bytes(data[start : start + size], "big")
    if length < 56:
        raise _malformed_error("a short length is written in the long form")
    return length


def _read_string(data: bytes, start: int, end: int, maximum: int) -> tuple[bytes, int]:
    if start >= end:
        raise _malformed_error("a field is missing")
    first = data[start]
    if first < 0x80:
        return data[start : start + 1], start + 1
    if first >= 0xC0:
        raise _malformed_error("a list stands where bytes belong")
    begin, length = start + 1, first - 0x80
    if first > 0xB7:
        length = _read_long_length(data, begin, first - 0xB7, end)
        begin += first - 0xB7
    if length > maximum:
        raise Rejected(RejectionReason.TOO_LARGE, f"{length} bytes where {maximum} are allowed")
    if begin + length > end:
        raise _malformed_error("bytes run past the end")
    if length == 1 and data[begin] < 0x80:
        raise _malformed_error("a single byte is written in the long form")
    return data[begin : begin + length], begin + length


def _open_list(data: bytes, start: int, end: int) -> tuple[int, int]:
    if start >= end:
        raise _malformed_error("a list is missing")
    first = data[start]
    if first < 0xC0:
        raise _malformed_error("bytes stand where a list belongs")
    begin, length = start + 1, first - 0xC0
    if first > 0xF7:
        length = _read_long_length(data, begin, first - 0xF7, end)
        begin += first - 0xF7
    if begin + length > end:
        raise _malformed_error("a list runs past the end")
    return begin, begin + length


# --- one coder for each annotation -------------------------------------------------------------------------------


@cache
def _coder(annotation: Any) -> tuple[_Encoder, _Decoder]:
    """Return the encoder and decoder of a type; unknown types are our bug and raise TypeError."""
    limit: Bound | Exact | None = None
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        limit = next((extra for extra in extras if isinstance(extra, Bound | Exact)), None)
    if annotation is bool:
        return _boolean_coder()
    if annotation is int:
        return _integer_coder()
    if annotation is bytes:
        return _bytes_coder(limit)
    if annotation is str:
        return _text_coder(limit)
    if get_origin(annotation) is tuple:
        return _tuple_coder(get_args(annotation)[0], limit)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return _enum_coder(annotation)
    if is_dataclass(annotation):
        return _message_coder(annotation)
    if isinstance(annotation, UnionType):
        return _union_coder({kind.__name__: _coder(kind) for kind in get_args(annotation)})
    raise TypeError(f"the codec has no encoding for {annotation!r}")


def _boolean_coder() -> tuple[_Encoder, _Decoder]:
    def decode_boolean(data: bytes, start: int, end: int) -> tuple[bool, int]:
        value, after = _integer_coder()[1](data, start, end)
        if value > 1:
            raise _malformed_error("a flag is neither 0 nor 1")
        return bool(value), after

    return lambda value: _encode_string(_big_endian(int(value))), decode_boolean


@cache
def _integer_coder() -> tuple[_Encoder, _Decoder]:
    def encode_integer(value: int) -> bytes:
        if 0 < value < 0x80:
            return _BYTES[value]
        if value < 0 or value.bit_length() > 8 * MAXIMUM_INTEGER_BYTES:
            raise Rejected(RejectionReason.TOO_LARGE, f"{value} is not an unsigned 256-bit integer")
        return _encode_string(_big_endian(value))

    def decode_integer(data: bytes, start: int, end: int) -> tuple[int, int]:
        raw, after = _read_string(data, start, end, MAXIMUM_INTEGER_BYTES)
        if raw[:1] == b"\0":
            raise _malformed_error("an integer has a leading zero")
        return int.from_bytes(raw, "big"), after

    return encode_integer, decode_integer


def _bytes_coder(limit: Bound | Exact | None) -> tuple[_Encoder, _Decoder]:
    exact = limit.length if isinstance(limit, Exact) else None
    maximum = exact if exact is not None else (limit.maximum if isinstance(limit, Bound) else DEFAULT_MAXIMUM_BYTES)

    def check(raw: bytes) -> bytes:
        if exact is not None and len(raw) != exact:
            raise _malformed_error(f"{len(raw)} bytes where exactly {exact} belong")
        if len(raw) > maximum:
            raise Rejected(RejectionReason.TOO_LARGE, f"{len(raw)} bytes where {maximum} are allowed")
        return raw

    def decode_bytes(data: bytes, start: int, end: int) -> tuple[bytes, int]:
        raw, after = _read_string(data, start, end, maximum)
        if exact is not None and len(raw) != exact:
            check(raw)
        return raw, after

    return lambda value: _encode_string(check(value)), decode_bytes


def _text_coder(limit: Bound | Exact | None) -> tuple[_Encoder, _Decoder]:
    encode_raw, decode_raw = _bytes_coder(limit)

    def decode_text(data: bytes, start: int, end: int) -> tuple[str, int]:
        raw, after = decode_raw(data, start, end)
        try:
            return raw.decode("utf-8"), after
        except UnicodeDecodeError as error:
            raise _malformed_error("a text is not UTF-8") from error

    return lambda value: encode_raw(value.encode("utf-8")), decode_text


def _enum_coder(kind: type[StrEnum]) -> tuple[_Encoder, _Decoder]:
    decode_text = _text_coder(Bound(64))[1]

    def decode_enum(data: bytes, start: int, end: int) -> tuple[StrEnum, int]:
        text, after = decode_text(data, start, end)
        try:
            return kind(text), after
        except ValueError as error:
            raise _malformed_error(f"{text!r} is no {kind.__name__}") from error

    return lambda value: _encode_string(value.value.encode()), decode_enum


def _tuple_coder(item: Any, limit: Bound | Exact | None) -> tuple[_Encoder, _Decoder]:
    maximum = limit.maximum if isinstance(limit, Bound) else DEFAULT_MAXIMUM_ITEMS
    encode_item, decode_item = _coder(item)

    def encode_tuple(values: tuple[Any, ...]) -> bytes:
        if len(values) > maximum:
            raise Rejected(RejectionReason.TOO_LARGE, f"{len(values)} items where {maximum} are allowed")
        return _encode_list(map(encode_item, values))

    def decode_tuple(data: bytes, start: int, end: int) -> tuple[tuple[Any, ...], int]:
        position, stop = _open_list(data, start, end)
        values: list[Any] = []
        while position < stop:
            if len(values) == maximum:
                raise Rejected(RejectionReason.TOO_LARGE, f"more than {maximum} items")
            value, position = decode_item(data, position, stop)
            values.append(value)
        return tuple(values), stop

    return encode_tuple, decode_tuple


def _message_coder(kind: type) -> tuple[_Encoder, _Decoder]:
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]
    coders = [_coder(hints[name]) for name in names]
    encoders, decoders = [coder[0] for coder in coders], [coder[1] for coder in coders]
    # Two names at least, so that a tuple comes back even where there is one field or none.
    values_of = attrgetter(*names, "__class__", "__class__")

    def encode_noun(noun: object) -> bytes:
        return _encode_list([encoder(value) for encoder, value in zip(encoders, values_of(noun), strict=False)])

    def decode_noun(data: bytes, start: int, end: int) -> tuple[Any, int]:
        position, stop = _open_list(data, start, end)
        values: list[Any] = []
        for decode_field in decoders:
            value, position = decode_field(data, position, stop)
            values.append(value)
        if position != stop:
            raise _malformed_error(f"a {kind.__name__} has too many fields")
        return kind(*values), stop

    return encode_noun, decode_noun


def _union_coder(coders: dict[str, tuple[_Encoder, _Decoder]]) -> tuple[_Encoder, _Decoder]:
    """Return the coder of one of several messages: a list of its name and itself."""
    decode_name = _text_coder(Bound(64))[1]

    def encode_named(message: object) -> bytes:
        name = type(message).__name__
        return _encode_list((_encode_string(name.encode()), coders[name][0](message)))

    def decode_named(data: bytes, start: int, end: int) -> tuple[Any, int]:
        position, stop = _open_list(data, start, end)
        name, position = decode_name(data, position, stop)
        if name not in coders:
            raise _malformed_error(f"{name!r} is none of {sorted(coders)}")
        message, position = coders[name][1](data, position, stop)
        if position != stop:
            raise _malformed_error(f"something follows the {name}")
        return message, stop

    return encode_named, decode_named
