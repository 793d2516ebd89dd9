"""The nouns of bonds: what somebody can be proven to have done, by which signed words.

The nouns that travel: one round of one height, from the key release to the block; canonical bytes by `codec`.

`docs/messages.md` prints this page for readers; `vectors/` walks one height of DLBC and one of PoLe through it.
Every signed noun ends in `signature`; its identity is `noun_hash`, which covers the signature too.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from learnchain.encoding.codec import Accuracy, Address, Bound, Hash32, Signature, encode
from learnchain.encoding.cryptography import keccak256, list_root, message_hash, tagged_hash
from learnchain.protocol import audit_messages
from learnchain.protocol.task_specification import Cid
from learnchain.protocol.training_terms import HyperParameters
from learnchain.rejection import Rejected, RejectionReason

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


MAXIMUM_COMMITMENTS = 128
"""Bound of the wire format; a chain may set less. Keeps a release with its list below one gossip message."""

MAXIMUM_QUEUED_TASKS = 512
"""Bound of the list of unselected tasks in a block (DLBC IV-G names it as a limit of the paper's design)."""

EnginePart = Annotated[bytes, Bound(2_048)]
"""What one engine alone adds to a message: canonical bytes of a noun of its own, empty where it adds nothing.

It is hashed and signed with the message. Only the engine that defines a part decodes it (ROUND-23).
"""

MAXIMUM_EVIDENCE = 2
"""Bound of the evidence in one block, so that a full block still fits into a gossip message; more waits its turn."""

Reason = Annotated[str, Bound(64)]
"""A `RejectionReason` value, or nothing."""


@dataclass(frozen=True, slots=True)
class Task:
    """Step 1: a commissioned model, as the posting transaction logged it; standing tasks come from genesis."""

    task_id: Hash32
    publisher: Address
    specification_hash: Hash32
    reward_wei: int
    bond_wei: int
    deadline_seconds: int
    posted_height: int
    is_standing: bool


@dataclass(frozen=True, slots=True)
class Escrow:
    """Step 2: what the contract holds for a task, and until when nobody but a settlement can move it."""

    task_id: Hash32
    locked_wei: int
    refundable_after_seconds: int


@dataclass(frozen=True, slots=True)
class KeyRelease:
    """Step 3: the publisher opens the training data of the selected task to everybody at once (DLBC IV-E)."""

    chain_id: int
    height: int
    parent: Hash32
    task_id: Hash32
    key: Hash32
    engine: EnginePart
    signature: Signature


MAXIMUM_STATES = 1 << 16
"""How many states a training run may commit to: the one limit of whatever admits or reads a trace (AUDIT-9)."""


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """Step 4: what a training run leaves behind: the root over its full states, where they lie, what was chosen.

    `machine_class` is the digest of the reproducibility class in which it was trained, zeros where none is declared:
    only auditors of that class are matched with it.
    """

    state_root: Hash32
    states: int
    trace_cid: Cid
    hyperparameters: HyperParameters
    engine: EnginePart = b""
    machine_class: Hash32 = audit_messages.UNDECLARED_CLASS


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """Step 4: a miner's result, before anybody else knows of it."""

    model_cid: Cid
    training: TrainingRecord


@dataclass(frozen=True, slots=True)
class Commitment:
    """Step 5: bind a miner to a model, its training trace and a payload before the test set exists."""

    chain_id: int
    height: int
    parent: Hash32
    task_id: Hash32
    miner: Address
    digest: Hash32
    bond_wei: int
    engine: EnginePart
    signature: Signature


@dataclass(frozen=True, slots=True)
class Release:
    """Step 6: the publisher closes the list of commitments and opens the test set, in one signed statement.

    That the list names every commitment received in time is the papers' Assumption 1 about publishers.
    """

    chain_id: int
    height: int
    parent: Hash32
    task_id: Hash32
    root: Hash32
    count: int
    key: Hash32
    released_milliseconds: int
    signature: Signature


@dataclass(frozen=True, slots=True)
class ReleaseAnnouncement:
    """Step 6: a release with the commitments under its root, in the order of their hashes."""

    release: Release
    commitments: Annotated[tuple[Commitment, ...], Bound(MAXIMUM_COMMITMENTS)]


@dataclass(frozen=True, slots=True)
class Reveal:
    """Step 6: open a commitment and claim an exact count on the released test set.

    `attestation` is the digital signature of model, training data and task that DLBC puts in the header (IV-B).
    """

    chain_id: int
    height: int
    parent: Hash32
    task_id: Hash32
    miner: Address
    model_cid: Cid
    training: TrainingRecord
    payload_hash: Hash32
    payload_cid: Cid
    salt: Hash32
    claim_correct: int
    claim_total: int
    attestation: Signature
    signature: Signature

    def claim(self) -> Accuracy:
        """Return the claimed accuracy; raise `Rejected` when it is no count of the total."""
        return Accuracy(self.claim_correct, self.claim_total)


class CandidateOutcome(StrEnum):
    """Say what became of one commitment of the release."""

    WINNER = "winner"
    LOWER_CLAIM = "lower_claim"
    REJECTED = "rejected"
    UNREVEALED = "unrevealed"


@dataclass(frozen=True, slots=True)
class VerdictEntry:
    """Step 7: the outcome of one commitment, with the reason if it was rejected.

    The commitment names the task, and so the assignment that was decided. The claim has its own total: Dice counts of
    two models on one test set differ in both numbers.
    """

    commitment: Hash32
    miner: Address
    outcome: CandidateOutcome
    claim_correct: int
    reason: Reason
    claim_total: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Step 7: the outcome of every commitment of the release, recomputed by all; entries in the release's order."""

    winner: Hash32
    correct: int
    total: int
    entries: Annotated[tuple[VerdictEntry, ...], Bound(MAXIMUM_COMMITMENTS)]
    engine: EnginePart = b""


@dataclass(frozen=True, slots=True)
class Block:
    """Step 8: candidate, release and verdict under one hash, signed by the winner.

    `queued_tasks` is the list of DLBC IV-D, recomputed by every node; `settlement_root` accumulates all settlements.
    """

    chain_id: int
    height: int
    parent: Hash32
    key_release: KeyRelease
    commitments: Annotated[tuple[Commitment, ...], Bound(MAXIMUM_COMMITMENTS)]
    release: Release
    reveal: Reveal
    verdict: Verdict
    queued_tasks: Annotated[tuple[Hash32, ...], Bound(MAXIMUM_QUEUED_TASKS)]
    end_milliseconds: int
    evidence: Annotated[tuple[Evidence, ...], Bound(MAXIMUM_EVIDENCE)]
    audits: Annotated[tuple[audit_messages.AuditCommitment, ...], Bound(audit_messages.MAXIMUM_AUDITS)]
    audit_reports: Annotated[tuple[audit_messages.AuditReport, ...], Bound(audit_messages.MAXIMUM_AUDITS)]
    challenges: Annotated[tuple[audit_messages.Challenge, ...], Bound(audit_messages.MAXIMUM_CHALLENGES)]
    responses: Annotated[tuple[audit_messages.ChallengeResponse, ...], Bound(audit_messages.MAXIMUM_RESPONSES)]
    engine: EnginePart
    settlement_root: Hash32
    signature: Signature

    @property
    def payload_hash(self) -> Hash32:
        """Name the execution payload that this block carries."""
        return self.reveal.payload_hash

    @property
    def payload_cid(self) -> Cid:
        """Locate the execution payload."""
        return self.reveal.payload_cid

    @property
    def proposer(self) -> Address:
        """Name who signs the block."""
        return self.reveal.miner


class Deadline(StrEnum):
    """Name the deadlines of a height, in their order."""

    KEY = "key"
    COMMITMENT = "commitment"
    RELEASE = "release"
    REVEAL = "reveal"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class EmptyBlock:
    """Step 8: end a height whose deadline was missed; weight 0, so that any trained block outweighs it.

    `commitments` are those that the proposer received: whom the publisher harmed when it kept the test set back.
    """

    chain_id: int
    height: int
    parent: Hash32
    proposer: Address
    missed: Deadline
    payload_hash: Hash32
    payload_cid: Cid
    commitments: Annotated[tuple[Commitment, ...], Bound(MAXIMUM_COMMITMENTS)]
    queued_tasks: Annotated[tuple[Hash32, ...], Bound(MAXIMUM_QUEUED_TASKS)]
    end_milliseconds: int
    evidence: Annotated[tuple[Evidence, ...], Bound(MAXIMUM_EVIDENCE)]
    challenges: Annotated[tuple[audit_messages.Challenge, ...], Bound(audit_messages.MAXIMUM_CHALLENGES)]
    responses: Annotated[tuple[audit_messages.ChallengeResponse, ...], Bound(audit_messages.MAXIMUM_RESPONSES)]
    settlement_root: Hash32
    signature: Signature


AnyBlock = Block | EmptyBlock


@dataclass(frozen=True, slots=True)
class Head:
    """Step 9: the tip that fork choice gives, with the block that is safe and the one that is final."""

    block: Hash32
    height: int
    weight: int
    safe: Hash32
    finalized: Hash32


@dataclass(frozen=True, slots=True)
class Payout:
    """Step 10: newly minted coins for one account, carried as a withdrawal by the next payload."""

    recipient: Address
    amount_gwei: int
    kind: Annotated[str, Bound(32)]


# --- identities that several steps share -------------------------------------------------------------------------


def work_id(chain_id: int, parent: Hash32, task_id: Hash32, miner: Address) -> Hash32:
    """Return the seed that belongs to one miner at one height: initialisation, batch order, watermark bits."""
    return tagged_hash("work", chain_id.to_bytes(32, "big"), parent, task_id, miner)


def training_record_hash(training: TrainingRecord) -> Hash32:
    """Return the identity of a training run: states, hyper-parameters and place are all bound by it."""
    return message_hash(training)


def commitment_digest(
    work: Hash32, trained: TrainedModel, payload_hash: Hash32, payload_cid: Cid, salt: Hash32
) -> Hash32:
    """Return what a commitment hides: H(work_id, model CID, trace root, payload hash and CID, salt).

    Everything that a node fetches is bound here, so that two openings of one commitment differ in their claim alone.
    """
    model = (trained.model_cid, training_record_hash(trained.training))
    return tagged_hash("commitment", work, *model, payload_hash, payload_cid, salt)


def release_root(commitments: tuple[Commitment, ...]) -> Hash32:
    """Return the root over all commitments received in time; they are ordered by hash, so the root is unique."""
    hashes = tuple(message_hash(commitment) for commitment in commitments)
    if list(hashes) != sorted(set(hashes)):
        raise Rejected(RejectionReason.RELEASE_ROOT_WRONG, "commitments are not in the order of their hashes")
    return list_root(hashes)


def attestation_digest(model_cid: Cid, training_root: Hash32, task_id: Hash32) -> Hash32:
    """Return what the header's digital signature covers: model, training data, task (DLBC IV-B, attribute 1)."""
    return tagged_hash("attestation", model_cid, training_root, task_id)


def block_consensus_root(block: AnyBlock) -> Hash32:
    """Return the root that the next payload carries as `parentBeaconBlockRoot`: settlements and block hash."""
    return keccak256(block.settlement_root + message_hash(block))


def previous_randao(parent: Hash32) -> Hash32:
    """Return the randomness of the payload that follows a block."""
    return tagged_hash("randao", parent)


def empty_block_tie_breaker(parent: Hash32, proposer: Address) -> Hash32:
    """Return the lot of an empty block's proposer; the lowest wins."""
    return tagged_hash("empty", previous_randao(parent), proposer)


def block_bytes(block: AnyBlock) -> bytes:
    """Return the stored and transmitted form of a block: one byte for its kind, then its canonical bytes."""
    return (b"\x01" if isinstance(block, Block) else b"\x00") + encode(block)
