"""Make audits for tests and vectors: commitments and reports of honest auditors on a made-up chain, and wrong ones."""

from learnchain.primitives.audit_messages import AuditCommitment, AuditedSegment, AuditReport, report_digest
from learnchain.primitives.audit_rules import COMMIT_BLOCKS, Assignment, assignment
from learnchain.primitives.bonds import CHALLENGE_BLOCKS, RoundFact
from learnchain.primitives.events import AuditMade
from learnchain.primitives.signatures import UNSIGNED
from learnchain.testing.chain_builder import altered
from learnchain.testing.made_up_training import CLASS
from learnchain.testing.play import Observer, play_height, true_witness
from learnchain.testing.sample_tasks import address

AUDITOR = "node-1"


def until_audited(node: Observer) -> Observer:
    """Play until the seed of the first height's audits is there."""
    while node.parent.height < 1 + CHALLENGE_BLOCKS:
        play_height(node)
    return node


def first_fact(node: Observer) -> RoundFact:
    """Return what the book remembers of height 1."""
    return next(each for each in node.parent.bonds.facts if each.height == 1)


def given_to(node: Observer, name: str = AUDITOR) -> Assignment:
    """Return what an auditor replays of height 1."""
    found = assignment(node.parent.bonds, first_fact(node), address(name), node.builder.parameters)
    if found is None:
        raise AssertionError("the seed is not there")
    return found


def report_of(node: Observer, name: str = AUDITOR, **changes: object) -> AuditReport:
    """Return an honest report on height 1, with fields changed and signed again."""
    fact, given = first_fact(node), given_to(node, name)
    lines = tuple(
        AuditedSegment(each, each not in given.forced, true_witness(node.builder, fact, given, each))
        for each in given.challenge.indices
    )
    place = (node.builder.parameters.chain_id, fact.height, fact.parent, address(name))
    return altered(AuditReport(*place, lines, b"\x07" * 32, UNSIGNED), name, **changes)


def commitment_to(report: AuditReport, name: str = AUDITOR, **changes: object) -> AuditCommitment:
    """Return the commitment that binds an auditor to a report."""
    place = (report.chain_id, report.height, report.parent, report.auditor)
    return altered(AuditCommitment(*place, report_digest(report), CLASS, UNSIGNED), name, **changes)


def audited(node: Observer) -> Observer:
    """Play an audit of height 1 from the commitment to the block that carries the report."""
    report = report_of(until_audited(node))
    node.feed(AuditMade(commitment_to(report), node.parent.end_milliseconds))
    for _ in range(COMMIT_BLOCKS):
        play_height(node)
    node.feed(AuditMade(report, node.parent.end_milliseconds))
    play_height(node)
    return node
