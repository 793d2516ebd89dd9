r"""Compute with bounds that hold on every machine: a float64 value and the radius in which honest float32 results lie.

The arithmetic decides consensus, so it must give the same bits everywhere: elementwise float64 operations are
correctly rounded by IEEE 754; sums and products of matrices are cut into integer pieces whose sums stay below 2**53
and so are exact in any order (Ozaki et al. 2012; the argument of `fixed_point`); the exponential is our own.

A sum of n products may be wrong by $\gamma(n) \sum |a_i| |b_i|$ with $\gamma(n) = (\min(n, 8 \sqrt n) + 8) u$, $u =
2^{-24}$: sums in any order, blocked or not, with or without fused multiplication. Up to 64 terms that is Higham's
worst case; beyond, Higham and Mary's probabilistic bound at lambda = 8, which one sum exceeds with probability 3e-14
(SIAM J. Sci. Comput. 41, 2019; TAO, arXiv 2510.16028, settles the same way). What the radii of many terms cause is
added in quadrature: they are eight deviations of independent roundings, and adding them up in magnitude made the
bounds of a normalised CNN fifteen times as large as its step. Few terms are added in magnitude.

A choice that honest machines may make differently (the sign of a number near zero, the larger of two equal ones) is no
rounding: its `doubt` is as large as the gradient, common to equal samples, and is always added in magnitude. It is
rare, so bounds stay small where it is absent. Transforms that are no plain sums (Winograd, Fourier) are not covered;
`exactness` refuses them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log2, sqrt

import numpy as np

from learnchain.learning.safe_tensors import Array

UNIT = 2.0**-24
"""Unit roundoff of float32."""

_LAMBDA = 8.0

_EXTRA = 8
"""Roundings of a bias, a scale or a store, added to every sum."""

_INFLATION = 1 + 2.0**-40
"""Covers the float64 roundings of the radii themselves."""

_SUM_BITS = 26
_MAXIMUM_SUM_TERMS = 1 << 27
_LOGARITHM_2_HIGH, _LOGARITHM_2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
_EXPONENTIAL_TERMS = 14

_SMALLEST, _OF_ZERO = -900, -950
"""Exponents below which a row is as good as none, and of a row of zeros; their inverses are numbers still."""


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """Hold a value, the radius of roundings around it, and the doubt of open choices, if there are any."""

    value: Array
    radius: Array
    doubt: Array | None = None

    @property
    def reach(self) -> Array:
        """Return the largest magnitude that an honest result can have."""
        return np.abs(self.value) + self.width

    @property
    def width(self) -> Array:
        """Return how far an honest result can lie from the value."""
        return self.radius if self.doubt is None else self.radius + self.doubt

    def moved(self, move: Callable[[Array], Array]) -> "Bounded":
        """Return the same numbers in other places."""
        return Bounded(move(self.value), move(self.radius), None if self.doubt is None else move(self.doubt))

    def reshape(self, *shape: int) -> "Bounded":
        """Return the same numbers in another shape."""
        return self.moved(lambda array: array.reshape(shape))


def joined(parts: Sequence[Bounded], axis: int) -> Bounded:
    """Return several arrays one after the other."""
    doubts = [np.zeros_like(each.value) if each.doubt is None else each.doubt for each in parts]
    doubt = None if all(each.doubt is None for each in parts) else np.concatenate(doubts, axis)
    value = np.concatenate([each.value for each in parts], axis)
    return Bounded(value, np.concatenate([each.radius for each in parts], axis), doubt)


def exact(array: Array) -> Bounded:
    """Return numbers that are committed or given, and so known to the bit."""
    value = array.astype(np.float64)
    return Bounded(value, np.zeros_like(value))


def growth(terms: int) -> float:
    """Return gamma(n), the share of the sum of magnitudes by which a float32 sum of n products may be wrong."""
    return (min(float(terms), _LAMBDA * sqrt(terms)) + _EXTRA) * UNIT


# --- exact sums and products ----------------------------------------------------------------------------------


def _exponents(array: Array, axis: int | tuple[int, ...] | None) -> Array:
    """Return exponents e with |a| <= 2**e along an axis."""
    highest = array.max(axis=axis, keepdims=True, initial=0.0)
    largest = np.maximum(highest, -array.min(axis=axis, keepdims=True, initial=0.0))
    return np.where(largest > 0, np.maximum(np.frexp(largest)[1], _SMALLEST), _OF_ZERO)


def _power(exponents: Array) -> Array:
    """Return 2**e, by which every multiplication is exact."""
    return np.ldexp(1.0, exponents)


def total(array: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """Return the sum in two exact pieces of 26 bits: equal on every machine, right to 2**-52 of the largest term."""
    if array.size > _MAXIMUM_SUM_TERMS:
        raise ValueError(f"a sum over {array.size} terms could leave the exact range")
    exponents = _exponents(array, axis)
    high, low = _pieces(array, _SUM_BITS - exponents, _SUM_BITS)
    summed = high.sum(axis=axis, keepdims=True) + low.sum(axis=axis, keepdims=True) * 2.0**-_SUM_BITS
    return (summed * _power(exponents - _SUM_BITS)).squeeze(axis)


def product(left: Array, right: Array) -> tuple[Array, Array]:
    """Return left @ right and a bound of its error: three products of integer pieces, each exact in any order."""
    terms = left.shape[1]
    bits = (53 - ceil(log2(max(terms, 1)))) // 2
    rows, columns = _exponents(left, 1), _exponents(right, 0)
    left_high, left_low = _pieces(left, bits - rows, bits)
    right_high, right_low = _pieces(right, bits - columns, bits)
    crossed = left_high @ right_low
    crossed += left_low @ right_high
    crossed *= 2.0**-bits
    crossed += left_high @ right_high
    # Two factors, since their product may be smaller than any number where both rows and columns are zeros.
    crossed *= _power(rows - bits)
    crossed *= _power(columns - bits)
    # Each factor is cut at half a unit of 2**-bits, and the product of the low pieces is dropped; zeros are exact.
    cut = np.where(rows > _OF_ZERO, _power(rows - bits), 0.0)
    cut = cut * np.where(columns > _OF_ZERO, _power(columns - bits), 0.0)
    return crossed, cut * (2.0 * terms + 2.0)


def upper_product(left: Array, right: Array) -> Array:
    """Return an upper bound of left @ right for factors that are not negative: one product of rounded-up integers."""
    bits = (53 - ceil(log2(max(left.shape[1], 1)))) // 2
    rows, columns = _exponents(left, 1), _exponents(right, 0)
    summed = np.ceil(left * _power(bits - rows)) @ np.ceil(right * _power(bits - columns))
    summed *= _power(rows - bits)
    summed *= _power(columns - bits)
    return summed


def _pieces(array: Array, shift: Array, bits: int) -> tuple[Array, Array]:
    low = array * _power(shift)
    high = np.rint(low)
    low -= high
    low *= 2.0**bits
    return high, np.rint(low, out=low)


# --- operations on bounded numbers ----------------------------------------------------------------------------


def weighted(left: Array, right: Bounded, terms: int = 0) -> Bounded:
    """Return left @ right for a known left factor; `terms` is what honest code sums, if that is more."""
    value, error = product(left, right.value)
    size = np.abs(left)
    rounding = growth(max(terms, left.shape[1])) * upper_product(size, np.abs(right.value))
    radius = rounding + error
    if right.radius.any():
        caused, cut = product(left * left, right.radius * right.radius)
        radius += np.sqrt(np.maximum(caused, 0) + cut)
    radius *= _INFLATION
    return Bounded(value, radius, None if right.doubt is None else upper_product(size, right.doubt))


def multiplied(left: Bounded, right: Bounded, terms: int) -> Bounded:
    """Return left @ right where neither factor is known to the bit: the gradient of a weight."""
    value, error = product(left.value, right.value)
    rounding = growth(terms) * upper_product(np.abs(left.value), np.abs(right.value))
    own, other = left.radius * left.radius, right.radius * right.radius
    if other.any():
        wide = np.concatenate([left.value * left.value + own, own], axis=1)
        caused, cut = product(wide, np.concatenate([other, right.value * right.value], axis=0))
    else:
        caused, cut = product(own, right.value * right.value)
    radius = (rounding + np.sqrt(np.maximum(caused, 0) + cut) + error) * _INFLATION
    doubts = [] if left.doubt is None else [upper_product(left.doubt, right.reach)]
    if right.doubt is not None:
        doubts.append(upper_product(np.abs(left.value) + left.radius, right.doubt))
    return Bounded(value, radius, sum(doubts[1:], doubts[0]) if doubts else None)


def summed(array: Bounded, axis: int | tuple[int, ...], terms: int) -> Bounded:
    """Return the sum along axes, as float32 code computes it in any order."""
    value = total(array.value, axis)
    rounding = growth(terms) * total(np.abs(array.value), axis)
    radius = rounding + np.sqrt(total(array.radius**2, axis)) + np.abs(value) * 2.0**-50
    return Bounded(value, radius * _INFLATION, None if array.doubt is None else total(array.doubt, axis) * _INFLATION)


def times(left: Bounded, right: Bounded) -> Bounded:
    """Return the elementwise product."""
    value = left.value * right.value
    size = np.abs(left.value)
    radius = size * right.radius + left.radius * (np.abs(right.value) + right.radius) + 2 * UNIT * np.abs(value)
    doubt = None if left.doubt is None else left.doubt * right.reach
    if right.doubt is not None:
        doubt = (size + left.radius) * right.doubt + (0.0 if doubt is None else doubt)
    return Bounded(value, radius * _INFLATION, doubt)


def scaled(array: Bounded, factor: float | Array) -> Bounded:
    """Return the product with a constant that is itself rounded to float32."""
    value, size = array.value * factor, np.abs(factor)
    radius = (array.radius * size + 4 * UNIT * array.reach * size) * _INFLATION
    return Bounded(value, radius, None if array.doubt is None else array.doubt * size)


def negated(array: Bounded) -> Bounded:
    """Return the negative."""
    return Bounded(-array.value, array.radius, array.doubt)


def added(first: Bounded, *others: Bounded) -> Bounded:
    """Return the elementwise sum of two or more, in any order."""
    value, radius, reach, doubt = first.value, first.radius, first.reach, first.doubt
    for other in others:
        value, radius, reach = value + other.value, radius + other.radius, reach + other.reach
        if other.doubt is not None:
            doubt = other.doubt if doubt is None else doubt + other.doubt
    if doubt is not None:
        doubt = np.broadcast_to(doubt, value.shape)
    return Bounded(value, (radius + len(others) * 2 * UNIT * reach) * _INFLATION, doubt)


def between(lower: Array, upper: Array) -> Bounded:
    """Return the hull of two bounds."""
    value = (lower + upper) / 2
    return Bounded(value, np.maximum(upper - value, value - lower) * _INFLATION)


def either(array: Bounded, certain: Array, possible: Array, share: float | Array = 0.5) -> Bounded:
    """Return the array where it is certainly taken, zero where it cannot be, and a share in doubt in between."""
    open_choice = possible & ~certain
    value = array.value * np.where(certain, 1.0, np.where(open_choice, share, 0.0))
    doubt = None if array.doubt is None else np.where(possible, array.doubt, 0.0)
    if open_choice.any():
        reach = np.where(open_choice, np.abs(array.value) * np.maximum(share, 1 - share), 0.0)
        doubt = reach if doubt is None else doubt + reach
    return Bounded(value, np.where(possible, array.radius, 0.0), doubt)


def exponential(array: Array) -> Array:
    """Return e**x for x between -700 and 0 by additions and multiplications alone: libraries differ in the last bit."""
    clipped = np.clip(array, -700.0, 0.0)
    halvings = np.rint(clipped * 1.4426950408889634)
    rest = (clipped - halvings * _LOGARITHM_2_HIGH) - halvings * _LOGARITHM_2_LOW
    series = np.ones_like(rest)
    for term in range(_EXPONENTIAL_TERMS, 0, -1):
        series = 1.0 + series * rest / term
    return np.ldexp(series, halvings.astype(np.int64))
