"""The file of encrypted rows: header, master public key, batches of ciphertexts, and labels, which stay readable.

A data node wraps this file in the symmetric encryption of all data, so that even labels are out of reach before the
previous block is known. Its root goes into the task like that of plain rows: over header, one leaf a batch, and labels.

Carry out encryption jobs, the only place of the node that loads numba: in an own process, or in a simulation.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from learnchain.encoding.codec import Hash32, encode
from learnchain.encoding.cryptography import tagged_hash
from learnchain.encryption.functional import (
    CipherHeader,
    Decryptor,
    MasterPublic,
    batch_leaf,
    build_header,
    ciphertext_root,
    decode_batch,
    decode_header,
    decode_key,
    decode_master,
    derive_key,
    encode_batch,
    encode_key,
    encode_master,
    encrypt_batch,
    generate_master_keys,
    leak_budget,
    verify_key,
)
from learnchain.encryption.functional.lane_code import LANES
from learnchain.encryption.jobs import CheckRows, EncryptionJob, EncryptRows, IssueKey, OpenRows, PromisedRows
from learnchain.learning.data import load_data, salt_of
from learnchain.learning.job_data import discretise, save_products, weights_of_rows
from learnchain.learning.safe_tensors import Array, read_header, read_tensor, write_tensors
from learnchain.protocol.task_specification import MAXIMUM_DATA_BYTES, Metric
from learnchain.protocol.training_terms import SecureMapping
from learnchain.rejection import Rejected, RejectionReason

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


THREADS = max(1, min(2, os.cpu_count() or 1))
"""Kernels hold no interpreter lock; a miner leaves the other cores to training."""

_BYTE = 255
Result = TypeVar("Result")


def carry_out(job: EncryptionJob) -> dict[str, Any]:
    """Do what a job asks; raise `Rejected` for whatever is not as it must be."""
    if isinstance(job, EncryptRows):
        return _encrypt(job)
    if isinstance(job, IssueKey):
        return _issue(job)
    return _check(job) if isinstance(job, CheckRows) else _open(job)


def _encrypt(job: EncryptRows) -> dict[str, Any]:
    """Encrypt batch by batch, so that memory holds the plain rows and a few batches (Step 2)."""
    data = load_data(Path(job.plain_path), mapped=True)
    maximum = _BYTE if data.inputs.dtype == np.uint8 else _largest(data.inputs)
    secret, public = generate_master_keys(job.seed, int(np.prod(data.sample_shape)))
    header = build_header(public, len(data), maximum)

    def encrypt_one(index: int) -> bytes:
        rows = discretise(data.inputs[index * header.slots : (index + 1) * header.slots])
        plain = rows.reshape(len(rows), -1).astype(np.int64)
        return encode_batch(encrypt_batch(secret, header, index, plain))

    with TemporaryDirectory(dir=Path(job.target_path).parent) as place:
        wire = Path(place) / "batches"
        with wire.open("wb") as file:
            for batch in _map_in_order(encrypt_one, header.batches()):
                file.write(batch)
        batches = np.memmap(wire, np.uint8, "r", 0, (header.batches(), header.batch_bytes()))
        write_rows(Path(job.target_path), header, public, batches, data.labels)
        rows = EncryptedRows(header, public, batches, np.asarray(data.labels))
        return {"root": rows.root(rows.leaves(), job.key).hex(), "rows": len(data)}


def _largest(inputs: Array) -> int:
    """Return the bound of real samples, rounded up to bits: it becomes public, so it should say little."""
    whole = discretise(inputs)
    if int(whole.min()) < 0:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "inner products are for samples that are not negative")
    return (1 << max(1, int(whole.max()).bit_length())) - 1


def _issue(job: IssueKey) -> dict[str, Any]:
    """Derive the key once the budget allows it (Step 3): eta = <s, z> for every slot and query."""
    queries = weights_of_rows(job.mapping)
    dimension = queries.shape[1]
    left = leak_budget(dimension, [weights_of_rows(each) for each in job.released], queries)
    secret, public = generate_master_keys(job.seed, dimension)
    Path(job.target_path).write_bytes(encode_key(derive_key(secret, public, queries)))
    return {"left": left}


def _check(job: CheckRows) -> dict[str, Any]:
    rows, _ = _read_committed_rows(job.encrypted_path, job.promised)
    return {"rows": rows.header.samples}


def _read_committed_rows(path: str, promised: PromisedRows) -> tuple[EncryptedRows, tuple[Hash32, ...]]:
    """Return rows that hash to the root of the task and are of the kind it promises, with their leaves."""
    rows = read_rows(Path(path))
    leaves = rows.leaves()
    if rows.root(leaves, promised.key) != promised.root:
        raise Rejected(RejectionReason.PLAINTEXT_MISMATCH, "the rows do not hash to the root of the task")
    rows.check(promised)
    return rows, leaves


def _open(job: OpenRows) -> dict[str, Any]:
    """Check file and key against task and block, then open all products (Step 4, Proposition 3.1)."""
    queries = _linear(job.mapping)
    rows, leaves = _read_committed_rows(job.encrypted_path, job.promised)
    header = rows.header
    key = decode_key(Path(job.functional_key_path).read_bytes(), header.slots * len(queries))
    verify_key(rows.public, queries, key)
    opener = Decryptor(header, key, queries)

    def open_one(group: int) -> Array:
        indices = range(group * LANES, min((group + 1) * LANES, header.batches()))
        return opener.open_group([decode_batch(header, i, rows.batches[i].tobytes(), leaves[i]) for i in indices])

    groups = -(-header.batches() // LANES)
    products = np.concatenate(list(_map_in_order(open_one, groups)))[: header.samples]
    save_products(Path(job.target_path), products, rows.labels)
    return {"rows": len(products), "products": len(queries)}


def _linear(mapping: SecureMapping) -> Array:
    if mapping.kernel:
        detail = "a convolutional mapping gives as many equations as unknowns: nothing would stay hidden"
        raise Rejected(RejectionReason.ENCRYPTION_UNSUITABLE, detail)
    return weights_of_rows(mapping)


def _map_in_order(act: Callable[[int], Result], count: int) -> Iterator[Result]:
    """Run through threads in order, a few ahead: what is done and not yet taken must fit in memory."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[Result]] = deque()
        for index in range(count):
            waiting.append(pool.submit(act, index))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
