import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point import compile_model, dice_counts, evaluate, predict
from learnchain.learning.fixed_point_layers import Folded, _quantise_weights
from learnchain.learning.model import build_model, initial_weights, set_weights
from learnchain.learning.train import Watcher, to_float, train
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.model_specification import KINDS, Layer, ModelSpecification, Setting
from learnchain.protocol.task_specification import Metric, Optimiser
from learnchain.rejection import Rejected, RejectionReason
from tests.learning.conftest import DIGITS_CNN, float_accuracy, plan_of
from tests.learning.fixed_point_models import SPECIFICATIONS, rows_for, weights_for

LINEAR = Layer("x", "Linear", (), (Setting("out_features", 2),))


def refusal(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


def test_one_digest_of_all_logits_on_three_instruction_sets_and_two_thread_counts():
    runs = []
    for capability in ("default", "avx2", "avx512"):
        for threads in ("1", "2"):
            environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_WAIT_POLICY": "PASSIVE"}
            if capability != "avx512":
                environment["ONEDNN_MAX_CPU_ISA"] = "SSE41" if capability == "default" else "AVX2"
            command = [sys.executable, "-m", "tests.learning.fixed_point_models", threads]
            runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        # Two at a time: the machine may have no more cores.
        for run in runs[-2:]:
            run.wait()
    digests = [run.communicate()[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0] * 6
    assert len(set(digests)) == 1
    assert len(digests[0]) == 64


def test_together_the_models_use_every_kind():
    used = {layer.kind for specification in SPECIFICATIONS.values() for layer in specification.layers}
    assert used == set(KINDS)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_logits_are_near_those_of_float32(name, real):
    specification = SPECIFICATIONS[name]
    weights, rows = weights_for(specification), rows_for(specification, real=real)
    model = build_model(specification)
    set_weights(model, weights)
    model.eval()
    with torch.inference_mode():
        expected = model(to_float(torch.from_numpy(rows))).numpy()
    exact = compile_model(specification, weights, rows).logits(rows)
    error = np.sqrt(((exact - expected) ** 2).mean()) / expected.std()
    assert exact.shape == expected.shape
    assert error < 0.05


@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_exact_accuracy_on_digits_is_within_a_percent_of_float32(digit_sets, optimiser):
    training, test = digit_sets
    result = train(plan_of(epochs=8, optimiser=optimiser), training, Watcher(time.perf_counter))
    counts = evaluate(DIGITS_CNN, result.weights, training, test, Metric.ACCURACY)
    model = build_model(DIGITS_CNN)
    set_weights(model, result.weights)
    assert counts.total == 360
    assert abs(counts.correct / counts.total - float_accuracy(model, test)) < 0.01
    assert counts == evaluate(DIGITS_CNN, result.weights, training, test, Metric.ACCURACY)


def test_a_product_equals_the_integers_it_stands_for():
    specification = ModelSpecification((700,), (LINEAR,))
    weights = {
        "x.weight": np.random.default_rng(1).normal(0, 0.1, (2, 700)).astype(np.float32),
        "x.bias": np.array([0.5, -0.25], dtype=np.float32),
    }
    rows = rows_for(specification, 8)
    folded = Folded(weights["x.weight"].astype(np.float64), weights["x.bias"].astype(np.float64))
    pieces, bias, wide = _quantise_weights(LINEAR, folded, -8, 0)
    assert wide
    unit = 2**40
    whole = [[int(value * unit) for piece in pieces for value in piece[channel].tolist()] for channel in range(2)]
    expected = [
        [
            sum(weight * int(pixel) for weight, pixel in zip(whole[channel], row, strict=True))
            + int(bias[channel] * unit)
            for channel in range(2)
        ]
        for row in rows
    ]
    logits = compile_model(specification, weights, rows).logits(rows)
    assert [[int(value * unit) for value in row] for row in logits] == expected


def test_ties_go_to_the_lowest_class():
    assert predict(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])).tolist() == [1, 0]
    weights = {name: np.zeros_like(array) for name, array in initial_weights(DIGITS_CNN, b"s").items()}
    rows = rows_for(DIGITS_CNN)
    assert predict(compile_model(DIGITS_CNN, weights, rows).logits(rows)).tolist() == [0] * 40


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_weights_beyond_the_range_are_refused(poison):
    weights = initial_weights(DIGITS_CNN, b"seed")
    weights["conv2d2.weight"][0, 0, 0, 0] = poison
    reason = refusal(compile_model, DIGITS_CNN, weights, rows_for(DIGITS_CNN))
    assert reason is RejectionReason.WEIGHTS_NOT_FINITE


def test_a_negative_variance_and_a_huge_gain_are_refused():
    specification = SPECIFICATIONS["keyword_cnn"]
    for part, value in (("running_var", -1.0), ("weight", 3e38)):
        weights = weights_for(specification)
        weights[f"batchnorm2d1.{part}"][0] = value
        reason = refusal(compile_model, specification, weights, rows_for(specification))
        assert reason is RejectionReason.WEIGHTS_NOT_FINITE
    weights = weights_for(SPECIFICATIONS["others"])
    weights["norm.weight"][0] = 3e38
    reason = refusal(compile_model, SPECIFICATIONS["others"], weights, rows_for(SPECIFICATIONS["others"]))
    assert reason is RejectionReason.WEIGHTS_NOT_FINITE


def test_only_the_first_training_rows_calibrate():
    rows = rows_for(DIGITS_CNN, 300, real=True)
    weights = initial_weights(DIGITS_CNN, b"seed")
    logits = compile_model(DIGITS_CNN, weights, rows).logits(rows[:5])
    rows[256:] *= 1_000
    assert np.array_equal(compile_model(DIGITS_CNN, weights, rows).logits(rows[:5]), logits)


def test_samples_of_another_shape_are_refused(digit_sets):
    training, test = digit_sets
    weights = initial_weights(DIGITS_CNN, b"seed")
    flat = DataSet(test.inputs.reshape(-1, 64), test.labels)
    for sets in ((training, flat), (flat, flat)):
        reason = refusal(evaluate, DIGITS_CNN, weights, *sets, Metric.ACCURACY)
        assert reason is RejectionReason.MODEL_SHAPE_MISMATCH
    pixels = DataSet(test.inputs, np.zeros((360, 8, 8), np.uint8))
    reason = refusal(evaluate, DIGITS_CNN, weights, training, pixels, Metric.ACCURACY)
    assert reason is RejectionReason.MODEL_SHAPE_MISMATCH


def test_dice_counts_foreground_classes():
    predictions, labels = np.array([[0, 1, 2, 1]]), np.array([[0, 1, 1, 0]])
    assert dice_counts(predictions, labels) == (1, 5)
    specification = SPECIFICATIONS["unet2d"]
    rows = rows_for(specification, 4)
    weights = weights_for(specification)
    predicted = predict(compile_model(specification, weights, rows).logits(rows)).astype(np.uint8)
    data = DataSet(rows, predicted)
    counts = evaluate(specification, weights, data, data, Metric.DICE)
    assert counts.correct == counts.total == 2 * int((predicted > 0).sum()) > 0
    empty = DataSet(rows, np.zeros_like(predicted))
    assert evaluate(specification, weights, data, empty, Metric.DICE).correct == 0


def test_flat_tables_of_numbers_work_as_well_as_images():
    specification = mlp((4,), 3, hidden=(16,))
    rows = rows_for(specification, real=True)
    assert compile_model(specification, weights_for(specification), rows).logits(rows).shape == (40, 3)
