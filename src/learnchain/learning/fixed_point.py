r"""Refuse to judge on a machine whose convolutions are not exact where IEEE arithmetic says they must be.

The exact evaluation needs plain sums of products. A library that takes a shortcut (Winograd or Fourier transforms,
reduced precision) breaks that silently, so every process compares a convolution and a product whose sums come close
to 2**24 with integer arithmetic once, in a few milliseconds, before its first evaluation.

Evaluate a model exactly: the same counts on any processor, thread count and instruction set (ROUND-6).

The fixed-point image is a pure function of the committed float32 weights and the first training rows. Activations
are integers of at most `ACTIVATION_MAXIMUM` times a power of two; weights are at most 16-bit integers times a power
of two for each output channel, chosen as fine as possible while every sum of a channel stays below $2^{24}$:

$$ \max|x| \sum_i |w_i| + |b| < 2^{24}. $$

Every partial sum is then an integer that float32 holds exactly, so the order of additions, and with it threads,
instruction sets and libraries, cannot change a bit, and the evaluation runs at float32's speed. Long sums are cut
into pieces of at most `PIECE_TERMS` terms, each exact in float32, and added in float64. Rounding is half to even, one
elementwise IEEE operation. Batch normalisation is folded, sigmoid and tanh are tables of correctly rounded decimals.
Sums below 2**53 in float64 would be exact too; this bound is tighter and about ten times faster.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
import torch
from torch.nn import functional

from learnchain.encoding.cryptography import shake256
from learnchain.learning import fixed_point_layers as layers
from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point_layers import ACTIVATION_MAXIMUM, Operation, fold, linear_operation
from learnchain.learning.model import Weights, check_finite
from learnchain.learning.safe_tensors import Array
from learnchain.protocol import model_specification
from learnchain.protocol.task_specification import Metric
from learnchain.rejection import Rejected, RejectionReason, Unavailable

_CHANNELS, _SIDE, _KERNEL = 16, 12, 3


@cache
def check_backend() -> None:
    """Raise `Unavailable` if this machine cannot evaluate exactly."""
    samples = _integers("samples", (2, _CHANNELS, _SIDE, _SIDE), 1_023)
    weights = _integers("weights", (_CHANNELS, _CHANNELS, _KERNEL, _KERNEL), 113)
    out = _SIDE - _KERNEL + 1
    expected = np.zeros((2, _CHANNELS, out, out), dtype=np.int64)
    for row in range(_KERNEL):
        for column in range(_KERNEL):
            window = samples[:, :, row : row + out, column : column + out]
            expected += np.einsum("nchw,oc->nohw", window, weights[:, :, row, column])
    with torch.inference_mode():
        convolved = functional.conv2d(_floats(samples), _floats(weights))
        flat, matrix = samples.reshape(-1, _CHANNELS * 9), weights.reshape(_CHANNELS, -1)
        multiplied = functional.linear(_floats(flat), _floats(matrix))
    if not _equal(convolved, expected) or not _equal(multiplied, flat @ matrix.T):
        raise Unavailable("an exact evaluation: this machine's float32 sums take a shortcut (see doctor)")


def _integers(tag: str, shape: tuple[int, ...], largest: int) -> Array:
    drawn = np.frombuffer(shake256(f"exactness/{tag}", b"", 2 * int(np.prod(shape))), dtype="<u2").astype(np.int64)
    return (drawn % (2 * largest + 1) - largest).reshape(shape)


def _floats(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _equal(computed: torch.Tensor, expected: Array) -> bool:
    return bool(np.array_equal(computed.numpy().astype(np.int64), expected))


CALIBRATION_ROWS = 256
"""Enough first training rows to see the range of every activation; rarer, larger values saturate."""

_BATCH_ELEMENTS = 1 << 20
"""Elements of the largest layer in one batch: small enough that elementwise work stays in the cache."""

_LINEAR = ("Linear", "Conv2d", "Conv3d", "ConvTranspose2d", "ConvTranspose3d")


@dataclass(frozen=True, slots=True)
class ExactCounts:
    """Hold what consensus compares: correct of total (for Dice twice the intersection of the sizes) and the digest."""

    correct: int
    total: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    sources: tuple[str, ...]
    done: tuple[str, ...]
    run: Operation


@dataclass(frozen=True, slots=True)
class _Group:
    """Name a layer with the batch normalisation and the rectifier that are folded into it."""

    layer: model_specification.Layer
    sources: tuple[str, ...]
    normalisation: model_specification.Layer | None
    rectified: bool
    output: str


class FixedPointModel:
    """Hold the compiled image of one model; compile it with `compile_model`."""

    def __init__(self, steps: tuple[_Step, ...], quantise: Callable[[Array], torch.Tensor], batch_rows: int) -> None:
        self._steps = steps
        self._quantise = quantise
        self._batch_rows = batch_rows

    def logits(self, inputs: Array) -> Array:
        """Return the exact logits as float64, classes in the second axis."""
        with torch.inference_mode():
            parts = [
                self._run(inputs[start : start + self._batch_rows]) for start in range(0, len(inputs), self._batch_rows)
            ]
        return np.concatenate(parts)

    def _run(self, inputs: Array) -> Array:
        signals = {model_specification.INPUT: self._quantise(inputs)}
        name = model_specification.INPUT
        for step in self._steps:
            result = step.run([signals[source] for source in step.sources])
            for source in step.done:
                del signals[source]
            name = step.name
            signals[name] = result
        return signals[name].to(torch.float64).numpy()


def compile_model(
    specification: model_specification.ModelSpecification, weights: Weights, calibration: Array
) -> FixedPointModel:
    """Return the fixed-point image; scales are fixed layer by layer on the integers of the layers before."""
    check_backend()
    check_finite(weights)
    shapes = model_specification.layer_shapes(specification)
    if tuple(calibration.shape[1:]) != shapes[model_specification.INPUT]:
        detail = f"rows of {calibration.shape[1:]} do not fit a model for {shapes[model_specification.INPUT]}"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    rows = calibration[:CALIBRATION_ROWS]
    quantise, exponent = _input_quantiser(rows)
    with torch.inference_mode():
        steps = _Compiler(specification, weights).compile(quantise(rows), exponent)
    largest = max(prod(shape) for shape in shapes.values())
    return FixedPointModel(steps, quantise, max(1, _BATCH_ELEMENTS // largest))


def evaluate(
    specification: model_specification.ModelSpecification,
    weights: Weights,
    training: DataSet,
    test: DataSet,
    metric: Metric,
) -> ExactCounts:
    """Return the exact counts of a model on a test set, calibrated on the first training rows."""
    model = compile_model(specification, weights, training.inputs)
    if test.sample_shape != training.sample_shape:
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, f"the test set holds samples of {test.sample_shape}")
    logits = model.logits(test.inputs)
    digest = hashlib.sha256(np.ascontiguousarray(logits).tobytes()).digest()
    predictions = predict(logits)
    if predictions.shape != test.labels.shape:
        detail = f"predictions {predictions.shape} do not fit labels {test.labels.shape}"
        raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    if metric is Metric.DICE:
        intersection, sizes = dice_counts(predictions, test.labels)
        # Nothing to find and nothing found is a full match; the count stays even.
        return ExactCounts(2 * intersection, sizes, digest) if sizes else ExactCounts(2, 2, digest)
    return ExactCounts(int((predictions == test.labels).sum()), int(test.labels.size), digest)


def predict(logits: Array) -> Array:
    """Return the class of the largest logit; a tie goes to the lowest class."""
    return np.argmax(logits, axis=1)


def dice_counts(predictions: Array, labels: Array) -> tuple[int, int]:
    """Return (intersection, sizes) over all foreground classes; Dice is twice the first over the second."""
    foreground = labels > 0
    intersection = int((foreground & (predictions == labels)).sum())
    return intersection, int(foreground.sum()) + int((predictions > 0).sum())


def _input_quantiser(rows: Array) -> tuple[Callable[[Array], torch.Tensor], int]:
    if rows.dtype == np.uint8:
        return lambda batch: torch.from_numpy(batch.astype(np.float32)), -8
    exponent = layers.exponent_of(float(np.abs(rows).max()))
    factor = np.float32(2.0**-exponent)

    def quantise(batch: Array) -> torch.Tensor:
        with np.errstate(over="ignore"):
            scaled = np.clip(np.rint(batch * factor), -ACTIVATION_MAXIMUM, ACTIVATION_MAXIMUM)
        return torch.from_numpy(scaled.astype(np.float32))

    return quantise, exponent


class _Compiler:
    """Walk the graph once, carrying the calibration rows and their exponents along."""

    def __init__(self, specification: model_specification.ModelSpecification, weights: Weights) -> None:
        self._weights = weights
        self._groups = _groups(specification)
        self._signals: dict[str, torch.Tensor] = {}
        self._exponents: dict[str, int] = {}
        self._output = self._groups[-1].output

    def compile(self, rows: torch.Tensor, exponent: int) -> tuple[_Step, ...]:
        self._signals[model_specification.INPUT], self._exponents[model_specification.INPUT] = rows, exponent
        last_reader = {source: index for index, group in enumerate(self._groups) for source in group.sources}
        steps: list[_Step] = []
        for index, group in enumerate(self._groups):
            received = [self._signals[source] for source in group.sources]
            run, exponent = self._operation(group, received)
            done = tuple(sorted({source for source in group.sources if last_reader[source] == index}))
            self._signals[group.output], self._exponents[group.output] = run(received), exponent
            for source in done:
                del self._signals[source]
            steps.append(_Step(group.output, group.sources, done, run))
        return tuple(steps)

    def _operation(self, group: _Group, received: list[torch.Tensor]) -> tuple[Operation, int]:
        layer, exponents = group.layer, [self._exponents[source] for source in group.sources]
        if layer.kind in _LINEAR or layer.kind.startswith("BatchNorm"):
            folded = fold(layer, group.normalisation, self._weights)
            is_output = group.output == self._output

            def build(output_exponent: int, rounded: bool) -> Operation:
                return linear_operation(layer, folded, (exponents[0], output_exponent), group.rectified, rounded)

            if is_output:
                # The logits are compared as they are: exact sums, not rounded again.
                return build(0, False), 0
            chosen = layers.exponent_of(float(build(0, False)(received).abs().max()))
            return build(chosen, True), chosen
        settings = model_specification.complete_settings(layer)
        if layer.kind in ("AvgPool2d", "AdaptiveAvgPool2d"):
            return layers.average_operation(layer.kind, settings, received[0], exponents[0])
        if layer.kind == "Add":
            return layers.addition_operation(exponents, received)
        if layer.kind == "Concat":
            return layers.concatenation_operation(exponents)
        if layer.kind in ("Sigmoid", "Tanh"):
            return layers.table_operation(layer.kind, exponents[0])
        return layers.plain_operation(layer.kind, settings), exponents[0]


def _groups(specification: model_specification.ModelSpecification) -> tuple[_Group, ...]:
    """Return the layers with foldable successors merged: batch normalisation, then a rectifier, read by nobody else."""
    sources = dict(
        zip(
            (layer.name for layer in specification.layers),
            model_specification.resolve_inputs(specification),
            strict=True,
        )
    )
    readers: dict[str, list[model_specification.Layer]] = {}
    for layer in specification.layers:
        for source in sources[layer.name]:
            readers.setdefault(source, []).append(layer)

    def only_reader(name: str, prefix: str) -> model_specification.Layer | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and found[0].kind.startswith(prefix) else None

    groups: list[_Group] = []
    merged: set[str] = set()
    for layer in specification.layers:
        if layer.name in merged:
            continue
        normalisation, rectifier, output = None, None, layer.name
        if layer.kind in _LINEAR and (normalisation := only_reader(output, "BatchNorm")) is not None:
            output = normalisation.name
        foldable = layer.kind in _LINEAR or layer.kind.startswith("BatchNorm")
        if foldable and (rectifier := only_reader(output, "ReLU")) is not None:
            output = rectifier.name
        merged.update(item.name for item in (normalisation, rectifier) if item is not None)
        groups.append(_Group(layer, sources[layer.name], normalisation, rectifier is not None, output))
    return tuple(groups)
