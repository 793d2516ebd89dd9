"""A06: a forger takes the four paid audit places of its own height with free names that are not given the forgery.

A place needs no stake, and what an auditor is given follows from the seed and its address. So the forger grinds keys
whose draw misses the forged segment; honest auditors are refused (`audit_closed`) and look at nothing.

Earns: 24 hashes keep every auditor away from a forged segment of three, and the forger is paid 0.04 coins of fees.
Kind: training is not enforced; pure round.
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass

from learnchain.consensus.audits import assign_segments
from learnchain.encoding.cryptography import UNSIGNED, address_of, sign, tagged_hash
from learnchain.engines.dlbc.scenario import start_dlbc_node
from learnchain.protocol.audit_messages import (
    MAXIMUM_AUDITS,
    AuditCommitment,
    AuditedSegment,
    AuditReport,
    report_digest,
)
from learnchain.protocol.events import AuditMessageReceived
from learnchain.protocol.state import HeightRecord
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import MACHINE_CLASS
from learnchain.simulation.dispute_cases import (
    build_audit_commitment,
    build_audit_report,
    first_height_record,
    run_until_seeded,
)
from learnchain.simulation.scenario import ScenarioNode, run_height, true_middle_state_hash

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


def grind_keys(node: ScenarioNode, fact: HeightRecord) -> tuple[list[bytes], int]:
    """Return as many keys as there are places, none of which is given the forged segment, and how many were tried."""
    keys: list[bytes] = []
    tried = 0
    while len(keys) < MAXIMUM_AUDITS:
        tried += 1
        key = tagged_hash("free-name", tried.to_bytes(8, "big"))
        given = assign_segments(node.parent.bonds, fact, address_of(key), node.builder.parameters)
        assert given is not None
        if FORGED_SEGMENT not in given.sample.indices:
            keys.append(key)
    return keys, tried


def report(node: ScenarioNode, fact: HeightRecord, key: bytes) -> AuditReport:
    """Return a true report of the segments that a name was given."""
    name, builder = address_of(key), node.builder
    given = assign_segments(node.parent.bonds, fact, name, builder.parameters)
    assert given is not None
    lines = tuple(
        AuditedSegment(segment, segment not in given.forced, true_middle_state_hash(builder, fact, given, segment))
        for segment in given.sample.indices
    )
    chain_id = builder.parameters.chain_id
    return sign(AuditReport(chain_id, fact.height, fact.parent, name, lines, b"\7" * 32, UNSIGNED), key)


def attack() -> FilledAudits:
    """Fill the audit places of a height, then let an honest auditor ask for one."""
    node = run_until_seeded(start_dlbc_node())
    fact = first_height_record(node)
    keys, tried = grind_keys(node, fact)
    reports = [report(node, fact, key) for key in keys]
    for said, key in zip(reports, keys, strict=True):
        digest = report_digest(said)
        unsigned = AuditCommitment(
            said.chain_id, said.height, said.parent, said.auditor, digest, MACHINE_CLASS, UNSIGNED
        )
        node.feed(AuditMessageReceived(sign(unsigned, key), node.parent.end_milliseconds))
    audits = run_height(node).audits
    honest = None
    try:
        own = build_audit_commitment(build_audit_report(node, "node-1"), "node-1")
        node.feed(AuditMessageReceived(own, node.parent.end_milliseconds))
    except Rejected as refusal:
        honest = refusal.reason
    run_height(node)
    run_height(node)
    for said in reports:
        node.feed(AuditMessageReceived(said, node.parent.end_milliseconds))
    admitted = run_height(node).audit_reports
    names = {address_of(key) for key in keys}
    return FilledAudits(
        keys_tried=tried,
        audits_in_block=len(audits),
        honest_auditor=honest,
        reports_in_block=len(admitted),
        segments_reported=frozenset(line.segment for said in admitted for line in said.segments),
        fees_gwei=sum(fee.amount_gwei for fee in node.parent.bonds.withheld if fee.miner in names),
    )


def test_free_names_keep_every_honest_auditor_away_and_are_paid() -> None:
    result = attack()
    assert result.audits_in_block == result.reports_in_block == MAXIMUM_AUDITS
    assert result.honest_auditor is RejectionReason.AUDIT_CLOSED
    assert FORGED_SEGMENT not in result.segments_reported
    assert result.keys_tried < 200
    assert result.fees_gwei > 0
