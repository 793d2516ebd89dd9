"""A06: a forger takes the four paid audit places of its own height with free names that are not given the forgery.

A place needs no stake, and what an auditor is given follows from the seed and its address. So the forger grinds keys
whose draw misses the forged segment; honest auditors are refused (`audit_closed`) and look at nothing.

Earns: 24 hashes keep every auditor away from a forged segment of three, and the forger is paid 0.04 coins of fees.
Kind: training is not enforced; pure round.
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass

from learnchain.consensus.audits import assignment
from learnchain.encoding.cryptography import UNSIGNED, address_of, sign
from learnchain.encoding.hashing import tagged_hash
from learnchain.engines.dlbc.scenario import started
from learnchain.protocol.audit_messages import (
    MAXIMUM_AUDITS,
    AuditCommitment,
    AuditedSegment,
    AuditReport,
    report_digest,
)
from learnchain.protocol.events import AuditMade
from learnchain.protocol.state import RoundFact
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import CLASS
from learnchain.simulation.dispute_cases import commitment_to, first_fact, report_of, until_audited
from learnchain.simulation.scenario import Observer, play_height, true_witness

FORGED_SEGMENT = 1


@dataclass(frozen=True)
class FilledAudits:
    """Who holds the audit places of a forged height, and what became of an honest auditor."""

    keys_tried: int
    audits_in_block: int
    honest_auditor: RejectionReason | None
    reports_in_block: int
    segments_reported: frozenset[int]
    fees_gwei: int


def grind_keys(node: Observer, fact: RoundFact) -> tuple[list[bytes], int]:
    """Return as many keys as there are places, none of which is given the forged segment, and how many were tried."""
    keys: list[bytes] = []
    tried = 0
    while len(keys) < MAXIMUM_AUDITS:
        tried += 1
        key = tagged_hash("free-name", tried.to_bytes(8, "big"))
        given = assignment(node.parent.bonds, fact, address_of(key), node.builder.parameters)
        assert given is not None
        if FORGED_SEGMENT not in given.challenge.indices:
            keys.append(key)
    return keys, tried


def report(node: Observer, fact: RoundFact, key: bytes) -> AuditReport:
    """Return a true report of the segments that a name was given."""
    name, builder = address_of(key), node.builder
    given = assignment(node.parent.bonds, fact, name, builder.parameters)
    assert given is not None
    lines = tuple(
        AuditedSegment(segment, segment not in given.forced, true_witness(builder, fact, given, segment))
        for segment in given.challenge.indices
    )
    chain_id = builder.parameters.chain_id
    return sign(AuditReport(chain_id, fact.height, fact.parent, name, lines, b"\7" * 32, UNSIGNED), key)


def attack() -> FilledAudits:
    """Fill the audit places of a height, then let an honest auditor ask for one."""
    node = until_audited(started())
    fact = first_fact(node)
    keys, tried = grind_keys(node, fact)
    reports = [report(node, fact, key) for key in keys]
    for said, key in zip(reports, keys, strict=True):
        digest = report_digest(said)
        unsigned = AuditCommitment(said.chain_id, said.height, said.parent, said.auditor, digest, CLASS, UNSIGNED)
        node.feed(AuditMade(sign(unsigned, key), node.parent.end_milliseconds))
    audits = play_height(node).audits
    honest = None
    try:
        own = commitment_to(report_of(node, "node-1"), "node-1")
        node.feed(AuditMade(own, node.parent.end_milliseconds))
    except Rejected as refusal:
        honest = refusal.reason
    play_height(node)
    play_height(node)
    for said in reports:
        node.feed(AuditMade(said, node.parent.end_milliseconds))
    admitted = play_height(node).audit_reports
    names = {address_of(key) for key in keys}
    return FilledAudits(
        keys_tried=tried,
        audits_in_block=len(audits),
        honest_auditor=honest,
        reports_in_block=len(admitted),
        segments_reported=frozenset(line.segment for said in admitted for line in said.lines),
        fees_gwei=sum(fee.amount_gwei for fee in node.parent.bonds.withheld if fee.miner in names),
    )


def test_free_names_keep_every_honest_auditor_away_and_are_paid() -> None:
    result = attack()
    assert result.audits_in_block == result.reports_in_block == MAXIMUM_AUDITS
    assert result.honest_auditor is RejectionReason.AUDIT_CLOSED
    assert FORGED_SEGMENT not in result.segments_reported
    assert result.keys_tried < 200
    assert result.fees_gwei > 0
