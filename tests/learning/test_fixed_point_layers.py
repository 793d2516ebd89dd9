import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from learnchain.learning.fixed_point_layers import ACTIVATION_MAXIMUM, Folded, _quantise_weights, _table, exponent_of
from learnchain.protocol.model_specification import Layer, Setting
from learnchain.rejection import Rejected, RejectionReason

LINEAR = Layer("x", "Linear", (), (Setting("out_features", 2),))


def refusal(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    terms=st.sampled_from([1, 3, 143, 144, 145, 700]),
    magnitude=st.integers(-100, 19),
    bias_magnitude=st.integers(-60, 39),
    exponents=st.tuples(st.integers(-30, 40), st.integers(-30, 40)),
    spread=st.sampled_from([0, 1, 30]),
)
def test_no_sum_of_any_layer_can_leave_the_exact_range(seed, terms, magnitude, bias_magnitude, exponents, spread):
    generator = np.random.default_rng(seed)
    weight = np.ldexp(generator.uniform(-1, 1, (2, terms)), magnitude - generator.integers(0, spread + 1, (2, terms)))
    bias = np.ldexp(generator.uniform(-1, 1, 2), bias_magnitude)
    if bias_magnitude - exponents[0] > 43:
        # Such a bias has no place beside the activations even at the coarsest scale: refused, never wrapped.
        assume(np.abs(bias).max() * 2.0 ** -exponents[0] > 2.0**44)
        assert (
            refusal(_quantise_weights, LINEAR, Folded(weight, bias), *exponents) is RejectionReason.WEIGHTS_NOT_FINITE
        )
        return
    pieces, scaled_bias, _ = _quantise_weights(LINEAR, Folded(weight, bias), *exponents)
    assert sum(piece.shape[1] for piece in pieces) == terms
    for index, piece in enumerate(pieces):
        assert torch.isfinite(piece).all()
        for channel, row in enumerate(piece.tolist()):
            summands = [*row, *([scaled_bias[channel].item()] if index == 0 else [])]
            lowest = min((_lowest_bit(value) for value in summands if value), default=0)
            reach = sum(abs(value) for value in row) * ACTIVATION_MAXIMUM
            reach += abs(summands[-1]) if index == 0 else 0
            assert reach < math.ldexp(1.0, lowest + 24)
            assert all(value == 0 or abs(value) >= 2.0**-126 for value in summands)


def _lowest_bit(value):
    numerator, denominator = abs(value).as_integer_ratio()
    return (numerator & -numerator).bit_length() - 1 - (denominator.bit_length() - 1)


def test_tables_are_the_rounded_functions():
    for kind, function in (("Sigmoid", lambda v: 1 / (1 + math.exp(-v))), ("Tanh", math.tanh)):
        table = _table(kind, -7)
        assert len(table) == 2 * ACTIVATION_MAXIMUM + 1
        for index in range(0, len(table), 31):
            value = (index - ACTIVATION_MAXIMUM) / 128
            assert abs(table[index] - min(1024 * function(value), 1023)) <= 1.0
        assert _table(kind, 40)[-1] == ACTIVATION_MAXIMUM


@given(st.floats(min_value=2.0**-20, max_value=2.0**40))
def test_the_exponent_is_the_smallest_that_fits(largest):
    exponent = exponent_of(largest)
    assert largest <= math.ldexp(ACTIVATION_MAXIMUM, exponent)
    assert largest > math.ldexp(ACTIVATION_MAXIMUM, exponent - 1) or exponent == -30


def test_exponents_are_bounded_and_zero_has_one():
    assert (exponent_of(0.0), exponent_of(1e-30), exponent_of(1e30)) == (0, -30, 40)
