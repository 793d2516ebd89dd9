"""The durable store does what the one in memory does, survives its process, and grows."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnchain.encoding.files import KeyValueStore, MemoryStore
from learnchain.rejection import Unavailable
from learnchain.storage.lmdb_store import LmdbStore

MAP_BYTES = 1024 * 1024
KEYS = st.binary(min_size=1, max_size=3)
BATCHES = st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=6), max_size=5)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyValueStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    durable = LmdbStore(tmp_path / "store", MAP_BYTES)
    yield durable
    durable.close()


def test_what_is_put_is_there(store: KeyValueStore):
    store.put_many({b"a": b"one", b"b": b""})
    assert (store.get(b"a"), store.get(b"b"), store.get(b"c")) == (b"one", b"", None)
    store.put_many({b"a": b"two", b"b": None, b"never": None})
    assert (store.get(b"a"), store.get(b"b")) == (b"two", None)


def test_a_scan_is_ordered_and_bounded_by_its_prefix(store: KeyValueStore):
    store.put_many({b"a/2": b"2", b"a/1": b"1", b"b/1": b"3", b"a": b"0", b"a/\xff\xff": b"4"})
    assert list(store.scan(b"a/")) == [(b"a/1", b"1"), (b"a/2", b"2"), (b"a/\xff\xff", b"4")]
    assert [key for key, _ in store.scan(b"")] == [b"a", b"a/1", b"a/2", b"a/\xff\xff", b"b/1"]
    assert list(store.scan(b"c")) == []


def test_a_scan_shows_the_moment_it_began(store: KeyValueStore):
    store.put_many({b"a1": b"one", b"a2": b"two"})
    pairs = store.scan(b"a")
    store.put_many({b"a1": None, b"a3": b"three"})
    assert list(pairs) == [(b"a1", b"one"), (b"a2", b"two")]


@settings(max_examples=20, deadline=None)
@given(BATCHES, st.binary(max_size=2))
def test_it_agrees_with_the_one_in_memory(batches: list[dict[bytes, bytes | None]], prefix: bytes):
    with tempfile.TemporaryDirectory() as directory:
        durable, model = LmdbStore(Path(directory), MAP_BYTES), MemoryStore()
        for batch in batches:
            durable.put_many(batch)
            model.put_many(batch)
        assert list(durable.scan(prefix)) == list(model.scan(prefix))
        durable.close()


def test_it_survives_closing(tmp_path: Path):
    first = LmdbStore(tmp_path, MAP_BYTES)
    first.put_many({b"a": b"one"})
    first.close()
    first.close()
    second = LmdbStore(tmp_path, MAP_BYTES)
    assert second.get(b"a") == b"one"
    second.close()


def test_the_map_grows_and_stays_grown(tmp_path: Path):
    store = LmdbStore(tmp_path, MAP_BYTES)
    for index in range(8):
        store.put_many({index.to_bytes(4, "big"): bytes([index]) * MAP_BYTES})
    assert len(list(store.scan(b""))) == 8
    store.close()
    again = LmdbStore(tmp_path, MAP_BYTES)
    assert again.get((7).to_bytes(4, "big")) == b"\x07" * MAP_BYTES
    again.close()


def test_a_full_map_is_said_plainly_and_keeps_nothing_of_the_batch(tmp_path: Path):
    store = LmdbStore(tmp_path, MAP_BYTES, 2 * MAP_BYTES)
    store.put_many({b"small": b"kept"})
    with pytest.raises(Unavailable):
        store.put_many({b"first": b"lost", b"huge": b"x" * (4 * MAP_BYTES)})
    assert (store.get(b"small"), store.get(b"first")) == (b"kept", None)
    store.put_many({b"later": b"works"})
    assert store.get(b"later") == b"works"
    store.close()


def test_a_directory_has_one_owner(tmp_path: Path):
    store = LmdbStore(tmp_path, MAP_BYTES)
    with pytest.raises(Unavailable):
        LmdbStore(tmp_path, MAP_BYTES)
    store.close()
    LmdbStore(tmp_path, MAP_BYTES).close()


def test_a_path_that_is_no_directory_is_unavailable(tmp_path: Path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(Unavailable):
        LmdbStore(tmp_path / "file", MAP_BYTES)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from learnchain.storage.lmdb_store import LmdbStore
from learnchain.rejection import Unavailable
store = LmdbStore(Path(sys.argv[1]), 1 << 26)
store.put_many({b"a": b"kept"})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
try:
    store.put_many({b"b": b"x" * (1 << 22)})
except Unavailable:
    print("unavailable", store.get(b"a"), store.get(b"b"))
"""


def test_a_disk_without_room_is_unavailable(tmp_path: Path):
    answer = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=200, check=False
    )
    assert answer.stdout.strip() == "unavailable b'kept' None", answer.stderr


KILLED = """
import os, signal, sys
from pathlib import Path
from learnchain.storage.lmdb_store import LmdbStore
store = LmdbStore(Path(sys.argv[1]), 1 << 22)
for index in range(10_000):
    store.put_many({b"left": index.to_bytes(4, "big"), b"right": index.to_bytes(4, "big")})
    if index == 50:
        print("ready", flush=True)
"""


def test_a_killed_process_leaves_whole_batches(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = LmdbStore(tmp_path, 1 << 22)
    left, right = store.get(b"left"), store.get(b"right")
    assert left is not None
    assert left == right
    assert int.from_bytes(left, "big") >= 50
    store.close()


def test_a_closed_store_is_unavailable(tmp_path: Path):
    store = LmdbStore(tmp_path, MAP_BYTES)
    store.close()
    with pytest.raises(Unavailable):
        store.get(b"a")
    with pytest.raises(Unavailable):
        store.scan(b"a")
    with pytest.raises(Unavailable):
        store.put_many({b"a": b"b"})
