"""A12: a winner names junk as its training states, and every full node fetches and pins all of it.

The bound is 65,536 states of 16 GiB each, whatever the size of the model.

Earns: nothing but the block; one block fills the disks of all full nodes (here 12 MiB for a model of 4 kB).
Kind: training is not enforced; real nodes on a simulated wire in virtual time, models that take no time.
Wins today; to be turned around by the rule that stops it.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from learnchain.learning.jobs import TrainedFiles, TrainingJob, TrainingProgress
from learnchain.node.local_network import LocalPlan
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain_conformance.instant_training import MODEL_BYTES, InstantTraining
from tests.attacks.simulated_chain import trained_blocks

CHEAT, BYSTANDER, TEST_ROWS = 1, 2, 50
FILES, FILE_BYTES = 12, 1 << 20


@dataclass(frozen=True)
class FilledDisks:
    """What one block made nodes store that only follow the chain."""

    blocks: int
    model_bytes: int
    junk_bytes_a_block: int
    stored_bytes: tuple[int, ...]
    pins: tuple[int, ...]


class JunkStates(InstantTraining):
    """Put files that nobody trained beside the states of a run."""

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
        files = await super().train(job, on_progress)
        for index in range(FILES):
            junk = os.urandom(32) + bytes(FILE_BYTES - 32)
            (Path(files.trace_directory) / f"state-{900_000 + index}.safetensors").write_bytes(junk)
        return files


def bytes_below(directory: Path) -> int:
    """Return the bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


async def play(directory: Path) -> FilledDisks:
    """Let a cheat win one block, and look at what the publisher and a node without a miner hold then."""
    nodes = SimulatedNodes(directory, LocalPlan(directory, miners=2, standing=("iris",)), seed=7)
    nodes.make_training = lambda index: JunkStates(TEST_ROWS) if index == CHEAT else InstantTraining(TEST_ROWS)
    nodes.make_judge = lambda _index: InstantTraining(TEST_ROWS)
    nodes.change = lambda settings: replace(settings, is_miner=settings.name == f"node-{CHEAT}")
    await nodes.start()
    await nodes.wait_for_height(1, 300)
    await asyncio.sleep(5)
    stores = [Path(nodes.places[index].settings.data_directory) / "blobs" for index in (0, BYSTANDER)]
    result = FilledDisks(
        blocks=len(trained_blocks(nodes)),
        model_bytes=MODEL_BYTES,
        junk_bytes_a_block=FILES * FILE_BYTES,
        stored_bytes=tuple(bytes_below(store) for store in stores),
        pins=tuple(len(list((store / "pins").iterdir())) for store in stores),
    )
    await nodes.close()
    return result


def attack(directory: Path) -> FilledDisks:
    """Run the attack in virtual time."""
    return run_simulated(play(directory))


def test_junk_that_a_winner_names_lies_on_every_disk(tmp_path: Path) -> None:
    result = attack(tmp_path)
    assert result.blocks >= 1
    assert min(result.stored_bytes) > result.junk_bytes_a_block > 1_000 * result.model_bytes
    assert min(result.pins) >= FILES
