"""A simulated network is a function of its seed: nothing in it depends on the order of sets or places in memory."""

import os
import subprocess
import sys

import pytest

PLAY = """
import sys, tempfile
from pathlib import Path
from learnchain.node.local_network import LocalPlan
from learnchain_conformance.instant_training import InstantTraining
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes

async def main():
    padding = [bytearray(number) for number in range(int(sys.argv[1]))]
    with tempfile.TemporaryDirectory() as place:
        nodes = SimulatedNodes(Path(place), LocalPlan(Path(place), miners=3), seed=4)
        nodes.make_training = nodes.make_judge = lambda _index: InstantTraining(360)
        await nodes.start()
        await nodes.until_height(4, 600)
        ports = nodes.node(0).ports
        for state in ports.archive.branch(ports.chain.round.head.block, 0):
            print(state.block_hash.hex(), state.end_milliseconds)
        await nodes.close()

run_simulated(main())
"""


def played(hash_seed: int, padding: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    words = [sys.executable, "-c", PLAY, str(padding)]
    return subprocess.run(words, env=environment, check=True, capture_output=True, text=True, timeout=280).stdout


@pytest.mark.slow
def test_one_seed_gives_one_chain_whatever_hashes_and_addresses_are() -> None:
    chains = {played(hash_seed, padding) for hash_seed, padding in ((1, 0), (3, 5_000), (4, 77))}
    assert len(chains) == 1
    assert len(chains.pop().splitlines()) >= 4
