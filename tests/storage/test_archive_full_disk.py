"""A full disk: said clearly, survived, and forgotten as soon as there is room again."""

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learnchain.encoding import files
from learnchain.encoding.files import MemoryStore, write_whole
from learnchain.learning.jobs import TrainedFiles, TrainingJob, TrainingProgress
from learnchain.node.local_network import LocalPlan
from learnchain.rejection import Unavailable
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.storage.archive import Archive
from learnchain.storage.blobs import blob_files
from learnchain.storage.blobs.peer_blobs import PeerBlobs
from learnchain.storage.lmdb_store import LmdbStore
from learnchain.tasks.publishing import Vault
from learnchain_conformance.instant_training import InstantTraining

TEST_ROWS = 360


class Disk(MemoryStore):
    """Hold what another store held, and refuse to write while it is full."""

    full = False

    def __init__(self, before: MemoryStore) -> None:
        super().__init__()
        super().put_many(dict(before.scan(b"")))

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        if Disk.full:
            raise Unavailable("room on the disk")
        super().put_many(items)


def refuse(*_arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_store_at_its_largest_size_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, map_size_bytes=1 << 17, maximum_map_bytes=1 << 17)
    store.put_many({b"kept": b"1"})
    with pytest.raises(Unavailable):
        store.put_many({bytes([number]): bytes(4_000) for number in range(100)})
    assert store.get(b"kept") == b"1"
    assert store.get(b"\x00") is None
    store.put_many({b"after": b"2"})
    store.close()
    again = LmdbStore(tmp_path)
    assert (again.get(b"kept"), again.get(b"after")) == (b"1", b"2")
    again.close()


def test_a_blob_that_does_not_fit_leaves_nothing_behind_and_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = PeerBlobs(tmp_path)
    monkeypatch.setattr(blob_files, "_sync", refuse)
    with pytest.raises(Unavailable):
        asyncio.run(blobs.add_bytes(bytes(3 << 20)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    cid = asyncio.run(blobs.add_bytes(bytes(3 << 20)))
    assert asyncio.run(blobs.read(cid, 4 << 20)) == bytes(3 << 20)


def test_a_half_written_file_never_replaces_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "settings.json"
    write_whole(place, b"old")
    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(Unavailable):
        write_whole(place, b"new")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
    assert place.read_bytes() == b"old"


def test_a_torn_key_is_no_key_and_is_written_again(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    digest = vault.keep(bytes(32))
    (tmp_path / digest.hex()).write_bytes(bytes(7))
    (tmp_path / "0000.partial").write_bytes(b"left behind by a kill")
    again = Vault(tmp_path)
    assert again.key(digest) is None
    assert again.keep(bytes(32)) == digest
    assert again.key(digest) == bytes(32)
    assert not list(tmp_path.glob("*.partial"))


def test_a_node_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Node 3's stores refuse every write for two heights; then it agrees with the others."""

    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=3), seed=11)
        await nodes.start()
        await nodes.wait_for_height(1, 60)
        await nodes.kill(3)
        place = nodes.places[3]
        place.store, place.execution = Disk(place.store), Disk(place.execution)
        await nodes.start_node(3)
        Disk.full = True
        others = nodes.node(0).ports.chain
        await nodes.wait_until(lambda: others.round.head.height >= 3, 60)
        stuck = nodes.node(3).ports
        assert stuck.chain.round.head.height < 3
        assert (await stuck.engine.capabilities()).chain_id == nodes.genesis.parameters.chain_id
        Disk.full = False
        await nodes.wait_for_height(5, 180)
        head = stuck.chain.round.head.block
        assert stuck.archive.branch(head, 0) == nodes.node(0).ports.archive.branch(head, 0)
        await nodes.close()

    run_simulated(scenario())


DISK_BYTES = 8 << 20


class Writing(InstantTraining):
    """Answer a full disk as a training process does."""

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
        try:
            return await super().train(job, on_progress)
        except OSError as error:
            raise Unavailable(str(error)) from error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of a few megabytes; skipped where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a disk of its own needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


def fill(disk: Path) -> Path:
    """Take all the room that a disk has."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    assert shutil.disk_usage(disk).free < 4_096
    return ballast


def test_a_node_on_a_disk_that_really_is_full_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything that node 2 writes lies on the small disk: LMDB's files, blobs, keys; nothing of it is torn."""

    def stores() -> tuple[LmdbStore, LmdbStore]:
        return LmdbStore(small_disk / "chain", 1 << 22), LmdbStore(small_disk / "execution", 1 << 22)

    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path / "network", LocalPlan(tmp_path / "network", miners=2), seed=12)
        nodes.make_training = nodes.make_judge = lambda _index: Writing(TEST_ROWS)
        await nodes.start()
        await nodes.wait_for_height(1, 60)
        await nodes.kill(2)
        place = nodes.places[2]
        memory = (place.store, place.execution)
        place.settings = replace(place.settings, data_directory=str(small_disk / "node"))
        place.store, place.execution = stores()
        for before, after in zip(memory, (place.store, place.execution), strict=True):
            after.put_many(dict(before.scan(b"")))
        await nodes.start_node(2)
        await nodes.wait_for_height(3, 120)
        ballast = fill(small_disk)
        others, stuck = nodes.node(0).ports, nodes.node(2).ports
        reached = others.chain.round.head.height
        with caplog.at_level(logging.INFO):
            await nodes.wait_until(lambda: others.chain.round.head.height >= reached + 3, 120)
        assert stuck.chain.round.head.height <= reached + 1
        assert any("free disk space" in record.getMessage() for record in caplog.records)
        assert not any("bug" in record.getMessage() for record in caplog.records)
        ballast.unlink()
        await nodes.wait_for_height(reached + 5, 300)
        head = stuck.chain.round.head.block
        expected = others.archive.branch(head, 0)
        assert stuck.archive.branch(head, 0) == expected
        await nodes.kill(2)
        for store in (place.store, place.execution):
            store.close()
        place.store, place.execution = stores()
        again = Archive(place.store, nodes.genesis.state())
        assert again.branch(head, 0) == expected
        blobs = PeerBlobs(small_disk / "node" / "blobs")
        for cid in blobs.pins():
            if blobs.path(cid) is not None:
                await blobs.verify(cid)
        await nodes.start_node(2)
        await nodes.wait_for_height(reached + 7, 300)
        await nodes.close()
        for store in (place.store, place.execution):
            store.close()

    run_simulated(scenario())
