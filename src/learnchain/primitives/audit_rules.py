"""What an auditor is given, when it commits and opens, and what it is paid: pure, from the book alone (AUDIT-1).

Every auditor gets segments of its own. In some of them, drawn by the same seed, the protocol corrupts the state from
which the auditor starts: then the segment must not reproduce, and the witness is one that not even the miner knows.
So an auditor that always says "fine" is wrong, and one that was told the miner's digests is too.
"""

from dataclasses import dataclass

from learnchain.primitives.audit import SegmentChallenge, draw_challenge
from learnchain.primitives.audit_messages import (
    MAXIMUM_AUDITS,
    UNDECLARED_CLASS,
    AuditCommitment,
    AuditMessage,
    AuditReport,
    report_digest,
)
from learnchain.primitives.bonds import CHALLENGE_BLOCKS, AuditEntry, BondBook, RoundFact, challenge_seed
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.hashing import shake256, tagged_hash
from learnchain.primitives.messages import Block, trace_root
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.signatures import check_signature

COMMIT_BLOCKS = 3
"""Heights after the seed in which audits are committed; as many follow in which they are opened."""
FORCED_ERRORS_OF_256 = 64
"""Share of segments whose start the protocol corrupts: a quarter."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Hold what one auditor replays: segments, and which of them start from a corrupted state."""

    seed: Hash32
    challenge: SegmentChallenge
    forced: tuple[int, ...]


def assignment(book: BondBook, fact: RoundFact, auditor: Address, parameters: ChainParameters) -> Assignment | None:
    """Return what an auditor is given of a height, or None while the seed is not there or nothing was traced."""
    shared = challenge_seed(parameters.chain_id, fact, book.facts)
    if shared is None or fact.training[0].states < 2:
        return None
    own: Hash32 = tagged_hash("audit-own", shared, auditor)
    training = fact.training[0]
    challenge = draw_challenge(own, trace_root(training), training.states - 1, parameters.audit_segments)
    stream = shake256("audit-forced", own, len(challenge.indices))
    forced = tuple(each for each, drawn in zip(challenge.indices, stream, strict=True) if drawn < FORCED_ERRORS_OF_256)
    return Assignment(own, challenge, forced)


def seed_height(book: BondBook, fact: RoundFact) -> int:
    """Return the height of the block that completed the seed of an audited height."""
    trained = [each.height for each in book.facts if each.height > fact.height and each.training]
    return trained[CHALLENGE_BLOCKS - 1]


def check_commitment(book: BondBook, message: AuditCommitment, height: int, parameters: ChainParameters) -> None:
    """Refuse an audit of a height that is not open, by somebody who is judged by it, or beyond those that are paid."""
    fact = _open(book, message, parameters)
    declared = fact.training[0].machine_class
    if UNDECLARED_CLASS in (declared, message.machine_class) or message.machine_class != declared:
        raise Rejected(RejectionReason.AUDIT_CLASS_FOREIGN, "auditor and winner are not of one declared class")
    if assignment(book, fact, message.auditor, parameters) is None:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"height {message.height} cannot be audited yet")
    if height > seed_height(book, fact) + COMMIT_BLOCKS:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"audits of height {message.height} are committed")
    entries = [each for each in book.audits if (each.height, each.parent) == (message.height, message.parent)]
    if any(each.auditor == message.auditor for each in entries):
        raise Rejected(
            RejectionReason.AUDIT_DOUBLE, f"0x{message.auditor.hex()} audits height {message.height} already"
        )
    if len(entries) >= MAXIMUM_AUDITS:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"height {message.height} has as many audits as are paid")


def check_report(book: BondBook, message: AuditReport, height: int, parameters: ChainParameters) -> None:
    """Refuse a report that opens no commitment, comes out of turn, or answers another question than the seed's."""
    fact = _open(book, message, parameters)
    entry = entry_of(book, message)
    if entry is None:
        # A peer on another branch, or ahead of us, may know it: nothing is held against it.
        raise Rejected(RejectionReason.AUDIT_CLOSED, "no commitment to this report stands in a block")
    if entry.digest != report_digest(message):
        raise Rejected(RejectionReason.AUDIT_WRONG, "the report opens no commitment")
    if entry.opened_height:
        raise Rejected(RejectionReason.AUDIT_DOUBLE, "the report was opened before")
    opens = seed_height(book, fact) + COMMIT_BLOCKS
    if not opens < height <= opens + COMMIT_BLOCKS:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"reports on height {fact.height} open after height {opens}")
    given = assignment(book, fact, message.auditor, parameters)
    if given is None or tuple(each.segment for each in message.lines) != given.challenge.indices:
        raise Rejected(RejectionReason.AUDIT_WRONG, "the report is about other segments than were given")
    if any(each.reproduced for each in message.lines if each.segment in given.forced):
        raise Rejected(RejectionReason.AUDIT_WRONG, "a forced error was called reproduced")


def check_listed_audits(book: BondBook, block: Block, parameters: ChainParameters) -> None:
    """Refuse a block that carries an audit message twice, or one that does not count on top of its parent."""
    committed = [(each.height, each.parent, each.auditor) for each in block.audits]
    opened = [(each.height, each.parent, each.auditor) for each in block.audit_reports]
    if len(set(committed)) != len(committed) or len(set(opened)) != len(opened):
        raise Rejected(RejectionReason.AUDIT_DOUBLE, "the block carries an audit twice")
    entries = [(each.height, each.parent) for each in book.audits] + [each[:2] for each in committed]
    if any(entries.count(each[:2]) > MAXIMUM_AUDITS for each in committed):
        raise Rejected(RejectionReason.AUDIT_CLOSED, "the block lists more audits than are paid")
    for each in block.audits:
        check_commitment(book, each, block.height, parameters)
    for report in block.audit_reports:
        check_report(book, report, block.height, parameters)


def entry_of(book: BondBook, message: AuditMessage) -> AuditEntry | None:
    """Return the commitment of an auditor that the book remembers."""
    place = (message.height, message.parent, message.auditor)
    return next((each for each in book.audits if (each.height, each.parent, each.auditor) == place), None)


def _open(book: BondBook, message: AuditMessage, parameters: ChainParameters) -> RoundFact:
    if message.chain_id != parameters.chain_id:
        raise Rejected(RejectionReason.WRONG_CHAIN, f"chain {message.chain_id} is not {parameters.chain_id}")
    check_signature(message, message.auditor)
    fact = book.fact(message.height, message.parent)
    if fact is None or not fact.training or not fact.is_declared or not parameters.audit_reward_gwei:
        raise Rejected(RejectionReason.AUDIT_CLOSED, f"height {message.height} is not open to audits")
    if message.auditor in (fact.winner, fact.publisher):
        raise Rejected(RejectionReason.AUDIT_WRONG, "nobody is paid for auditing itself")
    return fact
