"""Build the torch module of a specification, draw its first parameters from a seed, read and write its weights.

Write a model's architecture as a Python program that needs nothing but torch and safetensors.

A weights file holds numbers and names only: whoever takes a trained model home needs its layers too. Names are chosen
by whoever wrote the task, so they appear as quoted texts and never as code.
"""

from collections.abc import Callable, Mapping
from math import prod, sqrt
from pathlib import Path

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from learnchain.encoding.cryptography import shake256
from learnchain.learning.safe_tensors import Array, Entry, read_header, read_tensor, write_tensors
from learnchain.protocol import model_specification
from learnchain.protocol.training_terms import FULL_BITS
from learnchain.rejection import Rejected, RejectionReason

Weights = Mapping[str, Array]
"""Float32 arrays by their name in torch's state_dict, in its order."""

_HEADER_ALLOWANCE_BYTES = 1 << 20

_EXPONENT = "exponent/"
"""Stands before a tensor's name for the exponent of its scale."""

_LARGEST_BYTE, _LARGEST_EXPONENT = 127, 120


class Add(nn.Module):
    """Add the outputs of several layers."""

    @override
    def forward(self, *received: torch.Tensor) -> torch.Tensor:
        """Return the sum in the order of the inputs."""
        total = received[0]
        for other in received[1:]:
            total = total + other
        return total


class Concat(nn.Module):
    """Join the outputs of several layers along the channels."""

    @override
    def forward(self, *received: torch.Tensor) -> torch.Tensor:
        """Return the joined tensor."""
        return torch.cat(received, dim=1)


class SeededDropout(nn.Module):
    """Drop elements that the SHAKE-256 stream of a step's seed names: the same ones on every machine and device.

    torch's own stream differs between its builds, and no such stream may decide consensus.
    """

    def __init__(self, name: str, percent: int) -> None:
        super().__init__()
        self._name, self._percent = name, percent
        self.seed = b""

    @override
    def forward(self, received: torch.Tensor) -> torch.Tensor:
        """Return the kept elements, scaled up by what was dropped."""
        if not self.training or not self._percent:
            return received
        kept = torch.from_numpy(dropout_mask(self._name, self.seed, tuple(received.shape), self._percent))
        return received * kept.to(received.device)


def dropout_mask(name: str, seed: bytes, shape: tuple[int, ...], percent: int) -> Array:
    """Return zeros and 1 / (1 - p), rounded once to float32; 16 bits of the stream decide over an element."""
    drawn = np.frombuffer(shake256(f"dropout/{name}", seed, 2 * prod(shape)), dtype="<u2").reshape(shape)
    return np.where(drawn >= round(percent * 65_536 / 100), np.float32(100 / (100 - percent)), np.float32(0))


class GraphModel(nn.Module):
    """Run the layers of a specification in order, each on the layers it names."""

    def __init__(self, specification: model_specification.ModelSpecification) -> None:
        super().__init__()
        shapes, sources = (
            model_specification.layer_shapes(specification),
            model_specification.resolve_inputs(specification),
        )
        last_reader = {name: index for index, names in enumerate(sources) for name in names}
        self._plan: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
        for index, (layer, names) in enumerate(zip(specification.layers, sources, strict=True)):
            # Not add_module, which refuses names like "double" or "train" that a task may well choose.
            built = (
                SeededDropout(layer.name, model_specification.complete_settings(layer)["percent"])
                if layer.kind == "Dropout"
                else None
            )
            self._modules[layer.name] = built or _module(layer, shapes[names[0]])
            done = tuple(sorted({name for name in names if last_reader[name] == index}))
            self._plan.append((layer.name, names, done))

    @override
    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch; outputs that nothing reads any more are dropped at once."""
        outputs = {model_specification.INPUT: sample}
        name, modules = model_specification.INPUT, self._modules
        for name, sources, done in self._plan:
            module = modules[name]
            assert module is not None
            result = module(*[outputs[source] for source in sources])
            for source in done:
                del outputs[source]
            outputs[name] = result
        return outputs[name]


def build_model(specification: model_specification.ModelSpecification) -> GraphModel:
    """Return the torch module of a valid specification, its parameters not yet set."""
    return GraphModel(specification)


def initial_weights(specification: model_specification.ModelSpecification, seed: bytes) -> dict[str, Array]:
    """Return the parameters that a seed determines: uniform within Kaiming's bound, from SHAKE-256 (the round).

    A 32-bit integer of the stream becomes (2 u + 1 - 2**32) / 2**32 * bound, rounded once to float32, so that the
    same seed gives the same bits everywhere; torch's own random stream is not asked.
    """
    weights: dict[str, Array] = {}
    for tensor in model_specification.tensors(specification):
        part = tensor.name.rpartition(".")[2]
        if part == "weight" and len(tensor.shape) > 1:
            bound = sqrt(6.0 / prod(tensor.shape[1:]))
            stream = shake256(f"initialise/{tensor.name}", seed, 4 * prod(tensor.shape))
            drawn = np.frombuffer(stream, dtype="<u4").astype(np.float64)
            uniform = (2 * drawn + (1 - 2.0**32)) * (bound / 2.0**32)
            weights[tensor.name] = uniform.astype(np.float32).reshape(tensor.shape)
        elif part in ("weight", "running_var"):
            weights[tensor.name] = np.ones(tensor.shape, dtype=np.float32)
        else:
            weights[tensor.name] = np.zeros(tensor.shape, dtype=np.float32)
    return weights


def set_weights(model: nn.Module, weights: Weights) -> None:
    """Copy arrays into a module; names and shapes have been checked against its specification."""
    state = model.state_dict()
    with torch.no_grad():
        for name, array in weights.items():
            state[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))


def weights_of(model: nn.Module, specification: model_specification.ModelSpecification) -> dict[str, Array]:
    """Return the module's tensors as arrays that share its memory."""
    state = model.state_dict()
    return {tensor.name: state[tensor.name].detach().numpy() for tensor in model_specification.tensors(specification)}


