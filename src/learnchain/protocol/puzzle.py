"""The hash puzzle: find a salt with which a commitment's SHA-256 digest, read as a number, lies below a target."""

import hashlib
from dataclasses import dataclass

from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import DOMAIN
from learnchain.protocol.messages import TrainedModel, training_record_hash

LARGEST_TARGET = 2**256 - 1
_SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Hold everything that a commitment binds except the salt, and the target to get below."""

    work_id: Hash32
    model: TrainedModel
    payload_hash: Hash32
    payload_cid: bytes
    target: int

    def search(self, first: int, attempts: int) -> tuple[bytes, int]:
        """Return the first of `attempts` salts from `first` on that solves the puzzle, or nothing, and the tries."""
        begun, target = self._hash_prefix(), self.target
        for number in range(first, first + attempts):
            salt = number.to_bytes(_SALT_BYTES, "big")
            digest = begun.copy()
            digest.update(salt)
            if int.from_bytes(digest.digest(), "big") < target:
                return salt, number - first + 1
        return b"", attempts

    def _hash_prefix(self) -> "hashlib._Hash":
        """Return `tagged_hash("commitment", ...)` as far as it does not depend on the salt."""
        begun = hashlib.sha256(DOMAIN + b"commitment\0")
        parts = (self.work_id, self.model.model_cid, training_record_hash(self.model.training))
        for part in (*parts, self.payload_hash, self.payload_cid):
            begun.update(len(part).to_bytes(8, "big"))
            begun.update(part)
        begun.update(_SALT_BYTES.to_bytes(8, "big"))
        return begun


def is_solved(digest: Hash32, target: int) -> bool:
    """Return whether a digest lies below the target."""
    return int.from_bytes(digest, "big") < target


def estimate_attempts(target: int) -> int:
    """Return how many hashes a solution takes on average."""
    return (LARGEST_TARGET + 1) // max(1, target)
