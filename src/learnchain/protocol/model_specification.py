"""Architectures as data: an allow-list of `torch.nn` layers under their own names in a validated graph.

Pure integers: every node, also one without torch, derives the same shapes and sizes from the same bytes. A layer
reads the layer before it unless `inputs` names others; names refer backwards only, so no graph has a cycle.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from learnchain.primitives.codec import Bound
from learnchain.primitives.rejection import Rejected, RejectionReason

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
    declared: bool = False


ShapeRule = Callable[[Mapping[str, int], tuple[Shape, ...]], Shape]


@dataclass(frozen=True, slots=True)
class LayerKind:
    """Describe one kind of the allow-list: its settings, the ranks it reads, how many inputs, its output shape."""

    settings: Mapping[str, SettingRule]
    ranks: tuple[int, ...]
    shape: ShapeRule
    maximum_inputs: int = 1


def mismatch(detail: str) -> Rejected:
    """Return the rejection for shapes that do not fit."""
    return Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)


# --- shapes ---------------------------------------------------------------------------------------------------


def _same(_settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    return shapes[0]


def _linear(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    _match(settings, "in_features", shapes[0][0])
    return (settings["out_features"],)


def _convolution(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    _match(settings, "in_channels", channels)
    groups = settings["groups"]
    if channels % groups or settings["out_channels"] % groups:
        raise mismatch(f"{channels} and {settings['out_channels']} channels do not divide into {groups} groups")
    kernel, stride, padding = settings["kernel_size"], settings["stride"], settings["padding"]
    return (settings["out_channels"], *(_windows(size, kernel, stride, padding) for size in sizes))


def _transposed(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    _match(settings, "in_channels", channels)
    kernel, stride, padding = settings["kernel_size"], settings["stride"], settings["padding"]
    if settings["output_padding"] >= stride:
        raise mismatch("output_padding must be smaller than stride")
    grown = [(size - 1) * stride - 2 * padding + kernel + settings["output_padding"] for size in sizes]
    if min(grown) < 1:
        raise mismatch(f"a transposed convolution of {sizes} leaves nothing")
    return (settings["out_channels"], *grown)


def _pooling(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    kernel, padding = settings["kernel_size"], settings.get("padding", 0)
    if 2 * padding > kernel:
        raise mismatch("a pooling layer pads at most half its kernel")
    stride = settings["stride"] or kernel
    return (channels, *(_windows(size, kernel, stride, padding) for size in sizes))


def _adaptive_pooling(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    target = settings["output_size"]
    # Windows of unequal size would make the exact evaluation depend on each window's divisor.
    if any(size % target for size in sizes):
        raise mismatch(f"an output of {target} does not divide {sizes}")
    return (channels, *(target for _ in sizes))


def _batch_normalisation(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    _match(settings, "num_features", shapes[0][0])
    return shapes[0]


def _upsampling(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    return (channels, *(size * settings["scale_factor"] for size in sizes))


def _flattening(_settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    return (math.prod(shapes[0]),)


def _zero_padding(settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    channels, *sizes = shapes[0]
    return (channels, *(size + settings["before"] + settings["after"] for size in sizes))


def _addition(_settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    if len(shapes) < 2 or any(shape != shapes[0] for shape in shapes):
        raise mismatch(f"Add needs two or more equal shapes, not {shapes}")
    return shapes[0]


def _concatenation(_settings: Mapping[str, int], shapes: tuple[Shape, ...]) -> Shape:
    if len(shapes) < 2 or any(shape[1:] != shapes[0][1:] for shape in shapes):
        raise mismatch(f"Concat needs two or more shapes that differ in channels only, not {shapes}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _windows(size: int, kernel: int, stride: int, padding: int) -> int:
    if size + 2 * padding < kernel:
        raise mismatch(f"a kernel of {kernel} does not fit into {size} with padding {padding}")
    return (size + 2 * padding - kernel) // stride + 1


def _match(settings: Mapping[str, int], key: str, actual: int) -> None:
    if settings.get(key, actual) != actual:
        raise mismatch(f"{key} says {settings[key]}, the layer receives {actual}")


# --- the allow-list -------------------------------------------------------------------------------------------

_WIDTH = SettingRule(1, 1 << 20)
_DECLARED = SettingRule(1, 1 << 28, declared=True)
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
    "Linear": LayerKind({"out_features": _WIDTH, "in_features": _DECLARED, "bias": _FLAG}, (1,), _linear),
    "Conv2d": LayerKind(_CONVOLUTION, (3,), _convolution),
    "Conv3d": LayerKind(_CONVOLUTION, (4,), _convolution),
    "ConvTranspose2d": LayerKind(_TRANSPOSED, (3,), _transposed),
    "ConvTranspose3d": LayerKind(_TRANSPOSED, (4,), _transposed),
    "BatchNorm1d": LayerKind(_NORMALISED, (1,), _batch_normalisation),
    "BatchNorm2d": LayerKind(_NORMALISED, (3,), _batch_normalisation),
    "BatchNorm3d": LayerKind(_NORMALISED, (4,), _batch_normalisation),
    "ReLU": LayerKind({}, _ANY_RANK, _same),
    "Sigmoid": LayerKind({}, _ANY_RANK, _same),
    "Tanh": LayerKind({}, _ANY_RANK, _same),
    "MaxPool2d": LayerKind(_PADDED_POOL, (3,), _pooling),
    "MaxPool3d": LayerKind(_PADDED_POOL, (4,), _pooling),
    "AvgPool2d": LayerKind(_POOL, (3,), _pooling),
    "AdaptiveAvgPool2d": LayerKind({"output_size": SettingRule(1, 64)}, (3,), _adaptive_pooling),
    "Upsample": LayerKind({"scale_factor": SettingRule(2, 16)}, (3, 4), _upsampling),
    "ZeroPad2d": LayerKind({"before": SettingRule(0, 64, 0), "after": SettingRule(0, 64, 0)}, (3,), _zero_padding),
    "Flatten": LayerKind({}, _ANY_RANK, _flattening),
    "Dropout": LayerKind({"percent": SettingRule(0, 99)}, _ANY_RANK, _same),
    "Add": LayerKind({}, _ANY_RANK, _addition, maximum_inputs=16),
    "Concat": LayerKind({}, _ANY_RANK, _concatenation, maximum_inputs=16),
}
"""Every layer kind a task may use; the exact evaluation and the float model carry out each of them."""


# --- reading a specification ----------------------------------------------------------------------------------


def kind_of(layer: Layer) -> LayerKind:
    """Return the allow-listed kind of a layer, or refuse it."""
    kind = KINDS.get(layer.kind)
    if kind is None:
        raise Rejected(RejectionReason.MODEL_LAYER_UNKNOWN, f"{layer.kind!r} is none of {', '.join(sorted(KINDS))}")
    return kind


def settings_of(layer: Layer) -> dict[str, int]:
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
    missing = [key for key, rule in rules.items() if key not in settings and not rule.declared]
    if missing:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{layer.name} lacks {', '.join(sorted(missing))}")
    return settings


def inputs_of(specification: ModelSpecification) -> tuple[tuple[str, ...], ...]:
    """Return the names each layer reads, with the layer before filled in where none is named."""
    previous = INPUT
    resolved: list[tuple[str, ...]] = []
    for layer in specification.layers:
        resolved.append(layer.inputs or (previous,))
        previous = layer.name
    return tuple(resolved)


def layer_shapes(specification: ModelSpecification) -> dict[str, Shape]:
    """Return the output shape of the sample and of every layer, without the batch; refuse what does not fit."""
    shapes: dict[str, Shape] = {INPUT: _checked_input(specification)}
    for layer, names in zip(specification.layers, inputs_of(specification), strict=True):
        kind = kind_of(layer)
        if not _NAME.fullmatch(layer.name) or layer.name in shapes:
            raise mismatch(f"{layer.name!r} is not a new name of small letters, digits and underscores")
        unknown = [name for name in names if name not in shapes]
        if unknown or len(names) > kind.maximum_inputs:
            raise mismatch(f"{layer.name} reads {names}: unknown, later, or more than {kind.maximum_inputs}")
        received = tuple(shapes[name] for name in names)
        if any(len(shape) not in kind.ranks for shape in received):
            raise mismatch(f"{layer.kind} {layer.name} cannot read {received}")
        shapes[layer.name] = kind.shape(settings_of(layer), received)
    return shapes


def output_shape(specification: ModelSpecification) -> Shape:
    """Return the shape of the logits of one sample: classes first."""
    return layer_shapes(specification)[specification.layers[-1].name]


def check_graph(specification: ModelSpecification, limits: ModelLimits) -> dict[str, Shape]:
    """Refuse a graph with unread layers, too many of them or too large ones; return its shapes."""
    if not 1 <= len(specification.layers) <= limits.layers:
        raise Rejected(RejectionReason.MODEL_TOO_LARGE, f"{len(specification.layers)} layers, allowed {limits.layers}")
    shapes = layer_shapes(specification)
    read = {name for names in inputs_of(specification) for name in names}
    idle = [layer.name for layer in specification.layers[:-1] if layer.name not in read]
    if idle:
        raise mismatch(f"nothing reads {', '.join(idle)}")
    largest = max(math.prod(shape) for shape in shapes.values())
    if largest > limits.layer_elements:
        detail = f"a layer has {largest} elements, allowed are {limits.layer_elements}"
        raise Rejected(RejectionReason.MODEL_TOO_LARGE, detail)
    return shapes


def _checked_input(specification: ModelSpecification) -> Shape:
    shape = tuple(specification.input_shape)
    if not 1 <= len(shape) <= 4:
        raise mismatch(f"a sample has one to four dimensions, not {len(shape)}")
    if any(not 1 <= size <= 1 << 20 for size in shape):
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"the sample shape {shape} is out of range")
    return shape