def save_weights(path: Path, weights: Weights, bits: int = FULL_BITS) -> None:
    """Write weights as safetensors; equal weights give equal bytes and so an equal CID.

    With 8 bits every matrix and kernel becomes small integers times a power of two of its own (PoDL III-C).
    """
    arrays: dict[str, Array] = {}
    for name, array in weights.items():
        if bits == FULL_BITS or array.ndim < 2:
            arrays[name] = array
        else:
            arrays[name], exponent = _round_to_eight_bits(array)
            arrays[_EXPONENT + name] = np.array([exponent], np.dtype("<i8"))
    write_tensors(path, arrays)


def round_as_committed(weights: Weights, bits: int) -> dict[str, Array]:
    """Return the float32 weights that a saved model holds: rounded to their eight bits, or as they are."""
    if bits == FULL_BITS:
        return dict(weights)
    return {
        name: array if array.ndim < 2 else _scale_by_exponent(*_round_to_eight_bits(array))
        for name, array in weights.items()
    }


def _round_to_eight_bits(array: Array) -> tuple[Array, int]:
    exponent = _exponent(array)
    return np.rint(np.ldexp(array, exponent)).astype(np.int8), exponent


def _exponent(array: Array) -> int:
    """Return the largest power of two by which no weight leaves -127 to 127; doubling and halving are exact."""
    largest = float(np.abs(array).max(initial=0))
    if not 0 < largest < np.inf:
        return 0
    exponent = 7 - int(np.frexp(np.float32(largest))[1])
    exponent -= int(np.rint(np.ldexp(largest, exponent)) > _LARGEST_BYTE)
    return max(-_LARGEST_EXPONENT, min(_LARGEST_EXPONENT, exponent))


def _scale_by_exponent(small: Array, exponent: int) -> Array:
    return np.ldexp(small.astype(np.float32), -exponent)


def load_weights(path: Path, specification: model_specification.ModelSpecification) -> dict[str, Array]:
    """Return the finite float32 weights of exactly this model, or say what is wrong before a tensor is read."""
    malformed = RejectionReason.WEIGHTS_MALFORMED
    entries = read_header(path, model_specification.model_bytes(specification) + _HEADER_ALLOWANCE_BYTES, malformed)
    expected = {tensor.name: tensor.shape for tensor in model_specification.tensors(specification)}
    small = {name for name, entry in entries.items() if entry.dtype == "I8"}
    stored = set(expected) | {_EXPONENT + name for name in small}
    if set(entries) != stored:
        raise Rejected(malformed, f"wrong or missing tensors: {sorted(set(entries) ^ stored)[:4]}")
    for name, shape in expected.items():
        if entries[name].dtype not in ("F32", "I8"):
            raise Rejected(malformed, f"{name} is {entries[name].dtype}, not F32 or I8")
        if entries[name].shape != shape:
            detail = f"{name} is {entries[name].shape}, the specification says {shape}"
            raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, detail)
    weights = {name: read_tensor(path, entries[name]) for name in expected}
    for name in small:
        weights[name] = _scale_by_exponent(weights[name], _stored_exponent(path, name, entries[_EXPONENT + name]))
    check_finite(weights)
    return weights


def _stored_exponent(path: Path, name: str, entry: Entry) -> int:
    if entry.dtype != "I64" or entry.shape != (1,):
        raise Rejected(RejectionReason.WEIGHTS_MALFORMED, f"the scale of {name} is no single integer")
    exponent = int(read_tensor(path, entry)[0])
    if not -_LARGEST_EXPONENT <= exponent <= _LARGEST_EXPONENT:
        raise Rejected(RejectionReason.WEIGHTS_MALFORMED, f"the scale of {name} is 2 to the {exponent}")
    return exponent


def check_finite(weights: Weights) -> None:
    """Refuse a NaN or an infinity."""
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise Rejected(RejectionReason.WEIGHTS_NOT_FINITE, f"{name} holds a NaN or an infinity")


