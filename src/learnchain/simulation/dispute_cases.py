"""Make audits for tests and vectors: commitments and reports of honest auditors on a made-up chain, and wrong ones.

Make disputes for tests and vectors: accusations, the steps that answer them, and what proves steps wrong.
"""

from dataclasses import replace
from typing import Any

from learnchain.consensus.audits import (
    CHALLENGE_BLOCKS,
    COMMIT_BLOCKS,
    Assignment,
    AuditFinding,
    FraudProof,
    assignment,
    open_segment,
    open_step,
)
from learnchain.consensus.disputes import bound_by
from learnchain.consensus.evidence import false_audit, forged_trace
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.encoding.hashing import list_root
from learnchain.protocol.audit_messages import AuditCommitment, AuditedSegment, AuditReport, report_digest
from learnchain.protocol.dispute_messages import Accusation, DisputeAnswer, SegmentOpening, StepAnswer
from learnchain.protocol.events import AuditMade, Disputed
from learnchain.protocol.messages import Evidence
from learnchain.protocol.state import BondChange, BondMove, Dispute, RoundFact
from learnchain.simulation.chain_builder import CLASS, ChainBuilder, altered, steps_between
from learnchain.simulation.sample_tasks import address, name_of, private_key_of
from learnchain.simulation.scenario import Observer, opened_segment, play_height, true_steps, true_witness

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


ACCUSER = "node-3"


STAKE_WEI = 10**18


def staked_accuser(node: Observer, *names: str) -> None:
    """Have the next payload deposit what accusing may cost."""
    moves = (BondChange(address(name), BondMove.DEPOSITED, STAKE_WEI) for name in names or (ACCUSER,))
    node.builder.staked[node.parent.height + 1] = tuple(moves)


def accusation_of(fact: RoundFact, segment: int = 1, accuser: str = ACCUSER, **changes: Any) -> Accusation:
    """Return an accusation of a height's winner, or of somebody else if `accused` is changed; signed by the accuser."""
    draft = Accusation(31_337, fact.height, fact.parent, fact.winner, segment, address(accuser), UNSIGNED)
    return altered(draft, accuser, **changes)


def said(node: Observer, message: Accusation | DisputeAnswer) -> None:
    """Feed a message of a dispute to a node."""
    node.feed(Disputed(message, node.parent.end_milliseconds))


def accused(node: Observer, accusation: Accusation) -> Dispute:
    """Have a block carry an accusation; return the dispute."""
    said(node, accusation)
    play_height(node)
    return node.parent.bonds.disputes[-1]


def steps_of(builder: ChainBuilder, node: Observer, dispute: Dispute) -> tuple[SegmentOpening, tuple[Hash32, ...]]:
    """Return the opening of a disputed segment and the digests of the steps that the accused really took."""
    book = node.parent.bonds
    fact = book.fact(dispute.height, dispute.parent)
    if fact is None:
        raise AssertionError("the height is not remembered")
    opening = opened_segment(builder, fact, dispute.segment)
    given = assignment(book, fact, dispute.accused, builder.parameters) if dispute.accused != fact.winner else None
    if given is None:
        return opening, steps_between(opening.first.digest, opening.following.digest)
    return opening, true_steps(builder, opening, given)


def answer_to(node: Observer, dispute: Dispute, steps: tuple[Hash32, ...] = (), **changes: Any) -> DisputeAnswer:
    """Return the answer to a dispute: the true steps unless others are given; `changes` are signed by the accused."""
    builder, book = node.builder, node.parent.bonds
    opening, true = steps_of(builder, node, dispute)
    digests = steps or true
    fact = book.fact(dispute.height, dispute.parent)
    commitment = bound_by(book, fact, dispute.accused) if fact is not None else None
    draft = StepAnswer(
        chain_id=builder.parameters.chain_id,
        commitment=commitment or b"\0" * 32,
        segment=dispute.segment,
        states=len(digests),
        root=list_root(digests),
        digests_cid=b"\x01\x55" + list_root(digests),
        states_cid=b"\x01\x55" + digests[1],
        signature=UNSIGNED,
    )
    answer = altered(draft, name_of(dispute.accused), **changes)
    builder.steps[answer.root] = digests
    return DisputeAnswer(dispute.height, dispute.parent, dispute.accused, answer, opening)


def forged_steps(node: Observer, dispute: Dispute) -> tuple[Hash32, ...]:
    """Return steps that begin and end as they should, one of which no honest machine takes."""
    _, true = steps_of(node.builder, node, dispute)
    steps = steps_between(true[0], true[-1], b"forged")
    node.builder.impossible.add(list_root(steps))
    return steps


def proof_of(
    message: DisputeAnswer, steps: tuple[Hash32, ...], finding: AuditFinding, reporter: str = ACCUSER
) -> FraudProof:
    """Return a signed proof over an answer; whether it holds is measured."""
    opened = (open_step(steps, 2, b"\x01\x55before", b"\x01\x55after"),)
    answer = message.answer
    draft = FraudProof(
        answer.chain_id,
        answer.commitment,
        finding,
        (message.opening,),
        (answer,),
        opened if finding is AuditFinding.FAULT_OUT_OF_BOUNDS else (),
        address(reporter),
        UNSIGNED,
    )
    return sign(draft, private_key_of(address(reporter)))


def forgery(node: Observer, message: DisputeAnswer, finding: AuditFinding, reporter: str = ACCUSER) -> Evidence:
    """Return evidence that a winner's answer is forged."""
    fact = node.parent.bonds.fact(message.height, message.parent)
    if fact is None:
        raise AssertionError("the height is not remembered")
    proof = proof_of(message, node.builder.steps[message.answer.root], finding, reporter)
    return sign(forged_trace(proof, fact), private_key_of(address(reporter)))


def falsehood(
    node: Observer, report: AuditReport, message: DisputeAnswer, finding: AuditFinding, reporter: str = ACCUSER
) -> Evidence:
    """Return evidence that an auditor's answer does not bear out its report."""
    proof = proof_of(message, node.builder.steps[message.answer.root], finding, reporter)
    return sign(false_audit(report, proof), private_key_of(address(reporter)))


def other_segment(message: DisputeAnswer, builder: ChainBuilder, fact: RoundFact, segment: int) -> DisputeAnswer:
    """Return an answer that opens another segment than it shows the steps of."""
    return replace(message, opening=open_segment(builder.traces[fact.training[0].state_root], segment))
