"""The file of encrypted rows: header, master public key, batches of ciphertexts, and labels, which stay readable.

A data node wraps this file in the symmetric encryption of all data, so that even labels are out of reach before the
previous block is known. Its root goes into the task like that of plain rows: over header, one leaf a batch, and labels.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from learnchain.functional_encryption import (
    CipherHeader,
    MasterPublic,
    batch_leaf,
    ciphertext_root,
    decode_header,
    decode_master,
    encode_master,
)
from learnchain.learning.data import salt_of
from learnchain.learning.safe_tensors import Array, read_header, read_tensor, write_tensors
from learnchain.node.encryption.jobs import PromisedRows
from learnchain.primitives.codec import Hash32, encode
from learnchain.primitives.hashing import tagged_hash
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import MAXIMUM_DATA_BYTES, Metric

_TENSORS = ("header", "master", "batches", "labels")
_MAXIMUM_HEADER_BYTES = 1_024


@dataclass(frozen=True, slots=True, eq=False)
class EncryptedRows:
    """Hold what a file of encrypted rows says; the batches stay in the file until they are looked at."""

    header: CipherHeader
    public: MasterPublic
    batches: Array
    labels: Array

    def leaves(self) -> tuple[Hash32, ...]:
        """Return the Merkle leaf of every batch."""
        return tuple(
            batch_leaf(self.header, index, self.batches[index].tobytes()) for index in range(len(self.batches))
        )

    def root(self, leaves: tuple[Hash32, ...], key: Hash32) -> Hash32:
        """Return what the task commits to; the salt that the data key yields keeps labels from being guessed."""
        kind = repr((self.labels.dtype.name, self.labels.shape)).encode()
        labels = tagged_hash("encrypted-labels", salt_of(key), kind, np.ascontiguousarray(self.labels).tobytes())
        return tagged_hash("encrypted-rows", ciphertext_root(self.header, leaves), labels)

    def check(self, asked: PromisedRows) -> None:
        """Refuse rows other than the task promises: their number, their size, their labels."""
        places = asked.sample_shape[1:] if asked.metric is Metric.DICE else ()
        sizes = (self.header.samples, self.header.dimension) == (asked.rows, prod(asked.sample_shape))
        known = self.labels.shape == (asked.rows, *places) and 0 <= int(self.labels.min()) <= int(self.labels.max())
        if not sizes or not known or int(self.labels.max()) >= asked.classes:
            detail = f"{self.header.samples} rows of {self.header.dimension} numbers, labels of {self.labels.shape}"
            raise Rejected(RejectionReason.PLAINTEXT_MISMATCH, detail)


def write_rows(path: Path, header: CipherHeader, public: MasterPublic, batches: Array, labels: Array) -> None:
    """Write a file of encrypted rows; batches may lie in a file of their own, which is not read into memory."""
    arrays = (
        np.frombuffer(encode(header), dtype=np.uint8),
        np.frombuffer(encode_master(public), dtype=np.uint8),
        batches,
        np.ascontiguousarray(labels),
    )
    write_tensors(path, dict(zip(_TENSORS, arrays, strict=True)))


def read_rows(path: Path) -> EncryptedRows:
    """Return the checked parts of a file of encrypted rows; sizes are compared before a tensor is read."""
    entries = read_header(path, MAXIMUM_DATA_BYTES, RejectionReason.MALFORMED)
    if set(entries) != set(_TENSORS):
        raise Rejected(RejectionReason.MALFORMED, f"encrypted rows are {', '.join(_TENSORS)}, not {sorted(entries)}")
    if entries["header"].dtype != "U8" or not 0 < prod(entries["header"].shape) <= _MAXIMUM_HEADER_BYTES:
        raise Rejected(RejectionReason.MALFORMED, "the header of encrypted rows is too long")
    header = decode_header(read_tensor(path, entries["header"]).tobytes())
    expected = {
        "master": ("U8", (header.master_bytes(),)),
        "batches": ("U8", (header.batches(), header.batch_bytes())),
    }
    if any((entries[name].dtype, entries[name].shape) != form for name, form in expected.items()):
        raise Rejected(RejectionReason.MALFORMED, "master key or batches have another size than the header says")
    labels = entries["labels"]
    if labels.dtype not in ("U8", "I64") or not labels.shape or labels.shape[0] != header.samples:
        raise Rejected(RejectionReason.MALFORMED, f"labels {labels.dtype} {labels.shape} for {header.samples} rows")
    public = decode_master(header, read_tensor(path, entries["master"]).tobytes())
    return EncryptedRows(header, public, read_tensor(path, entries["batches"], mapped=True), read_tensor(path, labels))
