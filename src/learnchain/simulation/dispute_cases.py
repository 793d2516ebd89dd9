"""Make audits for tests and vectors: commitments and reports of honest auditors on a made-up chain, and wrong ones.

Make disputes for tests and vectors: accusations, the steps that answer them, and what proves steps wrong.
"""

from dataclasses import replace
from typing import Any

from learnchain.consensus import audits
from learnchain.consensus.disputes import bound_commitment
from learnchain.consensus.evidence import build_audit_evidence, build_trace_evidence
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import UNSIGNED, list_root, sign
from learnchain.protocol import audit_messages
from learnchain.protocol.events import AuditMessageReceived, DisputeMessageReceived
from learnchain.protocol.messages import Evidence
from learnchain.protocol.state import BondChange, BondMove, Dispute, HeightRecord
from learnchain.simulation import scenario
from learnchain.simulation.chain_builder import MACHINE_CLASS, ChainBuilder, alter, build_steps
from learnchain.simulation.sample_tasks import address, name_of, private_key_of

AUDITOR = "node-1"


def run_until_seeded(node: scenario.ScenarioNode) -> scenario.ScenarioNode:
    """Play until the seed of the first height's audits is there."""
    while node.parent.height < 1 + audits.AUDIT_SEED_BLOCKS:
        scenario.run_height(node)
    return node


def first_height_record(node: scenario.ScenarioNode) -> HeightRecord:
    """Return what the book remembers of height 1."""
    return next(each for each in node.parent.bonds.height_records if each.height == 1)


def find_assignment_of(node: scenario.ScenarioNode, name: str = AUDITOR) -> audits.AuditAssignment:
    """Return what an auditor replays of height 1."""
    found = audits.assign_segments(node.parent.bonds, first_height_record(node), address(name), node.builder.parameters)
    if found is None:
        raise AssertionError("the seed is not there")
    return found


def build_audit_report(
    node: scenario.ScenarioNode, name: str = AUDITOR, **changes: object
) -> audit_messages.AuditReport:
    """Return an honest report on height 1, with fields changed and signed again."""
    fact, given = first_height_record(node), find_assignment_of(node, name)
    lines = tuple(
        audit_messages.AuditedSegment(
            each, each not in given.forced, scenario.true_middle_state_hash(node.builder, fact, given, each)
        )
        for each in given.sample.indices
    )
    place = (node.builder.parameters.chain_id, fact.height, fact.parent, address(name))
    return alter(audit_messages.AuditReport(*place, lines, b"\x07" * 32, UNSIGNED), name, **changes)


def build_audit_commitment(
    report: audit_messages.AuditReport, name: str = AUDITOR, **changes: object
) -> audit_messages.AuditCommitment:
    """Return the commitment that binds an auditor to a report."""
    place = (report.chain_id, report.height, report.parent, report.auditor)
    return alter(
        audit_messages.AuditCommitment(*place, audit_messages.report_digest(report), MACHINE_CLASS, UNSIGNED),
        name,
        **changes,
    )


def run_audit(node: scenario.ScenarioNode) -> scenario.ScenarioNode:
    """Play an audit of height 1 from the commitment to the block that carries the report."""
    report = build_audit_report(run_until_seeded(node))
    node.feed(AuditMessageReceived(build_audit_commitment(report), node.parent.end_milliseconds))
    for _ in range(audits.AUDIT_COMMITMENT_BLOCKS):
        scenario.run_height(node)
    node.feed(AuditMessageReceived(report, node.parent.end_milliseconds))
    scenario.run_height(node)
    return node


CHALLENGER = "node-3"
STAKE_WEI = 10**18


def stake_challenger(node: scenario.ScenarioNode, *names: str) -> None:
    """Have the next payload deposit what accusing may cost."""
    moves = (BondChange(address(name), BondMove.DEPOSITED, STAKE_WEI) for name in names or (CHALLENGER,))
    node.builder.bond_moves_by_height[node.parent.height + 1] = tuple(moves)


def build_challenge(
    fact: HeightRecord, segment: int = 1, challenger: str = CHALLENGER, **changes: Any
) -> audit_messages.Challenge:
    """Return a signed challenge of a height's winner, or of another respondent if `respondent` is changed."""
    draft = audit_messages.Challenge(
        31_337, fact.height, fact.parent, fact.winner, segment, address(challenger), UNSIGNED
    )
    return alter(draft, challenger, **changes)


def send_message(
    node: scenario.ScenarioNode, message: audit_messages.Challenge | audit_messages.ChallengeResponse
) -> None:
    """Feed a message of a dispute to a node."""
    node.feed(DisputeMessageReceived(message, node.parent.end_milliseconds))


