"""Show as vectors what auditors sign and what they are given."""

from learnchain.primitives import audit_messages, audit_rules
from learnchain.testing.audit_cases import AUDITOR, commitment_to, first_fact, report_of, until_audited
from learnchain.testing.play import Observer
from learnchain.testing.sample_tasks import address
from learnchain.testing.vectors import Vector, call, noun

OTHER = "node-2"


def audit_vectors(node: Observer) -> tuple[Vector, ...]:
    """Return what auditors sign and what they are given, on a chain of four trained blocks."""
    report = report_of(until_audited(node))
    commitment = commitment_to(report)
    facts = {"book": node.parent.bonds, "fact": first_fact(node), "parameters": node.builder.parameters}
    given = [call(audit_rules.assignment, auditor=address(name), **facts) for name in (AUDITOR, OTHER)]
    nouns = (commitment, report.lines[0], report)
    found = [
        Vector(f"messages/{type(each).__name__}.json", f"Canonical bytes of {type(each).__name__}.", (noun(each),))
        for each in nouns
    ]
    digest = call(audit_messages.report_digest, report=report)
    about = "Two auditors of one height replay segments of their own; forced errors follow from the seed."
    return (*found, Vector("messages/audit_assignment.json", about, (*given, digest)))
