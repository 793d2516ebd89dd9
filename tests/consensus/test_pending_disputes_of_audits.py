"""Auditors in dispute: whoever says that it replayed shows its steps, in its own class, or pays."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from learnchain.consensus.audits import AuditFinding
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.audit_messages import UNDECLARED_CLASS, AuditReport, Challenge
from learnchain.protocol.events import AuditMessageReceived, EvidenceReported
from learnchain.protocol.messages import Evidence
from learnchain.protocol.state import DisputeOutcome
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.dispute_cases import (
    AUDITOR,
    CHALLENGER,
    build_audit_commitment,
    build_audit_report,
    build_challenge,
    build_false_report_evidence,
    build_response,
    carry_challenge,
    find_assignment_of,
    first_height_record,
    run_until_seeded,
    send_message,
    stake_challenger,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import ScenarioNode, run_height, start_from_genesis

WINNER = "miner-1"
_R = RejectionReason
first = first_height_record


def pass_heights(node: ScenarioNode, count: int) -> None:
    for _ in range(count):
        run_height(node)


def report(node: ScenarioNode, evidence: Evidence) -> None:
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))


def refusal(node: ScenarioNode, message: Challenge) -> RejectionReason:
    before = node.round
    with pytest.raises(Rejected) as alone:
        send_message(node, message)
    assert node.round == before
    return alone.value.reason


def audited(change: Callable[[AuditReport], AuditReport] = lambda each: each) -> tuple[ScenarioNode, AuditReport]:
    """A chain whose first height was audited by one auditor, and its report."""
    node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters()))
    stake_challenger(node)
    wanted = change(build_audit_report(run_until_seeded(node)))
    node.feed(AuditMessageReceived(build_audit_commitment(wanted), node.parent.end_milliseconds))
    pass_heights(node, 3)
    node.feed(AuditMessageReceived(wanted, node.parent.end_milliseconds))
    run_height(node)
    return node, wanted


def guessed(wanted: AuditReport) -> AuditReport:
    return alter(
        wanted, AUDITOR, segments=tuple(replace(each, middle_state_hash=b"\x01" * 32) for each in wanted.segments)
    )


def fees(node: ScenarioNode, name: str = AUDITOR) -> int:
    return sum(each.amount_gwei for each in node.parent.bonds.withheld if each.miner == address(name))


def test_an_auditor_is_asked_for_the_segments_that_it_reported() -> None:
    node, wanted = audited()
    given = find_assignment_of(node)
    other = next(each for each in range(4) if each not in given.sample.indices)
    mine = given.sample.indices[0]
    assert refusal(node, build_challenge(first(node), other, respondent=address(AUDITOR))) is _R.CHALLENGE_INVALID
    found = carry_challenge(node, build_challenge(first(node), mine, respondent=address(AUDITOR)))
    answer = build_response(node, found)
    send_message(node, answer)
    run_height(node)
    report(node, build_false_report_evidence(node, wanted, answer, AuditFinding.FAULT_STEP_CHAIN))
    assert node.round.evidence == {}, "its steps bear out what it reported"
    pass_heights(node, node.builder.parameters.proof_blocks + 1)
    assert node.parent.bonds.disputes[0].outcome is DisputeOutcome.DEFENDED
    assert fees(node) == node.builder.parameters.audit_reward_gwei


def test_an_auditor_that_has_opened_nothing_is_asked_for_nothing() -> None:
    node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters()))
    stake_challenger(node)
    wanted = build_audit_report(run_until_seeded(node))
    node.feed(AuditMessageReceived(build_audit_commitment(wanted), node.parent.end_milliseconds))
    run_height(node)
    segment = wanted.segments[0].segment
    assert refusal(node, build_challenge(first(node), segment, respondent=address(AUDITOR))) is _R.CHALLENGE_CLOSED


def test_an_auditor_that_guessed_pays_by_silence_or_by_its_own_steps() -> None:
    for silent in (True, False):
        node, wanted = audited(guessed)
        found = carry_challenge(
            node, build_challenge(first(node), wanted.segments[0].segment, respondent=address(AUDITOR))
        )
        if silent:
            pass_heights(node, node.builder.parameters.response_blocks + 1)
        else:
            answer = build_response(node, found)
            send_message(node, answer)
            run_height(node)
            report(node, build_false_report_evidence(node, wanted, answer, AuditFinding.FAULT_STEP_CHAIN))
            run_height(node)
        assert node.parent.bonds.disputes[0].outcome is (
            DisputeOutcome.TIMED_OUT if silent else DisputeOutcome.FRAUD_PROVEN
        )
        fee = node.builder.parameters.audit_reward_gwei
        assert fees(node) == 0
        paid = {each.recipient: each.amount_gwei for each in node.parent.reward.payouts if each.kind == "slashed bond"}
        assert paid == {address(CHALLENGER): fee // 4}


def test_a_report_alone_proves_nothing_against_its_auditor() -> None:
    node, wanted = audited(guessed)
    found = carry_challenge(node, build_challenge(first(node), wanted.segments[0].segment, respondent=address(AUDITOR)))
    good = build_false_report_evidence(node, wanted, build_response(node, found), AuditFinding.FAULT_STEP_CHAIN)
    for statements in ((good.statements[0],), (good.statements[1],), good.statements[::-1]):
        with pytest.raises(Rejected) as caught:
            report(node, alter(good, CHALLENGER, statements=statements))
        assert caught.value.reason in (_R.EVIDENCE_INVALID, _R.MALFORMED)


# --- classes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [b"\x02" * 32, UNDECLARED_CLASS])
def test_an_auditor_of_another_class_is_not_matched(other: bytes) -> None:
    node = run_until_seeded(start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters())))
    commitment = alter(build_audit_commitment(build_audit_report(node)), AUDITOR, machine_class=other)
    with pytest.raises(Rejected) as caught:
        node.feed(AuditMessageReceived(commitment, node.parent.end_milliseconds))
    assert caught.value.reason is _R.AUDIT_CLASS_FOREIGN


def test_a_chain_may_name_the_classes_it_accepts() -> None:
    node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters(accepted_classes=(b"\x02" * 32,))))
    block = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, WINNER, 95),))
    with pytest.raises(Rejected) as caught:
        node.receive(block)
    assert caught.value.reason is _R.MACHINE_CLASS_REFUSED
