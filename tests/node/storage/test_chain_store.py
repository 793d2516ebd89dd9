from collections.abc import Callable
from pathlib import Path

import pytest

from learnchain.node.storage.chain_store import MAXIMUM_BLOCK_BYTES, ChainBatch, ChainStore
from learnchain.node.storage.lmdb_store import LmdbStore
from learnchain.primitives.content_id import cid_of_block
from learnchain.primitives.key_value import KeyValueStore, MemoryStore
from learnchain.primitives.rejection import Rejected, RejectionReason

ONE, TWO, THREE = b"1" * 32, b"2" * 32, b"3" * 32
CIDS = [cid_of_block(bytes([number])) for number in range(3)]

Open = Callable[[], KeyValueStore]


@pytest.fixture(params=["memory", "lmdb"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Return a function that opens the same store again, as a restarted node does."""
    memory = MemoryStore()
    opened: list[LmdbStore] = []

    def opening() -> KeyValueStore:
        if request.param == "memory":
            return memory
        if opened:
            opened.pop().close()
        opened.append(LmdbStore(tmp_path / "store"))
        return opened[-1]

    request.addfinalizer(lambda: [store.close() for store in opened])
    return opening


def test_one_batch_survives_a_restart(reopen: Open) -> None:
    batch = ChainBatch().block(TWO, 7, b"two").block(ONE, 7, b"one").block(THREE, 8, b"three").head(THREE, 8)
    ChainStore(reopen()).write(batch.final(ONE, 7).record("settings", b"x").peer(ONE, "1.2.3.4:5"))
    store = ChainStore(reopen())
    assert (store.block(ONE), store.has_block(b"4" * 32)) == (b"one", False)
    assert store.hashes_at(7) == (ONE, TWO)
    assert (store.head(), store.final()) == ((THREE, 8), (ONE, 7))
    assert list(store.blocks()) == [(ONE, 7), (TWO, 7), (THREE, 8)]
    assert (store.record("settings"), store.record("other")) == (b"x", None)
    assert store.peers() == ((ONE, "1.2.3.4:5"),)


def test_what_is_forgotten_is_gone(reopen: Open) -> None:
    store = ChainStore(reopen())
    assert (store.head(), store.final(), store.hashes_at(0)) == (None, None, ())
    store.write(ChainBatch().block(ONE, 7, b"one").record("name", b"x").peer(ONE, "a:1"))
    store.write(ChainBatch().forget_block(ONE, 7).record("name", None).peer(ONE, None))
    assert (store.block(ONE), store.hashes_at(7), store.record("name"), store.peers()) == (None, (), None, ())


def test_messages_of_a_round_stay_apart(reopen: Open) -> None:
    store = ChainStore(reopen())
    batch = ChainBatch()
    for height in (3, 4, 255, 256):
        batch.message(height, "reveal", b"id", bytes([height % 251])).message(height, "reveals", b"d", b"other kind")
    store.write(batch)
    assert store.messages(4, "reveal") == ((b"id", b"\4"),)
    assert store.message(255, "reveals", b"d") == b"other kind"
    assert store.message(255, "reveal", b"sid") is None
    assert store.forget_messages_below(256) == 6
    assert store.messages(255, "reveal") == ()
    assert store.messages(256, "reveal") == ((b"id", b"\5"),)


def test_pins_end_when_the_last_block_that_needs_them_is_old(reopen: Open) -> None:
    store = ChainStore(reopen())
    store.write(ChainBatch().pin(1, CIDS[0]).pin(2, CIDS[1]).pin(9, CIDS[1]).pin(300, CIDS[2]))
    assert set(store.forget_pins_below(5)) == {CIDS[0]}
    assert store.pins() == ((9, CIDS[1]), (300, CIDS[2]))


def test_newer_format_is_refused(reopen: Open) -> None:
    ChainStore(reopen())
    opened = reopen()
    opened.put_many({b"v": (2).to_bytes(4, "big")})
    with pytest.raises(Rejected) as caught:
        ChainStore(opened)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


def test_store_of_something_else_is_refused(reopen: Open) -> None:
    opened = reopen()
    opened.put_many({b"other": b"thing"})
    with pytest.raises(Rejected) as caught:
        ChainStore(opened)
    assert caught.value.reason is RejectionReason.MALFORMED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda batch: batch.block(ONE, 1, bytes(MAXIMUM_BLOCK_BYTES + 1)), RejectionReason.TOO_LARGE),
        (lambda batch: batch.block(b"short", 1, b""), RejectionReason.MALFORMED),
        (lambda batch: batch.head(ONE, -1), RejectionReason.WRONG_HEIGHT),
        (lambda batch: batch.head(ONE, 1 << 64), RejectionReason.WRONG_HEIGHT),
        (lambda batch: batch.message(1, "reveal", bytes(500), b""), RejectionReason.TOO_LARGE),
        (lambda batch: batch.message(1, "", b"", b""), RejectionReason.ARGUMENT_INVALID),
        (lambda batch: batch.peer(ONE, "x" * 600), RejectionReason.TOO_LARGE),
    ],
)
def test_what_is_out_of_bounds_is_refused(change: Callable[[ChainBatch], object], reason: RejectionReason) -> None:
    batch = ChainBatch()
    with pytest.raises(Rejected) as caught:
        change(batch)
    assert caught.value.reason is reason
    assert all(len(key) < 512 for key in batch.items)
