"""A key-value store that may keep a batch back and write it with the next one: a node that catches up syncs seldom."""

from collections.abc import Iterator, Mapping

from learnchain.primitives.key_value import KeyValueStore, MemoryStore

MAXIMUM_KEPT_BACK = 256


class BufferedStore:
    """Pass everything through but `put_later`; order holds: what is written later is never on disk before.

    A kill loses only what was kept back, and all of it together: the node fetches those blocks again.
    """

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._later = MemoryStore()
        self._kept_back: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, whether it is on disk yet or not."""
        found = self._later.get(key)
        return self._store.get(key) if found is None else found

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write these items and everything kept back in one batch."""
        self._store.put_many({**self._kept_back, **items})
        self._kept_back.clear()
        self._later = MemoryStore()

    def put_later(self, items: Mapping[bytes, bytes]) -> None:
        """Keep items back until the next batch, or until too many are."""
        if len(self._kept_back) + len(items) > MAXIMUM_KEPT_BACK:
            self.put_many(items)
            return
        self._kept_back.update(items)
        self._later.put_many(items)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs under a prefix, ascending, whether they are on disk yet or not."""
        if not self._kept_back:
            return self._store.scan(prefix)
        return iter(sorted({**dict(self._store.scan(prefix)), **dict(self._later.scan(prefix))}.items()))
