"""Turn what was observed into the figures that protocols are compared by."""

from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, pvariance


@dataclass(frozen=True, slots=True)
class Intervals:
    """Hold mean, variance and coefficient of variation of block intervals, in seconds."""

    mean_seconds: float
    variance_seconds_squared: float
    variation: float


def intervals(milliseconds: list[int]) -> Intervals:
    """Return the figures of PoLe's Table 1 for a chain's block intervals."""
    seconds = [each / 1000 for each in milliseconds]
    mean, variance = fmean(seconds), pvariance(seconds)
    return Intervals(round(mean, 6), round(variance, 6), round(variance**0.5 / mean, 6) if mean else 0.0)


def gini(amounts: list[Fraction]) -> Fraction:
    """Return the Gini coefficient of incomes: 0 when all earn the same, near 1 when one earns everything."""
    ordered, total = sorted(amounts), sum(amounts, Fraction(0))
    if not total:
        return Fraction(0)
    ranked = sum((rank * each for rank, each in enumerate(ordered, start=1)), Fraction(0))
    count = len(ordered)
    return 2 * ranked / (count * total) - Fraction(count + 1, count)
