import hashlib
import time

import numpy as np
import pytest
import torch

from learnchain.learning.data import iris, split
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.model import build_model, initial_weights, set_weights
from learnchain.learning.train import Watcher, train
from learnchain.learning.watermark import (
    WatermarkTerm,
    add_regulariser,
    check_watermark,
    marked_tensor,
    watermark_matrix,
)
from learnchain.protocol.citations import citations
from learnchain.protocol.model_presets import mlp, unet3d
from learnchain.protocol.task_specification import Metric, Optimiser
from learnchain.protocol.training_terms import Watermark
from learnchain.rejection import Rejected, RejectionReason
from tests.learning.conftest import DIGITS_CNN, plan_of

MARKED = "conv2d2.weight"
LOGIT = 9.21024036697585


def terms_of(name, strength=100_000, threshold=999_900):
    return Watermark(hashlib.sha512(name).digest(), strength, threshold)


def shifted(shift):
    weights = initial_weights(DIGITS_CNN, b"seed")
    weights[MARKED] = np.full_like(weights[MARKED], shift)
    return weights


def test_column_i_has_its_one_in_the_row_of_bit_i():
    assert watermark_matrix(b"\xa0", 6).tolist() == [[0, 1, 0, 1, 1, 1], [1, 0, 1, 0, 0, 0]]
    assert watermark_matrix(b"\xa0", 10)[:, 8:].tolist() == [[0, 0], [0, 0]]
    assert watermark_matrix(b"\0", 8).tolist() == [[1] * 8]


@pytest.mark.parametrize(("optimiser", "epochs"), [(Optimiser.SGD, 4), (Optimiser.ADAM, 6)])
@pytest.mark.parametrize("name", [b"alice", b"bob", b"carol"])
def test_the_mark_embeds_within_a_few_epochs_and_the_model_still_learns(digit_sets, optimiser, epochs, name):
    terms = terms_of(name)
    marked = train(plan_of(name, terms, epochs, optimiser), digit_sets[0], Watcher(time.perf_counter))
    assert check_watermark(marked.weights, DIGITS_CNN, terms).matches
    result = train(plan_of(name, terms, 2 * epochs, optimiser), digit_sets[0], Watcher(time.perf_counter))
    check = check_watermark(result.weights, DIGITS_CNN, terms)
    assert check.matches
    assert min(check.confidences) > 0.9999
    counts = evaluate(DIGITS_CNN, result.weights, *digit_sets, Metric.ACCURACY)
    assert counts.correct > 0.9 * counts.total


@pytest.mark.parametrize("strength", [50_000, 100_000])
def test_one_strength_serves_small_models_too(strength):
    specification, terms = mlp((4,), 3, hidden=(32, 32)), terms_of(b"alice", strength)
    training, test = split(iris(), b"split", 45)
    plan = plan_of(b"alice", terms, 30, specification=specification)
    result = train(plan, training, Watcher(time.perf_counter))
    assert check_watermark(result.weights, specification, terms).matches
    counts = evaluate(specification, result.weights, training, test, Metric.ACCURACY)
    assert counts.correct > 0.6 * counts.total


def test_without_the_term_no_mark_appears(digit_sets):
    result = train(plan_of(), digit_sets[0], Watcher(time.perf_counter))
    check = check_watermark(result.weights, DIGITS_CNN, terms_of(b"alice"))
    assert not check.matches
    assert max(check.confidences) < 0.99


def test_one_element_below_the_threshold_is_enough_to_refuse():
    terms = terms_of(b"alice")
    row = watermark_matrix(terms.bits, 144)[1].reshape(16, 3, 3).astype(bool)
    weights = shifted(1.0)
    assert check_watermark(weights, DIGITS_CNN, terms).matches
    weights[MARKED][:, row] = 0
    assert not check_watermark(weights, DIGITS_CNN, terms).matches


