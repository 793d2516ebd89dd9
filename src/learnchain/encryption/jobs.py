"""What a node asks of its encryption process: jobs as nouns. No numba here: nodes without the extra import this.

Run encryption jobs beside the event loop: one process a job, which ends with it; in this process for simulations.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from learnchain.encoding.codec import Bound, Hash32, encode
from learnchain.protocol.task_specification import Metric
from learnchain.protocol.training_terms import SecureMapping
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_RELEASED = 64
"""Mappings whose products a data set may have given away: the leak budget ends long before."""

FilePath = Annotated[str, Bound(4_096)]


def key_bytes_bound(mapping: SecureMapping) -> int:
    """Return what a functional key for these vectors may have at most: 32 bytes for each of 256 slots and vectors."""
    return 32 * (2 + 256 * len(mapping.rows))


@dataclass(frozen=True, slots=True)
class EncryptRows:
    """Ask for the encryption of a plain data file under the master key of a seed (PoLe 3.4, Steps 1 and 2)."""

    seed: Hash32
    key: Hash32
    plain_path: FilePath
    target_path: FilePath


@dataclass(frozen=True, slots=True)
class IssueKey:
    """Ask for the functional key of one block's query vectors, within the leak budget (PoLe 3.4, Step 3)."""

    seed: Hash32
    mapping: SecureMapping
    released: Annotated[tuple[SecureMapping, ...], Bound(MAXIMUM_RELEASED)]
    target_path: FilePath


@dataclass(frozen=True, slots=True)
class PromisedRows:
    """Hold what a task promises of the file of its encrypted rows; the data key salts the root."""

    key: Hash32
    rows: int
    root: Hash32
    sample_shape: Annotated[tuple[int, ...], Bound(4)]
    classes: int
    metric: Metric


@dataclass(frozen=True, slots=True)
class CheckRows:
    """Ask whether a file of encrypted rows is what the task promises, its points left aside."""

    encrypted_path: FilePath
    promised: PromisedRows


@dataclass(frozen=True, slots=True)
class OpenRows:
    """Ask for the inner products of all rows, key and ciphertexts checked (PoLe 3.4, Step 4)."""

    encrypted_path: FilePath
    functional_key_path: FilePath
    target_path: FilePath
    mapping: SecureMapping
    promised: PromisedRows


EncryptionJob = EncryptRows | IssueKey | CheckRows | OpenRows

JOBS: dict[str, type[EncryptRows] | type[IssueKey] | type[CheckRows] | type[OpenRows]] = {
    "encrypt": EncryptRows,
    "issue": IssueKey,
    "check": CheckRows,
    "open": OpenRows,
}
"""The name of each job on the command line of the process."""


EncryptionRunner = Callable[[EncryptionJob], Awaitable[dict[str, Any]]]
"""How a node has its encryption jobs carried out."""


class EncryptionFailed(Exception):
    """Say that the encryption process met a fault of our own."""


async def in_own_process(job: EncryptionJob) -> dict[str, Any]:
    """Start a process for the job, and end it when whoever waits is cancelled: a block may come first."""
    name = next(name for name, kind in JOBS.items() if isinstance(job, kind))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "learnchain.encryption", name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate(encode(job))
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise EncryptionFailed(f"the encryption process ended with {process.returncode}")
    return _result(json.loads(output))


async def in_this_process(job: EncryptionJob) -> dict[str, Any]:
    """Carry out a job in a thread: for simulations, whose clock knows no processes."""
    from learnchain.encryption.work import carry_out

    return await asyncio.to_thread(carry_out, job)


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" not in answer:
        result: dict[str, Any] = answer["result"]
        return result
    reason, detail = answer["error"]["reason"], answer["error"]["detail"]
    if reason in set(RejectionReason):
        raise Rejected(RejectionReason(reason), detail)
    raise Unavailable(detail)
