"""Play the audit market over many blocks through the real spine: honest auditors, lazy ones, and what each ends with.

Training is made up, so a replay is a look into the builder's world; the rules that pay and punish are the ones that
run in a node. The figures are of a simulation: seed and blocks are part of them.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from learnchain.primitives.audit_messages import AuditCommitment, AuditedSegment, AuditReport, report_digest
from learnchain.primitives.audit_rules import Assignment, assignment, check_commitment, check_report
from learnchain.primitives.bonds import BondChange, BondMove, RoundFact
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.events import AuditMade, EvidenceReported
from learnchain.primitives.evidence import false_audit
from learnchain.primitives.messages import Block
from learnchain.primitives.numbers import WEI_PER_GWEI
from learnchain.primitives.rejection import Rejected
from learnchain.primitives.signatures import UNSIGNED, sign
from learnchain.rules.dlbc import Dlbc
from learnchain.testing.chain_builder import ChainBuilder, sample_parameters
from learnchain.testing.made_up_training import CLASS
from learnchain.testing.play import Observer, Plan, observe, play_height, true_witness
from learnchain.testing.sample_tasks import address, private_key_of

HONEST = ("node-1", "node-2")
LAZY_FINE, LAZY_SHREWD = "node-3", "node-4"
"""One says "fine" of everything; the other at least names the forced errors, which cost nothing to know."""
STAKE_WEI = 10**18
"""What every auditor stakes at first, so that guessing has something to lose."""
MINERS = ("miner-1", "miner-2", "miner-3")


@dataclass(slots=True)
class AuditorBooks:
    """Count what one auditor did and what it came to; `held_gwei` is pay that evidence can still take."""

    name: str
    is_honest: bool
    reports: int = 0
    refused: int = 0
    replayed_segments: int = 0
    slashed: int = 0
    minted_gwei: int = 0
    held_gwei: int = 0
    reports_by_key: dict[tuple[int, Hash32], AuditReport] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """Return the auditor's address."""
        return address(self.name)

    def lost_gwei(self, node: Observer) -> int:
        """Return what became of the stake: 0 while it is whole, negative once a part is slashed."""
        deposit = node.parent.bonds.deposit(self.address)
        return (deposit.total_wei - STAKE_WEI) // WEI_PER_GWEI


def play_audits(blocks: int, seed: int) -> dict[str, Any]:
    """Play so many trained blocks; return each auditor's books and the earnings after every block."""
    node = observe(ChainBuilder(Dlbc(), sample_parameters()))
    books = [AuditorBooks(name, True) for name in HONEST]
    books += [AuditorBooks(name, False) for name in (LAZY_FINE, LAZY_SHREWD)]
    node.builder.staked[1] = tuple(BondChange(each.address, BondMove.DEPOSITED, STAKE_WEI) for each in books)
    random = Random(seed)
    curve: list[list[int]] = []
    for _ in range(blocks):
        for auditor in books:
            _act(node, auditor, random)
        block = play_height(node, Plan({random.choice(MINERS): 90 + random.randrange(10)}))
        _book(node, block, books)
        for auditor in books:
            if auditor.is_honest:
                _check_others(node, auditor, block)
        curve.append([each.minted_gwei + each.lost_gwei(node) for each in books])
    ledger = node.parent.ledger
    return {
        "blocks": blocks,
        "seed": seed,
        "fee_gwei": node.builder.parameters.audit_reward_gwei,
        "auditors": [_told(node, each) for each in books],
        "curve_gwei": curve,
        "audited_gwei": ledger.audited_gwei,
        "forfeited_gwei": ledger.forfeited_gwei,
    }


def _told(node: Observer, auditor: AuditorBooks) -> dict[str, Any]:
    return {
        "name": auditor.name,
        "honest": auditor.is_honest,
        "reports": auditor.reports,
        "refused": auditor.refused,
        "replayed_segments": auditor.replayed_segments,
        "slashed": auditor.slashed,
        "minted_gwei": auditor.minted_gwei,
        "held_gwei": auditor.held_gwei,
        "stake_gwei": auditor.lost_gwei(node),
        "net_gwei": auditor.minted_gwei + auditor.lost_gwei(node),
    }