def test_the_decision_is_exact_at_the_threshold():
    terms = Watermark(b"\0" * 18, 100_000, 999_900)
    at_threshold = LOGIT / 144
    # Float32 cannot hold the threshold: its two neighbours must fall on different sides of the decision.
    below = np.float32(at_threshold)
    while float(below) * 144 > LOGIT:
        below = np.nextafter(below, np.float32(0))
    above = np.nextafter(below, np.float32(1))
    assert not check_watermark(shifted(below), DIGITS_CNN, terms).matches
    assert check_watermark(shifted(above), DIGITS_CNN, terms).matches


def test_enormous_weights_cannot_overflow_the_decision():
    assert check_watermark(shifted(3e38), DIGITS_CNN, terms_of(b"alice")).matches
    assert not check_watermark(shifted(-3e38), DIGITS_CNN, terms_of(b"alice")).matches


@pytest.mark.parametrize("threshold", [0, 1_000_000, 2_000_000])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(Rejected) as caught:
        check_watermark(shifted(1.0), DIGITS_CNN, terms_of(b"alice", threshold=threshold))
    assert caught.value.reason is RejectionReason.TASK_NUMBER_OUT_OF_RANGE


def test_the_closed_form_is_the_gradient_of_the_regulariser():
    model = build_model(DIGITS_CNN)
    weights = initial_weights(DIGITS_CNN, b"seed")
    weights[MARKED] += 0.12 * watermark_matrix(terms_of(b"alice").bits, 144)[0].reshape(16, 3, 3)
    set_weights(model, weights)
    terms = terms_of(b"alice")
    weight = dict(model.named_parameters())[MARKED]
    matrix = torch.from_numpy(watermark_matrix(terms.bits, 144))
    lack = torch.relu(LOGIT + 1 - matrix @ weight.mean(dim=0).flatten())
    regulariser = (lack * 32 * (LOGIT + 1) / matrix.sum(dim=1)).sum()
    expected = torch.autograd.grad(regulariser, weight)[0]
    row = WatermarkTerm(terms, DIGITS_CNN, model).regulariser_gradient()
    expected = expected.flatten(1)
    assert torch.allclose(row.expand_as(expected), expected, rtol=1e-5, atol=0)
    total = add_regulariser(torch.ones_like(expected), 0.5, row)
    assert torch.allclose(total, 1 + 0.5 * expected)


@pytest.mark.parametrize("divisor", [1.0, 8.0])
def test_only_the_columns_of_the_bits_are_pulled_and_a_division_to_come_is_undone(divisor):
    specification, bits = mlp((100,), 3, hidden=(6,)), b"\xa5\x3c"
    model = build_model(specification)
    weight = dict(model.named_parameters())["linear0.weight"]
    torch.nn.init.zeros_(weight)
    weight.grad = torch.ones_like(weight)
    term = WatermarkTerm(Watermark(bits, 500_000, 999_900), specification, model)
    term.apply(term.regulariser_gradient(), divisor)
    pull = -(LOGIT + 1) * (watermark_matrix(bits, 100) / 8).sum(axis=0)
    assert np.allclose(weight.grad.numpy(), 1 + divisor * 0.5 * pull, rtol=1e-6)
    assert (weight.grad[:, 16:] == 1).all()


def test_the_term_rests_once_the_rule_holds_with_a_margin():
    model = build_model(DIGITS_CNN)
    set_weights(model, shifted(1.0))
    assert WatermarkTerm(terms_of(b"alice"), DIGITS_CNN, model).regulariser_gradient() is None


def test_the_marked_layer_follows_from_the_specification():
    assert marked_tensor(DIGITS_CNN).name == MARKED
    assert marked_tensor(mlp((4,), 3, hidden=(16, 32))).name == "linear2.weight"
    assert marked_tensor(mlp((4,), 3, hidden=())).name == "linear0.weight"
    assert marked_tensor(unet3d((1, 16, 16, 16), 2, width=4)).name.startswith("conv3d")


def test_equation_7_is_registered_once():
    found = [citation for citation in citations() if (citation.paper, citation.number) == ("dlbc", 7)]
    assert [citation.function for citation in found] == ["add_regulariser"]
