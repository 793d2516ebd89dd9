"""Reproducibility classes: machines whose training gives the same bits, named by what a short fixed run gives.

`python -m learnchain.learning.disputes.machine_class [--states DIR]` trains a few steps of every operator family on
synthetic data and prints the digest of each family's states and of all: the class. Two machines with one digest may
audit each other by replaying; others settle by bounds. What decides the bits: torch's build, the instruction set that
torch, oneDNN and MKL choose when they load, the number of threads, and the device. `PORTABLE` fixes the choices that
can be fixed.

The probe takes about a second, so the class of this process is measured once a machine: later processes of the same
build and choices read it. What decides the bits is hashed into a fingerprint; under it the class lies in a file.
"""

import argparse
import fcntl
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import shake256, tagged_hash
from learnchain.learning.data import DataSet, digits, split
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.safe_tensors import write_tensors
from learnchain.learning.trace import state_digest
from learnchain.learning.train import TrainingPlan, TrainingRun, Watcher, configure_torch, train
from learnchain.protocol.model_presets import fcn34, keyword_cnn, lenet, mlp, strided_cnn, unet2d, unet3d
from learnchain.protocol.model_specification import Layer, ModelSpecification, Setting, output_shape
from learnchain.protocol.task_specification import Metric, Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, Watermark

PORTABLE: Mapping[str, str] = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""What the portable class sets before torch loads: the lowest instruction set of each library, and one thread."""

_BATCH_ROWS = 16
_STEPS = 8
_SEED = tagged_hash("reproducibility-class", b"")
_PROBE_SECONDS = 900

_SMOOTH = ModelSpecification(
    (2, 12, 12),
    (
        Layer("wide", "Conv2d", (), (Setting("groups", 2), Setting("kernel_size", 3), Setting("out_channels", 8))),
        Layer("curve", "Tanh", (), ()),
        Layer("low", "AvgPool2d", (), (Setting("kernel_size", 2),)),
        Layer("gate", "Sigmoid", (), ()),
        Layer("flat", "Flatten", (), ()),
        Layer("head", "Linear", (), (Setting("out_features", 5),)),
    ),
)


@dataclass(frozen=True, slots=True)
class Family:
    """Name one family of operators: a small model, its optimiser and terms."""

    specification: ModelSpecification
    optimiser: Optimiser = Optimiser.SGD
    watermark: Watermark | None = None


FAMILIES: Mapping[str, Family] = {
    "linear": Family(mlp((64,), 10, (128, 64))),
    "convolution": Family(strided_cnn((1, 28, 28), 10)),
    "convolution with Adam": Family(strided_cnn((1, 28, 28), 10), Optimiser.ADAM),
    "convolution with watermark": Family(
        strided_cnn((1, 28, 28), 10), watermark=Watermark(shake256("class/mark", _SEED, 64), 100_000, 999_900)
    ),
    "pooling": Family(lenet((1, 28, 28), 10)),
    "normalisation and dropout": Family(keyword_cnn((1, 20, 16), 6, width=8)),
    "saturation and groups": Family(_SMOOTH),
    "residual": Family(fcn34((3, 32, 32), 2, width=8)),
    "transposed": Family(unet2d((1, 16, 16), 3, width=4, steps=3), Optimiser.ADAM),
    "three dimensions": Family(unet3d((1, 8, 8, 8), 2, width=4, steps=3)),
}
"""Together they run every operator that a task may use."""


def reproducibility_class(states: Path | None = None) -> dict[str, Any]:
    """Train every family in this process and return the digests; its final states go to a directory if one is given."""
    digests, started = dict[str, str](), time.process_time()
    for name, family in FAMILIES.items():
        state = _train(family)
        digests[name] = state_digest(state).hex()
        if states is not None:
            write_tensors(states / f"{name}.safetensors", state)
    joined = [torch.__version__.partition("+")[0], *(f"{name} {digest}" for name, digest in digests.items())]
    return {
        "class": tagged_hash("reproducibility-class", *(each.encode() for each in joined)).hex(),
        "families": digests,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "seconds": time.process_time() - started,
    }


def class_elsewhere(environment: Mapping[str, str], threads: int = 1, states: Path | None = None) -> dict[str, Any]:
    """Return the class of a fresh process with these variables: libraries choose their instructions as they load."""
    # Threads that wait asleep leave a busy machine to those they wait for; the bits are the same.
    wanted = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    wanted.update(environment)
    command = [sys.executable, "-m", "learnchain.learning.disputes.machine_class", "--threads", str(threads)]
    command += ["--states", str(states)] if states is not None else []
    inherited = {name: value for name, value in os.environ.items() if name not in PORTABLE}
    done = subprocess.run(
        command, env={**inherited, **wanted}, capture_output=True, text=True, check=True, timeout=_PROBE_SECONDS
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _train(family: Family) -> dict[str, Any]:
    specification = family.specification
    rate = 1_000 if family.optimiser is Optimiser.ADAM else 20_000
    chosen = HyperParameters(rate, 900_000 if family.optimiser is Optimiser.SGD else 0, 100, _BATCH_ROWS, 1)
    plan = TrainingPlan(specification, family.optimiser, chosen, family.watermark or FreeTraining(), _SEED, _STEPS)
    run = TrainingRun(plan, _synthetic(specification, _BATCH_ROWS * _STEPS))
    run.advance_to(_STEPS)
    return run.state()


def _synthetic(specification: ModelSpecification, rows: int) -> DataSet:
    """Return random samples and labels: good for digests and times, for nothing else."""
    shape, (classes, *places) = (rows, *specification.input_shape), output_shape(specification)
    inputs = np.frombuffer(shake256("class/inputs", _SEED, int(np.prod(shape))), dtype=np.uint8).reshape(shape)
    drawn = np.frombuffer(shake256("class/labels", _SEED, rows * int(np.prod(places, dtype=int))), dtype=np.uint8)
    return DataSet(inputs.copy(), (drawn % classes).reshape(rows, *places))


def main() -> None:
    """Print the class of this process as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--states", type=Path, default=None)
    chosen = parser.parse_args()
    configure_torch(chosen.threads)
    sys.stdout.write(json.dumps(reproducibility_class(chosen.states)))


