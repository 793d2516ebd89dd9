"""`LmdbStore`: the durable key-value store, one file under one directory, memory-mapped by LMDB."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import lmdb

from learnchain.rejection import Unavailable

DEFAULT_MAP_BYTES = 64 * 1024 * 1024
DEFAULT_MAXIMUM_MAP_BYTES = 1 << 40
"""The map is address space, not disk; it grows by doubling when it is full."""
_LOCK_NAME = "owner.lock"


class LmdbStore:
    """Keep bytes on disk: every `put_many` is one transaction, synced before it returns.

    One process owns a directory: two nodes on one store would each believe in their own head.
    """

    __slots__ = ("_environment", "_lock", "_map_bytes", "_maximum_map_bytes", "_owner", "_path")

    def __init__(
        self,
        path: Path,
        map_size_bytes: int = DEFAULT_MAP_BYTES,
        maximum_map_bytes: int = DEFAULT_MAXIMUM_MAP_BYTES,
    ) -> None:
        self._path = path
        self._map_bytes = map_size_bytes
        self._maximum_map_bytes = maximum_map_bytes
        self._lock = RLock()
        self._owner = _lock_owner_file(path)
        try:
            self._environment = lmdb.open(str(path), map_size=map_size_bytes, readahead=False)
        except lmdb.Error as error:
            os.close(self._owner)
            raise Unavailable(f"the store in {path} cannot be opened: {error}") from error
        # A store that grew in an earlier life tells its own size.
        self._map_bytes = int(self._environment.info()["map_size"])

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None when there is none."""
        with self._reading() as transaction:
            value = transaction.get(key)
        return None if value is None else bytes(value)

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write every item in one synced transaction; None deletes; raise `Unavailable` when the disk is full."""
        with self._lock:
            while True:
                try:
                    self._write(items)
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.Error as error:
                    detail = f"the store in {self._path} cannot be written: {error}; free disk space and start again"
                    raise Unavailable(detail) from error
                else:
                    return

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs under a prefix, ascending, as they were when the scan began.

        They are read at once: an open read transaction would keep the map from growing.
        """
        with self._reading() as transaction:
            cursor = transaction.cursor()
            more = cursor.set_range(prefix) if prefix else cursor.first()
            found: list[tuple[bytes, bytes]] = []
            while more and bytes(cursor.key()).startswith(prefix):
                found.append((bytes(cursor.key()), bytes(cursor.value())))
                more = cursor.next()
        return iter(found)

    def close(self) -> None:
        """Close the file and let another process own the directory; a second time changes nothing."""
        with self._lock:
            if self._owner >= 0:
                self._environment.close()
                os.close(self._owner)
                self._owner = -1

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        try:
            with self._lock, self._environment.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise Unavailable(f"the store in {self._path} cannot be read: {error}") from error

    def _write(self, items: Mapping[bytes, bytes | None]) -> None:
        with self._environment.begin(write=True) as transaction:
            for key, value in items.items():
                if value is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, value)

    def _grow(self) -> None:
        if self._map_bytes >= self._maximum_map_bytes:
            detail = f"the store in {self._path} has reached its largest size of {self._maximum_map_bytes} bytes"
            raise Unavailable(detail)
        self._map_bytes = min(2 * self._map_bytes, self._maximum_map_bytes)
        self._environment.set_mapsize(self._map_bytes)


def _lock_owner_file(path: Path) -> int:
    """Return the handle of the locked owner file; raise `Unavailable` when another process holds it."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unavailable(f"the store in {path} cannot be opened: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Unavailable(f"the store in {path} is in use by another process: stop its node first") from error
    return handle
