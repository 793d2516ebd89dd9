"""Show as vectors what auditors sign and what they are given.

Show as vectors what is said in a dispute, and how each of its ends comes about.
"""

from dataclasses import replace

from learnchain.consensus import audits
from learnchain.consensus.audits import AuditFinding
from learnchain.consensus.validity import check_opening
from learnchain.protocol import audit_messages
from learnchain.protocol.dispute_messages import Challenge, ChallengeResponse
from learnchain.protocol.events import EvidenceReported
from learnchain.protocol.state import Dispute
from learnchain.simulation.dispute_cases import (
    AUDITOR,
    build_audit_commitment,
    build_audit_report,
    build_challenge,
    build_forgery_evidence,
    build_response,
    carry_challenge,
    first_height_record,
    forge_steps,
    run_until_seeded,
    send_message,
    stake_challenger,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import ScenarioNode, run_height
from learnchain_conformance.vectors import Case, Vector, build_call_case, build_message_case, build_walk_case

OTHER = "node-2"


def audit_vectors(node: ScenarioNode) -> tuple[Vector, ...]:
    """Return what auditors sign and what they are given, on a chain of four trained blocks."""
    report = build_audit_report(run_until_seeded(node))
    commitment = build_audit_commitment(report)
    facts = {"book": node.parent.bonds, "fact": first_height_record(node), "parameters": node.builder.parameters}
    given = [build_call_case(audits.assign_segments, auditor=address(name), **facts) for name in (AUDITOR, OTHER)]
    nouns = (commitment, report.segments[0], report)
    found = [
        Vector(
            f"messages/{type(each).__name__}.json",
            f"Canonical bytes of {type(each).__name__}.",
            (build_message_case(each),),
        )
        for each in nouns
    ]
    digest = build_call_case(audit_messages.report_digest, report=report)
    about = "Two auditors of one height replay segments of their own; forced errors follow from the seed."
    return (*found, Vector("messages/audit_assignment.json", about, (*given, digest)))


def dispute_vectors(begun: tuple[ScenarioNode, ScenarioNode, ScenarioNode, ScenarioNode]) -> tuple[Vector, ...]:
    """Return the nouns of a dispute, its three ends, and a winner of a class that the chain does not accept."""
    paid, silent, proven, foreign = begun
    accusation, answer = _run_response(paid)
    for _ in range(paid.builder.parameters.proof_blocks):
        run_height(paid)
    _run_challenge(silent)
    for _ in range(silent.builder.parameters.response_blocks + 1):
        run_height(silent)
    _run_fraud_proof(proven)
    nouns = (accusation, answer.opening.first, answer.opening, answer.disclosure, answer)
    ends = (
        ("defended", "Steps are asked for, shown and not disproved: the accuser pays.", paid),
        ("timed_out", "Steps are asked for and not shown: the bond is lost.", silent),
        ("fraud_proven", "Steps are shown that nobody can have taken: the bond is lost.", proven),
    )
    return (
        *(_message_vector(each) for each in nouns),
        *(Vector(f"dlbc/height/dispute_{name}.json", about, (_walk_case(node),)) for name, about, node in ends),
        Vector("messages/machine_class.json", "A chain names the classes that it accepts.", _classes(foreign)),
    )


def _message_vector(value: object) -> Vector:
    name = type(value).__name__
    return Vector(f"messages/{name}.json", f"Canonical bytes of {name}.", (build_message_case(value),))


def _run_challenge(node: ScenarioNode) -> tuple[Challenge, Dispute]:
    stake_challenger(node)
    run_height(node)
    accusation = build_challenge(first_height_record(node))
    return accusation, carry_challenge(node, accusation)


def _run_response(node: ScenarioNode) -> tuple[Challenge, ChallengeResponse]:
    accusation, dispute = _run_challenge(node)
    answer = build_response(node, dispute)
    send_message(node, answer)
    run_height(node)
    return accusation, answer


def _run_fraud_proof(node: ScenarioNode) -> None:
    _, dispute = _run_challenge(node)
    answer = build_response(node, dispute, forge_steps(node, dispute))
    send_message(node, answer)
    run_height(node)
    evidence = build_forgery_evidence(node, answer, AuditFinding.FAULT_OUT_OF_BOUNDS)
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))
    run_height(node)


def _walk_case(node: ScenarioNode) -> Case:
    return build_walk_case(
        node.builder.rules, node.builder.parameters, node.builder.build_genesis(), tuple(node.events)
    )


def _classes(node: ScenarioNode) -> tuple[Case, ...]:
    builder, parent = node.builder, node.parent
    found = builder.build_candidate(parent, "miner-1", 95)
    reveal, own = builder.build_reveal(parent, found), found.model.training.machine_class
    lists = ((), (own,), (b"\x02" * 32,))
    return tuple(
        build_call_case(
            check_opening,
            commitment=found.commitment,
            reveal=reveal,
            selection=node.round.selection,
            parameters=replace(builder.parameters, accepted_classes=each),
        )
        for each in lists
    )
