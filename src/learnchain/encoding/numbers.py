"""Exact numbers: consensus compares integers, cross-products and fixed-context decimals, never binary floats.

Parse JSON from strangers: nesting is bounded before the parser sees it.

The parser recurses in C. The embedded execution engine raises Python's recursion limit for the whole process, so a
deeply nested text would no longer raise an error but overflow the stack and end the process.
"""

import decimal
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

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
