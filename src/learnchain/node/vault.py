"""A publisher's data keys: written before a task is posted, read when the chain asks for them, never sent early."""

import os
from pathlib import Path

from learnchain.primitives.ciphers import key_hash
from learnchain.primitives.codec import Hash32


class Vault:
    """Keep each key in a file of its own that only its owner may read, under the hash that the task commits to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(self, key: bytes) -> Hash32:
        """Write a key durably and return its hash."""
        digest = key_hash(key)
        path = self._directory / digest.hex()
        if not path.exists():
            partial = path.with_suffix(".partial")
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(handle, key)
                os.fsync(handle)
            finally:
                os.close(handle)
            partial.replace(path)
        return digest

    def key(self, digest: Hash32) -> bytes | None:
        """Return the key behind a hash, or None when this publisher does not hold it."""
        path = self._directory / digest.hex()
        return path.read_bytes() if path.is_file() else None
