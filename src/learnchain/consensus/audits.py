"""Audits of training as data: which segments are challenged, what was found, and what proves a fault (ROUND-11).

A trace of N + 1 committed states has N segments. An auditor replays k of them, drawn after the commitment; whoever
forged f segments is found with the exact probability of `detection_probability`. Faults that need no arithmetic of
floating point (`HARDWARE_FREE`) are proven by the bytes alone. A numeric mismatch proves nothing yet: the miner answers
with the state of every step of the segment (`StepAnswer`), and a miner who does not answer in time loses. One round is
enough, since the answer binds all states before anybody names one: the auditor looks for a step that no honest
machine takes (there is one, unless all of them are honest within the bounds) and opens it (`StepOpening`); the ordered
reference computation of `learning.replay` settles it.

What an auditor is given, when it commits and opens, and what it is paid: pure, from the book alone (AUDIT-1).

Every auditor gets segments of its own. In some of them, drawn by the same seed, the protocol corrupts the state from
which the auditor starts: then the segment must not reproduce, and the witness is one that not even the miner knows.
So an auditor that always says "fine" is wrong, and one that was told the miner's digests is too.
"""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import comb
from typing import Annotated

from learnchain.encoding.codec import Address, Bound, Hash32, Signature, decode, encode
from learnchain.encoding.cryptography import check_signature, list_branch, shake256, tagged_hash
from learnchain.protocol import audit_messages
from learnchain.protocol.messages import MAXIMUM_STATES, Block, TrainingRecord, training_record_hash
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import AuditEntry, BondRegistry, HeightRecord
from learnchain.protocol.task_specification import Cid
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_SAMPLED_SEGMENTS = 1_024
"""Segments that one challenge may draw."""

MAXIMUM_FRAUD_PROOF_BYTES = 8_192
"""A proof links to states by CID and carries at most four branches, so it fits into a block's evidence."""

_DRAW_BYTES = 16
"""Bytes of the stream for one draw: the remainder of 128 bits favours no segment by more than 2**-100."""


class AuditFinding(StrEnum):
    """Say what replaying one segment, or settling one step, has shown."""

    REPRODUCED = "reproduced"
    """Every bit follows."""
    FAULT_MERKLE_PATH = "fault_merkle_path"
    """The published index or a published state does not hash to the committed root."""
    FAULT_SEED = "fault_seed"
    """A state names another random state than chain, parent, task and miner determine."""
    FAULT_DATA_MEMBERSHIP = "fault_data_membership"
    """A state names points that are not the rows under the task's data root."""
    FAULT_HYPERPARAMETER_RANGE = "fault_hyperparameter_range"
    """A hyper-parameter lies outside the task's range."""
    FAULT_BATCH_ORDER = "fault_batch_order"
    """A state names rows in another order than the seed draws."""
    FAULT_END_POINTS = "fault_end_points"
    """The steps are not those of the declared epochs and interval, or the last state is not the committed model."""
    FAULT_FIRST_STATE = "fault_first_state"
    """The first state is not derived from the seed, or not the miner's own committed state of an earlier block."""
    FAULT_STEP_CHAIN = "fault_step_chain"
    """The steps with which a miner answers do not begin and end in the committed states, or miscount them."""
    NUMERIC_MISMATCH = "numeric_mismatch"
    """The bits differ in this auditor's class: nothing is proven until one step is settled."""
    WITHIN_BOUNDS = "within_bounds"
    """The disputed step may be the work of an honest machine of another class: the accusation fails."""
    FAULT_OUT_OF_BOUNDS = "fault_out_of_bounds"
    """No honest machine reaches the state that the miner claims for the disputed step."""
    NOT_AUDITED = "not_audited"
    """The task is `free`: accuracy is all that is known (ROUND-8)."""


HARDWARE_INDEPENDENT_FINDINGS = frozenset(
    {
        AuditFinding.FAULT_MERKLE_PATH,
        AuditFinding.FAULT_SEED,
        AuditFinding.FAULT_DATA_MEMBERSHIP,
        AuditFinding.FAULT_HYPERPARAMETER_RANGE,
        AuditFinding.FAULT_BATCH_ORDER,
        AuditFinding.FAULT_END_POINTS,
        AuditFinding.FAULT_FIRST_STATE,
        AuditFinding.FAULT_STEP_CHAIN,
    }
)
"""Faults that every node finds alike from published bytes: slashed automatically (ROUND-11)."""

