"""Show as vectors what auditors sign and what they are given.

Show as vectors what is said in a dispute, and how each of its ends comes about.
"""

from dataclasses import replace

from learnchain.consensus import audits
from learnchain.consensus.audits import AuditFinding
from learnchain.consensus.validity import check_opening
from learnchain.protocol import audit_messages
from learnchain.protocol.dispute_messages import Accusation, DisputeAnswer
from learnchain.protocol.events import EvidenceReported
from learnchain.protocol.state import Dispute
from learnchain.simulation.dispute_cases import (
    AUDITOR,
    accusation_of,
    accused,
    answer_to,
    commitment_to,
    first_fact,
    forged_steps,
    forgery,
    report_of,
    said,
    staked_accuser,
    until_audited,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import Observer, play_height
from learnchain_conformance.vectors import Case, Vector, call, noun, walk

OTHER = "node-2"


def audit_vectors(node: Observer) -> tuple[Vector, ...]:
    """Return what auditors sign and what they are given, on a chain of four trained blocks."""
    report = report_of(until_audited(node))
    commitment = commitment_to(report)
    facts = {"book": node.parent.bonds, "fact": first_fact(node), "parameters": node.builder.parameters}
    given = [call(audits.assignment, auditor=address(name), **facts) for name in (AUDITOR, OTHER)]
    nouns = (commitment, report.lines[0], report)
    found = [
        Vector(f"messages/{type(each).__name__}.json", f"Canonical bytes of {type(each).__name__}.", (noun(each),))
        for each in nouns
    ]
    digest = call(audit_messages.report_digest, report=report)
    about = "Two auditors of one height replay segments of their own; forced errors follow from the seed."
    return (*found, Vector("messages/audit_assignment.json", about, (*given, digest)))


def dispute_vectors(begun: tuple[Observer, Observer, Observer, Observer]) -> tuple[Vector, ...]:
    """Return the nouns of a dispute, its three ends, and a winner of a class that the chain does not accept."""
    paid, silent, proven, foreign = begun
    accusation, answer = _run_response(paid)
    for _ in range(paid.builder.parameters.proof_blocks):
        play_height(paid)
    _run_challenge(silent)
    for _ in range(silent.builder.parameters.answer_blocks + 1):
        play_height(silent)
    _run_fraud_proof(proven)
    nouns = (accusation, answer.opening.first, answer.opening, answer.answer, answer)
    ends = (
        ("unproven", "Steps are asked for, shown and not disproved: the accuser pays.", paid),
        ("unanswered", "Steps are asked for and not shown: the bond is lost.", silent),
        ("proven", "Steps are shown that nobody can have taken: the bond is lost.", proven),
    )
    return (
        *(_message_vector(each) for each in nouns),
        *(Vector(f"dlbc/height/dispute_{name}.json", about, (_walk_case(node),)) for name, about, node in ends),
        Vector("messages/machine_class.json", "A chain names the classes that it accepts.", _classes(foreign)),
    )


def _message_vector(value: object) -> Vector:
    name = type(value).__name__
    return Vector(f"messages/{name}.json", f"Canonical bytes of {name}.", (noun(value),))


def _run_challenge(node: Observer) -> tuple[Accusation, Dispute]:
    staked_accuser(node)
    play_height(node)
    accusation = accusation_of(first_fact(node))
    return accusation, accused(node, accusation)


def _run_response(node: Observer) -> tuple[Accusation, DisputeAnswer]:
    accusation, dispute = _run_challenge(node)
    answer = answer_to(node, dispute)
    said(node, answer)
    play_height(node)
    return accusation, answer


def _run_fraud_proof(node: Observer) -> None:
    _, dispute = _run_challenge(node)
    answer = answer_to(node, dispute, forged_steps(node, dispute))
    said(node, answer)
    play_height(node)
    evidence = forgery(node, answer, AuditFinding.FAULT_OUT_OF_BOUNDS)
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))
    play_height(node)


def _walk_case(node: Observer) -> Case:
    return walk(node.builder.rules, node.builder.parameters, node.builder.genesis(), tuple(node.events))


def _classes(node: Observer) -> tuple[Case, ...]:
    builder, parent = node.builder, node.parent
    found = builder.candidate(parent, "miner-1", 95)
    reveal, own = builder.reveal(parent, found), found.model.training.machine_class
    lists = ((), (own,), (b"\x02" * 32,))
    return tuple(
        call(
            check_opening,
            commitment=found.commitment,
            reveal=reveal,
            selection=node.round.selection,
            parameters=replace(builder.parameters, accepted_classes=each),
        )
        for each in lists
    )
