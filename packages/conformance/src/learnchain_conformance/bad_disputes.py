"""Say in disputes what the spine must refuse: each case plays to a dispute, then makes one wrong event."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from learnchain.consensus.disputes import last_accusation_height
from learnchain.encoding.codec import Address
from learnchain.protocol.dispute_messages import DisputeAnswer, DisputeMessage
from learnchain.protocol.events import AuditMade, Disputed, Event
from learnchain.protocol.state import Dispute, RoundFact
from learnchain.rejection import RejectionReason
from learnchain.simulation.chain_builder import altered
from learnchain.simulation.dispute_cases import (
    AUDITOR,
    accusation_of,
    accused,
    answer_to,
    commitment_to,
    other_segment,
    report_of,
    staked_accuser,
    until_audited,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import Observer, play_height

Make = Callable[[Observer, Any], Event]


def _stake_and_run_height(node: Observer) -> RoundFact:
    """Play a height whose payload stakes the accuser; return what the book remembers of it."""
    staked_accuser(node)
    play_height(node)
    return node.parent.bonds.facts[-1]


def _message_event(node: Observer, message: DisputeMessage) -> Event:
    return Disputed(message, node.parent.end_milliseconds)


def _make_challenge(**changes: Any) -> Make:
    def make(node: Observer, _found: object) -> Event:
        return _message_event(node, accusation_of(_stake_and_run_height(node), **changes))

    return make


def _forged_challenge(node: Observer, _found: object) -> Event:
    return _message_event(node, replace(accusation_of(_stake_and_run_height(node)), accuser=address("node-4")))


def _late_challenge(node: Observer, _found: object) -> Event:
    fact = _stake_and_run_height(node)
    while node.parent.height < last_accusation_height(fact, node.builder.parameters):
        play_height(node)
    return _message_event(node, accusation_of(fact))


def _repeated_challenge(node: Observer, _found: object) -> Event:
    fact = _stake_and_run_height(node)
    accused(node, accusation_of(fact))
    return _message_event(node, accusation_of(fact))


def _make_response(change: Callable[[Observer, RoundFact, Dispute], DisputeAnswer]) -> Make:
    def make(node: Observer, _found: object) -> Event:
        fact = _stake_and_run_height(node)
        return _message_event(node, change(node, fact, accused(node, accusation_of(fact))))

    return make


def _make_changed_response(**changes: Any) -> Make:
    return _make_response(lambda node, _fact, dispute: answer_to(node, dispute, **changes))


def _late_response(node: Observer, _fact: RoundFact, dispute: Dispute) -> DisputeAnswer:
    while node.parent.height < dispute.asked_height + node.builder.parameters.answer_blocks:
        play_height(node)
    return answer_to(node, dispute)


def _sign_as(node: Observer, name: str, answer: DisputeAnswer) -> DisputeAnswer:
    return replace(answer, answer=altered(answer.answer, name))


def _break_opening(answer: DisputeAnswer) -> DisputeAnswer:
    return replace(answer, opening=replace(answer.opening, first=answer.opening.following))


def _foreign_auditor(node: Observer, _found: object) -> Event:
    commitment = altered(commitment_to(report_of(until_audited(node))), AUDITOR, machine_class=b"\x02" * 32)
    return AuditMade(commitment, node.parent.end_milliseconds)


_STRANGER: Address = address("node-4")


_R = RejectionReason


BAD_DISPUTES: tuple[tuple[str, RejectionReason, Make], ...] = (
    ("audit_of_another_class", _R.AUDIT_CLASS_FOREIGN, _foreign_auditor),
    ("accusation_of_another_chain", _R.WRONG_CHAIN, _make_challenge(chain_id=1)),
    ("accusation_forged", _R.WRONG_SIGNATURE, _forged_challenge),
    ("accusation_of_another_branch", _R.ACCUSATION_CLOSED, _make_challenge(parent=b"\x77" * 32)),
    ("accusation_of_nobody", _R.ACCUSATION_CLOSED, _make_challenge(accused=_STRANGER)),
    ("accusation_late", _R.ACCUSATION_CLOSED, _late_challenge),
    ("accusation_of_oneself", _R.ACCUSATION_WRONG, _make_challenge(accuser="miner-1")),
    ("accusation_beyond_the_trace", _R.ACCUSATION_WRONG, _make_challenge(segment=3)),
    ("accusation_uncovered", _R.ACCUSATION_UNCOVERED, _make_challenge(accuser="node-4")),
    ("accusation_twice", _R.ACCUSATION_DOUBLE, _repeated_challenge),
    ("answer_of_another_chain", _R.WRONG_CHAIN, _make_changed_response(chain_id=1)),
    (
        "answer_forged",
        _R.WRONG_SIGNATURE,
        _make_response(lambda node, _, each: _sign_as(node, "miner-2", answer_to(node, each))),
    ),
    ("answer_unasked", _R.ANSWER_CLOSED, _make_response(lambda node, _, each: answer_to(node, replace(each, segment=0)))),
    ("answer_late", _R.ANSWER_CLOSED, _make_response(_late_response)),
    ("answer_of_another_commitment", _R.ANSWER_WRONG, _make_changed_response(commitment=b"\x77" * 32)),
    ("answer_of_too_few_steps", _R.ANSWER_WRONG, _make_changed_response(states=6)),
    (
        "answer_opens_another_segment",
        _R.ANSWER_WRONG,
        _make_response(lambda node, fact, each: other_segment(answer_to(node, each), node.builder, fact, 2)),
    ),
    (
        "answer_opens_another_trace",
        _R.TRACE_MISMATCH,
        _make_response(lambda node, _, each: _break_opening(answer_to(node, each))),
    ),
)


DISPUTE_NAMES = frozenset(name for name, _, _ in BAD_DISPUTES)
"""What no engine has a say in: one folder of vectors shows it."""