STEP_FAULTS = frozenset({AuditFinding.FAULT_STEP_CHAIN, AuditFinding.FAULT_OUT_OF_BOUNDS})
"""Faults of the steps with which somebody answers an accusation: the only ones that an auditor can commit."""

SLASHABLE_FINDINGS = HARDWARE_INDEPENDENT_FINDINGS | {AuditFinding.FAULT_OUT_OF_BOUNDS}
"""Findings that cost the miner its bond; `NUMERIC_MISMATCH` alone never does."""


# --- the challenge --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SegmentSample:
    """Name the segments that are to be replayed; anybody recomputes them from the seed.

    `drawn` of them come from a draw that is uniform over all segments, so k of N finds a forged one with probability
    k / N or better: the last one is replayed in addition, since a stolen model is glued on there. The first state's
    derivation and the last state's model are compared in every audit, whatever is drawn: both cost a hash.
    """

    seed: Hash32
    training_record_hash: Hash32
    segments: int
    count: int
    indices: Annotated[tuple[int, ...], Bound(MAXIMUM_SAMPLED_SEGMENTS + 1)]

    def check(self) -> None:
        """Refuse indices that the seed does not draw."""
        if draw_segments(self.seed, self.training_record_hash, self.segments, self.count) != self:
            raise Rejected(RejectionReason.SEGMENT_SAMPLE_WRONG, "the segments are not those that the seed draws")


def draw_segments(seed: Hash32, trace_root: Hash32, segments: int, wanted: int) -> SegmentSample:
    """Draw `wanted` of `segments` without replacement by Floyd's method from SHAKE-256, and add the last (AUDIT-2).

    `trace_root` is `messages.trace_root` of the run, so that two traces under one seed get challenges of their own.
    """
    if not 1 <= segments < MAXIMUM_STATES:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"a trace of {segments} segments cannot be challenged")
    count = min(wanted, segments)
    if not 1 <= count <= MAXIMUM_SAMPLED_SEGMENTS:
        raise Rejected(
            RejectionReason.ARGUMENT_INVALID, f"{wanted} segments; 1 to {MAXIMUM_SAMPLED_SEGMENTS} can be named"
        )
    stream = shake256("audit-challenge", seed + trace_root + segments.to_bytes(8, "big"), _DRAW_BYTES * count)
    chosen: set[int] = set()
    for place, top in enumerate(range(segments - count, segments)):
        drawn = int.from_bytes(stream[_DRAW_BYTES * place : _DRAW_BYTES * (place + 1)], "big") % (top + 1)
        chosen.add(top if drawn in chosen else drawn)
    return SegmentSample(seed, trace_root, segments, count, tuple(sorted(chosen | {segments - 1})))


