"""Disputes as JSON values: who asks whom for which steps, until when, what became of it, what waits for a block.

Everything is read from the head's bond book, so it follows reorganisations by itself.
"""

from typing import Any

from learnchain.node.ports import Ports
from learnchain.primitives.bonds import AuditEntry, BondBook, Dispute, DisputeOutcome
from learnchain.primitives.dispute_messages import Accusation
from learnchain.primitives.messages import AnyBlock, Block
from learnchain.primitives.parameters import ChainParameters


def disputes_view(ports: Ports, height: int | None = None) -> dict[str, Any]:
    """Return disputes and audits of a height, or of all heights that the book remembers, and what waits for a block."""
    state = ports.chain.round
    book, parameters = state.parent.bonds, state.parameters
    waiting = [
        {
            "message": "accusation" if isinstance(each, Accusation) else "answer",
            "height": each.height,
            "accused": _address(each.accused),
            "segment": each.segment if isinstance(each, Accusation) else each.answer.segment,
        }
        for each in state.disputes.values()
        if height in (None, each.height)
    ]
    return {
        "head": state.parent.height,
        "disputes": [_dispute(each, book, parameters) for each in book.disputes if height in (None, each.height)],
        "audits": [_audit(each) for each in book.audits if height in (None, each.height)],
        "waiting": waiting,
    }


def carried_view(block: AnyBlock) -> dict[str, Any]:
    """Return what a block carries of audits and disputes."""
    found: dict[str, Any] = {
        "accusations": [
            {
                "height": each.height,
                "accused": _address(each.accused),
                "segment": each.segment,
                "accuser": _address(each.accuser),
            }
            for each in block.accusations
        ],
        "answers": [
            {
                "height": each.height,
                "accused": _address(each.accused),
                "segment": each.answer.segment,
                "states": each.answer.states,
            }
            for each in block.answers
        ],
    }
    if isinstance(block, Block):
        found["machine_class"] = block.reveal.training.machine_class.hex()
        found["audits"] = [{"height": each.height, "auditor": _address(each.auditor)} for each in block.audits]
        found["audit_reports"] = [
            {
                "height": each.height,
                "auditor": _address(each.auditor),
                "segments": len(each.lines),
                "reproduced": sum(line.reproduced for line in each.lines),
            }
            for each in block.audit_reports
        ]
    return found


def _dispute(dispute: Dispute, book: BondBook, parameters: ChainParameters) -> dict[str, Any]:
    fact = book.fact(dispute.height, dispute.parent)
    until = {
        DisputeOutcome.ASKED: dispute.asked_height + parameters.answer_blocks,
        DisputeOutcome.ANSWERED: dispute.answered_height + parameters.proof_blocks,
    }
    return {
        "height": dispute.height,
        "segment": dispute.segment,
        "accused": _address(dispute.accused),
        "role": "winner" if fact is not None and fact.winner == dispute.accused else "auditor",
        "accuser": _address(dispute.accuser),
        "outcome": dispute.outcome.value,
        "open": dispute.is_open,
        "until_height": until.get(dispute.outcome, 0),
        "asked_height": dispute.asked_height,
        "answered_height": dispute.answered_height,
        "decided_height": dispute.decided_height,
        "answer": dispute.answer.hex() if dispute.answered_height else "",
    }


def _audit(entry: AuditEntry) -> dict[str, Any]:
    return {
        "height": entry.height,
        "auditor": _address(entry.auditor),
        "committed_height": entry.committed_height,
        "opened_height": entry.opened_height,
    }


def _address(address: bytes) -> str:
    return "0x" + address.hex()
