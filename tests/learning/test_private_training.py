import numpy as np
import pytest

from learnchain.learning.data import digits, select_rows
from learnchain.learning.private_training import PrivacyTerms, epsilon_spent, membership, row_losses, train_privately
from learnchain.learning.train import configure_torch
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.training_terms import HyperParameters
from learnchain.rejection import Rejected, RejectionReason

pytest.importorskip("opacus")

CHOSEN = HyperParameters(2_000, 0, 0, 32, 3)
SECRET = bytes(range(32))


def rows(first: int, last: int):
    return select_rows(digits(), np.arange(first, last))


def test_epsilon_falls_with_noise_and_rises_with_steps():
    spent = [epsilon_spent(noise, 0.1, 100, 1e-4) for noise in (0.5, 1.0, 4.0)]
    assert spent == sorted(spent, reverse=True)
    assert epsilon_spent(1.0, 0.1, 200, 1e-4) > spent[1]
    # Without sampling this is the Gaussian mechanism: sqrt(2 ln(1/delta)) / noise and a little, for one step.
    single = epsilon_spent(2.0, 1.0, 1, 1e-4)
    assert (2 * np.log(1e4)) ** 0.5 / 2 < single + 0.5 < (2 * np.log(1e4)) ** 0.5 / 2 + 1.5


def test_a_private_model_learns_and_says_what_it_spent():
    configure_torch()
    data = rows(0, 600)
    model = mlp(data.sample_shape, 10)
    found = train_privately(model, data, HyperParameters(2_000, 0, 0, 64, 8), PrivacyTerms(0.8), SECRET)
    assert found.steps == 8 * 10
    assert found.epsilon == epsilon_spent(0.8, 64 / 600, 80, 1e-4)
    kept_back = rows(600, 900)
    losses = row_losses(model, found.weights, kept_back)
    assert losses.mean() < np.log(10) * 0.8
    assert membership(row_losses(model, found.weights, data), losses).advantage < 0.25


def test_noise_follows_the_secret():
    configure_torch()
    data = rows(0, 64)
    model = mlp(data.sample_shape, 10)
    first, again, other = (
        train_privately(model, data, CHOSEN, PrivacyTerms(1.0), secret).weights
        for secret in (SECRET, SECRET, SECRET[::-1])
    )
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("terms", [PrivacyTerms(0.0), PrivacyTerms(1.0, 0.0), PrivacyTerms(1.0, 1.0, 1.0)])
def test_terms_without_privacy_are_refused(terms: PrivacyTerms):
    with pytest.raises(Rejected) as caught:
        train_privately(mlp((1, 8, 8), 10), rows(0, 64), CHOSEN, terms, SECRET)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


def test_secrets_of_another_length_are_refused():
    with pytest.raises(Rejected) as caught:
        train_privately(mlp((1, 8, 8), 10), rows(0, 64), CHOSEN, PrivacyTerms(1.0), b"short")
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


def test_a_batch_without_rows_is_a_step_of_noise():
    configure_torch()
    data = rows(0, 64)
    model = mlp(data.sample_shape, 10)
    found = train_privately(model, data, HyperParameters(2_000, 0, 0, 1, 1), PrivacyTerms(1.0), SECRET)
    assert found.steps == 64
    assert all(np.isfinite(array).all() for array in found.weights.values())
