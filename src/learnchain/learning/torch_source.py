"""Write a model's architecture as a Python program that needs nothing but torch and safetensors.

A weights file holds numbers and names only: whoever takes a trained model home needs its layers too. Names are chosen
by whoever wrote the task, so they appear as quoted texts and never as code.
"""

from learnchain.learning.model import build_model
from learnchain.protocol.model_specification import INPUT, ModelSpecification, resolve_inputs

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


def torch_source(specification: ModelSpecification, title: str, note: str) -> str:
    """Return the program; `title` and `note` become its docstring."""
    model = build_model(specification)
    rows = []
    for layer, sources in zip(specification.layers, resolve_inputs(specification), strict=True):
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
    return head + "".join(rows) + _TAIL.format(input=INPUT)


def _escape_docstring(text: str) -> str:
    """Return a text that stays inside a docstring, whatever a stranger wrote into a task's name."""
    return "".join(each if (each.isprintable() or each == "\n") and each not in '"\\' else "?" for each in text)
