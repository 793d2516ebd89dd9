"""Carry out encryption jobs, the only place of the node that loads numba: in an own process, or in a simulation."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from learnchain.functional_encryption import (
    Decryptor,
    decode_batch,
    decode_key,
    derive_key,
    encode_batch,
    encode_key,
    encrypt_batch,
    header_for,
    leak_budget,
    setup,
    verify_key,
)
from learnchain.functional_encryption.lane_code import LANES
from learnchain.learning.data import load_data
from learnchain.learning.mapping import weights_of_rows
from learnchain.learning.products import discretised, save_products
from learnchain.learning.safe_tensors import Array
from learnchain.node.encryption.jobs import CheckRows, EncryptionJob, EncryptRows, IssueKey, OpenRows, PromisedRows
from learnchain.node.encryption.row_files import EncryptedRows, read_rows, write_rows
from learnchain.primitives.codec import Hash32
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.training_terms import SecureMapping

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
    secret, public = setup(job.seed, int(np.prod(data.sample_shape)))
    header = header_for(public, len(data), maximum)

    def encrypted(index: int) -> bytes:
        rows = discretised(data.inputs[index * header.slots : (index + 1) * header.slots])
        plain = rows.reshape(len(rows), -1).astype(np.int64)
        return encode_batch(encrypt_batch(secret, header, index, plain))

    with TemporaryDirectory(dir=Path(job.target_path).parent) as place:
        wire = Path(place) / "batches"
        with wire.open("wb") as file:
            for batch in _in_order(encrypted, header.batches()):
                file.write(batch)
        batches = np.memmap(wire, np.uint8, "r", 0, (header.batches(), header.batch_bytes()))
        write_rows(Path(job.target_path), header, public, batches, data.labels)
        rows = EncryptedRows(header, public, batches, np.asarray(data.labels))
        return {"root": rows.root(rows.leaves(), job.key).hex(), "rows": len(data)}


def _largest(inputs: Array) -> int:
    """Return the bound of real samples, rounded up to bits: it becomes public, so it should say little."""
    whole = discretised(inputs)
    if int(whole.min()) < 0:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "inner products are for samples that are not negative")
    return (1 << max(1, int(whole.max()).bit_length())) - 1


def _issue(job: IssueKey) -> dict[str, Any]:
    """Derive the key once the budget allows it (Step 3): eta = <s, z> for every slot and query."""
    queries = weights_of_rows(job.mapping)
    dimension = queries.shape[1]
    left = leak_budget(dimension, [weights_of_rows(each) for each in job.released], queries)
    secret, public = setup(job.seed, dimension)
    Path(job.target_path).write_bytes(encode_key(derive_key(secret, public, queries)))
    return {"left": left}


def _check(job: CheckRows) -> dict[str, Any]:
    rows, _ = _promised(job.encrypted_path, job.promised)
    return {"rows": rows.header.samples}


def _promised(path: str, promised: PromisedRows) -> tuple[EncryptedRows, tuple[Hash32, ...]]:
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
    rows, leaves = _promised(job.encrypted_path, job.promised)
    header = rows.header
    key = decode_key(Path(job.functional_key_path).read_bytes(), header.slots * len(queries))
    verify_key(rows.public, queries, key)
    opener = Decryptor(header, key, queries)

    def opened(group: int) -> Array:
        indices = range(group * LANES, min((group + 1) * LANES, header.batches()))
        return opener.open_group([decode_batch(header, i, rows.batches[i].tobytes(), leaves[i]) for i in indices])

    groups = -(-header.batches() // LANES)
    products = np.concatenate(list(_in_order(opened, groups)))[: header.samples]
    save_products(Path(job.target_path), products, rows.labels)
    return {"rows": len(products), "products": len(queries)}


def _linear(mapping: SecureMapping) -> Array:
    if mapping.kernel:
        detail = "a convolutional mapping gives as many equations as unknowns: nothing would stay hidden"
        raise Rejected(RejectionReason.ENCRYPTION_UNSUITABLE, detail)
    return weights_of_rows(mapping)


def _in_order(act: Callable[[int], Result], count: int) -> Iterator[Result]:
    """Run through threads in order, a few ahead: what is done and not yet taken must fit in memory."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[Result]] = deque()
        for index in range(count):
            waiting.append(pool.submit(act, index))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
