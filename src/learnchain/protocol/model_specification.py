"""Architectures as data: an allow-list of `torch.nn` layers under their own names in a validated graph.

Pure integers: every node, also one without torch, derives the same shapes and sizes from the same bytes. A layer
reads the layer before it unless `inputs` names others; names refer backwards only, so no graph has a cycle.

Integer sizes and FLOPs of a specification: what DLBC Eq. 2-3 and the limits of a chain are computed from.

FLOPs are counted as `torch.utils.flop_counter` counts them: two for a multiplication and its addition, in
convolutions and matrix products only; that counter is the oracle of the tests.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from learnchain.encoding.codec import Bound
from learnchain.protocol.training_terms import FULL_BITS
from learnchain.rejection import Rejected, RejectionReason

INPUT = "input"
"""The name under which layers read the sample itself."""

Shape = tuple[int, ...]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Setting:
    """Name one integer of a layer as torch does, for instance `kernel_size`."""

    key: Annotated[str, Bound(32)]
    value: int


@dataclass(frozen=True, slots=True)
class Layer:
    """Place one layer in the graph; no `inputs` means the layer before."""

    name: Annotated[str, Bound(32)]
    kind: Annotated[str, Bound(32)]
    inputs: Annotated[tuple[Annotated[str, Bound(32)], ...], Bound(16)]
    settings: Annotated[tuple[Setting, ...], Bound(16)]


@dataclass(frozen=True, slots=True)
class ModelSpecification:
    """Hold a whole architecture: the shape of one sample (channels first) and its layers in order."""

    input_shape: Annotated[tuple[int, ...], Bound(4)]
    layers: Annotated[tuple[Layer, ...], Bound(512)]


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Bound what a chain admits; the defaults hold VGG-16 and the 3D U-Net of DLBC V-A."""

    layers: int = 512
    parameters: int = 1 << 28
    forward_flops: int = 1 << 43
    layer_elements: int = 1 << 28


@dataclass(frozen=True, slots=True)
class SettingRule:
    """Bound one setting; a `default` of None makes it mandatory, `declared` marks a number that must match."""

    minimum: int
    maximum: int
    default: int | None = None
    is_declared: bool = False


ShapeRule = Callable[[Mapping[str, int], tuple[Shape, ...]], Shape]


@dataclass(frozen=True, slots=True)
class LayerKind:
    """Describe one kind of the allow-list: its settings, the ranks it reads, how many inputs, its output shape."""

    settings: Mapping[str, SettingRule]
    ranks: tuple[int, ...]
    shape: ShapeRule
    maximum_inputs: int = 1


def shape_mismatch(detail: str) -> Rejected:
    """Return the rejection for shapes that do not fit."""
    return Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)


# --- shapes ---------------------------------------------------------------------------------------------------