def sample_size(segments: int, thousandths: int) -> int:
    """Return how many segments a share of the trace is, rounded up, at least one."""
    return min(max(1, -(-segments * thousandths // 1_000)), segments, MAXIMUM_SAMPLED_SEGMENTS)


def detection_probability(audited: int, segments: int, forged: int) -> Fraction:
    """Return the exact chance that k of N segments contain one of f forged ones: 1 - C(N - f, k) / C(N, k)."""
    if not 0 <= audited <= segments or not 0 <= forged <= segments or segments == 0:
        detail = f"{audited} audited and {forged} forged of {segments} segments"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    return 1 - Fraction(comb(segments - forged, audited), comb(segments, audited))


# --- openings -------------------------------------------------------------------------------------------------


def open_segment(leaves: tuple[audit_messages.StateLeaf, ...], index: int) -> audit_messages.SegmentOpening:
    """Return the opening of segment `index` of a trace."""
    encoded = tuple(encode(leaf) for leaf in leaves)
    first, following = list_branch(encoded, index), list_branch(encoded, index + 1)
    return audit_messages.SegmentOpening(index, leaves[index], first, leaves[index + 1], following)


@dataclass(frozen=True, slots=True)
class StepOpening:
    """Show two consecutive states of an answer; `offset` counts steps from the segment's first state.

    The reporter publishes the two files under CIDs of their own: whoever judges needs no more of the answer.
    """

    offset: int
    before: Hash32
    before_branch: audit_messages.Branch
    before_cid: Cid
    after: Hash32
    after_branch: audit_messages.Branch
    after_cid: Cid

    def check(self, answer: audit_messages.StateDisclosure) -> None:
        """Refuse states that are not under the answer's root."""
        for place, digest, branch in (
            (self.offset, self.before, self.before_branch),
            (self.offset + 1, self.after, self.after_branch),
        ):
            audit_messages.check_branch(answer.root, digest, (place, answer.states), branch)


def open_step(digests: tuple[Hash32, ...], offset: int, before_cid: Cid, after_cid: Cid) -> StepOpening:
    """Return the opening of the step at `offset` of an answer's digests."""
    branches = list_branch(digests, offset), list_branch(digests, offset + 1)
    return StepOpening(offset, digests[offset], branches[0], before_cid, digests[offset + 1], branches[1], after_cid)


@dataclass(frozen=True, slots=True)
class FraudProof:
    """Prove one fault of one committed run; everything else that judging it needs lies under the commitment.

    An opening names the segment, unless the fault concerns the run as a whole (root, ranges, end points). Only
    `FAULT_STEP_CHAIN` carries an answer, and `FAULT_OUT_OF_BOUNDS` an answer and the opening of one of its steps.
    """

    chain_id: int
    commitment: Hash32
    finding: AuditFinding
    segments: Annotated[tuple[audit_messages.SegmentOpening, ...], Bound(1)]
    disclosures: Annotated[tuple[audit_messages.StateDisclosure, ...], Bound(1)]
    steps: Annotated[tuple[StepOpening, ...], Bound(1)]
    reporter: Address
    signature: Signature

    def check_form(self, training: TrainingRecord) -> None:
        """Refuse a proof that is not of the form its finding needs, or whose parts do not fit the run."""
        finding = self.finding
        if finding not in SLASHABLE_FINDINGS:
            raise Rejected(RejectionReason.FRAUD_PROOF_INVALID, f"{finding.value} is no fault")
        wanted = (
            int(finding not in _OF_THE_RUN),
            int(finding in STEP_FAULTS),
            int(finding is AuditFinding.FAULT_OUT_OF_BOUNDS),
        )
        optional = finding is AuditFinding.FAULT_MERKLE_PATH
        found = (len(self.segments), len(self.disclosures), len(self.steps))
        if found != wanted and not (optional and found == (1, 0, 0)):
            raise Rejected(RejectionReason.FRAUD_PROOF_INVALID, f"{finding.value} with {found} openings, not {wanted}")
        for opening in self.segments:
            opening.check(training.state_root, training.states)
        for answer in self.disclosures:
            named = (self.chain_id, self.commitment, self.segments[0].index)
            if (answer.chain_id, answer.commitment, answer.segment) != named:
                raise Rejected(RejectionReason.FRAUD_PROOF_INVALID, "the answer belongs to another segment")
            for step in self.steps:
                step.check(answer)


_OF_THE_RUN = (
    AuditFinding.FAULT_MERKLE_PATH,
    AuditFinding.FAULT_SEED,
    AuditFinding.FAULT_HYPERPARAMETER_RANGE,
    AuditFinding.FAULT_END_POINTS,
    AuditFinding.FAULT_FIRST_STATE,
)


def is_report_supported(
    line: audit_messages.AuditedSegment,
    opening: audit_messages.SegmentOpening,
    start: Hash32,
    digests: tuple[Hash32, ...],
) -> bool:
    """Return whether an auditor's steps bear out what it reported of a segment; no arithmetic of floating point.

    `start` is the digest of the state from which it had to begin: the committed one, or the one corrupted by the seed.
    """
    first, following = opening.first, opening.following
    middle = (first.step + following.step + 1) // 2 - first.step
    if len(digests) != following.step - first.step + 1 or digests[0] != start:
        return False
    return digests[middle] == line.middle_state_hash and (digests[-1] == following.digest) == line.reproduced


def decode_fraud_proof(data: bytes) -> FraudProof:
    """Return the proof; refuse bytes above the bound before they are read."""
    if len(data) > MAXIMUM_FRAUD_PROOF_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a fraud proof of {len(data)} bytes")
    return decode(FraudProof, data)


def parse_step_digests(digests: bytes) -> tuple[bytes, ...]:
    """Return the digests of a list blob; refuse one that is no whole number of them."""
    if len(digests) % 32 or not 64 <= len(digests) <= 32 * audit_messages.MAXIMUM_STEP_STATES:
        raise Rejected(RejectionReason.MALFORMED, f"{len(digests)} bytes are no list of two or more digests")
    return tuple(digests[place : place + 32] for place in range(0, len(digests), 32))


AUDIT_COMMITMENT_BLOCKS = 3
"""Heights after the seed in which audits are committed; as many follow in which they are opened."""

FORCED_ERRORS_OF_256 = 64
"""Share of segments whose start the protocol corrupts: a quarter."""


@dataclass(frozen=True, slots=True)
class AuditAssignment:
    """Hold what one auditor replays: segments, and which of them start from a corrupted state."""

    seed: Hash32
    sample: SegmentSample
    forced: tuple[int, ...]


def assign_segments(
    book: BondRegistry, fact: HeightRecord, auditor: Address, parameters: ChainParameters
) -> AuditAssignment | None:
    """Return what an auditor is given of a height, or None while the seed is not there or nothing was traced."""
    shared = audit_seed(parameters.chain_id, fact, book.height_records)
    if shared is None or fact.training_records[0].states < 2:
        return None
    own: Hash32 = tagged_hash("audit-own", shared, auditor)
    training = fact.training_records[0]
    challenge = draw_segments(own, training_record_hash(training), training.states - 1, parameters.audit_segments)
    stream = shake256("audit-forced", own, len(challenge.indices))
    forced = tuple(each for each, drawn in zip(challenge.indices, stream, strict=True) if drawn < FORCED_ERRORS_OF_256)
    return AuditAssignment(own, challenge, forced)


def seed_height(book: BondRegistry, fact: HeightRecord) -> int:
    """Return the height of the block that completed the seed of an audited height."""
    trained = [each.height for each in book.height_records if each.height > fact.height and each.training_records]
    return trained[AUDIT_SEED_BLOCKS - 1]


def check_audit_commitment(
    book: BondRegistry, message: audit_messages.AuditCommitment, height: int, parameters: ChainParameters
) -> None:
    """Refuse an audit of a height that is not open, by somebody who is judged by it, or beyond those that are paid."""
    fact = _find_open_height(book, message, parameters)
    declared = fact.training_records[0].machine_class
    if audit_messages.UNDECLARED_CLASS in (declared, message.machine_class) or message.machine_class != declared:
        raise Rejected(RejectionReason.AUDIT_CLASS_FOREIGN, "auditor and winner are not of one declared class")
    if assign_segments(book, fact, message.auditor, parameters) is None:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"height {message.height} cannot be audited yet")
    if height > seed_height(book, fact) + AUDIT_COMMITMENT_BLOCKS:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"audits of height {message.height} are committed")
    entries = [each for each in book.audits if (each.height, each.parent) == (message.height, message.parent)]
    if any(each.auditor == message.auditor for each in entries):
        raise Rejected(
            RejectionReason.AUDIT_DOUBLE, f"0x{message.auditor.hex()} audits height {message.height} already"
        )
    if len(entries) >= audit_messages.MAXIMUM_AUDITS:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"height {message.height} has as many audits as are paid")


