"""Stored bytes: a key-value store with atomic batches, and small files written whole or not at all.

The rooms below the node stay free of disks: they are handed a `KeyValueStore`. The node hands them LMDB, tests hand
them `MemoryStore`.
"""

import os
import shutil
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from learnchain.rejection import Unavailable


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


PARTIAL_SUFFIX = ".partial"


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file beside its place, sync it, and move it there: a kill leaves the old file or the new one."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_file(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def sync_file(path: Path) -> None:
    """Wait until a file's bytes, or the names in a directory, are on the disk: before anybody believes them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(path: Path, error: OSError) -> Unavailable:
    """Say what to do when the disk takes no more; nothing is lost, whoever asked tries again."""
    return Unavailable(
        f"{path} cannot be written ({error.strerror}); free disk space there, the node goes on by itself"
    )


def clear_leftovers(directory: Path) -> None:
    """Delete half-written files of an earlier life; what they were to become is made again when it is needed."""
    for leftover in directory.glob("*" + PARTIAL_SUFFIX):
        leftover.unlink(missing_ok=True)


def clear_directory(directory: Path) -> None:
    """Delete what a killed run left behind, as a whole."""
    shutil.rmtree(directory, ignore_errors=True)


def directory_bytes(directory: Path) -> int:
    """Return the bytes that the files under a directory take; those that vanish meanwhile count nothing."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_blocks * 512
            except OSError:
                continue
    return total