def _same_shape(_settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    return shapes[0]


def _linear_shape(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    _match(settings, "in_features", shapes[0][0])
    return (settings["out_features"],)


def _convolution_shape(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    _match(settings, "in_channels", channels)
    groups = settings["groups"]
    if channels % groups or settings["out_channels"] % groups:
        raise shape_mismatch(f"{channels} and {settings['out_channels']} channels do not divide into {groups} groups")
    kernel, stride, padding = settings["kernel_size"], settings["stride"], settings["padding"]
    return (settings["out_channels"], *(_windows(size, kernel, stride, padding) for size in sizes))


def _transposed_convolution_shape(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    _match(settings, "in_channels", channels)
    kernel, stride, padding = settings["kernel_size"], settings["stride"], settings["padding"]
    if settings["output_padding"] >= stride:
        raise shape_mismatch("output_padding must be smaller than stride")
    grown = [(size - 1) * stride - 2 * padding + kernel + settings["output_padding"] for size in sizes]
    if min(grown) < 1:
        raise shape_mismatch(f"a transposed convolution of {sizes} leaves nothing")
    return (settings["out_channels"], *grown)


def _pooling_shape(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    kernel, padding = settings["kernel_size"], settings.get("padding", 0)
    if 2 * padding > kernel:
        raise shape_mismatch("a pooling layer pads at most half its kernel")
    stride = settings["stride"] or kernel
    return (channels, *(_windows(size, kernel, stride, padding) for size in sizes))


def _adaptive_pooling_shape(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    target = settings["output_size"]
    # Windows of unequal size would make the exact evaluation depend on each window's divisor.
    if any(size % target for size in sizes):
        raise shape_mismatch(f"an output of {target} does not divide {sizes}")
    return (channels, *(target for _ in sizes))


def _batch_normalisation_shape(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    _match(settings, "num_features", shapes[0][0])
    return shapes[0]


def _upsampling_shape(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    return (channels, *(size * settings["scale_factor"] for size in sizes))


def _flattening_shape(_settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    return (math.prod(shapes[0]),)


def _zero_padding_shape(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    return (channels, *(size + settings["before"] + settings["after"] for size in sizes))


def _addition_shape(_settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    if len(shapes) < 2 or any(shape != shapes[0] for shape in shapes):
        raise shape_mismatch(f"Add needs two or more equal shapes, not {shapes}")
    return shapes[0]


def _concatenation_shape(_settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    if len(shapes) < 2 or any(shape[1:] != shapes[0][1:] for shape in shapes):
        raise shape_mismatch(f"Concat needs two or more shapes that differ in channels only, not {shapes}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _windows(size: int, kernel: int, stride: int, padding: int) -> int:
    if size + 2 * padding < kernel:
        raise shape_mismatch(f"a kernel of {kernel} does not fit into {size} with padding {padding}")
    return (size + 2 * padding - kernel) // stride + 1


def _match(settings: Mapping[str, int], key: str, actual: int) -> None:
    if settings.get(key, actual) != actual:
        raise shape_mismatch(f"{key} says {settings[key]}, the layer receives {actual}")


# --- the allow-list -------------------------------------------------------------------------------------------

_WIDTH = SettingRule(1, 1 << 20)
_DECLARED = SettingRule(1, 1 << 28, is_declared=True)
_FLAG = SettingRule(0, 1, 1)
_KERNEL = SettingRule(1, 64)
_WINDOW = {"kernel_size": _KERNEL, "stride": SettingRule(1, 64, 1), "padding": SettingRule(0, 64, 0), "bias": _FLAG}
_CONVOLUTION = {**_WINDOW, "out_channels": _WIDTH, "in_channels": _DECLARED, "groups": SettingRule(1, 1 << 20, 1)}
_TRANSPOSED = {**_WINDOW, "out_channels": _WIDTH, "in_channels": _DECLARED, "output_padding": SettingRule(0, 63, 0)}
_POOL = {"kernel_size": _KERNEL, "stride": SettingRule(1, 64, 0)}
_PADDED_POOL = {**_POOL, "padding": SettingRule(0, 32, 0)}
_NORMALISED = {"num_features": _DECLARED}
_ANY_RANK = (1, 2, 3, 4)

KINDS: Mapping[str, LayerKind] = {
    "Linear": LayerKind({"out_features": _WIDTH, "in_features": _DECLARED, "bias": _FLAG}, (1,), _linear_shape),
    "Conv2d": LayerKind(_CONVOLUTION, (3,), _convolution_shape),
    "Conv3d": LayerKind(_CONVOLUTION, (4,), _convolution_shape),
    "ConvTranspose2d": LayerKind(_TRANSPOSED, (3,), _transposed_convolution_shape),
    "ConvTranspose3d": LayerKind(_TRANSPOSED, (4,), _transposed_convolution_shape),
    "BatchNorm1d": LayerKind(_NORMALISED, (1,), _batch_normalisation_shape),
    "BatchNorm2d": LayerKind(_NORMALISED, (3,), _batch_normalisation_shape),
    "BatchNorm3d": LayerKind(_NORMALISED, (4,), _batch_normalisation_shape),
    "ReLU": LayerKind({}, _ANY_RANK, _same_shape),
    "Sigmoid": LayerKind({}, _ANY_RANK, _same_shape),
    "Tanh": LayerKind({}, _ANY_RANK, _same_shape),
    "MaxPool2d": LayerKind(_PADDED_POOL, (3,), _pooling_shape),
    "MaxPool3d": LayerKind(_PADDED_POOL, (4,), _pooling_shape),
    "AvgPool2d": LayerKind(_POOL, (3,), _pooling_shape),
    "AdaptiveAvgPool2d": LayerKind({"output_size": SettingRule(1, 64)}, (3,), _adaptive_pooling_shape),
    "Upsample": LayerKind({"scale_factor": SettingRule(2, 16)}, (3, 4), _upsampling_shape),
    "ZeroPad2d": LayerKind(
        {"before": SettingRule(0, 64, 0), "after": SettingRule(0, 64, 0)}, (3,), _zero_padding_shape
    ),
    "Flatten": LayerKind({}, _ANY_RANK, _flattening_shape),
    "Dropout": LayerKind({"percent": SettingRule(0, 99)}, _ANY_RANK, _same_shape),
    "Add": LayerKind({}, _ANY_RANK, _addition_shape, maximum_inputs=16),
    "Concat": LayerKind({}, _ANY_RANK, _concatenation_shape, maximum_inputs=16),
}
"""Every layer kind a task may use; the exact evaluation and the float model carry out each of them."""


# --- reading a specification ----------------------------------------------------------------------------------


def kind_of(layer: Layer) -> LayerKind:
    """Return the allow-listed kind of a layer, or refuse it."""
    kind = KINDS.get(layer.kind)
    if kind is None:
        raise Rejected(RejectionReason.MODEL_LAYER_UNKNOWN, f"{layer.kind!r} is none of {', '.join(sorted(KINDS))}")
    return kind


def complete_settings(layer: Layer) -> dict[str, int]:
    """Return a layer's settings with defaults filled in; refuse unknown, repeated, missing or excessive ones."""
    rules = kind_of(layer).settings
    keys = [setting.key for setting in layer.settings]
    unknown = [key for key in keys if key not in rules]
    if unknown or keys != sorted(set(keys)):
        detail = f"{layer.kind} {layer.name} has unknown or unsorted settings {keys}; known are {sorted(rules)}"
        raise Rejected(RejectionReason.MODEL_LAYER_UNKNOWN, detail)
    settings = {key: rule.default for key, rule in rules.items() if rule.default is not None}
    for setting in layer.settings:
        rule = rules[setting.key]
        if not rule.minimum <= setting.value <= rule.maximum:
            detail = f"{setting.key} of {layer.name} is {setting.value}, allowed: {rule.minimum} to {rule.maximum}"
            raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, detail)
        settings[setting.key] = setting.value
    missing = [key for key, rule in rules.items() if key not in settings and not rule.is_declared]
    if missing:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{layer.name} lacks {', '.join(sorted(missing))}")
    return settings


def resolve_inputs(specification: ModelSpecification) -> tuple[tuple[str, ...], ...]:
    """Return the names each layer reads, with the layer before filled in where none is named."""
    previous = INPUT
    resolved: list[tuple[str, ...]] = []
    for layer in specification.layers:
        resolved.append(layer.inputs or (previous,))
        previous = layer.name
    return tuple(resolved)


def layer_shapes(specification: ModelSpecification) -> dict[str, Shape]:
    """Return the output shape of the sample and of every layer, without the batch; refuse what does not fit."""
    shapes: dict[str, Shape] = {INPUT: _check_input(specification)}
    for layer, names in zip(specification.layers, resolve_inputs(specification), strict=True):
        kind = kind_of(layer)
        if not _NAME.fullmatch(layer.name) or layer.name in shapes:
            raise shape_mismatch(f"{layer.name!r} is not a new name of small letters, digits and underscores")
        unknown = [name for name in names if name not in shapes]
        if unknown or len(names) > kind.maximum_inputs:
            raise shape_mismatch(f"{layer.name} reads {names}: unknown, later, or more than {kind.maximum_inputs}")
        received = tuple(shapes[name] for name in names)
        if any(len(shape) not in kind.ranks for shape in received):
            raise shape_mismatch(f"{layer.kind} {layer.name} cannot read {received}")
        shapes[layer.name] = kind.shape(complete_settings(layer), received)
    return shapes


def output_shape(specification: ModelSpecification) -> Shape:
    """Return the shape of the logits of one sample: classes first."""
    return layer_shapes(specification)[specification.layers[-1].name]


def check_graph(specification: ModelSpecification, limits: ModelLimits) -> dict[str, Shape]:
    """Refuse a graph with unread layers, too many of them or too large ones; return its shapes."""
    if not 1 <= len(specification.layers) <= limits.layers:
        raise Rejected(RejectionReason.MODEL_TOO_LARGE, f"{len(specification.layers)} layers, allowed {limits.layers}")
    shapes = layer_shapes(specification)
    read = {name for names in resolve_inputs(specification) for name in names}
    idle = [layer.name for layer in specification.layers[:-1] if layer.name not in read]
    if idle:
        raise shape_mismatch(f"nothing reads {', '.join(idle)}")
    largest = max(math.prod(shape) for shape in shapes.values())
    if largest > limits.layer_elements:
        detail = f"a layer has {largest} elements, allowed are {limits.layer_elements}"
        raise Rejected(RejectionReason.MODEL_TOO_LARGE, detail)
    return shapes


def _check_input(specification: ModelSpecification) -> Shape:
    shape = tuple(specification.input_shape)
    if not 1 <= len(shape) <= 4:
        raise shape_mismatch(f"a sample has one to four dimensions, not {len(shape)}")
    if any(not 1 <= size <= 1 << 20 for size in shape):
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"the sample shape {shape} is out of range")
    return shape


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
    for layer, names in zip(specification.layers, resolve_inputs(specification), strict=True):
        found.extend(_layer_tensors(layer, shapes[names[0]]))
    return tuple(found)


def parameter_count(specification: ModelSpecification) -> int:
    """Return the number of trained parameters."""
    return sum(math.prod(tensor.shape) for tensor in tensors(specification) if tensor.trained)


def model_bytes(specification: ModelSpecification) -> int:
    """Return the bytes of all tensors, running statistics included, without the file's header."""
    return BYTES_PER_PARAMETER * sum(math.prod(tensor.shape) for tensor in tensors(specification))


def count_committed_bytes(specification: ModelSpecification, weight_bits: int) -> int:
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
    settings = complete_settings(layer)
    width = settings["out_features"] if layer.kind == "Linear" else settings["out_channels"]
    weight = Tensor(f"{layer.name}.weight", weight_shape, True)
    return (weight, Tensor(f"{layer.name}.bias", (width,), True)) if settings["bias"] else (weight,)


def _weight_shape(layer: Layer, received: Shape) -> Shape | None:
    settings = complete_settings(layer)
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
    for layer, names in zip(specification.layers, resolve_inputs(specification), strict=True):
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