def check_audit_report(
    book: BondRegistry, message: audit_messages.AuditReport, height: int, parameters: ChainParameters
) -> None:
    """Refuse a report that opens no commitment, comes out of turn, or answers another question than the seed's."""
    fact = _find_open_height(book, message, parameters)
    entry = find_audit_entry(book, message)
    if entry is None:
        # A peer on another branch, or ahead of us, may know it: nothing is held against it.
        raise Rejected(RejectionReason.AUDIT_CLOSED, "no commitment to this report stands in a block")
    if entry.digest != audit_messages.report_digest(message):
        raise Rejected(RejectionReason.AUDIT_WRONG, "the report opens no commitment")
    if entry.opened_height:
        raise Rejected(RejectionReason.AUDIT_DOUBLE, "the report was opened before")
    opens = seed_height(book, fact) + AUDIT_COMMITMENT_BLOCKS
    if not opens < height <= opens + AUDIT_COMMITMENT_BLOCKS:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"reports on height {fact.height} open after height {opens}")
    given = assign_segments(book, fact, message.auditor, parameters)
    if given is None or tuple(each.segment for each in message.segments) != given.sample.indices:
        raise Rejected(RejectionReason.AUDIT_WRONG, "the report is about other segments than were given")
    if any(each.reproduced for each in message.segments if each.segment in given.forced):
        raise Rejected(RejectionReason.AUDIT_WRONG, "a forced error was called reproduced")


