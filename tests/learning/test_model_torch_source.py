"""A model that was taken home: the program that is written for it answers as the chain's own module does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learnchain.learning.model import (
    build_model,
    initial_weights,
    load_weights,
    save_weights,
    set_weights,
    torch_source,
)
from learnchain.protocol.model_presets import PRESETS, parse_model_table
from learnchain.protocol.model_specification import ModelSpecification

SHAPES = {"unet3d": [1, 8, 8, 8], "unet2d": [3, 16, 16], "fcn34": [3, 32, 32], "vgg16": [3, 32, 32]}
SHAPES |= {"keyword_cnn": [1, 32, 64]}
SMALL = {"unet3d": {"width": 2, "steps": 2}, "unet2d": {"width": 2, "steps": 2}}


def specification_of(preset: str) -> ModelSpecification:
    table = {"preset": preset, "classes": 3, "input_shape": SHAPES.get(preset, [1, 28, 28])}
    return parse_model_table({**table, **SMALL.get(preset, {})})


def loaded(source: str, path: Path) -> torch.nn.Module:
    names: dict = {"__name__": "taken_home"}
    exec(compile(source, "model.py", "exec"), names)
    return names["Model"](str(path)).eval()


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"vgg16", "fcn34"}))
@pytest.mark.parametrize("bits", [32, 8])
def test_the_program_answers_as_the_chains_module_does(preset, bits, tmp_path):
    specification = specification_of(preset)
    save_weights(tmp_path / "w.safetensors", initial_weights(specification, b"\3" * 32), bits)
    own = build_model(specification)
    set_weights(own, load_weights(tmp_path / "w.safetensors", specification))
    own.eval()
    samples = torch.arange(2 * own_size(specification), dtype=torch.float32).reshape(2, *specification.input_shape)
    samples = samples.remainder(7) / 7
    with torch.no_grad():
        expected = own(samples)
        found = loaded(torch_source(specification, "t", "n"), tmp_path / "w.safetensors")(samples)
    assert torch.equal(found, expected)
    assert not torch.equal(expected, torch.zeros_like(expected))


def own_size(specification: ModelSpecification) -> int:
    size = 1
    for each in specification.input_shape:
        size *= each
    return size


def test_what_a_stranger_wrote_is_never_code(tmp_path):
    """Names of layers are bounded by the rules, a task's name only by its length."""
    layers = [{"name": "train", "kind": "Flatten"}, {"name": "double", "kind": "Linear", "out_features": 3}]
    specification = parse_model_table({"input_shape": [4], "layers": layers})
    save_weights(tmp_path / "w.safetensors", initial_weights(specification, b"\3" * 32))
    title = '"""\nraise SystemExit("title")\n"""\\ {0} \x1b'
    model = loaded(torch_source(specification, title, title), tmp_path / "w.safetensors")
    assert model(torch.zeros(1, 4)).shape == (1, 3)


@pytest.mark.slow
def test_it_runs_as_a_program_of_its_own(tmp_path):
    specification = specification_of("mlp")
    save_weights(tmp_path / "w.safetensors", initial_weights(specification, b"\3" * 32))
    (tmp_path / "model.py").write_text(torch_source(specification, "t", "n"))
    command = [sys.executable, "-I", "model.py", "w.safetensors"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.startswith("tensor(")