def _act(node: Observer, auditor: AuditorBooks, random: Random) -> None:
    """Open what is due and commit to what is open."""
    book, parameters, height = node.parent.bonds, node.builder.parameters, node.parent.height + 1
    for report in tuple(auditor.reports_by_key.values()):
        try:
            check_report(book, report, height, parameters)
        except Rejected as error:
            auditor.refused += error.detail == "a forced error was called reproduced"
            continue
        node.feed(AuditMade(report, node.parent.end_milliseconds))
    for fact in book.facts:
        key = (fact.height, fact.parent)
        given = assignment(book, fact, auditor.address, parameters) if fact.training else None
        if given is None or key in auditor.reports_by_key:
            continue
        report = _report(node, auditor, fact, given, random)
        draft = AuditCommitment(
            parameters.chain_id, fact.height, fact.parent, auditor.address, report_digest(report), CLASS, UNSIGNED
        )
        commitment = sign(draft, private_key_of(auditor.address))
        try:
            check_commitment(book, commitment, height, parameters)
        except Rejected:
            continue
        node.feed(AuditMade(commitment, node.parent.end_milliseconds))
        auditor.reports_by_key[key] = report


def _report(node: Observer, auditor: AuditorBooks, fact: RoundFact, given: Assignment, random: Random) -> AuditReport:
    lines = tuple(_line(node, auditor, fact, given, segment, random) for segment in given.challenge.indices)
    chain_id = node.builder.parameters.chain_id
    report = AuditReport(chain_id, fact.height, fact.parent, auditor.address, lines, random.randbytes(32), UNSIGNED)
    return sign(report, private_key_of(auditor.address))


def _line(
    node: Observer, auditor: AuditorBooks, fact: RoundFact, given: Assignment, segment: int, random: Random
) -> AuditedSegment:
    """Replay a segment, or make something up."""
    forced = segment in given.forced
    if auditor.is_honest:
        auditor.replayed_segments += 1
        return AuditedSegment(segment, not forced, true_witness(node.builder, fact, given, segment))
    return AuditedSegment(segment, not forced or auditor.name == LAZY_FINE, random.randbytes(32))


def _check_others(node: Observer, auditor: AuditorBooks, block: Block) -> None:
    """Replay what others reported in a block; accuse whoever reported something else."""
    for report in block.audit_reports:
        fact = node.parent.bonds.fact(report.height, report.parent)
        if report.auditor == auditor.address or fact is None:
            continue
        auditor.replayed_segments += len(report.lines)
        given = assignment(node.parent.bonds, fact, report.auditor, node.builder.parameters)
        if given is None or all(
            each.witness == true_witness(node.builder, fact, given, each.segment) for each in report.lines
        ):
            continue
        evidence = sign(false_audit(report, auditor.address), private_key_of(auditor.address))
        try:
            node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))
        except Rejected:
            # The other honest auditor was first.
            continue


def _book(node: Observer, block: Block, books: list[AuditorBooks]) -> None:
    for auditor in books:
        auditor.reports += sum(each.auditor == auditor.address for each in block.audit_reports)
        auditor.slashed += sum(each.offender == auditor.address for each in block.evidence)
        paid = (each for each in node.parent.reward.payouts if each.recipient == auditor.address)
        auditor.minted_gwei += sum(each.amount_gwei for each in paid)
        held = (each for each in node.parent.bonds.withheld if each.miner == auditor.address)
        auditor.held_gwei = sum(each.amount_gwei for each in held)


def audit_market() -> dict[str, Any]:
    """Play 200 blocks with two honest and two lazy auditors; say what each has earned and has left to lose."""
    result = play_audits(200, 4)
    figures = []
    for each in result["auditors"]:
        kind = "honest" if each["honest"] else "lazy"
        what = (
            f"{kind} auditor {each['name']}, {each['reports']} reports, slashed {each['slashed']} times: earned - lost"
        )
        fees = each["net_gwei"] / result["fee_gwei"]
        figures.append(
            {
                "what": what,
                "value": each["net_gwei"],
                "unit": "gwei, simulated",
                "ratio": round(fees / max(1, each["reports"]), 4),
                "against": "one fee a report",
            }
        )
    return {"name": "audit_market", "figures": figures, "seed": result["seed"], "blocks": result["blocks"]}


BENCHMARKS = {"audit_market": audit_market}
