"""Step 8, beside the block: audits are committed and opened; each waits for a proposer in its turn."""

from dataclasses import replace

from learnchain.consensus.audits import check_commitment, check_report
from learnchain.consensus.round import Round, Step, still_carried
from learnchain.encoding.codec import Hash32
from learnchain.encoding.hashing import noun_hash
from learnchain.protocol.audit_messages import MAXIMUM_AUDITS, AuditCommitment, AuditMessage, AuditReport
from learnchain.protocol.events import AuditMade
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_WAITING = 64
"""Audit messages that wait for a block; more are refused until some of them are in."""


def on_audit(state: Round, event: AuditMade) -> Step:
    """Keep an audit message for the next proposer if the next block may carry it (AUDIT-3)."""
    message, key = event.message, noun_hash(event.message)
    if key in state.audits:
        return state, (), ()
    if message.height > state.parent.height:
        raise Unavailable(f"a head at height {message.height}")
    check(state, state.parent, message)
    same = (type(message), message.height, message.parent, message.auditor)
    if any((type(each), each.height, each.parent, each.auditor) == same for each in state.audits.values()):
        raise Rejected(RejectionReason.AUDIT_DOUBLE, "the auditor said something else before")
    if len(state.audits) >= MAXIMUM_WAITING:
        raise Rejected(RejectionReason.RATE_LIMITED, "enough audits wait for a block")
    return replace(state, audits={**state.audits, key: message}), (), ()


def check(state: Round, parent: ChainState, message: AuditMessage) -> None:
    """Refuse a message that the block after `parent` may not carry."""
    if isinstance(message, AuditCommitment):
        check_commitment(parent.bonds, message, parent.height + 1, state.parameters)
    else:
        check_report(parent.bonds, message, parent.height + 1, state.parameters)


def offered(state: Round) -> tuple[tuple[AuditCommitment, ...], tuple[AuditReport, ...]]:
    """Return what the next block on the head should carry; as many of a height as are paid."""
    known = kept(state, state.parent)
    commitments: list[AuditCommitment] = []
    taken = [(each.height, each.parent) for each in state.parent.bonds.audits]
    for key in sorted(known):
        message = known[key]
        place = (message.height, message.parent)
        if isinstance(message, AuditCommitment) and taken.count(place) < MAXIMUM_AUDITS:
            commitments.append(message)
            taken.append(place)
    reports = tuple(known[key] for key in sorted(known))
    opened = tuple(each for each in reports if isinstance(each, AuditReport))
    return tuple(commitments[:MAXIMUM_AUDITS]), opened[:MAXIMUM_AUDITS]


def kept(state: Round, parent: ChainState) -> dict[Hash32, AuditMessage]:
    """Return the messages that a block on this head may still carry."""
    return still_carried(state.audits, lambda message: check(state, parent, message))
