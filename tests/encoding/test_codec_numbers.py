"""Accuracies are compared as pairs, decimals in one fixed context."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.codec import CONTEXT, Accuracy, logarithm, power, quantise
from learnchain.rejection import Rejected, RejectionReason

COUNTS = st.integers(1, 10**9).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(COUNTS, COUNTS)
def test_accuracies_compare_as_fractions(left: tuple[int, int], right: tuple[int, int]) -> None:
    assert (Accuracy(*left) < Accuracy(*right)) == (Fraction(*left) < Fraction(*right))
    assert Accuracy(*left).has_reached(*right) == (Fraction(*left) >= Fraction(*right))


@pytest.mark.parametrize(("correct", "total"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(correct: int, total: int) -> None:
    with pytest.raises(Rejected) as refusal:
        Accuracy(correct, total)
    assert refusal.value.reason is RejectionReason.CLAIM_OUT_OF_RANGE


def test_ninety_of_a_hundred_reaches_nine_tenths_exactly() -> None:
    assert Accuracy(90, 100).has_reached(9, 10)
    assert not Accuracy(89, 100).has_reached(9, 10)
    assert not Accuracy(899_999_999, 10**9).has_reached(9, 10)


def test_powers_by_hand() -> None:
    assert quantise(power(Decimal(100), Decimal("0.5"))) == 10
    assert quantise(power(Decimal(2), Decimal(10))) == 1024
    assert quantise(power(Decimal(4), Decimal("-0.5"))) == Decimal("0.5")
    assert power(Decimal(0), Decimal(3)) == 0
    assert power(Decimal(0), Decimal(0)) == 1
    assert power(Decimal(0), Decimal(-1)) == 1


def test_logarithm_of_one_and_of_ten() -> None:
    assert logarithm(Decimal(1)) == 0
    # OEIS A002392: 2.302585092994045684017991454684364207601101488628772976...
    assert str(logarithm(Decimal(10))) == "2.3025850929940456840179914546843642076011014886288"


@given(st.integers(1, 10**12), st.fractions(-5, 5, max_denominator=97))
def test_the_callers_context_changes_nothing(base: int, exponent: Fraction) -> None:
    decimal_exponent = CONTEXT.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
    expected = quantise(power(Decimal(base), decimal_exponent))
    with localcontext() as ours:
        ours.prec = 3
        assert quantise(power(Decimal(base), decimal_exponent)) == expected


def test_eighteen_digits_decide_half_to_even() -> None:
    assert str(quantise(Decimal("1.000000000000000005"))) == "1.00000000000000000"
    assert str(quantise(Decimal("1.000000000000000015"))) == "1.00000000000000002"
