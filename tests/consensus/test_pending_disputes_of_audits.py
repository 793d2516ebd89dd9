"""Auditors in dispute: whoever says that it replayed shows its steps, in its own class, or pays."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from learnchain.consensus.audits import AuditFinding
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.audit_messages import UNDECLARED_CLASS, AuditReport
from learnchain.protocol.dispute_messages import Accusation
from learnchain.protocol.events import AuditMade, EvidenceReported
from learnchain.protocol.messages import Evidence
from learnchain.protocol.state import DisputeOutcome
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, altered, sample_parameters
from learnchain.simulation.dispute_cases import (
    ACCUSER,
    AUDITOR,
    accusation_of,
    accused,
    answer_to,
    commitment_to,
    falsehood,
    first_fact,
    given_to,
    report_of,
    said,
    staked_accuser,
    until_audited,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import Observer, observe, play_height

WINNER = "miner-1"
_R = RejectionReason
first = first_fact


def pass_heights(node: Observer, count: int) -> None:
    for _ in range(count):
        play_height(node)


def report(node: Observer, evidence: Evidence) -> None:
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))


def refusal(node: Observer, message: Accusation) -> RejectionReason:
    before = node.round
    with pytest.raises(Rejected) as alone:
        said(node, message)
    assert node.round == before
    return alone.value.reason


def audited(change: Callable[[AuditReport], AuditReport] = lambda each: each) -> tuple[Observer, AuditReport]:
    """A chain whose first height was audited by one auditor, and its report."""
    node = observe(ChainBuilder(Dlbc(), sample_parameters()))
    staked_accuser(node)
    wanted = change(report_of(until_audited(node)))
    node.feed(AuditMade(commitment_to(wanted), node.parent.end_milliseconds))
    pass_heights(node, 3)
    node.feed(AuditMade(wanted, node.parent.end_milliseconds))
    play_height(node)
    return node, wanted


def guessed(wanted: AuditReport) -> AuditReport:
    return altered(wanted, AUDITOR, lines=tuple(replace(each, witness=b"\x01" * 32) for each in wanted.lines))


def fees(node: Observer, name: str = AUDITOR) -> int:
    return sum(each.amount_gwei for each in node.parent.bonds.withheld if each.miner == address(name))


def test_an_auditor_is_asked_for_the_segments_that_it_reported() -> None:
    node, wanted = audited()
    given = given_to(node)
    other = next(each for each in range(4) if each not in given.challenge.indices)
    mine = given.challenge.indices[0]
    assert refusal(node, accusation_of(first(node), other, accused=address(AUDITOR))) is _R.ACCUSATION_WRONG
    found = accused(node, accusation_of(first(node), mine, accused=address(AUDITOR)))
    answer = answer_to(node, found)
    said(node, answer)
    play_height(node)
    report(node, falsehood(node, wanted, answer, AuditFinding.FAULT_STEP_CHAIN))
    assert node.round.evidence == {}, "its steps bear out what it reported"
    pass_heights(node, node.builder.parameters.proof_blocks + 1)
    assert node.parent.bonds.disputes[0].outcome is DisputeOutcome.UNPROVEN
    assert fees(node) == node.builder.parameters.audit_reward_gwei


def test_an_auditor_that_has_opened_nothing_is_asked_for_nothing() -> None:
    node = observe(ChainBuilder(Dlbc(), sample_parameters()))
    staked_accuser(node)
    wanted = report_of(until_audited(node))
    node.feed(AuditMade(commitment_to(wanted), node.parent.end_milliseconds))
    play_height(node)
    segment = wanted.lines[0].segment
    assert refusal(node, accusation_of(first(node), segment, accused=address(AUDITOR))) is _R.ACCUSATION_CLOSED


def test_an_auditor_that_guessed_pays_by_silence_or_by_its_own_steps() -> None:
    for silent in (True, False):
        node, wanted = audited(guessed)
        found = accused(node, accusation_of(first(node), wanted.lines[0].segment, accused=address(AUDITOR)))
        if silent:
            pass_heights(node, node.builder.parameters.answer_blocks + 1)
        else:
            answer = answer_to(node, found)
            said(node, answer)
            play_height(node)
            report(node, falsehood(node, wanted, answer, AuditFinding.FAULT_STEP_CHAIN))
            play_height(node)
        assert node.parent.bonds.disputes[0].outcome is (DisputeOutcome.UNANSWERED if silent else DisputeOutcome.PROVEN)
        fee = node.builder.parameters.audit_reward_gwei
        assert fees(node) == 0
        paid = {each.recipient: each.amount_gwei for each in node.parent.reward.payouts if each.kind == "slashed bond"}
        assert paid == {address(ACCUSER): fee // 4}


def test_a_report_alone_proves_nothing_against_its_auditor() -> None:
    node, wanted = audited(guessed)
    found = accused(node, accusation_of(first(node), wanted.lines[0].segment, accused=address(AUDITOR)))
    good = falsehood(node, wanted, answer_to(node, found), AuditFinding.FAULT_STEP_CHAIN)
    for statements in ((good.statements[0],), (good.statements[1],), good.statements[::-1]):
        with pytest.raises(Rejected) as caught:
            report(node, altered(good, ACCUSER, statements=statements))
        assert caught.value.reason in (_R.EVIDENCE_INVALID, _R.MALFORMED)


# --- classes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [b"\x02" * 32, UNDECLARED_CLASS])
def test_an_auditor_of_another_class_is_not_matched(other: bytes) -> None:
    node = until_audited(observe(ChainBuilder(Dlbc(), sample_parameters())))
    commitment = altered(commitment_to(report_of(node)), AUDITOR, machine_class=other)
    with pytest.raises(Rejected) as caught:
        node.feed(AuditMade(commitment, node.parent.end_milliseconds))
    assert caught.value.reason is _R.AUDIT_CLASS_FOREIGN


def test_a_chain_may_name_the_classes_it_accepts() -> None:
    node = observe(ChainBuilder(Dlbc(), sample_parameters(accepted_classes=(b"\x02" * 32,))))
    block = node.builder.block(node.parent, (node.builder.candidate(node.parent, WINNER, 95),))
    with pytest.raises(Rejected) as caught:
        node.receive(block)
    assert caught.value.reason is _R.MACHINE_CLASS_REFUSED