if __name__ == "__main__":
    main()


CHOOSING = ("ATEN_", "DNNL_", "GLIBC_", "GOMP_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "TORCH_")
"""How the environment variables begin by which libraries choose instructions and threads as they load."""

_DIGEST_CHARACTERS = 64
_PROCESSOR = Path("/proc/cpuinfo")
_PROCESSOR_LINES = ("model name", "flags", "Features", "CPU implementer", "CPU part")


def machine_class(directory: Path, probe: Callable[[], str] | None = None) -> Hash32:
    """Return the class of this process, from the file of an equal process or from the probe; one probes, others wait.

    A directory that cannot be written costs the probe each time and nothing else.
    """
    measure = probe or _probed
    path = directory / fingerprint().hex()
    known = _read_stored_class(path)
    if known is not None:
        return known
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            # Nodes that start together wait here for the first of them.
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = _read_stored_class(path)
            return known if known is not None else _measure_and_store(path, measure)
    except OSError:
        return bytes.fromhex(measure())


def fingerprint() -> Hash32:
    """Return a digest of what decides the bits that training in this process gives: build, processor, environment."""
    chosen = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(CHOOSING))
    parts = [
        torch.__version__,
        torch.__config__.show(),
        torch.backends.cpu.get_cpu_capability(),
        str(torch.get_num_threads()),
        platform.machine(),
        " ".join(platform.libc_ver()),
        *_processor(),
        *chosen,
    ]
    return tagged_hash("machine-fingerprint", _program(), *(each.encode() for each in parts))


def _probed() -> str:
    found: str = reproducibility_class()["class"]
    return found


def _measure_and_store(path: Path, measure: Callable[[], str]) -> Hash32:
    found = measure()
    partial = path.with_suffix(".partial")
    partial.write_text(found + "\n")
    partial.replace(path)
    return bytes.fromhex(found)


def _read_stored_class(path: Path) -> Hash32 | None:
    """Return the class in a file; whatever is no digest counts as nothing."""
    try:
        with path.open() as file:
            return _digest(file.read(_DIGEST_CHARACTERS + 2))
    except (OSError, ValueError):
        return None


def _digest(text: str) -> Hash32 | None:
    found = bytes.fromhex(text.strip())
    return found if 2 * len(found) == _DIGEST_CHARACTERS else None


def _processor() -> list[str]:
    """Return the lines that name the processor and its instructions; elsewhere what Python knows of it."""
    if not _PROCESSOR.is_file():
        return [platform.processor()]
    lines = _PROCESSOR.read_text(errors="replace").splitlines()
    return sorted({line for line in lines if line.startswith(_PROCESSOR_LINES)})


def _program() -> bytes:
    """Return a digest of this package's own arithmetic: another version may train other bits."""
    folder = Path(__file__).parents[1]
    return tagged_hash("learning-program", *(path.read_bytes() for path in sorted(folder.rglob("*.py"))))


_EPOCHS = 40
_TEST_ROWS = 360


def machine_probe(clock: Callable[[], float]) -> dict[str, Any]:
    """Train the digits CNN for a few seconds and count exactly; equal digests mean equal bits on two machines.

    The training digest is over every weight and may differ between kinds of processors (AUDIT-1); the exact
    evaluation of given weights must not.
    """
    threads = torch.get_num_threads()
    configure_torch()
    training, test = split(digits(), tagged_hash("data-split", b"doctor"), _TEST_ROWS)
    specification = strided_cnn((1, 8, 8), 10, channels=(16, 32), hidden=64)
    chosen = HyperParameters(50_000, 900_000, 0, 32, _EPOCHS)
    seed = tagged_hash("machine-probe", b"")
    plan = TrainingPlan(specification, Optimiser.SGD, chosen, FreeTraining(), seed, 1_000_000)
    result = train(plan, training, Watcher(clock))
    counts = evaluate(specification, result.weights, training, test, Metric.ACCURACY)
    weights = b"".join(result.weights[name].tobytes() for name in sorted(result.weights))
    return {
        "torch": torch.__version__,
        "torch_threads": threads,
        "processor_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.is_available(),
        "training_seconds": result.training_seconds,
        "samples_per_second": _EPOCHS * len(training) / result.training_seconds,
        "weights_digest": tagged_hash("machine-probe-weights", weights).hex(),
        "evaluation_digest": counts.digest.hex(),
        "correct": counts.correct,
        "total": counts.total,
    }
