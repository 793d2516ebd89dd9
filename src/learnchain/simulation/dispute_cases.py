"""Make disputes for tests and vectors: accusations, the steps that answer them, and what proves steps wrong."""

from dataclasses import replace
from typing import Any

from learnchain.primitives.audit import AuditFinding, FraudProof, open_segment, open_step
from learnchain.primitives.audit_messages import AuditReport
from learnchain.primitives.audit_rules import assignment
from learnchain.primitives.bonds import BondChange, BondMove, Dispute, RoundFact
from learnchain.primitives.codec import Hash32
from learnchain.primitives.dispute_messages import Accusation, DisputeAnswer, SegmentOpening, StepAnswer
from learnchain.primitives.dispute_rules import bound_by
from learnchain.primitives.events import Disputed
from learnchain.primitives.evidence import false_audit, forged_trace
from learnchain.primitives.evidence_messages import Evidence
from learnchain.primitives.merkle import list_root
from learnchain.primitives.signatures import UNSIGNED, sign
from learnchain.testing.chain_builder import ChainBuilder, altered
from learnchain.testing.made_up_training import steps_between
from learnchain.testing.play import Observer, opened_segment, play_height, true_steps
from learnchain.testing.sample_tasks import address, name_of, private_key_of

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
