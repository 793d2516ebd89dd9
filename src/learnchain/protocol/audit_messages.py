"""What auditors sign: first what they bind themselves to, then what they found; the block carries both.

An auditor names, of every segment it was given, whether replaying came to the committed state, and a witness: the
digest of the state in the segment's middle, which only training tells. It commits before anybody shows a report, so
that nobody can copy.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from learnchain.encoding.codec import Address, Bound, Hash32, Signature, encode
from learnchain.encoding.cryptography import UNSIGNED
from learnchain.encoding.hashing import tagged_hash

MAXIMUM_AUDITED_SEGMENTS = 8

MAXIMUM_AUDITS = 4
"""Audits of one block that are paid, and audit messages of each kind that one block carries."""

UNDECLARED_CLASS: Hash32 = b"\0" * 32
"""Stands for the reproducibility class of a machine that names none: nobody compares bits with it."""


@dataclass(frozen=True, slots=True)
class AuditCommitment:
    """Bind an auditor to its report on the winner of a height, before anybody's report is open.

    `machine_class` is the digest of the reproducibility class in which the auditor replays (`learnchain doctor`).
    """

    chain_id: int
    height: int
    parent: Hash32
    auditor: Address
    digest: Hash32
    machine_class: Hash32
    signature: Signature


@dataclass(frozen=True, slots=True)
class AuditedSegment:
    """Say what replaying one segment came to."""

    segment: int
    reproduced: bool
    middle_state_hash: Hash32


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Open an audit: what was found in the segments that the seed gave to this auditor, forced errors among them."""

    chain_id: int
    height: int
    parent: Hash32
    auditor: Address
    segments: Annotated[tuple[AuditedSegment, ...], Bound(MAXIMUM_AUDITED_SEGMENTS)]
    salt: Hash32
    signature: Signature


AuditMessage = AuditCommitment | AuditReport


def report_digest(report: AuditReport) -> Hash32:
    """Return what an audit commitment hides."""
    return tagged_hash("audit-report", encode(replace(report, signature=UNSIGNED)))
