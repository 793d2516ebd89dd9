"""`learnchain doctor`: look at this machine before anything runs on it, and say what to do about each finding."""

import importlib.util
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, page, run_verb

WANTED_TORCH = "2.13.0"
"""The version that the rules name: reproducible training is part of consensus."""

_LOWEST_FREE_BYTES = 2 << 30
_LOWEST_MEMORY_BYTES = 4 << 30
_SENSIBLE_YEAR = 2024

_SPEEDUPS = {"coincurve": "coincurve", "pysha3": "sha3", "rusty-rlp": "rusty_rlp"}
"""What makes the execution engine fast: package and module."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Report one check; `what_to_do` is empty when it is well."""

    check: str
    well: bool
    observed: str
    what_to_do: str = ""


def doctor(
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    rpc_port: Annotated[int, typer.Option(min=1, max=65_535, help="The port that a network would use.")] = 8545,
    probe: Annotated[bool, typer.Option(help="Train for some ten seconds and show the digests.")] = True,
    portable: Annotated[
        bool, typer.Option(help="Probe the portable class too: slower, and equal on more machines.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check Python, torch, processor, memory, disk, ports, clock, fast libraries, and train for some ten seconds.

    The probe's digest names this machine's reproducibility class: machines of one class audit each other bit by bit.
    """
    run_verb(as_json, lambda: _examine_machine(data_dir, rpc_port, probe, portable), _show)


def _examine_machine(directory: Path, rpc_port: int, probe: bool, portable: bool) -> dict[str, Any]:
    findings = [_python(), _torch(), _disk(directory), _memory(), _port(rpc_port), _clock(), *_libraries()]
    measured: dict[str, Any] | None = None
    if probe:
        # Loaded when asked for: this is what needs torch.
        from learnchain.learning.disputes.machine_class import machine_probe, reproducibility_class

        measured = {**machine_probe(time.perf_counter), "reproducibility": reproducibility_class()}
        share = measured["correct"] / measured["total"]
        text = f"{measured['samples_per_second']:,.0f} samples/s, {measured['correct']}/{measured['total']} exact"
        advice = "" if share > 0.9 else "The model did not learn: torch or the processor computes something else."
        findings.append(Diagnosis("training probe", share > 0.9, text, advice))
        found = measured["reproducibility"]
        text = f"{found['class'][:16]} ({found['capability']}, {found['threads']} thread), {found['seconds']:.1f} s"
        findings.append(Diagnosis("class", True, text))
    if portable:
        from learnchain.learning.disputes.machine_class import PORTABLE, class_elsewhere

        found = class_elsewhere(PORTABLE)
        text = f"{found['class'][:16]} ({found['capability']}, {found['threads']} thread), {found['seconds']:.1f} s"
        findings.append(Diagnosis("portable class", True, text))
    return {
        "well": all(each.well for each in findings),
        "findings": [asdict(each) for each in findings],
        "probe": measured,
    }


def _python() -> Diagnosis:
    version = platform.python_version()
    return Diagnosis(
        "python", sys.version_info >= (3, 11), version, "" if sys.version_info >= (3, 11) else "Use >= 3.11."
    )


def _torch() -> Diagnosis:
    try:
        version = importlib.metadata.version("torch").partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        version = "missing"
    well = version == WANTED_TORCH
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Diagnosis("torch", well, f"{version}, {cores} cores", "" if well else f"Install torch=={WANTED_TORCH}.")


def _disk(directory: Path) -> Diagnosis:
    place = directory.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    well = free >= _LOWEST_FREE_BYTES
    return Diagnosis(
        "disk", well, f"{free / 2**30:.1f} GiB free", "" if well else "Free 2 GiB or choose another --data-dir."
    )


def _memory() -> Diagnosis:
    available = _available_bytes()
    well = available >= _LOWEST_MEMORY_BYTES
    advice = "" if well else "A network with three miners needs about 4 GiB: use fewer miners (--miners 1)."
    return Diagnosis("memory", well, f"{available / 2**30:.1f} GiB available", advice)


def _available_bytes() -> int:
    information = Path("/proc/meminfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _port(port: int) -> Diagnosis:
    from learnchain.cli.local_run import is_free

    well = is_free(port)
    advice = "" if well else "A network may run already; else choose another --rpc-port, or 0."
    return Diagnosis("port", well, f"{port} is {'free' if well else 'taken'}", advice)


def _clock() -> Diagnosis:
    now = time.gmtime()
    well = now.tm_year >= _SENSIBLE_YEAR
    advice = "" if well else "Set the clock: phases end by it, and peers refuse what is dated otherwise."
    return Diagnosis("clock", well, time.strftime("%Y-%m-%dT%H:%M:%SZ", now), advice)


def _libraries() -> list[Diagnosis]:
    found: list[Diagnosis] = []
    for package, module in _SPEEDUPS.items():
        well = importlib.util.find_spec(module) is not None
        advice = "" if well else f"Install {package}; without it every node falls behind its phases."
        found.append(Diagnosis(package, well, "present" if well else "missing", advice))
    return found


def _show(data: dict[str, Any]) -> None:
    console = page()
    for each in data["findings"]:
        mark = "[green]well[/]" if each["well"] else "[bold red]look[/]"
        console.print(f"{mark}  {each['check']:<16}{each['observed']}  {each['what_to_do']}", soft_wrap=True)
    if data["probe"]:
        for key in ("processor_capability", "weights_digest", "evaluation_digest"):
            console.print(f"      {key:<22}{data['probe'][key]}", soft_wrap=True)
