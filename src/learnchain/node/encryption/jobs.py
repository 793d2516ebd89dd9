"""What a node asks of its encryption process: jobs as nouns. No numba here: nodes without the extra import this."""

from dataclasses import dataclass
from typing import Annotated

from learnchain.primitives.codec import Bound, Hash32
from learnchain.primitives.task_specification import Metric
from learnchain.primitives.training_terms import SecureMapping

MAXIMUM_RELEASED = 64
"""Mappings whose products a data set may have given away: the leak budget ends long before."""

FilePath = Annotated[str, Bound(4_096)]


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
class OpenRows:
    """Ask for the inner products of all rows, key and ciphertexts checked (PoLe 3.4, Step 4).

    `rows`, `root`, `sample_shape`, `classes` and `metric` are what the task promises of the file.
    """

    encrypted_path: FilePath
    functional_key_path: FilePath
    target_path: FilePath
    key: Hash32
    mapping: SecureMapping
    rows: int
    root: Hash32
    sample_shape: Annotated[tuple[int, ...], Bound(4)]
    classes: int
    metric: Metric


EncryptionJob = EncryptRows | IssueKey | OpenRows
JOBS: dict[str, type[EncryptRows] | type[IssueKey] | type[OpenRows]] = {
    "encrypt": EncryptRows,
    "issue": IssueKey,
    "open": OpenRows,
}
"""The name of each job on the command line of the process."""
