import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.codec import decode, encode
from learnchain.protocol.model_presets import PRESETS, strided_cnn
from learnchain.protocol.model_specification import (
    Layer,
    ModelLimits,
    ModelSpecification,
    Setting,
    layer_shapes,
    output_shape,
    validate,
)
from learnchain.rejection import Rejected, RejectionReason


def layer(name, kind, *inputs, **settings):
    return Layer(name, kind, inputs, tuple(Setting(key, value) for key, value in sorted(settings.items())))


def refusal(specification, limits=None):
    with pytest.raises(Rejected) as caught:
        validate(specification, limits or ModelLimits())
    return caught.value.reason


def small(*layers, input_shape=(1, 8, 8)):
    return ModelSpecification(input_shape, layers)


FLAT = layer("flat", "Flatten")
HEAD = layer("head", "Linear", out_features=3)


@pytest.mark.parametrize(
    ("specification", "reason"),
    [
        (small(FLAT, layer("x", "Embedding", out_features=3)), RejectionReason.MODEL_LAYER_UNKNOWN),
        (small(FLAT, layer("x", "Linear", out_features=3, dilation=2)), RejectionReason.MODEL_LAYER_UNKNOWN),
        (small(FLAT, Layer("x", "Linear", (), (Setting("out_features", 3),) * 2)), RejectionReason.MODEL_LAYER_UNKNOWN),
        (small(layer("x", "Linear", out_features=3)), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(layer("c", "Conv2d", out_channels=4, kernel_size=9)), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(FLAT, layer("x", "Linear", in_features=63, out_features=3)), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(FLAT, HEAD, layer("sum", "Add", "flat", "head")), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(FLAT, layer("x", "Linear", "later", out_features=3)), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(FLAT, layer("idle", "ReLU", "flat"), layer("x", "ReLU", "flat")), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(FLAT, layer("flat", "ReLU")), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(FLAT, layer("Bad.name", "ReLU")), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(layer("p", "AdaptiveAvgPool2d", output_size=3)), RejectionReason.MODEL_SHAPE_MISMATCH),
        (small(FLAT, layer("x", "Linear", out_features=0)), RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
        (small(FLAT, layer("x", "Linear", out_features=1 << 60)), RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
        (small(FLAT, layer("x", "Linear")), RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
        (small(FLAT, HEAD, input_shape=(1, 0, 8)), RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
        (small(), RejectionReason.MODEL_TOO_LARGE),
    ],
)
def test_a_wrong_graph_is_refused_with_its_reason(specification, reason):
    assert refusal(specification) is reason


@pytest.mark.parametrize(
    "limits",
    [
        ModelLimits(parameters=13_705),
        ModelLimits(forward_flops=59_135),
        ModelLimits(layers=7),
        ModelLimits(layer_elements=255),
    ],
)
def test_a_model_above_any_limit_is_too_large_and_at_the_limit_is_not(limits):
    specification = strided_cnn((1, 8, 8), 10)
    assert refusal(specification, limits) is RejectionReason.MODEL_TOO_LARGE
    validate(specification, ModelLimits(layers=8, parameters=13_706, forward_flops=59_136, layer_elements=256))


def test_growth_by_upsampling_is_stopped_before_it_is_computed():
    steps = tuple(layer(f"u{index}", "Upsample", scale_factor=16) for index in range(40))
    assert refusal(small(*steps)) is RejectionReason.MODEL_TOO_LARGE


def test_skips_by_name_join_what_they_name():
    specification = small(
        layer("c", "Conv2d", out_channels=4, kernel_size=3, padding=1),
        layer("join", "Concat", "c", "input"),
        layer("up", "ConvTranspose2d", out_channels=2, kernel_size=2, stride=2),
    )
    assert layer_shapes(specification)["join"] == (5, 8, 8)
    assert output_shape(specification) == (2, 16, 16)


@given(st.sampled_from(["mlp", "strided_cnn", "lenet"]), st.integers(2, 40), st.sampled_from([8, 16, 28]))
def test_canonical_bytes_round_trip(preset, classes, side):
    specification = (
        PRESETS[preset]((1, side, side), classes) if side > 8 or preset != "lenet" else PRESETS["mlp"]((4,), 3)
    )
    assert decode(ModelSpecification, encode(specification)) == specification
