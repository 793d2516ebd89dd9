"""Measure the initial download at every assurance level: what PoDL left out of its evaluation.

The chain is made by real nodes on a simulated network, with the digits of scikit-learn and the CNN of the demo; then
its store is verified as `chain verify` does it, by a training process of its own, in real seconds.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from typing_extensions import override

from learnchain.benchmarks import Figures, figure
from learnchain.network.concurrency import SystemClock
from learnchain.node.local_network import LocalPlan
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from learnchain.storage.genesis import load_genesis
from learnchain.storage.lmdb_store import LmdbStore
from learnchain.verification.assurance import Level
from learnchain.verification.chain_verification import BlockCheck, Verifier

_HEIGHT, _EPOCHS, _SEED = 3, 40, 9
_SEGMENTS = 1


def initial_download() -> Figures:
    """Compare seconds, bytes and detection of the four levels, block by block, with the training that made it."""
    with TemporaryDirectory() as directory:
        started = time.perf_counter()
        place = _chain(Path(directory))
        made_seconds = time.perf_counter() - started
        found = {level: _walk_blocks(place, level) for level in Level}
        figures, base = list[Figures](), _mean_seconds(found[Level.HEADERS])
        for level, checks in found.items():
            seconds = _mean_seconds(checks)
            what, against = f"{level.value}: a trained block", "headers"
            figures.append(figure(what, seconds, "s", seconds / base, against))
            if level.replays:
                least = min((each for each in checks if each.is_trained), key=lambda each: each.detection)
                share = f"{least.replayed} of {least.segments} segments"
                figures.append(figure(f"{level.value}: detection, {share}", least.detection, "", least.detection, "1"))
        figures.append(figure("making the chain, all nodes", made_seconds / _HEIGHT, "s a block", 1.0, "itself"))
        for folder in ("chain", "blobs"):
            size = sum(path.stat().st_size for path in (place / folder).rglob("*") if path.is_file())
            figures.append(figure(f"{folder} of {_HEIGHT} blocks", size / 1e6, "MB", 1.0, "itself"))
    return {"name": "initial_download", "synthetic": False, "seed": _SEED, "figures": figures}


BENCHMARKS: Mapping[str, Callable[[], Figures]] = {"initial_download": initial_download}
"""What `learnchain bench NAME` runs."""


def _chain(directory: Path) -> Path:
    """Return the data directory of a miner whose network has made some blocks."""

    async def scenario() -> Path:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=1, standing=("digits",)), seed=_SEED)
        nodes.make_training = lambda _index: InProcessTraining(epoch_seconds=0.1, maximum_epochs=_EPOCHS)
        await nodes.start()
        await nodes.wait_for_height(_HEIGHT, 120.0 * _HEIGHT)
        await nodes.close()
        place = Path(nodes.places[1].settings.data_directory)
        store = LmdbStore(place / "chain")
        store.put_many(dict(nodes.places[1].store.scan(b"")))
        store.close()
        return place

    return run_simulated(scenario())


def _walk_blocks(directory: Path, level: Level) -> list[BlockCheck]:
    verifier = Verifier(directory, load_genesis(directory.parent / "genesis.json"), _ClockAfterChain(), level)
    verifier = replace(verifier, segments=_SEGMENTS)

    async def walk() -> list[BlockCheck]:
        return [check async for check in verifier.run()]

    checks = asyncio.run(walk())
    assert all(check.is_valid for check in checks)
    return checks


class _ClockAfterChain(SystemClock):
    """Tell a time after all blocks: they were made in virtual time, which ran ahead of the real one or behind it."""

    @override
    def now_milliseconds(self) -> int:
        """Return a time that no block of the simulation reaches."""
        return 1_900_000_000_000


def _mean_seconds(checks: list[BlockCheck]) -> float:
    """Return the mean of the trained blocks after the first, in which processes start."""
    trained = [check.seconds for check in checks if check.is_trained]
    return sum(trained[1:]) / max(1, len(trained) - 1)
