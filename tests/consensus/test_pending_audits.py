"""The audit market through the spine: who may audit what and when, what it earns, what a false report costs."""

from dataclasses import replace
from typing import Any

import pytest

from learnchain.benchmarks.audit_market import AgentKind, simulate_audits
from learnchain.consensus.audits import AUDIT_COMMITMENT_BLOCKS, AuditAssignment, assign_segments
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.audit_messages import (
    MAXIMUM_AUDITS,
    AuditCommitment,
    AuditedSegment,
    AuditReport,
    report_digest,
)
from learnchain.protocol.events import AuditMessageReceived
from learnchain.protocol.messages import Block
from learnchain.protocol.state import HeightRecord
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import MACHINE_CLASS, ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.sample_tasks import address, private_key_of
from learnchain.simulation.scenario import ScenarioNode, run_height, start_from_genesis, true_middle_state_hash

AUDITOR, OTHER = "node-1", "node-2"
FEE = 10_000_000


def audited_chain(**changes: int) -> ScenarioNode:
    """Four trained blocks: the seed of the first one's audits is there."""
    node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters(**changes)))
    for _ in range(4):
        run_height(node)
    return node


def first(node: ScenarioNode) -> HeightRecord:
    return next(each for each in node.parent.bonds.height_records if each.height == 1)


def given_to(node: ScenarioNode, name: str) -> AuditAssignment:
    found = assign_segments(node.parent.bonds, first(node), address(name), node.builder.parameters)
    assert found is not None
    return found


def report_of(node: ScenarioNode, name: str = AUDITOR, **changes: object) -> AuditReport:
    fact, given = first(node), given_to(node, name)
    lines = tuple(
        AuditedSegment(each, each not in given.forced, true_middle_state_hash(node.builder, fact, given, each))
        for each in given.sample.indices
    )
    place = (node.builder.parameters.chain_id, fact.height, fact.parent, address(name))
    return alter(AuditReport(*place, lines, b"\x07" * 32, UNSIGNED), name, **changes)


def commitment_to(report: AuditReport, name: str = AUDITOR, **changes: object) -> AuditCommitment:
    place = (report.chain_id, report.height, report.parent, report.auditor)
    return alter(AuditCommitment(*place, report_digest(report), MACHINE_CLASS, UNSIGNED), name, **changes)


def say(node: ScenarioNode, message: AuditCommitment | AuditReport) -> None:
    node.feed(AuditMessageReceived(message, node.parent.end_milliseconds))


def refusal(node: ScenarioNode, message: AuditCommitment | AuditReport) -> RejectionReason:
    """Return why the spine refuses a message; a block that carries it is refused for the same reason."""
    before = node.round
    with pytest.raises(Rejected) as alone:
        say(node, message)
    assert node.round == before
    draft = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, "miner-1", 95),))
    listed = {"audits": (message,)} if isinstance(message, AuditCommitment) else {"audit_reports": (message,)}
    with pytest.raises(Rejected) as carried:
        node.receive(sealed(replace(draft, **listed)))
    assert carried.value.reason is alone.value.reason
    return alone.value.reason


def sealed(block: Block) -> Block:
    return sign(block, private_key_of(block.proposer))


def opened(node: ScenarioNode, report: AuditReport, name: str = AUDITOR) -> ScenarioNode:
    """Commit, wait for the turn of reports and open."""
    say(node, commitment_to(report, name))
    for _ in range(AUDIT_COMMITMENT_BLOCKS):
        run_height(node)
    say(node, report)
    run_height(node)
    return node


def test_a_newcomer_without_coins_earns_its_first_ones_by_auditing() -> None:
    node = opened(audited_chain(audit_window_blocks=12), report_of(audited_chain(audit_window_blocks=12)))
    held = [each for each in node.parent.bonds.withheld if each.miner == address(AUDITOR)]
    assert [each.amount_gwei for each in held] == [FEE], "evidence can still take it"
    assert node.parent.ledger.audited_gwei == FEE
    paid = []
    for _ in range(13):
        run_height(node)
        paid += [each for each in node.parent.reward.payouts if each.recipient == address(AUDITOR)]
    assert [each.amount_gwei for each in paid] == [FEE]
    assert node.parent.bonds.audits == ()


def test_commitments_wait_for_the_seed_and_end_before_reports_open() -> None:
    early = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters()))
    for _ in range(3):
        run_height(early)
    ahead = audited_chain()
    commitment = commitment_to(report_of(ahead))
    assert refusal(early, commitment) is RejectionReason.AUDIT_CLOSED
    for _ in range(AUDIT_COMMITMENT_BLOCKS):
        run_height(ahead)
    assert refusal(ahead, commitment) is RejectionReason.AUDIT_CLOSED


def test_reports_open_in_their_turn_and_once() -> None:
    node = audited_chain()
    report = report_of(node)
    assert refusal(node, report) is RejectionReason.AUDIT_CLOSED
    say(node, commitment_to(report))
    run_height(node)
    assert refusal(node, report) is RejectionReason.AUDIT_CLOSED
    assert refusal(node, commitment_to(report)) is RejectionReason.AUDIT_DOUBLE
    for _ in range(AUDIT_COMMITMENT_BLOCKS - 1):
        run_height(node)
    assert refusal(node, report_of(node, salt=b"\x08" * 32)) is RejectionReason.AUDIT_WRONG
    say(node, report)
    run_height(node)
    assert refusal(node, report) is RejectionReason.AUDIT_DOUBLE
    late = audited_chain()
    say(late, commitment_to(report))
    for _ in range(2 * AUDIT_COMMITMENT_BLOCKS):
        run_height(late)
    assert refusal(late, report) is RejectionReason.AUDIT_CLOSED


