"""Count the files and functions of learnchain that two walks enter, on a network in one process and in virtual time.

A network of one publisher and three miners (DLBC, seed 7) mines a small posted task; a profile function, in every
thread, notes each function of `src/learnchain` that runs inside a window:

- task: while the task is published, and then from the moment at which the first node has selected it until that node's
  head is the block that settles it. The heights between, which other tasks fill, do not count.
- commitment: in the height of that task, from the first entry into `send_commitment` to the first into
  `propose_block`: the verdict stands. What rivals do meanwhile runs in the same process and counts.

Everything in `src/learnchain` counts, stand-ins for clock, wire and training processes too: they stand for the real
ones, which this run skips along with the command line and the RPC server. A function is a file and a qualified name;
lambdas and comprehensions are functions, module bodies are none. All figures are therefore ceilings, good for
comparing one tree with another under one version of Python. The review of the house counted by such windows 121 files
and 989 functions for the task, 91 and 585 for the commitment; this script counts 121 and 992, 90 and 604 on that tree.
"""

import argparse
import asyncio
import importlib
import json
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "learnchain"
SOURCE = REPOSITORY / "src" / PACKAGE

# What a rename of the walked code must change here, one entry each. Modules are found by file name wherever they lie.
COMMITMENT_BEGINS = ("miner.py", "send_commitment")
COMMITMENT_DECIDED = ("miner.py", "propose_block")
"""The file and the name of the function whose first entry opens or closes the window."""
NODES = ("simulated_nodes", "SimulatedNodes")
RUN = ("simulated_network", "run_simulated")
PLAN = ("local_network", "LocalPlan")
TASKS = ("task_file", "BUILT_IN")
"""The module and the name of what makes the network."""

MINERS = 3
SEED = 7
WITHIN_SECONDS = 120
"""Virtual time after which a walk that has not arrived fails."""
TASK_CHANGES: dict[str, Any] = {"required_accuracy": "0.5", "model": {"preset": "mlp", "hidden": [32]}}
"""What makes the built-in task small."""


class Chain:
    """Read of a node what opens and closes the windows; every attribute of its state is named here alone."""

    def __init__(self, node: Any) -> None:
        self._ports = node.ports

    def head_height(self) -> int:
        """Return the height of the head."""
        return int(self._ports.chain.round.head.height)

    def selected_height(self) -> int | None:
        """Return the height under way if a posted task was selected for it."""
        selection = self._ports.chain.round.selection
        return None if selection.task.is_standing else int(selection.height)

    def settled_tasks(self) -> int:
        """Return how many settlements the head's branch holds."""
        return len(self._ports.archive.settlements(self._ports.chain.round.head.block))


class Walk:
    """Collect what runs while a window is open."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_open = False
        self.codes: set[CodeType] = set()

    def figures(self) -> dict[str, Any]:
        """Return the counts and the files entered."""
        functions = {(_path(code), code.co_qualname) for code in self.codes if code.co_name != "<module>"}
        files = sorted({path for path, _ in functions})
        return {"files": len(files), "functions": len(functions), "entered": files}


class Profile:
    """Note every call of the package's functions in the windows that are open."""

    def __init__(self) -> None:
        self.task = Walk("task")
        self.commitment = Walk("commitment")
        self._is_ours: dict[CodeType, bool] = {}
        self._waits_for_commitment = False

    def begin(self) -> None:
        """Profile all threads that start from now on, and this one while the window of the task is open."""
        threading.setprofile(self._note)

    def open_task(self) -> None:
        """Open the window of the task."""
        self.task.is_open = True
        sys.setprofile(self._note)

    def close_task(self) -> None:
        """Close the window of the task."""
        sys.setprofile(None)
        self.task.is_open = False

    def end(self) -> None:
        """Profile no more."""
        self.close_task()
        threading.setprofile(None)

    def await_commitment(self) -> None:
        """Open the window of the commitment at the next one, inside that of the task."""
        self._waits_for_commitment = True

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call" or not self.task.is_open:
            return
        code = frame.f_code
        ours = self._is_ours.get(code)
        if ours is None:
            ours = self._is_ours[code] = code.co_filename.startswith(f"{SOURCE}/")
        if not ours:
            return
        if self._waits_for_commitment and _is_at(code, COMMITMENT_BEGINS):
            self._waits_for_commitment, self.commitment.is_open = False, True
        self.task.codes.add(code)
        if self.commitment.is_open:
            self.commitment.codes.add(code)
            self.commitment.is_open = not _is_at(code, COMMITMENT_DECIDED)


def main(arguments: list[str] | None = None) -> int:
    """Walk and print what was entered; return 1 if a window never opened or never closed."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print counts and files as JSON")
    parser.add_argument("--list", action="store_true", help="name the files entered")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    begun = time.monotonic()
    profile = Profile()
    with tempfile.TemporaryDirectory() as directory:
        _load(*RUN)(_walk(profile, Path(directory)))
    if profile.commitment.is_open or not profile.commitment.codes:
        sys.stderr.write(f"no commitment from {COMMITMENT_BEGINS} to {COMMITMENT_DECIDED}: was one renamed?\n")
        return 1
    walks = {walk.name: walk.figures() for walk in (profile.task, profile.commitment)}
    all_files = sum(1 for _ in SOURCE.rglob("*.py"))
    if options.json:
        _show(json.dumps({**walks, "all_files": all_files}, indent=2))
        return 0
    for name, figures in walks.items():
        _show(f"{name:<12} {figures['files']} of {all_files} files, {figures['functions']} functions")
        if options.list:
            _show("\n".join(f"  {path}" for path in figures["entered"]))
    _show(f"in {time.monotonic() - begun:.0f} seconds")
    return 0


async def _walk(profile: Profile, directory: Path) -> None:
    """Publish a task, and follow it to its payout."""
    nodes = _load(*NODES)(directory, _load(*PLAN)(directory, miners=MINERS), seed=SEED)
    # Before the nodes start: threads that they leave waiting for work are profiled only if they start after this.
    profile.begin()
    await nodes.start()
    try:
        chain = Chain(nodes.node(0))
        profile.open_task()
        await nodes.publish({**_load(*TASKS)["digits"], **TASK_CHANGES})
        profile.close_task()
        await nodes.wait_until(lambda: chain.selected_height() is not None, WITHIN_SECONDS)
        height = chain.selected_height()
        profile.open_task()
        profile.await_commitment()
        await nodes.wait_until(lambda: chain.head_height() == height, WITHIN_SECONDS)
        profile.close_task()
        if not chain.settled_tasks():
            raise RuntimeError(f"the block of height {height} settled no task")
    finally:
        profile.end()
        await asyncio.shield(nodes.close())


def _load(module: str, name: str) -> Any:
    """Import a name from the one module of the package that is called so."""
    paths = list(SOURCE.rglob(f"{module}.py"))
    if len(paths) != 1:
        raise LookupError(f"{len(paths)} modules are called {module}")
    dotted = ".".join(paths[0].relative_to(SOURCE.parent).with_suffix("").parts)
    return getattr(importlib.import_module(dotted), name)


def _is_at(code: CodeType, boundary: tuple[str, str]) -> bool:
    file, name = boundary
    return code.co_name == name and code.co_filename.endswith(f"/{file}")


def _path(code: CodeType) -> str:
    return str(Path(code.co_filename).relative_to(SOURCE))


def _show(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    # The tree that holds this script is walked, whatever is installed.
    sys.path.insert(0, str(SOURCE.parent))
    sys.exit(main())
