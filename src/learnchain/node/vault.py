"""A publisher's secrets: written before a task is posted, read when the chain asks for them, never sent early."""

from pathlib import Path

from learnchain.node.storage.files import clear_leftovers, write_whole
from learnchain.primitives.ciphers import KEY_BYTES, key_hash
from learnchain.primitives.codec import Hash32, decode, encode
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.training_terms import SecureMapping

SEED_SUFFIX, RELEASED_SUFFIX = ".seed", ".released"


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

    def keep_seed(self, root: Hash32, seed: bytes) -> None:
        """Write the seed of the master key of encrypted rows durably: a master key of its own for each data set."""
        write_whole(self._directory / f"{root.hex()}{SEED_SUFFIX}", seed)

    def seed(self, root: Hash32) -> bytes | None:
        """Return the seed of the rows with this root, or None when this publisher does not hold it whole."""
        path = self._directory / f"{root.hex()}{SEED_SUFFIX}"
        seed = path.read_bytes() if path.is_file() else b""
        return seed if len(seed) == KEY_BYTES else None

    def keep_released(self, root: Hash32, mapping: SecureMapping) -> None:
        """Note durably that the products of rows with these vectors are given away, before the key leaves."""
        encoded = encode(mapping)
        name = f"{root.hex()}-{tagged_hash('released', encoded).hex()}{RELEASED_SUFFIX}"
        write_whole(self._directory / name, encoded)

    def released(self, root: Hash32) -> tuple[SecureMapping, ...]:
        """Return the mappings whose products of these rows were given away."""
        found = sorted(self._directory.glob(f"{root.hex()}-*{RELEASED_SUFFIX}"))
        return tuple(decode(SecureMapping, path.read_bytes()) for path in found)

    def key(self, digest: Hash32) -> bytes | None:
        """Return the key behind a hash, or None when this publisher does not hold it whole."""
        path = self._directory / digest.hex()
        if not path.is_file():
            return None
        key = path.read_bytes()
        return key if len(key) == KEY_BYTES and key_hash(key) == digest else None
