"""The nouns of bonds: what somebody can be proven to have done, by which signed words."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from learnchain.primitives.codec import Address, Bound, Hash32, Signature
from learnchain.primitives.hashing import tagged_hash

MAXIMUM_STATEMENT_BYTES = 8_192


class Fault(StrEnum):
    """Name what a piece of evidence proves; who is to blame follows from it."""

    DOUBLE_COMMITMENT = "double_commitment"
    """A miner signed two commitments on one parent."""
    DOUBLE_REVEAL = "double_reveal"
    """A miner opened its commitment on one parent with two claims."""
    DOUBLE_RELEASE = "double_release"
    """A publisher signed two releases on one parent (ROUND-1)."""
    DATA_CHANGED = "data_changed"
    """The data that a publisher's key opens are not those it committed to at posting."""
    TRACE_FORGED = "trace_forged"
    """A winner's training does not follow from its own trace; the statement is a `FraudProof`."""
    AUDIT_FALSE = "audit_false"
    """An auditor cannot have replayed what it reports; the statements are the `AuditReport` and a `FraudProof`."""


PUBLISHER_FAULTS = frozenset({Fault.DOUBLE_RELEASE, Fault.DATA_CHANGED})
MEASURED_FAULTS = frozenset({Fault.DATA_CHANGED, Fault.TRACE_FORGED, Fault.AUDIT_FALSE})
"""What bytes alone do not prove: each node measures it itself."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Prove that somebody broke a rule on a recent height: canonical bytes of what the offender itself signed.

    `parent` names the height's branch. Two statements contradict each other; one is measured against public data.
    """

    chain_id: int
    fault: Fault
    height: int
    parent: Hash32
    offender: Address
    reporter: Address
    statements: Annotated[tuple[Annotated[bytes, Bound(MAXIMUM_STATEMENT_BYTES)], ...], Bound(2)]
    signature: Signature

    @property
    def fault_id(self) -> Hash32:
        """Return the identity of the offence, whoever reports it and by whatever statements."""
        return fault_id(self.fault, self.offender, self.height, self.parent)


def fault_id(fault: Fault, offender: Address, height: int, parent: Hash32) -> Hash32:
    """Return the identity of an offence, by which it is punished once."""
    return tagged_hash("fault", fault.value.encode(), offender, height.to_bytes(8, "big"), parent)