def carry_challenge(node: scenario.ScenarioNode, accusation: audit_messages.Challenge) -> Dispute:
    """Have a block carry an accusation; return the dispute."""
    send_message(node, accusation)
    scenario.run_height(node)
    return node.parent.bonds.disputes[-1]


def true_segment_steps(
    builder: ChainBuilder, node: scenario.ScenarioNode, dispute: Dispute
) -> tuple[audit_messages.SegmentOpening, tuple[Hash32, ...]]:
    """Return the opening of a disputed segment and the digests of the steps that the accused really took."""
    book = node.parent.bonds
    fact = book.height_record(dispute.height, dispute.parent)
    if fact is None:
        raise AssertionError("the height is not remembered")
    opening = scenario.open_winner_segment(builder, fact, dispute.segment)
    given = (
        audits.assign_segments(book, fact, dispute.respondent, builder.parameters)
        if dispute.respondent != fact.winner
        else None
    )
    if given is None:
        return opening, build_steps(opening.first.digest, opening.following.digest)
    return opening, scenario.replay_true_steps(builder, opening, given)


def build_response(
    node: scenario.ScenarioNode, dispute: Dispute, steps: tuple[Hash32, ...] = (), **changes: Any
) -> audit_messages.ChallengeResponse:
    """Return the answer to a dispute: the true steps unless others are given; `changes` are signed by the accused."""
    builder, book = node.builder, node.parent.bonds
    opening, true = true_segment_steps(builder, node, dispute)
    digests = steps or true
    fact = book.height_record(dispute.height, dispute.parent)
    commitment = bound_commitment(book, fact, dispute.respondent) if fact is not None else None
    draft = audit_messages.StateDisclosure(
        chain_id=builder.parameters.chain_id,
        commitment=commitment or b"\0" * 32,
        segment=dispute.segment,
        states=len(digests),
        root=list_root(digests),
        digests_cid=b"\x01\x55" + list_root(digests),
        states_cid=b"\x01\x55" + digests[1],
        signature=UNSIGNED,
    )
    answer = alter(draft, name_of(dispute.respondent), **changes)
    builder.steps[answer.root] = digests
    return audit_messages.ChallengeResponse(dispute.height, dispute.parent, dispute.respondent, answer, opening)


def forge_steps(node: scenario.ScenarioNode, dispute: Dispute) -> tuple[Hash32, ...]:
    """Return steps that begin and end as they should, one of which no honest machine takes."""
    _, true = true_segment_steps(node.builder, node, dispute)
    steps = build_steps(true[0], true[-1], b"forged")
    node.builder.impossible.add(list_root(steps))
    return steps


def build_fraud_proof(
    message: audit_messages.ChallengeResponse,
    steps: tuple[Hash32, ...],
    finding: audits.AuditFinding,
    reporter: str = CHALLENGER,
) -> audits.FraudProof:
    """Return a signed proof over an answer; whether it holds is measured."""
    opened = (audits.open_step(steps, 2, b"\x01\x55before", b"\x01\x55after"),)
    answer = message.disclosure
    draft = audits.FraudProof(
        answer.chain_id,
        answer.commitment,
        finding,
        (message.opening,),
        (answer,),
        opened if finding is audits.AuditFinding.FAULT_OUT_OF_BOUNDS else (),
        address(reporter),
        UNSIGNED,
    )
    return sign(draft, private_key_of(address(reporter)))


def build_forgery_evidence(
    node: scenario.ScenarioNode,
    message: audit_messages.ChallengeResponse,
    finding: audits.AuditFinding,
    reporter: str = CHALLENGER,
) -> Evidence:
    """Return evidence that a winner's answer is forged."""
    fact = node.parent.bonds.height_record(message.height, message.parent)
    if fact is None:
        raise AssertionError("the height is not remembered")
    proof = build_fraud_proof(message, node.builder.steps[message.disclosure.root], finding, reporter)
    return sign(build_trace_evidence(proof, fact), private_key_of(address(reporter)))


def build_false_report_evidence(
    node: scenario.ScenarioNode,
    report: audit_messages.AuditReport,
    message: audit_messages.ChallengeResponse,
    finding: audits.AuditFinding,
    reporter: str = CHALLENGER,
) -> Evidence:
    """Return evidence that an auditor's answer does not bear out its report."""
    proof = build_fraud_proof(message, node.builder.steps[message.disclosure.root], finding, reporter)
    return sign(build_audit_evidence(report, proof), private_key_of(address(reporter)))


def open_other_segment(
    message: audit_messages.ChallengeResponse, builder: ChainBuilder, fact: HeightRecord, segment: int
) -> audit_messages.ChallengeResponse:
    """Return an answer that opens another segment than it shows the steps of."""
    return replace(message, opening=audits.open_segment(builder.traces[fact.training_records[0].state_root], segment))