def test_winner_and_publisher_are_not_paid_for_auditing_themselves() -> None:
    node = audited_chain()
    for name in ("miner-1", "steward"):
        draft = commitment_to(report_of(node))
        own = alter(replace(draft, auditor=address(name)), name)
        assert refusal(node, own) is RejectionReason.AUDIT_WRONG


def test_a_stranger_cannot_speak_for_an_auditor() -> None:
    node = audited_chain()
    assert refusal(node, commitment_to(report_of(node), "stranger")) is RejectionReason.WRONG_SIGNATURE
    assert refusal(node, commitment_to(report_of(node), chain_id=1)) is RejectionReason.WRONG_CHAIN
    assert refusal(node, commitment_to(report_of(node), parent=b"\x01" * 32)) is RejectionReason.AUDIT_CLOSED


def test_no_more_audits_than_are_paid() -> None:
    node = audited_chain()
    names = ("node-1", "node-2", "node-3", "node-4", "miner-8")
    for name in names:
        say(node, commitment_to(report_of(node, name), name))
    block = run_height(node)
    assert len(block.audits) == MAXIMUM_AUDITS
    left = {address(name) for name in names} - {each.auditor for each in block.audits}
    (name,) = [each for each in names if address(each) in left]
    assert refusal(node, commitment_to(report_of(node, name), name)) is RejectionReason.AUDIT_CLOSED


def test_a_chain_that_pays_nothing_takes_no_audits() -> None:
    node = audited_chain(audit_reward_gwei=0)
    assert refusal(node, commitment_to(report_of(node))) is RejectionReason.AUDIT_CLOSED


def forced_auditor(node: ScenarioNode) -> str:
    return next(
        each for each in ("node-1", "node-2", "node-3", "node-4", "miner-7", "miner-8") if given_to(node, each).forced
    )


def test_a_forced_error_called_fine_is_not_paid() -> None:
    node = audited_chain()
    name = forced_auditor(node)
    report = report_of(node, name)
    fine = alter(report, name, segments=tuple(replace(each, reproduced=True) for each in report.segments))
    say(node, commitment_to(fine, name))
    for _ in range(AUDIT_COMMITMENT_BLOCKS):
        run_height(node)
    assert refusal(node, fine) is RejectionReason.AUDIT_WRONG


def test_assignments_differ_between_auditors_and_follow_from_the_seed() -> None:
    node = audited_chain()
    seeds = {given_to(node, each).seed for each in ("node-1", "node-2", "node-3", "node-4")}
    assert len(seeds) == 4
    assert given_to(node, "node-1") == given_to(audited_chain(), "node-1")


def of_kind(result: dict[str, Any], *kinds: AgentKind) -> list[dict[str, Any]]:
    return [each for each in result["players"] if each["kind"] in kinds]


def test_who_is_honest_earns_and_everybody_else_loses_over_sixty_blocks() -> None:
    result = simulate_audits(60, 1)
    assert min(each["net_gwei"] for each in of_kind(result, AgentKind.HONEST)) > 30 * FEE
    assert max(each["net_gwei"] for each in of_kind(result, AgentKind.LAZY, AgentKind.OPPORTUNIST)) < -30 * FEE
    assert not any(each["slashed"] for each in of_kind(result, AgentKind.HONEST, AgentKind.MINER, AgentKind.GRIEFER))
    (griefer,), (forger,) = of_kind(result, AgentKind.GRIEFER), of_kind(result, AgentKind.FORGER)
    assert griefer["net_gwei"] < 0
    assert forger["slashed"] > forger["forged_segments"] // 2, "the last ones are not judged yet"
    reward = result["reward_gwei"]
    for miner in of_kind(result, AgentKind.MINER):
        assert miner["net_gwei"] + miner["withheld_gwei"] >= miner["wins"] * reward
    assert forger["net_gwei"] + forger["withheld_gwei"] == (forger["wins"] - forger["slashed"]) * reward


@pytest.mark.slow
def test_who_is_honest_earns_and_everybody_else_loses_over_two_hundred_blocks() -> None:
    result = simulate_audits(200, 4)
    assert min(each["net_gwei"] for each in of_kind(result, AgentKind.HONEST)) > 150 * FEE
    assert (
        max(each["net_gwei"] for each in of_kind(result, AgentKind.LAZY, AgentKind.OPPORTUNIST, AgentKind.GRIEFER)) < 0
    )
    assert not any(each["slashed"] for each in of_kind(result, AgentKind.HONEST, AgentKind.MINER, AgentKind.GRIEFER))
    assert all(each["slashed"] > 20 for each in of_kind(result, AgentKind.LAZY, AgentKind.OPPORTUNIST))
    (forger,) = of_kind(result, AgentKind.FORGER)
    assert forger["slashed"] > 2 * forger["forged_segments"] // 3, "two auditors do not draw every segment"