def _module(layer: model_specification.Layer, received: tuple[int, ...]) -> nn.Module:
    builder = _BUILDERS.get(layer.kind)
    settings = model_specification.complete_settings(layer)
    if builder is not None:
        return builder(settings, received)
    kind = getattr(nn, layer.kind)
    if layer.kind.startswith("Conv"):
        names = ("kernel_size", "stride", "padding", "output_padding", "groups")
        chosen = {name: settings[name] for name in names if name in settings}
        return nn.utils.skip_init(
            getattr(nn, layer.kind), received[0], settings["out_channels"], bias=bool(settings["bias"]), **chosen
        )
    if layer.kind.startswith("BatchNorm"):
        return kind(received[0])
    return kind(
        kernel_size=settings["kernel_size"], stride=settings["stride"] or None, padding=settings.get("padding", 0)
    )


def _linear(settings: Mapping[str, int], received: tuple[int, ...]) -> nn.Module:
    return nn.utils.skip_init(nn.Linear, received[0], settings["out_features"], bias=bool(settings["bias"]))


def _zero_padding(settings: Mapping[str, int], _received: tuple[int, ...]) -> nn.Module:
    before, after = settings["before"], settings["after"]
    return nn.ZeroPad2d((before, after, before, after))


_BUILDERS: Mapping[str, Callable[[Mapping[str, int], tuple[int, ...]], nn.Module]] = {
    "Linear": _linear,
    "ReLU": lambda _settings, _received: nn.ReLU(),
    "Sigmoid": lambda _settings, _received: nn.Sigmoid(),
    "Tanh": lambda _settings, _received: nn.Tanh(),
    "AdaptiveAvgPool2d": lambda settings, _received: nn.AdaptiveAvgPool2d(settings["output_size"]),
    "Upsample": lambda settings, _received: nn.Upsample(scale_factor=settings["scale_factor"], mode="nearest"),
    "ZeroPad2d": _zero_padding,
    "Flatten": lambda _settings, _received: nn.Flatten(),
    "Add": lambda _settings, _received: Add(),
    "Concat": lambda _settings, _received: Concat(),
}
"""Kinds whose constructor differs from torch's common one; the rest is built by name."""

_HEAD = '''"""{title}

{note}
"""

import sys

import torch
from safetensors.torch import load_file
from torch import nn

SAMPLE_SHAPE = {shape}


class Add(nn.Module):
    def forward(self, *received):
        return sum(received[1:], received[0])


class Concat(nn.Module):
    def forward(self, *received):
        return torch.cat(received, dim=1)


# Every layer: its name in the weights file, the module, and whose outputs it reads.
LAYERS = [
'''

_TAIL = """]


class Model(nn.Module):
    def __init__(self, path):
        super().__init__()
        weights = load_file(path)
        self.layers = nn.ModuleList(module for _, module, _ in LAYERS)
        for name, module, _ in LAYERS:
            found = {{}}
            for key in module.state_dict():
                if key == "num_batches_tracked":
                    continue
                value, exponent = weights[f"{{name}}.{{key}}"], weights.get(f"exponent/{{name}}.{{key}}")
                # Weights committed in 8 bits are integers with one power of two for the whole tensor.
                found[key] = value if exponent is None else value.float() * 2.0 ** -int(exponent)
            module.load_state_dict(found, strict=False)

    def forward(self, samples):
        outputs = {{{input!r}: samples}}
        for (name, _, sources), module in zip(LAYERS, self.layers):
            outputs[name] = module(*(outputs[each] for each in sources))
        return outputs[name]


if __name__ == "__main__":
    model = Model(sys.argv[1]).eval()
    with torch.no_grad():
        print(model(torch.zeros(1, *SAMPLE_SHAPE)))
"""

_PLAIN_KINDS = frozenset({"Add", "Concat"})


def torch_source(specification: model_specification.ModelSpecification, title: str, note: str) -> str:
    """Return the program; `title` and `note` become its docstring."""
    model = build_model(specification)
    rows = []
    for layer, sources in zip(specification.layers, model_specification.resolve_inputs(specification), strict=True):
        if layer.kind == "Dropout":
            module = "nn.Dropout()"
        elif layer.kind in _PLAIN_KINDS:
            module = f"{layer.kind}()"
        else:
            module = f"nn.{model._modules[layer.name]!r}"
        rows.append(f"    ({layer.name!r}, {module}, {list(sources)!r}),\n")
    head = _HEAD.format(
        title=_escape_docstring(title), note=_escape_docstring(note), shape=tuple(specification.input_shape)
    )
    return head + "".join(rows) + _TAIL.format(input=model_specification.INPUT)


def _escape_docstring(text: str) -> str:
    """Return a text that stays inside a docstring, whatever a stranger wrote into a task's name."""
    return "".join(each if (each.isprintable() or each == "\n") and each not in '"\\' else "?" for each in text)
