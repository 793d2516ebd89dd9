"""torch is the oracle: names, shapes, parameter counts and FLOPs of every preset must equal its own."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from learnchain.encoding.codec import encode
from learnchain.learning.model import build_model, initial_weights, set_weights
from learnchain.protocol.model_presets import (
    baas_cnn,
    fcn34,
    keyword_cnn,
    lenet,
    mlp,
    strided_cnn,
    unet2d,
    unet3d,
    vgg16,
)
from learnchain.protocol.model_specification import (
    Layer,
    ModelLimits,
    ModelSpecification,
    Setting,
    forward_flops,
    model_bytes,
    output_shape,
    parameter_count,
    tensors,
    training_flops_per_sample,
    validate,
)

PRESETS = {
    "mlp": mlp((4,), 3, hidden=(16,)),
    "mlp_images": mlp((1, 28, 28), 10),
    "lenet": lenet((1, 28, 28), 10),
    "strided_cnn": strided_cnn((1, 8, 8), 10),
    "vgg16": vgg16((3, 32, 32), 10, width=16),
    "fcn34": fcn34((3, 32, 32), 2, width=8),
    "unet2d": unet2d((1, 32, 32), 2, width=4),
    "unet3d": unet3d((1, 16, 16, 16), 2, width=4),
    "keyword_cnn": keyword_cnn((1, 40, 32), 12),
    **{f"baas_{number}": baas_cnn((1, 28, 28), 10, contributor=number) for number in range(1, 6)},
}
GROUPED = ModelSpecification(
    (4, 8, 8),
    (
        Layer("depth", "Conv2d", (), (Setting("groups", 4), Setting("kernel_size", 3), Setting("out_channels", 8))),
        Layer("point", "Conv2d", (), (Setting("bias", 0), Setting("kernel_size", 1), Setting("out_channels", 6))),
    ),
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("specification", [*PRESETS.values(), GROUPED], ids=[*PRESETS, "grouped"])
def test_names_shapes_and_counts_are_torchs(specification):
    validate(specification, ModelLimits())
    model = build_model(specification)
    state = {name: tuple(t.shape) for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert list(state.items()) == [(tensor.name, tensor.shape) for tensor in tensors(specification)]
    assert parameter_count(specification) == sum(parameter.numel() for parameter in model.parameters())
    assert model_bytes(specification) == sum(4 * torch.Size(shape).numel() for shape in state.values())
    assert len(encode(specification)) < 8_192


@pytest.mark.parametrize("specification", PRESETS.values(), ids=PRESETS)
def test_flops_are_those_of_torchs_counter(specification):
    model = build_model(specification)
    set_weights(model, initial_weights(specification, b"seed"))
    samples = torch.ones(2, *specification.input_shape)
    model.eval()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        assert tuple(model(samples).shape[1:]) == output_shape(specification)
    model.train()
    with FlopCounterMode(display=False) as both:
        model(samples).sum().backward()
    assert forward.get_total_flops() == 2 * forward_flops(specification)
    assert both.get_total_flops() == 2 * training_flops_per_sample(specification)


def test_grouped_convolutions_count_the_channels_they_read():
    assert forward_flops(GROUPED) == 2 * 36 * (8 * 9 + 8 * 6)
