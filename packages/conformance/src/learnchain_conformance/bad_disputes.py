"""Say in disputes what the spine must refuse: each case plays to a dispute, then makes one wrong event."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from learnchain.consensus.disputes import last_challenge_height
from learnchain.encoding.codec import Address
from learnchain.protocol.audit_messages import ChallengeResponse, DisputeMessage
from learnchain.protocol.events import AuditMessageReceived, DisputeMessageReceived, Event
from learnchain.protocol.state import Dispute, HeightRecord
from learnchain.rejection import RejectionReason
from learnchain.simulation.chain_builder import alter
from learnchain.simulation.dispute_cases import (
    AUDITOR,
    build_audit_commitment,
    build_audit_report,
    build_challenge,
    build_response,
    carry_challenge,
    open_other_segment,
    run_until_seeded,
    stake_challenger,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import ScenarioNode, run_height

Make = Callable[[ScenarioNode, Any], Event]


def _stake_and_run_height(node: ScenarioNode) -> HeightRecord:
    """Play a height whose payload stakes the accuser; return what the book remembers of it."""
    stake_challenger(node)
    run_height(node)
    return node.parent.bonds.height_records[-1]


def _message_event(node: ScenarioNode, message: DisputeMessage) -> Event:
    return DisputeMessageReceived(message, node.parent.end_milliseconds)


def _make_challenge(**changes: Any) -> Make:
    def make(node: ScenarioNode, _found: object) -> Event:
        return _message_event(node, build_challenge(_stake_and_run_height(node), **changes))

    return make


def _forged_challenge(node: ScenarioNode, _found: object) -> Event:
    return _message_event(node, replace(build_challenge(_stake_and_run_height(node)), challenger=address("node-4")))


def _late_challenge(node: ScenarioNode, _found: object) -> Event:
    fact = _stake_and_run_height(node)
    while node.parent.height < last_challenge_height(fact, node.builder.parameters):
        run_height(node)
    return _message_event(node, build_challenge(fact))


def _repeated_challenge(node: ScenarioNode, _found: object) -> Event:
    fact = _stake_and_run_height(node)
    carry_challenge(node, build_challenge(fact))
    return _message_event(node, build_challenge(fact))


def _make_response(change: Callable[[ScenarioNode, HeightRecord, Dispute], ChallengeResponse]) -> Make:
    def make(node: ScenarioNode, _found: object) -> Event:
        fact = _stake_and_run_height(node)
        return _message_event(node, change(node, fact, carry_challenge(node, build_challenge(fact))))

    return make


def _make_changed_response(**changes: Any) -> Make:
    return _make_response(lambda node, _fact, dispute: build_response(node, dispute, **changes))


def _late_response(node: ScenarioNode, _fact: HeightRecord, dispute: Dispute) -> ChallengeResponse:
    while node.parent.height < dispute.challenged_height + node.builder.parameters.response_blocks:
        run_height(node)
    return build_response(node, dispute)


def _sign_as(node: ScenarioNode, name: str, answer: ChallengeResponse) -> ChallengeResponse:
    return replace(answer, disclosure=alter(answer.disclosure, name))


def _break_opening(answer: ChallengeResponse) -> ChallengeResponse:
    return replace(answer, opening=replace(answer.opening, first=answer.opening.following))


def _foreign_auditor(node: ScenarioNode, _found: object) -> Event:
    commitment = alter(
        build_audit_commitment(build_audit_report(run_until_seeded(node))), AUDITOR, machine_class=b"\x02" * 32
    )
    return AuditMessageReceived(commitment, node.parent.end_milliseconds)


_STRANGER: Address = address("node-4")


_R = RejectionReason


BAD_DISPUTES: tuple[tuple[str, RejectionReason, Make], ...] = (
    ("audit_of_another_class", _R.AUDIT_CLASS_FOREIGN, _foreign_auditor),
    ("accusation_of_another_chain", _R.WRONG_CHAIN, _make_challenge(chain_id=1)),
    ("accusation_forged", _R.WRONG_SIGNATURE, _forged_challenge),
    ("accusation_of_another_branch", _R.CHALLENGE_CLOSED, _make_challenge(parent=b"\x77" * 32)),
    ("accusation_of_nobody", _R.CHALLENGE_CLOSED, _make_challenge(respondent=_STRANGER)),
    ("accusation_late", _R.CHALLENGE_CLOSED, _late_challenge),
    ("accusation_of_oneself", _R.CHALLENGE_INVALID, _make_challenge(challenger="miner-1")),
    ("accusation_beyond_the_trace", _R.CHALLENGE_INVALID, _make_challenge(segment=3)),
    ("challenge_uncovered", _R.CHALLENGE_UNCOVERED, _make_challenge(challenger="node-4")),
    ("accusation_twice", _R.CHALLENGE_DOUBLE, _repeated_challenge),
    ("answer_of_another_chain", _R.WRONG_CHAIN, _make_changed_response(chain_id=1)),
    (
        "answer_forged",
        _R.WRONG_SIGNATURE,
        _make_response(lambda node, _, each: _sign_as(node, "miner-2", build_response(node, each))),
    ),
    (
        "answer_unasked",
        _R.RESPONSE_CLOSED,
        _make_response(lambda node, _, each: build_response(node, replace(each, segment=0))),
    ),
    ("answer_late", _R.RESPONSE_CLOSED, _make_response(_late_response)),
    ("answer_of_another_commitment", _R.RESPONSE_INVALID, _make_changed_response(commitment=b"\x77" * 32)),
    ("answer_of_too_few_steps", _R.RESPONSE_INVALID, _make_changed_response(states=6)),
    (
        "answer_opens_another_segment",
        _R.RESPONSE_INVALID,
        _make_response(lambda node, fact, each: open_other_segment(build_response(node, each), node.builder, fact, 2)),
    ),
    (
        "answer_opens_another_trace",
        _R.TRACE_MISMATCH,
        _make_response(lambda node, _, each: _break_opening(build_response(node, each))),
    ),
)


BAD_DISPUTE_NAMES = frozenset(name for name, _, _ in BAD_DISPUTES)
"""What no engine has a say in: one folder of vectors shows it."""
