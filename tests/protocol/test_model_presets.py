import pytest

from learnchain.protocol.model_presets import PRESETS, baas_cnn, fcn34, parse_model_table, strided_cnn
from learnchain.protocol.model_specification import (
    Layer,
    ModelLimits,
    ModelSpecification,
    Setting,
    layer_shapes,
    tensors,
    validate,
)
from learnchain.rejection import Rejected, RejectionReason


def test_a_table_gives_the_preset_or_the_explicit_layers():
    assert parse_model_table(
        {"preset": "strided_cnn", "input_shape": [1, 8, 8], "classes": 10, "channels": [16, 32]}
    ) == (strided_cnn((1, 8, 8), 10))
    rows = [{"name": "flat", "kind": "Flatten"}, {"name": "head", "kind": "Linear", "out_features": 3}]
    assert parse_model_table({"input_shape": [1, 8, 8], "layers": rows}) == ModelSpecification(
        (1, 8, 8), (Layer("flat", "Flatten", (), ()), Layer("head", "Linear", (), (Setting("out_features", 3),)))
    )


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"preset": "resnet", "input_shape": [1], "classes": 2}, RejectionReason.ARGUMENT_INVALID),
        ({"preset": "mlp", "classes": 2}, RejectionReason.ARGUMENT_INVALID),
        ({"preset": "mlp", "input_shape": [4], "classes": 2, "depth": 3}, RejectionReason.ARGUMENT_INVALID),
        ({"preset": "mlp", "input_shape": [4], "classes": 2, "hidden": 16}, RejectionReason.ARGUMENT_INVALID),
        ({"preset": "vgg16", "input_shape": [3, 8, 8], "classes": 2, "width": [4]}, RejectionReason.ARGUMENT_INVALID),
        ({"preset": "vgg16", "input_shape": [4], "classes": 2}, RejectionReason.ARGUMENT_INVALID),
        ({"input_shape": [4], "layers": [{"name": "x"}]}, RejectionReason.ARGUMENT_INVALID),
        ({"preset": "mlp", "input_shape": [4], "classes": -2}, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
        ({"preset": "mlp", "input_shape": [4.5], "classes": 2}, RejectionReason.TASK_NUMBER_OUT_OF_RANGE),
        (
            {"preset": "baas_cnn", "input_shape": [1, 28, 28], "classes": 10, "contributor": 6},
            RejectionReason.TASK_NUMBER_OUT_OF_RANGE,
        ),
    ],
)
def test_a_wrong_table_is_refused(table, reason):
    with pytest.raises(Rejected) as caught:
        parse_model_table(table)
    assert caught.value.reason is reason


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_under_the_default_limits(name):
    shape = (1, 16, 16, 16) if name == "unet3d" else (1, 32, 32)
    validate(PRESETS[name](shape, 10), ModelLimits())


def test_fcn34_has_34_convolutions_without_its_projections():
    assert sum(layer.kind == "Conv2d" for layer in fcn34((3, 32, 32), 2).layers) - 3 == 34


@pytest.mark.parametrize(("contributor", "reshaped"), [(1, 392), (2, 784), (3, 784), (4, 588), (5, 392)])
def test_table_1_of_baas_prints_the_size_of_the_reshaped_vector(contributor, reshaped):
    specification = baas_cnn((1, 28, 28), 10, contributor=contributor)
    flat = next(layer.name for layer in specification.layers if layer.kind == "Flatten")
    assert layer_shapes(specification)[flat] == (reshaped,)
    assert next(tensor.shape for tensor in tensors(specification) if "linear" in tensor.name) == (500, reshaped)
