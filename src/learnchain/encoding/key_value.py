"""The one door to stored bytes: a key-value store with atomic batches, and the one that lives in memory.

The rooms below the node stay free of disks: they are handed a `KeyValueStore`. The node hands them LMDB, tests hand
them `MemoryStore`.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import Protocol


class KeyValueStore(Protocol):
    """Keep bytes under bytes; what one `put_many` changes is seen whole or not at all, after a crash too."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None when there is none."""

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write every item in one atomic batch; None deletes the key, and deleting a missing key is no error."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs whose keys begin with `prefix`, ascending by key, as they were when the scan began."""


class MemoryStore:
    """Hold the pairs in a dictionary beside the sorted list of its keys: a `KeyValueStore` without a disk."""

    __slots__ = ("_keys", "_values")

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None when there is none."""
        return self._values.get(key)

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write every item; nothing in here can fail half-way."""
        for key, value in items.items():
            if value is None:
                if self._values.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
                continue
            if key not in self._values:
                insort(self._keys, key)
            self._values[key] = value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs under a prefix, ascending, from a copy that later writes do not touch."""
        return iter(self._scan_prefix(prefix))

    def _scan_prefix(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                break
            found.append((key, self._values[key]))
        return found
