import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learnchain.learning.model import (
    build_model,
    initial_weights,
    load_weights,
    round_as_committed,
    save_weights,
    set_weights,
    weights_of,
)
from learnchain.learning.safe_tensors import write_tensors
from learnchain.protocol.model_presets import mlp, strided_cnn, unet2d
from learnchain.protocol.model_specification import Layer, ModelSpecification, Setting, tensors
from learnchain.rejection import Rejected, RejectionReason
from tests.learning.conftest import DIGITS_CNN

WEIGHTS = initial_weights(DIGITS_CNN, b"seed")


def refusal(path, specification=DIGITS_CNN):
    with pytest.raises(Rejected) as caught:
        load_weights(path, specification)
    return caught.value.reason


def test_weights_come_back_bit_by_bit(tmp_path):
    save_weights(tmp_path / "weights", WEIGHTS)
    loaded = load_weights(tmp_path / "weights", DIGITS_CNN)
    assert list(loaded) == list(WEIGHTS)
    assert all(np.array_equal(loaded[name], WEIGHTS[name]) for name in WEIGHTS)


def test_a_module_returns_the_weights_it_was_given():
    model = build_model(DIGITS_CNN)
    set_weights(model, WEIGHTS)
    assert all(np.array_equal(array, WEIGHTS[name]) for name, array in weights_of(model, DIGITS_CNN).items())


def test_initial_weights_follow_from_the_seed_alone_and_keep_kaimings_bound():
    torch.manual_seed(1)
    assert all(np.array_equal(array, WEIGHTS[name]) for name, array in initial_weights(DIGITS_CNN, b"seed").items())
    kernel = WEIGHTS["conv2d2.weight"]
    other = initial_weights(DIGITS_CNN, b"other")["conv2d2.weight"]
    bound = (6 / (16 * 9)) ** 0.5
    assert not np.array_equal(kernel, other)
    assert 0.9 * bound < np.abs(kernel).max() <= bound
    assert abs(kernel.mean()) < 0.02 * bound * 3
    assert kernel.ravel()[0] == np.float32(0.11366148)


@pytest.mark.parametrize("cut", [4, 60, 5_000, -1])
def test_a_truncated_file_is_malformed(tmp_path, cut):
    save_weights(tmp_path / "weights", WEIGHTS)
    (tmp_path / "weights").write_bytes((tmp_path / "weights").read_bytes()[:cut])
    assert refusal(tmp_path / "weights") is RejectionReason.WEIGHTS_MALFORMED


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_is_refused(tmp_path, poison):
    poisoned = {name: array.copy() for name, array in WEIGHTS.items()}
    poisoned["linear7.bias"][3] = poison
    save_weights(tmp_path / "weights", poisoned)
    assert refusal(tmp_path / "weights") is RejectionReason.WEIGHTS_NOT_FINITE


def test_weights_of_another_model_are_refused(tmp_path):
    save_weights(tmp_path / "wider", initial_weights(strided_cnn((1, 8, 8), 10, hidden=65), b"seed"))
    assert refusal(tmp_path / "wider") is RejectionReason.MODEL_SHAPE_MISMATCH
    save_weights(tmp_path / "deeper", initial_weights(strided_cnn((1, 8, 8), 10, channels=(4, 4, 4)), b"seed"))
    assert refusal(tmp_path / "deeper") is RejectionReason.WEIGHTS_MALFORMED


def test_other_element_types_are_malformed(tmp_path):
    changed = {**WEIGHTS, "linear7.bias": np.zeros(10, dtype=np.int64)}
    write_tensors(tmp_path / "weights", changed)
    assert refusal(tmp_path / "weights") is RejectionReason.WEIGHTS_MALFORMED


def test_a_file_far_above_the_models_size_is_too_large(tmp_path):
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(1 << 24)
    assert refusal(path) is RejectionReason.TOO_LARGE


def test_skip_connections_carry_what_they_name():
    layers = (Layer("double", "Add", ("input", "input"), ()), Layer("both", "Concat", ("double", "input"), ()))
    model = build_model(ModelSpecification((2, 2, 2), layers))
    sample = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert torch.equal(model(sample), torch.cat([2 * sample, sample], dim=1))


def test_a_unet_gives_one_logit_for_each_class_and_pixel():
    specification = unet2d((1, 16, 16), 3, width=2, steps=3)
    model = build_model(specification)
    set_weights(model, initial_weights(specification, b"seed"))
    assert model(torch.ones(2, 1, 16, 16)).shape == (2, 3, 16, 16)


def test_groups_reach_torch():
    settings = (Setting("groups", 2), Setting("kernel_size", 3), Setting("out_channels", 4))
    model = build_model(ModelSpecification((2, 8, 8), (Layer("c", "Conv2d", (), settings),)))
    assert model.get_submodule("c").groups == 2


@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False), min_size=4, max_size=4))
def test_eight_bit_weights_come_back_as_what_was_committed(tmp_path_factory, values):
    specification = mlp((2,), 2, ())
    kernel = np.array(values, np.float32).reshape(2, 2)
    shapes = {each.name: each.shape for each in tensors(specification)}
    weights = {name: kernel if len(shape) > 1 else np.zeros(shape, np.float32) for name, shape in shapes.items()}
    path = tmp_path_factory.mktemp("small") / "model.safetensors"
    save_weights(path, weights, 8)
    loaded, committed = load_weights(path, specification), round_as_committed(weights, 8)
    largest = max(abs(each) for each in values)
    for name, array in loaded.items():
        assert array.tobytes() == committed[name].tobytes()
        assert largest < 2.0**-100 or np.abs(array - weights[name]).max() <= largest / 100
    assert round_as_committed(committed, 8).keys() == committed.keys()
    assert all((round_as_committed(committed, 8)[name] == array).all() for name, array in committed.items())


def test_a_scale_that_is_missing_or_wild_is_refused(tmp_path):
    specification = mlp((2,), 2, ())
    small = {each.name: np.ones(each.shape, np.float32) for each in tensors(specification)}
    kernel = next(name for name, array in small.items() if array.ndim > 1)
    eight = {**small, kernel: np.ones((2, 2), np.int8)}
    for scale in ({}, {f"exponent/{kernel}": np.array([500])}, {f"exponent/{kernel}": np.array([1, 1])}):
        path = tmp_path / "model.safetensors"
        write_tensors(path, {**eight, **scale})
        assert refusal(path, specification) is RejectionReason.WEIGHTS_MALFORMED
