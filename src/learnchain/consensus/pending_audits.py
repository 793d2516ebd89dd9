"""Step 8, beside the block: audits are committed and opened; each waits for a proposer in its turn."""

from dataclasses import replace

from learnchain.consensus.audits import check_audit_commitment, check_audit_report
from learnchain.consensus.round import Round, Transition, filter_valid
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.protocol.audit_messages import MAXIMUM_AUDITS, AuditCommitment, AuditMessage, AuditReport
from learnchain.protocol.events import AuditMessageReceived
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MAXIMUM_PENDING = 64
"""Audit messages that wait for a block; more are refused until some of them are in."""


def on_audit(state: Round, event: AuditMessageReceived) -> Transition:
    """Keep an audit message for the next proposer if the next block may carry it (AUDIT-3)."""
    message, key = event.message, message_hash(event.message)
    if key in state.audits:
        return state, (), ()
    if message.height > state.parent.height:
        raise Unavailable(f"a head at height {message.height}")
    check_for_block(state, state.parent, message)
    same = (type(message), message.height, message.parent, message.auditor)
    if any((type(each), each.height, each.parent, each.auditor) == same for each in state.audits.values()):
        raise Rejected(RejectionReason.AUDIT_DOUBLE, "the auditor said something else before")
    if len(state.audits) >= MAXIMUM_PENDING:
        raise Rejected(RejectionReason.RATE_LIMITED, "enough audits wait for a block")
    return replace(state, audits={**state.audits, key: message}), (), ()


def check_for_block(state: Round, parent: ChainState, message: AuditMessage) -> None:
    """Refuse a message that the block after `parent` may not carry."""
    if isinstance(message, AuditCommitment):
        check_audit_commitment(parent.bonds, message, parent.height + 1, state.parameters)
    else:
        check_audit_report(parent.bonds, message, parent.height + 1, state.parameters)


def select_for_block(state: Round) -> tuple[tuple[AuditCommitment, ...], tuple[AuditReport, ...]]:
    """Return what the next block on the head should carry; as many of a height as are paid."""
    known = retain_valid(state, state.parent)
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


def retain_valid(state: Round, parent: ChainState) -> dict[Hash32, AuditMessage]:
    """Return the messages that a block on this head may still carry."""
    return filter_valid(state.audits, lambda message: check_for_block(state, parent, message))
