"""What a node asks of its encryption process: jobs as nouns. No numba here: nodes without the extra import this."""

from dataclasses import dataclass
from typing import Annotated

from learnchain.encoding.codec import Bound, Hash32
from learnchain.protocol.task_specification import Metric
from learnchain.protocol.training_terms import SecureMapping

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
