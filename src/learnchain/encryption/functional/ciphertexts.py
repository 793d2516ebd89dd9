"""Encrypt samples batch by batch, and hold the wire format: header, compressed batches, one Merkle leaf a batch.

A batch is made from the secret seed, its number and its content alone, so encryption resumes at any batch and gives
the same bytes; nothing but one batch is ever in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learnchain.encoding.codec import Hash32, decode, encode
from learnchain.encoding.cryptography import list_root, message_hash, shake256, tagged_hash
from learnchain.encryption.functional import group
from learnchain.encryption.functional.keys import MAXIMUM_DIMENSION, MasterPublic, MasterSecret
from learnchain.rejection import Rejected, RejectionReason

SCHEME = "ddh-secp256k1"
MAXIMUM_SAMPLES = 1 << 28
MAXIMUM_LEVEL = 65_535


@dataclass(frozen=True, slots=True)
class CipherHeader:
    """Say what the batches of a data set are: the first thing on the wire."""

    scheme: str
    dimension: int
    slots: int
    samples: int
    maximum: int
    """Largest component of a sample: with the queries it bounds the discrete logarithms."""
    master: Hash32

    def batches(self) -> int:
        """Return how many batches the samples fill."""
        return -(-self.samples // self.slots)

    def batch_bytes(self) -> int:
        """Return the size of every batch on the wire."""
        return group.COMPRESSED_BYTES * (1 + self.slots * self.dimension)

    def master_bytes(self) -> int:
        """Return the size of the master public key on the wire."""
        return group.COMPRESSED_BYTES * self.slots * self.dimension

    def check(self) -> "CipherHeader":
        """Return the header itself, or refuse numbers that no data set has."""
        sizes = 0 < self.dimension <= MAXIMUM_DIMENSION and 0 < self.slots <= 256
        if self.scheme != SCHEME or not sizes:
            raise Rejected(RejectionReason.MALFORMED, f"no scheme {self.scheme!r} of {self.dimension} x {self.slots}")
        if not 0 < self.samples <= MAXIMUM_SAMPLES or not 0 < self.maximum <= MAXIMUM_LEVEL:
            raise Rejected(RejectionReason.TOO_LARGE, f"{self.samples} samples up to {self.maximum}")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class CipherBatch:
    """Hold one batch: ct_0 = g**r, then ct_j = h_j**r * g**x_j for every slot and component."""

    points: group.Coordinates


def build_header(public: MasterPublic, samples: int, maximum: int = 255) -> CipherHeader:
    """Return the header of a data set under a master key."""
    return CipherHeader(SCHEME, public.dimension, public.slots, samples, maximum, public.identity()).check()


def decode_header(data: bytes) -> CipherHeader:
    """Return the header that hostile bytes stand for."""
    return decode(CipherHeader, data).check()


def decode_master(header: CipherHeader, data: bytes) -> MasterPublic:
    """Return the master public key that a header names; refuse other bytes, and points off the curve."""
    if len(data) != header.master_bytes():
        raise Rejected(RejectionReason.MALFORMED, f"{len(data)} bytes where a master key has {header.master_bytes()}")
    public = MasterPublic(header.dimension, header.slots, group.decompress(data))
    if public.identity() != header.master:
        raise Rejected(RejectionReason.WRONG_HASH, "the master public key is not the one that the header names")
    return public


def encrypt_batch(secret: MasterSecret, header: CipherHeader, index: int, samples: NDArray[np.integer]) -> CipherBatch:
    """Carry out Step 2 of PoLe section 3.4 on up to `slots` samples (n, dimension); missing ones count as zero.

    The holder of s needs one exponentiation a component: h**r * g**x = g**(s r + x). The randomness hangs on secret,
    header, number and content, so that it never serves two contents (as RFC 6979 does for signatures).
    """
    if samples.ndim != 2 or samples.shape[1] != secret.dimension or not 0 < len(samples) <= secret.slots:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{samples.shape} is no batch")
    if int(samples.min()) < 0 or int(samples.max()) > header.maximum:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"a component lies outside 0 .. {header.maximum}")
    plain = np.zeros((secret.slots, secret.dimension), dtype=np.int64)
    plain[: len(samples)] = samples
    bound = tagged_hash(
        "encryption/nonce", secret.seed, message_hash(header), index.to_bytes(8, "big"), plain.tobytes()
    )
    nonce = int.from_bytes(shake256("encryption/nonce", bound, 48), "big") % (group.ORDER - 1) + 1
    exponents = [nonce]
    exponents += [(s * nonce + x) % group.ORDER for s, x in zip(secret.scalars, plain.ravel().tolist(), strict=True)]
    if 0 in exponents:
        raise RuntimeError("a ciphertext at infinity: 2**-256 a component, so the randomness is broken")
    return CipherBatch(group.generator_multiples(exponents))


def encrypt(
    secret: MasterSecret, header: CipherHeader, samples: NDArray[np.integer], first_batch: int = 0
) -> Iterator[CipherBatch]:
    """Yield the batches of a data set from `first_batch` on: an interrupted encryption goes on where it stopped."""
    if len(samples) != header.samples:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{len(samples)} samples under a header for {header.samples}")
    for index in range(first_batch, header.batches()):
        yield encrypt_batch(secret, header, index, samples[index * header.slots : (index + 1) * header.slots])


def encode_batch(batch: CipherBatch) -> bytes:
    """Return the bytes of a batch on the wire."""
    return group.compress(batch.points)


def batch_leaf(header: CipherHeader, index: int, data: bytes) -> Hash32:
    """Return the Merkle leaf of a batch: it binds data set, place and content."""
    return tagged_hash("encryption/batch", message_hash(header), index.to_bytes(8, "big"), data)


def ciphertext_root(header: CipherHeader, leaves: tuple[Hash32, ...]) -> Hash32:
    """Return the root that a task commits to: over the header and one leaf a batch."""
    return list_root((encode(header), *leaves))


def decode_batch(header: CipherHeader, index: int, data: bytes, leaf: Hash32) -> CipherBatch:
    """Return the batch; refuse another length, another content or place than the leaf's, and points off the curve."""
    if len(data) != header.batch_bytes():
        raise Rejected(RejectionReason.MALFORMED, f"{len(data)} bytes where a batch has {header.batch_bytes()}")
    if batch_leaf(header, index, data) != leaf:
        raise Rejected(RejectionReason.WRONG_HASH, f"batch {index} is not the one of its leaf")
    return CipherBatch(group.decompress(data))
