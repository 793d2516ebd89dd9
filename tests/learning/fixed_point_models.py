"""Models that together use every layer kind, with weights of trained size; run as a script it prints one digest.

`python -m tests.learning.fixed_point_models THREADS` is what the test starts under several instruction sets.
"""

import hashlib
import sys

import numpy as np

from learnchain.learning.fixed_point import compile_model
from learnchain.learning.model import initial_weights
from learnchain.learning.train import configure_torch
from learnchain.protocol.model_presets import baas_cnn, fcn34, keyword_cnn, lenet, mlp, strided_cnn, unet2d, unet3d
from learnchain.protocol.model_specification import Layer, ModelSpecification, Setting


def _layer(name, kind, *inputs, **settings):
    return Layer(name, kind, inputs, tuple(Setting(key, value) for key, value in sorted(settings.items())))


OTHERS = ModelSpecification(
    (3, 12, 12),
    (
        _layer("start", "BatchNorm2d"),
        _layer("wide", "Conv2d", out_channels=32, kernel_size=3, padding=1),
        _layer("curve", "Tanh"),
        _layer("deep", "Conv2d", "wide", out_channels=6, groups=2, kernel_size=1),
        _layer("gate", "Sigmoid"),
        _layer("low", "AvgPool2d", "curve", kernel_size=2),
        _layer("high", "Upsample", scale_factor=2),
        _layer("both", "Concat", "high", "gate", "input"),
        _layer("norm", "BatchNorm2d"),
        _layer("bend", "ReLU"),
        _layer("kernel", "ConvTranspose2d", out_channels=8, kernel_size=3, stride=2, padding=1, output_padding=1),
        _layer("twice", "Add", "kernel", "kernel"),
        _layer("double", "ReLU"),
        _layer("small", "MaxPool2d", "double", kernel_size=3, stride=2, padding=1),
        _layer("mean", "AdaptiveAvgPool2d", output_size=3),
        _layer("flat", "Flatten"),
        _layer("scale", "BatchNorm1d"),
        _layer("rest", "Dropout", percent=20),
        _layer("head", "Linear", out_features=5, bias=0),
    ),
)
"""Every kind and every awkward place: normalisation after a join, activation without a rectifier, two readers."""

SPECIFICATIONS = {
    "others": OTHERS,
    "mlp": mlp((1, 12, 12), 5),
    "strided_cnn": strided_cnn((1, 28, 28), 10, channels=(32, 64), hidden=128),
    "lenet": lenet((1, 28, 28), 10),
    "keyword_cnn": keyword_cnn((1, 20, 16), 6, width=8),
    "fcn34": fcn34((3, 16, 16), 2, width=8),
    "unet2d": unet2d((1, 16, 16), 3, width=4, steps=3),
    "unet3d": unet3d((1, 8, 8, 8), 2, width=4, steps=3),
    "baas_3": baas_cnn((1, 28, 28), 10, contributor=3),
}


def weights_for(specification):
    """Return seeded weights whose running statistics and gains are those of no fresh model."""
    generator = np.random.default_rng(7)
    weights = initial_weights(specification, b"fixed point")
    for name, array in weights.items():
        if array.ndim == 1:
            weights[name] = (array + generator.normal(0, 0.2, array.shape)).astype(np.float32)
        if name.endswith("running_var"):
            weights[name] = (np.abs(weights[name]) + 0.3).astype(np.float32)
    return weights


def rows_for(specification, rows=40, real=False):
    generator = np.random.default_rng(11)
    if real:
        return generator.normal(0, 3, (rows, *specification.input_shape)).astype(np.float32)
    return generator.integers(0, 256, (rows, *specification.input_shape), dtype=np.uint8)


if __name__ == "__main__":
    configure_torch(int(sys.argv[1]))
    digest = hashlib.sha256()
    for chosen in SPECIFICATIONS.values():
        for as_real in (False, True):
            rows_in = rows_for(chosen, 10, real=as_real)
            logits = compile_model(chosen, weights_for(chosen), rows_in[:6]).logits(rows_in)
            assert np.isfinite(logits).all()
            digest.update(np.ascontiguousarray(logits).tobytes())
    sys.stdout.write(digest.hexdigest())
