"""A full disk: said clearly, survived, and forgotten as soon as there is room again."""

import asyncio
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from learnchain.node.blobs import blob_files
from learnchain.node.blobs.peer_blobs import PeerBlobs
from learnchain.node.local_network import LocalPlan
from learnchain.node.storage import files
from learnchain.node.storage.files import write_whole
from learnchain.node.storage.lmdb_store import LmdbStore
from learnchain.node.vault import Vault
from learnchain.primitives.key_value import MemoryStore
from learnchain.primitives.rejection import Unavailable
from learnchain.testing.simulated_clock import run_simulated
from learnchain.testing.simulated_nodes import SimulatedNodes


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
        await nodes.until_height(1, 60)
        await nodes.kill(3)
        place = nodes.places[3]
        place.store, place.execution = Disk(place.store), Disk(place.execution)
        await nodes.start_node(3)
        Disk.full = True
        others = nodes.node(0).ports.chain
        await nodes.until(lambda: others.round.head.height >= 3, 60)
        stuck = nodes.node(3).ports
        assert stuck.chain.round.head.height < 3
        assert (await stuck.engine.capabilities()).chain_id == nodes.genesis.parameters.chain_id
        Disk.full = False
        await nodes.until_height(5, 180)
        head = stuck.chain.round.head.block
        assert stuck.archive.branch(head, 0) == nodes.node(0).ports.archive.branch(head, 0)
        await nodes.close()

    run_simulated(scenario())