def check_listed_audits(book: BondRegistry, block: Block, parameters: ChainParameters) -> None:
    """Refuse a block that carries an audit message twice, or one that does not count on top of its parent."""
    committed = [(each.height, each.parent, each.auditor) for each in block.audits]
    opened = [(each.height, each.parent, each.auditor) for each in block.audit_reports]
    if len(set(committed)) != len(committed) or len(set(opened)) != len(opened):
        raise Rejected(RejectionReason.AUDIT_DOUBLE, "the block carries an audit twice")
    entries = [(each.height, each.parent) for each in book.audits] + [each[:2] for each in committed]
    if any(entries.count(each[:2]) > audit_messages.MAXIMUM_AUDITS for each in committed):
        raise Rejected(RejectionReason.AUDIT_CLOSED, "the block lists more audits than are paid")
    for each in block.audits:
        check_audit_commitment(book, each, block.height, parameters)
    for report in block.audit_reports:
        check_audit_report(book, report, block.height, parameters)


def find_audit_entry(book: BondRegistry, message: audit_messages.AuditMessage) -> AuditEntry | None:
    """Return the commitment of an auditor that the book remembers."""
    place = (message.height, message.parent, message.auditor)
    return next((each for each in book.audits if (each.height, each.parent, each.auditor) == place), None)


def _find_open_height(
    book: BondRegistry, message: audit_messages.AuditMessage, parameters: ChainParameters
) -> HeightRecord:
    if message.chain_id != parameters.chain_id:
        raise Rejected(RejectionReason.WRONG_CHAIN, f"chain {message.chain_id} is not {parameters.chain_id}")
    check_signature(message, message.auditor)
    fact = book.height_record(message.height, message.parent)
    if fact is None or not fact.training_records or not fact.is_declared or not parameters.audit_reward_gwei:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"height {message.height} is not open to audits")
    if message.auditor in (fact.winner, fact.publisher):
        raise Rejected(RejectionReason.AUDIT_WRONG, "nobody is paid for auditing itself")
    return fact


AUDIT_SEED_BLOCKS = 3
"""Trained blocks after block n whose release keys and winners fix what is audited of n (ROUND-11)."""


def audit_seed(chain_id: int, audited: HeightRecord, later: tuple[HeightRecord, ...]) -> Hash32 | None:
    """Return H(release keys and winners of the next three trained blocks), or None while they are not all here.

    ROUND-11: an empty block adds nothing, more blocks are waited for. A winner enters by the hash of its
    signed commitment: that signature was given before the release key was known, so nobody can choose it afterwards.
    """
    trained = [each for each in later if each.height > audited.height and each.training_records][:AUDIT_SEED_BLOCKS]
    if len(trained) < AUDIT_SEED_BLOCKS or not audited.training_records:
        return None
    parts = [part for each in trained for part in (each.release_key, each.commitment)]
    return tagged_hash("audit-seed", chain_id.to_bytes(32, "big"), audited.block, *parts)
