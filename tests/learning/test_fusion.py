"""Eq. 1 to 6 of BaaS by hand, both strategies and both readings of the stacked identities."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learnchain.learning.fusion import (
    MAXIMUM_FEATURES,
    FusionLabels,
    FusionModel,
    FusionStrategy,
    FusionTerms,
    Outputs,
    compute_equalisation,
    draw_initial_hidden,
    fuse,
    hidden_labels,
    hidden_layer,
    initial_output,
    log_probabilities,
    predict,
    staged_hidden_layer,
    staged_log_probabilities,
)
from learnchain.protocol.citations import citations
from learnchain.rejection import Rejected, RejectionReason

SEED = b"seed"
VECTORS = Path(__file__).parents[2] / "src/learnchain/market/vectors/equations"


def carried_out(number: int, given: dict[str, Any]) -> np.ndarray:
    """Return what the function of an equation gives for the input of its vector."""
    if number == 3:
        # Drawn weights stand where blocks are: what the vector fixes is where.
        return (draw_initial_hidden(given["widths"], given["label_counts"], SEED) != 0).astype(float)
    if number == 4:
        return initial_output(given["labels"], given["classes"])
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in given.items() if name != "gamma"}
    functions = {1: hidden_layer, 2: log_probabilities, 5: staged_hidden_layer, 6: staged_log_probabilities}
    gamma = {"gamma": given["gamma"]} if "gamma" in given else {}
    return functions[number](**tensors, **gamma).numpy()


@pytest.mark.parametrize("number", range(1, 7))
def test_vectors_of_the_equations(number: int):
    cases = json.loads((VECTORS / f"{number}.json").read_text())["cases"]
    assert cases
    for case in cases:
        expected = np.array(case["expected"]["result"], dtype=float)
        assert np.allclose(carried_out(number, case["given"]), expected, rtol=0, atol=1e-8)


def test_equalised_features_have_equal_moments():
    """Features as rectified layers give them, far from zero: with few rows too, and with units that are always dead."""
    features = np.abs(np.random.Generator(np.random.PCG64(3)).normal(3, 1, (400, 20))).astype(np.float32)
    features[:, 7] = 0
    equal = features @ compute_equalisation(features)
    moments = np.linalg.eigvalsh(equal.T @ equal / len(equal))
    assert moments[0] == pytest.approx(0, abs=1e-6)
    assert moments[-1] <= 1
    assert moments[-1] / moments[1] < 3
    before = np.linalg.eigvalsh(features.T @ features / len(features))
    assert before[-1] / before[1] > 100
    assert np.isfinite(compute_equalisation(np.zeros((5, 3), dtype=np.float32))).all()


def test_features_wider_than_the_bound_are_refused():
    with pytest.raises(Rejected) as caught:
        compute_equalisation(np.zeros((2, MAXIMUM_FEATURES + 1), dtype=np.float32))
    assert caught.value.reason is RejectionReason.MODEL_TOO_LARGE


def test_every_equation_is_carried_out_once():
    found = [each for each in citations() if each.paper == "baas" and each.kind == "equation"]
    assert [each.number for each in found] == [1, 2, 3, 4, 5, 6]


def test_equation_1_is_a_weighted_sum():
    found = hidden_layer(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0], [7.0, 11.0]]))
    assert found.tolist() == [[17.0, 27.0]]


def test_equation_2_is_a_softmax():
    hidden, output = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    found = log_probabilities(hidden, output).exp()[0]
    expected = np.exp([0.5, 2.0]) / np.exp([0.5, 2.0]).sum()
    assert np.allclose(found.numpy(), expected)


def test_equation_3_is_block_diagonal():
    found = draw_initial_hidden((2, 3), (1, 2), SEED)
    inside = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 1, 1], [0, 1, 1]], dtype=bool)
    assert (found[~inside] == 0).all()
    assert (found[inside] != 0).all()
    assert (found == draw_initial_hidden((2, 3), (1, 2), SEED)).all()
    assert (found != draw_initial_hidden((2, 3), (1, 2), b"other"))[inside].all()


def test_equation_4_stacks_identities():
    found = initial_output([(0, 1, 2), (0, 1, 2)], 3)
    assert (found == np.concatenate([np.eye(3), np.eye(3)])).all()


def test_equation_4_by_label_has_rows_for_known_labels_only():
    assert initial_output([(0, 2), (1,)], 3).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(("gamma", "expected"), [(0, [1.0, 8.0]), (1, [1.0 + 2 * 5, 3.0 + 8.0])])
def test_equation_5_opens_across_models_with_gamma(gamma: int, expected: list[float]):
    features, hidden = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 3.0], [5.0, 4.0]])
    assert staged_hidden_layer(features, hidden, torch.eye(2), gamma).tolist() == [expected]


@pytest.mark.parametrize(("gamma", "logits"), [(0, [1.0, 8.0]), (1, [11.0, 11.0])])
def test_equation_6_opens_across_labels_with_gamma(gamma: int, logits: list[float]):
    hidden, output = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 3.0], [5.0, 4.0]])
    found = staged_log_probabilities(hidden, output, torch.eye(2), gamma).exp()[0]
    assert np.allclose(found.numpy(), torch.softmax(torch.tensor(logits), 0).numpy())


def test_with_gamma_one_both_strategies_compute_the_same():
    generator = torch.Generator().manual_seed(1)
    features, hidden, output = (torch.rand(shape, generator=generator) for shape in ((4, 6), (6, 4), (4, 2)))
    inside, own = torch.tensor(draw_initial_hidden((3, 3), (2, 2), SEED) != 0).float(), torch.eye(2).repeat(2, 1)
    staged = staged_log_probabilities(staged_hidden_layer(features, hidden, inside, 1), output, own, 1)
    assert torch.allclose(staged, log_probabilities(hidden_layer(features, hidden), output), atol=1e-6)


# --- learning -------------------------------------------------------------------------------------------------


def _models() -> tuple[list[FusionModel], FusionLabels]:
    """Two models, each of which sees one bit of the class of four."""
    truth = np.arange(400) % 4
    noise = np.random.default_rng(3).normal(0, 0.1, (2, 400, 5)).astype(np.float32)
    noise[0, :, 0] += truth % 2
    noise[1, :, 0] += truth // 2
    noise[0, :, 1] += 1 - truth % 2
    noise[1, :, 1] += 1 - truth // 2
    models = [FusionModel(part[:300], part[300:], labels) for part, labels in zip(noise, ((0, 1), (2, 3)), strict=True)]
    return models, FusionLabels(truth[:300], truth[300:])


def _terms(
    strategy: FusionStrategy, outputs: Outputs = Outputs.LITERAL, epochs: int = 40, first: int = 10
) -> FusionTerms:
    return FusionTerms(4, strategy, outputs, epochs, first, 0.02, 32)


@pytest.mark.parametrize("strategy", list(FusionStrategy))
def test_two_halves_make_a_whole(strategy: FusionStrategy):
    models, truth = _models()
    alone = fuse(models[:1], truth, _terms(strategy), SEED)
    together = fuse(models, truth, _terms(strategy), SEED)
    assert alone.test_correct <= 75
    assert together.test_correct >= 98
    answers = predict(together, [model.test for model in models])
    assert int((answers == truth.test).sum()) == together.test_correct


@pytest.mark.parametrize("strategy", list(FusionStrategy))
def test_the_seed_fixes_every_bit(strategy: FusionStrategy):
    models, truth = _models()
    first, second = (fuse(models, truth, _terms(strategy, epochs=3, first=1), SEED) for _ in range(2))
    other = fuse(models, truth, _terms(strategy, epochs=3, first=1), b"other")
    assert first.hidden.tobytes() == second.hidden.tobytes()
    assert first.output.tobytes() == second.output.tobytes()
    assert first.hidden.tobytes() != other.hidden.tobytes()


def test_the_first_stage_changes_the_blocks_alone():
    models, truth = _models()
    found = fuse(models, truth, _terms(FusionStrategy.GRADUAL, epochs=5, first=5), SEED)
    inside = draw_initial_hidden((5, 5), (4, 4), SEED) != 0
    identity = initial_output([range(4), range(4)], 4) != 0
    assert (found.hidden[~inside] == 0).all()
    assert (found.output[~identity] == 0).all()
    assert (found.output[identity] != 1).any()


def test_the_second_stage_changes_the_rest():
    models, truth = _models()
    found = fuse(models, truth, _terms(FusionStrategy.GRADUAL, epochs=40, first=1), SEED)
    assert (found.hidden[:5, 4:] != 0).any()


def test_the_size_of_the_hidden_layer_is_the_reading():
    models, _ = _models()
    assert len(sum(hidden_labels(models, _terms(FusionStrategy.FREE)), ())) == 8
    assert hidden_labels(models, _terms(FusionStrategy.FREE, Outputs.BY_LABEL)) == ((0, 1), (2, 3))


@pytest.mark.parametrize("labels", [(), (1, 0), (0, 0), (4,)])
def test_wrong_labels_are_refused(labels: tuple[int, ...]):
    models, truth = _models()
    wrong = [FusionModel(models[0].training, models[0].test, labels)]
    with pytest.raises(Rejected) as caught:
        fuse(wrong, truth, _terms(FusionStrategy.GRADUAL, Outputs.BY_LABEL), SEED)
    assert caught.value.reason is RejectionReason.MODEL_SHAPE_MISMATCH


def test_a_fusion_that_is_not_finite_is_refused():
    models, truth = _models()
    wild = [FusionModel(models[0].training, models[0].test * np.float32(np.nan), (0,))]
    with pytest.raises(Rejected) as caught:
        fuse(wild, truth, _terms(FusionStrategy.FREE, epochs=2, first=1), SEED)
    assert caught.value.reason is RejectionReason.WEIGHTS_NOT_FINITE


def test_nothing_to_fuse_is_refused():
    with pytest.raises(Rejected) as caught:
        fuse([], _models()[1], _terms(FusionStrategy.FREE), SEED)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
