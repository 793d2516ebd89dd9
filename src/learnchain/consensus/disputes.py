"""Who may be asked for the steps of a segment, by whom and how long, and what answers: pure, from the book alone.

Whoever claims to have trained a segment shows its steps: the winner of a height, or an auditor that opened a report on
it (AUDIT-5). Only one place is disputed once, since an answer is public: whoever comes later can prove what
the first accuser did not. No accused has places of its own that could be full: a forger's friends would fill them.
What bounds an accused's work is that a block carries no more accusations than answers. `justice` decides what became
of a dispute when its deadline has passed.
"""

from dataclasses import replace

from learnchain.consensus.audits import assign_segments
from learnchain.encoding.codec import WEI_PER_GWEI, Address, Hash32
from learnchain.encoding.cryptography import check_signature, message_hash
from learnchain.protocol.audit_messages import Challenge, ChallengeResponse
from learnchain.protocol.messages import AnyBlock, Fault, fault_id
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import BondRegistry, Dispute, DisputeOutcome, HeightRecord
from learnchain.rejection import Rejected, RejectionReason


def check_challenge(book: BondRegistry, message: Challenge, height: int, parameters: ChainParameters) -> HeightRecord:
    """Refuse an accusation of a segment that nobody has to show, or that comes too late or uncovered (AUDIT-5)."""
    if message.chain_id != parameters.chain_id:
        raise Rejected(RejectionReason.WRONG_CHAIN, f"chain {message.chain_id} is not {parameters.chain_id}")
    check_signature(message, message.challenger)
    fact = book.height_record(message.height, message.parent)
    if fact is None or not fact.training_records or not fact.is_declared:
        raise Rejected(RejectionReason.CHALLENGE_CLOSED, f"nothing at height {message.height} can be disputed")
    if height > last_challenge_height(fact, parameters):
        raise Rejected(RejectionReason.CHALLENGE_CLOSED, "answer and proof would come too late")
    if message.challenger == message.respondent:
        raise Rejected(RejectionReason.CHALLENGE_INVALID, "nobody accuses itself")
    _check_segment(book, message, fact, parameters)
    if find_dispute(book, message.height, message.parent, message.respondent, message.segment) is not None:
        raise Rejected(RejectionReason.CHALLENGE_DOUBLE, f"segment {message.segment} was disputed before")
    if has_been_penalised(book, fact, message.respondent) or has_been_penalised(book, fact, fact.winner):
        raise Rejected(RejectionReason.CHALLENGE_DOUBLE, f"training of height {message.height} is punished already")
    _check_challenger_cover(book, message, parameters)
    return fact


def check_response(
    book: BondRegistry, message: ChallengeResponse, height: int, parameters: ChainParameters
) -> HeightRecord:
    """Refuse an answer that nobody waits for, or that is not the accused's about the steps of that segment."""
    answer, opening = message.disclosure, message.opening
    if answer.chain_id != parameters.chain_id:
        raise Rejected(RejectionReason.WRONG_CHAIN, f"chain {answer.chain_id} is not {parameters.chain_id}")
    check_signature(answer, message.respondent)
    fact = book.height_record(message.height, message.parent)
    dispute = find_dispute(book, message.height, message.parent, message.respondent, answer.segment)
    if fact is None or dispute is None or dispute.outcome is not DisputeOutcome.CHALLENGED:
        # A peer on another branch, or ahead of us, may know it: nothing is held against it.
        raise Rejected(RejectionReason.RESPONSE_CLOSED, f"nobody waits for the steps of segment {answer.segment}")
    if height > dispute.challenged_height + parameters.response_blocks:
        raise Rejected(RejectionReason.RESPONSE_CLOSED, "the answer comes too late")
    if answer.commitment != bound_commitment(book, fact, message.respondent) or opening.index != answer.segment:
        raise Rejected(
            RejectionReason.RESPONSE_INVALID, "the answer names another commitment, or opens another segment"
        )
    opening.check(fact.training_records[0].state_root, fact.training_records[0].states)
    if answer.states != max(1, opening.following.step - opening.first.step) + 1:
        raise Rejected(RejectionReason.RESPONSE_INVALID, f"{answer.states} states are not those of all its steps")
    return fact


