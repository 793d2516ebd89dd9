from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.files import MemoryStore

SMALL_KEYS = st.binary(min_size=1, max_size=3)
BATCHES = st.lists(st.dictionaries(SMALL_KEYS, st.none() | st.binary(max_size=4), max_size=6), max_size=6)


@given(BATCHES, st.binary(max_size=2))
def test_store_agrees_with_a_dictionary(batches: list[dict[bytes, bytes | None]], prefix: bytes) -> None:
    store, model = MemoryStore(), dict[bytes, bytes]()
    for batch in batches:
        store.put_many(batch)
        for key, value in batch.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
    assert list(store.scan(prefix)) == sorted((key, value) for key, value in model.items() if key.startswith(prefix))
    assert all(store.get(key) == model.get(key) for batch in batches for key in batch)


def test_scan_shows_the_moment_it_began() -> None:
    store = MemoryStore()
    store.put_many({b"a1": b"one", b"a2": b"two"})
    pairs = store.scan(b"a")
    store.put_many({b"a1": None, b"a3": b"three"})
    assert list(pairs) == [(b"a1", b"one"), (b"a2", b"two")]
