"""Kill real node processes: nothing that was committed or final is lost, and the chain goes on."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from learnchain.engines.contract import LocalDurations
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.node.settings import load_settings
from learnchain.protocol.messages import Block
from learnchain.rejection import Unavailable
from learnchain.storage.archive import Archive
from learnchain.storage.genesis import load_genesis
from learnchain.storage.lmdb_store import LmdbStore
from learnchain_conformance.node_processes import LocalProcesses

PHASES = LocalDurations(
    key_milliseconds=1_500,
    training_milliseconds=2_500,
    judging_milliseconds=2_000,
    release_milliseconds=500,
    reveal_milliseconds=1_300,
)


@contextmanager
def network(directory: Path, miners: int = 2, phases: LocalDurations = PHASES) -> Iterator[LocalProcesses]:
    plan = LocalPlan(directory, miners=miners, rpc_port=0, first_block_milliseconds=12_000, phases=phases)
    laid_out = asyncio.run(provision_network(plan, time.time_ns() // 1_000_000))
    nodes = LocalProcesses(laid_out)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


def archives(nodes: LocalProcesses, index: int, use: Callable[[Archive], Any]) -> Any:
    settings = load_settings(nodes.network.settings[index])
    store = LmdbStore(Path(settings.data_directory) / "chain")
    try:
        return use(Archive(store, load_genesis(Path(settings.genesis)).state()))
    finally:
        store.close()


@dataclass
class Signed:
    """What a node had signed at a moment: its commitments and releases by parent."""

    candidates: dict[bytes, bytes]
    releases: dict[bytes, bytes]


def signed(nodes: LocalProcesses, index: int) -> Signed:
    def read(archive: Archive) -> Signed:
        scan = archive._store.scan
        return Signed(dict(scan(b"candidate/")), dict(scan(b"release/")))

    return archives(nodes, index, read)


def branch(nodes: LocalProcesses, index: int) -> list[str]:
    height = nodes.height(index)
    return [each["hash"] for each in nodes.call(index, "learn_blocks", max(1, height - 100), height)]


def weight(nodes: LocalProcesses, index: int) -> int:
    return int(nodes.call(index, "learn_status")["head"]["weight"])


def execution_head(nodes: LocalProcesses, index: int) -> bytes:
    settings = load_settings(nodes.network.settings[index])
    store = LmdbStore(Path(settings.data_directory) / "execution")
    try:
        return PyEvmEngine(store, load_genesis(Path(settings.genesis)).execution).capabilities().head
    finally:
        store.close()


def check_stores(nodes: LocalProcesses) -> None:
    """Every block on the branch is here, no release was signed twice, and execution stands where the archive does."""

    def check(archive: Archive) -> None:
        states = archive.branch(archive.head().block, 0)
        for state in states:
            archive.block(state.block_hash)

    for index in range(len(nodes.network.settings)):
        archives(nodes, index, check)
        assert execution_head(nodes, index) == archives(nodes, index, lambda each: each.payload_hash(each.head().block))


def kill_at_random(directory: Path, kills: int, seed: int) -> None:
    source = random.Random(seed)
    with network(directory) as nodes:
        nodes.wait_for_height(1, 60)
        releases: dict[bytes, bytes] = {}
        for _ in range(kills):
            time.sleep(source.uniform(0.1, 2.5))
            index = source.randrange(len(nodes.network.settings))
            before, heavy = branch(nodes, index), weight(nodes, index)
            nodes.kill(index)
            held = signed(nodes, index)
            if index == 0:
                assert all(held.releases.get(parent, each) == each for parent, each in releases.items())
                releases = held.releases
            time.sleep(source.uniform(0.0, 0.5))
            nodes.start_one(index)
            nodes.wait_until_ready(index, 30)
            # A heavier branch may have come meanwhile, but what was stored is here, and the head never gets lighter.
            assert [nodes.call(index, "learn_block", each)["hash"] for each in before] == before
            assert weight(nodes, index) >= heavy
        height = max(nodes.height(index) for index in range(3))
        # Together again they train: a branch of empty blocks alone would be a network that fell apart.
        nodes.wait_until(
            lambda: any(each["trained"] for each in nodes.call(0, "learn_blocks", height, height + 64)), 120
        )
        nodes.wait_for_height(height, 60)
        nodes.stop()
        check_stores(nodes)


@pytest.mark.network
@pytest.mark.timeout(240)
def test_nodes_killed_at_random_instants_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path, kills=6, seed=3)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(600)
def test_nodes_killed_at_twenty_random_instants_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path, kills=20, seed=20)


@pytest.mark.network
@pytest.mark.timeout(240)
def test_all_killed_after_the_commitments_still_reveal_them(tmp_path: Path) -> None:
    # A last phase that outlasts the restart: who is away longer than a deadline finds the height ended.
    slow = replace(
        PHASES,
        training_milliseconds=8_000,
        judging_milliseconds=70_000,
        release_milliseconds=40_000,
        reveal_milliseconds=60_000,
    )
    with network(tmp_path, phases=slow) as nodes:
        nodes.wait_until(lambda: len(nodes.call(0, "learn_round")["commitments"]) == 2, 60)
        for index in range(3):
            nodes.kill(index)
        committed = [signed(nodes, index).candidates for index in range(3)]
        assert [len(each) for each in committed] == [0, 1, 1]
        for index in range(3):
            nodes.start_one(index)
        nodes.wait_for_height(1, 150)
        nodes.stop()
        block = archives(nodes, 0, lambda archive: archive.block(archive.branch(archive.head().block, 0)[0].block_hash))
        assert isinstance(block, Block)
        assert len(block.commitments) == 2
        assert [signed(nodes, index).candidates for index in range(3)] == committed
        assert [len(signed(nodes, index).releases) for index in range(3)] == [1, 0, 0]
        check_stores(nodes)


@pytest.mark.network
@pytest.mark.timeout(120)
def test_a_terminated_node_ends_within_five_seconds_while_it_trains(tmp_path: Path) -> None:
    with network(tmp_path) as nodes:
        nodes.wait_for_height(1, 60)
        time.sleep(2.0)
        for index in range(3):
            nodes.signal(index, signal.SIGTERM)
        started = time.monotonic()
        codes = [nodes.wait(index, 5.0) for index in range(3)]
        assert codes == [0, 0, 0]
        assert time.monotonic() - started < 5.0
        with pytest.raises(Unavailable):
            nodes.call(0, "learn_status")
        check_stores(nodes)
