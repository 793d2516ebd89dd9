"""A publisher's data keys: written before a task is posted, read when the chain asks for them, never sent early."""

from pathlib import Path

from learnchain.node.storage.files import clear_leftovers, write_whole
from learnchain.primitives.ciphers import KEY_BYTES, key_hash
from learnchain.primitives.codec import Hash32


class Vault:
    """Keep each key in a file of its own that only its owner may read, under the hash that the task commits to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        clear_leftovers(directory)

    def keep(self, key: bytes) -> Hash32:
        """Write a key durably and return its hash."""
        digest = key_hash(key)
        if self.key(digest) is None:
            write_whole(self._directory / digest.hex(), key)
        return digest

    def key(self, digest: Hash32) -> bytes | None:
        """Return the key behind a hash, or None when this publisher does not hold it whole."""
        path = self._directory / digest.hex()
        if not path.is_file():
            return None
        key = path.read_bytes()
        return key if len(key) == KEY_BYTES and key_hash(key) == digest else None
