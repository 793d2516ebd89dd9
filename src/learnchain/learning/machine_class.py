"""This process's reproducibility class, measured once a machine: later processes of the same build and choices read it.

The probe of `learning.classes` takes about a second, and a network of some nodes on one machine would make each of them
pay it before its first block. What decides the bits is hashed into a fingerprint; under it the class lies in a file.
"""

import fcntl
import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch

from learnchain.learning.classes import reproducibility_class
from learnchain.primitives.codec import Hash32
from learnchain.primitives.hashing import tagged_hash

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
    known = _remembered(path)
    if known is not None:
        return known
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            # Nodes that start together wait here for the first of them.
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = _remembered(path)
            return known if known is not None else _measured(path, measure)
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


def _measured(path: Path, measure: Callable[[], str]) -> Hash32:
    found = measure()
    partial = path.with_suffix(".partial")
    partial.write_text(found + "\n")
    partial.replace(path)
    return bytes.fromhex(found)


def _remembered(path: Path) -> Hash32 | None:
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
    folder = Path(__file__).parent
    return tagged_hash("learning-program", *(path.read_bytes() for path in sorted(folder.rglob("*.py"))))
