"""What auditors sign, and what is said in a dispute.

An auditor names, of every segment it was given, whether replaying came to the committed state, and a witness: the
digest of the state in the segment's middle, which only training tells. It commits before any report is shown, so that
none can be copied.

A numeric mismatch alone proves no fault. The winner or auditor that claims to have trained a segment must show its
steps when it is asked (AUDIT-6): silence is punished by the clock of heights, and steps that no honest machine takes
are proven by `FraudProof`. Blocks of either kind carry both messages.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from learnchain.encoding.codec import Address, Bound, Hash32, Signature, encode
from learnchain.encoding.cryptography import UNSIGNED, check_list_branch, tagged_hash
from learnchain.protocol.task_specification import Cid
from learnchain.rejection import Rejected, RejectionReason

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


MAXIMUM_STEP_STATES = 1 << 24
"""Bound of the states that show a segment's steps; it bounds every branch."""

MAXIMUM_CHALLENGES = 4

MAXIMUM_RESPONSES = 4
"""What one block carries of each: as many answers as accusations, so that every accused finds room before its deadline.
"""

Branch = Annotated[tuple[Hash32, ...], Bound(24)]


@dataclass(frozen=True, slots=True)
class StateLeaf:
    """Name one full training state, and what the steps since the state before it were computed from.

    `seed` is the random state: every later draw follows from it and the step. `order` is the digest of the row
    numbers and `points` of the rows themselves, in the order in which they were shown. `digest` covers weights,
    running statistics and the optimiser's memory.
    """

    step: int
    seed: Hash32
    order: Hash32
    points: Hash32
    digest: Hash32


@dataclass(frozen=True, slots=True)
class SegmentOpening:
    """Show the two committed states at the ends of one segment, with their branches under the committed root."""

    index: int
    first: StateLeaf
    first_branch: Branch
    following: StateLeaf
    following_branch: Branch

    def check(self, state_root: Hash32, states: int) -> None:
        """Refuse states that are not under the root of the run."""
        for place, leaf, branch in (
            (self.index, self.first, self.first_branch),
            (self.index + 1, self.following, self.following_branch),
        ):
            check_branch(state_root, encode(leaf), (place, states), branch)


@dataclass(frozen=True, slots=True)
class StateDisclosure:
    """Answer an accusation: the root over the state digests of every step of the segment, both ends included.

    `commitment` names what the accused had bound itself to: the hash of a winner's commitment, or the digest of an
    auditor's report (`dispute_rules.bound_by`). `states` are those of all steps, one more than the segment has steps.

    `digests_cid` is the list itself, 32 bytes each; `states_cid` the state files one after the other, all of one size.
    Neither needs to be believed: the root is signed, and a file that does not hash to its digest is `FAULT_STEP_CHAIN`.
    """

    chain_id: int
    commitment: Hash32
    segment: int
    states: int
    root: Hash32
    digests_cid: Cid
    states_cid: Cid
    signature: Signature


@dataclass(frozen=True, slots=True)
class Challenge:
    """Ask whoever trained a segment, as winner or as auditor of that height, to show every step of it."""

    chain_id: int
    height: int
    parent: Hash32
    respondent: Address
    segment: int
    challenger: Address
    signature: Signature


@dataclass(frozen=True, slots=True)
class ChallengeResponse:
    """Carry a signed answer to its dispute, with the segment opened, so that a proof needs no file of the accused.

    Only the answer is signed: place and accused follow from what its commitment names, the opening from the trace.
    """

    height: int
    parent: Hash32
    respondent: Address
    disclosure: StateDisclosure
    opening: SegmentOpening


DisputeMessage = Challenge | ChallengeResponse


def check_branch(root: Hash32, leaf: bytes, leaf_range: tuple[int, int], branch: tuple[Hash32, ...]) -> None:
    """Refuse a leaf that is not under the root at its place; `place` is index and count."""
    try:
        check_list_branch(root, leaf, *leaf_range, branch)
    except Rejected as error:
        raise Rejected(RejectionReason.TRACE_MISMATCH, error.detail) from error
