"""Integer sizes and FLOPs of a specification: what DLBC Eq. 2-3 and the limits of a chain are computed from.

FLOPs are counted as `torch.utils.flop_counter` counts them: two for a multiplication and its addition, in
convolutions and matrix products only; that counter is the oracle of the tests.
"""

import math
from dataclasses import dataclass

from learnchain.primitives.model_specification import (
    INPUT,
    Layer,
    ModelLimits,
    ModelSpecification,
    Shape,
    check_graph,
    inputs_of,
    layer_shapes,
    settings_of,
)
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.training_terms import FULL_BITS

BYTES_PER_PARAMETER = 4
"""Weights travel as float32."""
_SCALE_BYTES = 8
"""The exponent of a tensor of eight-bit weights."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name one tensor of a weights file as torch's state_dict does; running statistics are not trained."""

    name: str
    shape: Shape
    trained: bool


def validate(specification: ModelSpecification, limits: ModelLimits) -> None:
    """Refuse an unknown layer, shapes that do not fit, numbers out of range, or a model above the chain's limits."""
    check_graph(specification, limits)
    for what, value, maximum in (
        ("parameters", parameter_count(specification), limits.parameters),
        ("FLOPs", forward_flops(specification), limits.forward_flops),
    ):
        if value > maximum:
            raise Rejected(RejectionReason.MODEL_TOO_LARGE, f"{value} {what}, allowed are {maximum}")


def tensors(specification: ModelSpecification) -> tuple[Tensor, ...]:
    """Return the tensors of a weights file in state_dict order.

    `num_batches_tracked` is left out: with torch's fixed momentum it changes nothing and it is no float32.
    """
    shapes = layer_shapes(specification)
    found: list[Tensor] = []
    for layer, names in zip(specification.layers, inputs_of(specification), strict=True):
        found.extend(_layer_tensors(layer, shapes[names[0]]))
    return tuple(found)


def parameter_count(specification: ModelSpecification) -> int:
    """Return the number of trained parameters."""
    return sum(math.prod(tensor.shape) for tensor in tensors(specification) if tensor.trained)


def model_bytes(specification: ModelSpecification) -> int:
    """Return the bytes of all tensors, running statistics included, without the file's header."""
    return BYTES_PER_PARAMETER * sum(math.prod(tensor.shape) for tensor in tensors(specification))


def committed_bytes(specification: ModelSpecification, weight_bits: int) -> int:
    """Return the bytes of all tensors of a committed model: of eight bits, matrices and kernels have one a weight."""
    if weight_bits == FULL_BITS:
        return model_bytes(specification)
    sizes = ((math.prod(each.shape), len(each.shape) > 1) for each in tensors(specification))
    return sum(count + _SCALE_BYTES if small else BYTES_PER_PARAMETER * count for count, small in sizes)


def forward_flops(specification: ModelSpecification) -> int:
    """Return the FLOPs of one sample's forward pass."""
    return sum(flops for flops, _ in _products(specification))


def training_flops_per_sample(specification: ModelSpecification) -> int:
    """Return the FLOPs of one sample's forward and backward pass.

    Each product costs once forwards, once for its weights' gradient, and once for its input's gradient unless
    nothing trained lies before it.
    """
    return sum(flops * (3 if trained_before else 2) for flops, trained_before in _products(specification))


def _layer_tensors(layer: Layer, received: Shape) -> tuple[Tensor, ...]:
    weight_shape = _weight_shape(layer, received)
    if weight_shape is None:
        if not layer.kind.startswith("BatchNorm"):
            return ()
        parts = (("weight", True), ("bias", True), ("running_mean", False), ("running_var", False))
        return tuple(Tensor(f"{layer.name}.{part}", (received[0],), trained) for part, trained in parts)
    settings = settings_of(layer)
    width = settings["out_features"] if layer.kind == "Linear" else settings["out_channels"]
    weight = Tensor(f"{layer.name}.weight", weight_shape, True)
    return (weight, Tensor(f"{layer.name}.bias", (width,), True)) if settings["bias"] else (weight,)


def _weight_shape(layer: Layer, received: Shape) -> Shape | None:
    settings = settings_of(layer)
    if layer.kind == "Linear":
        return (settings["out_features"], received[0])
    if not layer.kind.startswith("Conv") or layer.kind == "Concat":
        return None
    kernel = (settings["kernel_size"],) * (len(received) - 1)
    if layer.kind.startswith("ConvTranspose"):
        return (received[0], settings["out_channels"], *kernel)
    return (settings["out_channels"], received[0] // settings["groups"], *kernel)


def _products(specification: ModelSpecification) -> list[tuple[int, bool]]:
    """Return (FLOPs, whether the input needs a gradient) of every convolution and matrix product."""
    shapes, trained = layer_shapes(specification), {INPUT: False}
    products: list[tuple[int, bool]] = []
    for layer, names in zip(specification.layers, inputs_of(specification), strict=True):
        received = shapes[names[0]]
        before = any(trained[name] for name in names)
        weight_shape = _weight_shape(layer, received)
        trained[layer.name] = before or bool(_layer_tensors(layer, received))
        if weight_shape is None:
            continue
        # A transposed convolution visits every input position with its kernel, the others every output position.
        visited = received if layer.kind.startswith("ConvTranspose") else shapes[layer.name]
        positions = math.prod(visited[1:]) if layer.kind != "Linear" else 1
        products.append((2 * positions * math.prod(weight_shape), before))
    return products
