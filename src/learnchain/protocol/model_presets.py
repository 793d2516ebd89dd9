"""Presets that expand to specifications: the networks of the four papers and the small ones of the demo."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from learnchain.protocol.model_specification import Layer, ModelSpecification, Setting, Shape
from learnchain.rejection import Rejected, RejectionReason


class _Builder:
    """Collect layers under running names; every method returns the name of the layer it added."""

    def __init__(self, input_shape: Shape) -> None:
        self._input_shape = input_shape
        self._layers: list[Layer] = []
        self._rank = len(input_shape) - 1

    def add(self, kind: str, *inputs: str, **settings: int) -> str:
        """Append a layer of any kind."""
        name = f"{kind.lower()}{len(self._layers)}"
        chosen = tuple(Setting(key, value) for key, value in sorted(settings.items()))
        self._layers.append(Layer(name, kind, inputs, chosen))
        return name

    def add_convolution(self, channels: int, kernel: int, *inputs: str, stride: int = 1, padding: int = 0) -> str:
        """Append a convolution of the sample's rank; defaults are left out to keep the bytes few."""
        if self._rank not in (2, 3):
            raise _argument(f"this preset needs samples of channels and two or three sides, not {self._input_shape}")
        optional = {key: value for key, value in (("stride", stride),) if value != 1}
        if padding:
            optional["padding"] = padding
        kind = f"Conv{self._rank}d"
        return self.add(kind, *inputs, out_channels=channels, kernel_size=kernel, **optional)

    def add_normalised_convolution(self, channels: int, kernel: int, *inputs: str, stride: int = 1) -> str:
        """Append convolution and batch normalisation at the same resolution (for an odd kernel)."""
        self.add_convolution(channels, kernel, *inputs, stride=stride, padding=kernel // 2)
        return self.add(f"BatchNorm{self._rank}d")

    def build(self) -> ModelSpecification:
        """Return the specification."""
        return ModelSpecification(self._input_shape, tuple(self._layers))


def mlp(input_shape: Shape, classes: int, hidden: tuple[int, ...] = (128, 64)) -> ModelSpecification:
    """Return a multi-layer perceptron (PoLe 4.3)."""
    builder = _Builder(input_shape)
    if len(input_shape) > 1:
        builder.add("Flatten")
    for width in hidden:
        builder.add("Linear", out_features=width)
        builder.add("ReLU")
    builder.add("Linear", out_features=classes)
    return builder.build()


def lenet(input_shape: Shape, classes: int) -> ModelSpecification:
    """Return LeNet-5 with rectified units and maximum pooling."""
    builder = _Builder(input_shape)
    for channels, padding in ((6, 2), (16, 0)):
        builder.add_convolution(channels, 5, padding=padding)
        builder.add("ReLU")
        builder.add("MaxPool2d", kernel_size=2)
    builder.add("Flatten")
    for width in (120, 84):
        builder.add("Linear", out_features=width)
        builder.add("ReLU")
    builder.add("Linear", out_features=classes)
    return builder.build()


def strided_cnn(
    input_shape: Shape, classes: int, channels: tuple[int, ...] = (16, 32), hidden: int = 64
) -> ModelSpecification:
    """Return 3x3 convolutions of stride two and one hidden layer: the network of the demo."""
    builder = _Builder(input_shape)
    for width in channels:
        builder.add_convolution(width, 3, stride=2, padding=1)
        builder.add("ReLU")
    builder.add("Flatten")
    builder.add("Linear", out_features=hidden)
    builder.add("ReLU")
    builder.add("Linear", out_features=classes)
    return builder.build()


def vgg16(input_shape: Shape, classes: int, width: int = 64, hidden: int = 512) -> ModelSpecification:
    """Return VGG-16 with batch normalisation (PoLe 4.3); stages stop pooling when a side is odd or one."""
    builder = _Builder(input_shape)
    sides = list(input_shape[1:])
    for factor, repeats in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
        for _ in range(repeats):
            builder.add_normalised_convolution(width * factor, 3)
            builder.add("ReLU")
        if all(side >= 2 for side in sides):
            builder.add("MaxPool2d", kernel_size=2)
            sides = [side // 2 for side in sides]
    builder.add("Flatten")
    for _ in range(2):
        builder.add("Linear", out_features=hidden)
        builder.add("ReLU")
        builder.add("Dropout", percent=50)
    builder.add("Linear", out_features=classes)
    return builder.build()


def fcn34(input_shape: Shape, classes: int, width: int = 32) -> ModelSpecification:
    """Return a fully convolutional network of 34 convolutions with bottleneck blocks (DLBC V-A).

    One stem, ten bottlenecks of three, three lateral and up-sampling steps of one each less the last classifier:
    1 + 30 + 2 + 1 = 34, projections of the skip connections not counted, as in residual networks.
    """
    builder = _Builder(input_shape)
    builder.add_normalised_convolution(width, 3)
    last = builder.add("ReLU")
    stages: list[str] = []
    for stage, repeats in enumerate((3, 4, 3)):
        for block in range(repeats):
            stride = 2 if block == 0 and stage > 0 else 1
            last = _bottleneck(builder, last, width << stage, stride, block == 0)
        stages.append(last)
    for stage in (1, 0):
        lateral = builder.add_convolution(width << (stage + 1), 1, stages[stage])
        raised = builder.add("Upsample", last, scale_factor=2)
        last = builder.add("Concat", raised, lateral)
    builder.add_convolution(classes, 1, last)
    return builder.build()


def _bottleneck(builder: _Builder, source: str, width: int, stride: int, projects: bool) -> str:
    builder.add_normalised_convolution(width // 2, 1, source)
    builder.add("ReLU")
    builder.add_normalised_convolution(width // 2, 3, stride=stride)
    builder.add("ReLU")
    body = builder.add_normalised_convolution(2 * width, 1)
    skip = source
    if projects:
        builder.add_convolution(2 * width, 1, source, stride=stride)
        skip = builder.add("BatchNorm2d")
    builder.add("Add", body, skip)
    return builder.add("ReLU")


def unet2d(input_shape: Shape, classes: int, width: int = 16, steps: int = 4) -> ModelSpecification:
    """Return a 2D U-Net: `steps` resolutions of two 3x3 convolutions, doubled filters, skips by concatenation."""
    return _unet(input_shape, classes, width, steps)


def unet3d(input_shape: Shape, classes: int, width: int = 16, steps: int = 4) -> ModelSpecification:
    """Return the 3D U-Net of DLBC V-A: four resolutions of two 3x3x3 convolutions, 2x2x2 pooling and up-sampling."""
    return _unet(input_shape, classes, width, steps)


def _unet(input_shape: Shape, classes: int, width: int, steps: int) -> ModelSpecification:
    builder, rank = _Builder(input_shape), len(input_shape) - 1
    skips: list[str] = []
    for step in range(steps):
        for _ in range(2):
            builder.add_normalised_convolution(width << step, 3)
            skip = builder.add("ReLU")
        if step < steps - 1:
            skips.append(skip)
            builder.add(f"MaxPool{rank}d", kernel_size=2)
    for step in reversed(range(steps - 1)):
        raised = builder.add(f"ConvTranspose{rank}d", out_channels=width << step, kernel_size=2, stride=2)
        builder.add("Concat", skips[step], raised)
        for _ in range(2):
            builder.add_normalised_convolution(width << step, 3)
            builder.add("ReLU")
    builder.add_convolution(classes, 1)
    return builder.build()


_BAAS_TABLE_1 = (
    ((32, 5), (16, 5), (8, 2)),
    ((64, 5), (32, 5), (16, 2)),
    ((32, 5), (32, 10), (16, 4)),
    ((16, 10), (16, 10), (12, 5)),
    ((16, 10), (16, 5), (8, 5)),
)
"""(kernels, their side) of the three convolutions of contributors 1 to 5."""


def baas_cnn(input_shape: Shape, classes: int, contributor: int = 1) -> ModelSpecification:
    """Return the CNN of one computing contributor of BaaS Table I; `same` padding as TensorFlow defines it."""
    if not 1 <= contributor <= len(_BAAS_TABLE_1):
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"Table I has no contributor {contributor}")
    builder = _Builder(input_shape)
    for index, (channels, kernel) in enumerate(_BAAS_TABLE_1[contributor - 1]):
        if kernel % 2 == 0:
            builder.add("ZeroPad2d", before=(kernel - 1) // 2, after=kernel // 2)
        builder.add_convolution(channels, kernel, padding=kernel // 2 if kernel % 2 else 0)
        builder.add("ReLU")
        if index < 2:
            builder.add("MaxPool2d", kernel_size=2)
    builder.add("Flatten")
    builder.add("Linear", out_features=500)
    builder.add("ReLU")
    builder.add("Linear", out_features=classes)
    return builder.build()


def keyword_cnn(input_shape: Shape, classes: int, width: int = 32) -> ModelSpecification:
    """Return a small CNN for keyword spotting on spectrograms, as in DLBC's speech scenario."""
    builder = _Builder(input_shape)
    for factor in (1, 2):
        builder.add_normalised_convolution(width * factor, 3)
        builder.add("ReLU")
        builder.add("MaxPool2d", kernel_size=2)
    builder.add_normalised_convolution(width * 2, 3)
    builder.add("ReLU")
    builder.add("Flatten")
    builder.add("Dropout", percent=25)
    builder.add("Linear", out_features=classes)
    return builder.build()


PRESETS: Mapping[str, Callable[..., ModelSpecification]] = {
    "mlp": mlp,
    "lenet": lenet,
    "strided_cnn": strided_cnn,
    "vgg16": vgg16,
    "fcn34": fcn34,
    "unet2d": unet2d,
    "unet3d": unet3d,
    "baas_cnn": baas_cnn,
    "keyword_cnn": keyword_cnn,
}


def parse_model_table(table: Mapping[str, Any]) -> ModelSpecification:
    """Return the specification that a TOML table describes: a preset with its numbers, or explicit layers."""
    remaining = dict(table)
    try:
        input_shape = tuple(_read_integer(size) for size in remaining.pop("input_shape"))
        preset = remaining.pop("preset", None)
        if preset is None:
            rows = remaining.pop("layers")
            if remaining:
                raise _argument(f"unknown entries {sorted(remaining)}")
            return ModelSpecification(input_shape, tuple(_layer(row) for row in rows))
        classes = _read_integer(remaining.pop("classes"))
        if preset not in PRESETS:
            raise _argument(f"{preset!r} is none of the presets {', '.join(sorted(PRESETS))}")
        return PRESETS[preset](input_shape, classes, **_read_preset_settings(preset, remaining))
    except (KeyError, TypeError, AttributeError) as error:
        raise _argument(f"the model table is wrong or incomplete: {error}") from error


def _read_preset_settings(preset: str, entries: Mapping[str, Any]) -> dict[str, int | tuple[int, ...]]:
    """Return what a table says of a preset's own numbers; refuse others, and one where several are due."""
    _, _, *own = signature(PRESETS[preset]).parameters.values()
    several = {each.name: isinstance(each.default, tuple) for each in own}
    for name, value in entries.items():
        if name not in several:
            raise _argument(f"{preset} has no {name!r}; it has {', '.join(sorted(several)) or 'no numbers of its own'}")
        if several[name] != isinstance(value, Sequence):
            due = "a list of whole numbers" if several[name] else "one whole number"
            raise _argument(f"{name} of {preset} is {due}, not {value!r}")
    return {name: _read_number(value) for name, value in entries.items()}


def _layer(row: Mapping[str, Any]) -> Layer:
    remaining = dict(row)
    name, kind, inputs = remaining.pop("name"), remaining.pop("kind"), tuple(remaining.pop("inputs", ()))
    if not all(isinstance(text, str) for text in (name, kind, *inputs)):
        raise _argument("name, kind and inputs of a layer are texts")
    settings = tuple(Setting(key, _read_integer(value)) for key, value in sorted(remaining.items()))
    return Layer(name, kind, inputs, settings)


def _read_number(value: Any) -> int | tuple[int, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_read_integer(item) for item in value)
    return _read_integer(value)


def _read_integer(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= int(value) < 1 << 63:
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, f"{value!r} is no whole number of a model")
    return int(value)


def _argument(detail: str) -> Rejected:
    return Rejected(RejectionReason.ARGUMENT_INVALID, detail)