def check_listed_disputes(book: BondRegistry, block: AnyBlock, parameters: ChainParameters) -> None:
    """Refuse a block whose accusations or answers do not count on top of its parent, each after those before it."""
    for answer in block.responses:
        check_response(book, answer, block.height, parameters)
        book = add_response(book, answer, block.height)
    for accusation in block.challenges:
        check_challenge(book, accusation, block.height, parameters)
        book = add_challenge(book, accusation, block.height)


def add_challenge(book: BondRegistry, message: Challenge, height: int) -> BondRegistry:
    """Return the book with one more dispute."""
    place = (message.height, message.parent, message.respondent, message.segment)
    return replace(book, disputes=(*book.disputes, Dispute(*place, message.challenger, height)))


def add_response(book: BondRegistry, message: ChallengeResponse, height: int) -> BondRegistry:
    """Return the book with a dispute answered."""
    place = (message.height, message.parent, message.respondent, message.disclosure.segment)
    told = {
        "outcome": DisputeOutcome.RESPONDED,
        "responded_height": height,
        "disclosure_hash": message_hash(message.disclosure),
    }
    return replace(
        book, disputes=tuple(replace(each, **told) if _segment_key(each) == place else each for each in book.disputes)
    )


def find_dispute(book: BondRegistry, height: int, parent: Hash32, accused: Address, segment: int) -> Dispute | None:
    """Return the dispute about a segment that the book remembers."""
    place = (height, parent, accused, segment)
    return next((each for each in book.disputes if _segment_key(each) == place), None)


def bound_commitment(book: BondRegistry, fact: HeightRecord, accused: Address) -> Hash32 | None:
    """Return what an answer has to name: the winner's commitment, or the digest of an auditor's opened report."""
    if accused == fact.winner:
        return fact.commitment
    place = (fact.height, fact.parent, accused)
    opened = (each for each in book.audits if (each.height, each.parent, each.auditor) == place and each.opened_height)
    return next((each.digest for each in opened), None)


def determine_fault(fact: HeightRecord, accused: Address) -> Fault:
    """Return which fault it is that somebody cannot show the steps it claims to have trained.

    Silence is the same offence as a forged answer, so that nobody is punished for both, nor chooses the cheaper one.
    """
    return Fault.TRACE_FORGED if accused == fact.winner else Fault.AUDIT_FALSE


def has_been_penalised(book: BondRegistry, fact: HeightRecord, accused: Address) -> bool:
    """Return whether somebody was punished already for what it trained at a height."""
    fault = fault_id(determine_fault(fact, accused), accused, fact.height, fact.parent)
    return any(each.fault_id == fault for each in book.penalties)


def last_challenge_height(fact: HeightRecord, parameters: ChainParameters) -> int:
    """Return the last height whose block may carry an accusation: answer, proof and decision fit into the window."""
    return fact.height + parameters.audit_window_blocks - parameters.response_blocks - parameters.proof_blocks - 1


def _segment_key(dispute: Dispute) -> tuple[int, Hash32, Address, int]:
    return dispute.height, dispute.parent, dispute.respondent, dispute.segment


def _check_segment(book: BondRegistry, message: Challenge, fact: HeightRecord, parameters: ChainParameters) -> None:
    """Refuse a segment that the accused did not claim to have trained."""
    if bound_commitment(book, fact, message.respondent) is None:
        raise Rejected(RejectionReason.CHALLENGE_CLOSED, f"0x{message.respondent.hex()} neither won nor reported there")
    if message.respondent == fact.winner:
        claimed = message.segment < fact.training_records[0].states - 1
    else:
        given = assign_segments(book, fact, message.respondent, parameters)
        claimed = given is not None and message.segment in given.sample.indices
    if not claimed:
        raise Rejected(RejectionReason.CHALLENGE_INVALID, f"segment {message.segment} is none of the accused's")


def _check_challenger_cover(book: BondRegistry, message: Challenge, parameters: ChainParameters) -> None:
    """Refuse an accuser that has not staked what all its open disputes may cost it."""
    opened = sum(each.is_open and each.challenger == message.challenger for each in book.disputes)
    needed_wei = parameters.challenge_cost_gwei * WEI_PER_GWEI * (opened + 1)
    if book.deposit(message.challenger).active_wei < needed_wei:
        raise Rejected(RejectionReason.CHALLENGE_UNCOVERED, f"the accuser must have staked {needed_wei} wei")
