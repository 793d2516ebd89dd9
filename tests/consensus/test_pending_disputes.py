"""Disputes through the spine: who may ask for steps, who answers until when, and what silence and forgery cost."""

from dataclasses import replace

import pytest

from learnchain.consensus.audits import AuditFinding, StepOpening
from learnchain.consensus.disputes import last_accusation_height
from learnchain.encoding.codec import encode
from learnchain.encoding.cryptography import UNSIGNED
from learnchain.encoding.numbers import WEI_PER_GWEI
from learnchain.engines.dlbc import Dlbc
from learnchain.network.wire import MAXIMUM_GOSSIP_BYTES
from learnchain.protocol.actions import MeasureAnswer, ProposeBlock, ProposeEmptyBlock
from learnchain.protocol.audit_messages import (
    MAXIMUM_AUDITED_SEGMENTS,
    MAXIMUM_AUDITS,
    AuditCommitment,
    AuditedSegment,
    AuditReport,
)
from learnchain.protocol.dispute_messages import MAXIMUM_ACCUSATIONS, MAXIMUM_ANSWERS, Accusation, DisputeAnswer
from learnchain.protocol.events import BlockReceived, DeadlineMissed, Disputed, EvidenceReported
from learnchain.protocol.messages import (
    MAXIMUM_COMMITMENTS,
    MAXIMUM_EVIDENCE,
    AnyBlock,
    Block,
    Deadline,
    Evidence,
    Fault,
)
from learnchain.protocol.payload import Outcome, bond_pot
from learnchain.protocol.state import ChainState, Dispute, DisputeOutcome, RoundFact
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.chain_builder import ChainBuilder, altered, sample_parameters
from learnchain.simulation.dispute_cases import (
    ACCUSER,
    AUDITOR,
    STAKE_WEI,
    accusation_of,
    accused,
    answer_to,
    forged_steps,
    forgery,
    other_segment,
    proof_of,
    said,
    staked_accuser,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import Observer, Plan, observe, play_empty, play_height
from learnchain_conformance.evidence_cases import trace_forged

COST_WEI = 10**15
BOND = 10**15
WINNER = "miner-1"
_R = RejectionReason


def chain(*accusers: str, **changes: object) -> Observer:
    """A chain of two trained blocks; the first winner competed with another miner."""
    node = observe(ChainBuilder(Dlbc(), sample_parameters(**changes)))
    staked_accuser(node, *(accusers or (ACCUSER,)))
    play_height(node, Plan({WINNER: 95, "miner-2": 90}))
    play_height(node)
    return node


def first(node: Observer) -> RoundFact:
    return next(each for each in node.parent.bonds.facts if each.height == 1)


def disputed(node: Observer, segment: int = 1, accuser: str = ACCUSER) -> Dispute:
    return accused(node, accusation_of(first(node), segment, accuser))


def outcome(node: Observer, segment: int = 1) -> DisputeOutcome:
    return next(each.outcome for each in node.parent.bonds.disputes if each.segment == segment)


def pass_heights(node: Observer, count: int, empty: bool = False) -> None:
    for _ in range(count):
        _ = play_empty(node, Deadline.KEY) if empty else play_height(node)


def stake(node: Observer, name: str = ACCUSER) -> int:
    return node.parent.bonds.deposit(address(name)).total_wei


def settled(node: Observer) -> dict[tuple[bytes, bytes], int]:
    """What the last block's slashings moved, by pot and recipient."""
    found = [each for each in node.parent.reward.settlements if each.outcome is Outcome.SLASHED]
    return {(each.task_id, each.recipient): each.amount_wei for each in found}


def conserved(state: ChainState) -> None:
    ledger, book = state.ledger, state.bonds
    held = sum(each.total_wei for each in book.deposits)
    assert held == ledger.bonded_wei - ledger.unbonded_wei - ledger.slashed_wei


def report(node: Observer, evidence: Evidence) -> None:
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))


def refusal(node: Observer, message: Accusation | DisputeAnswer) -> RejectionReason:
    """Return why the spine refuses a message; blocks of both kinds that carry it are refused for the same reason."""
    before = node.round
    with pytest.raises(Rejected) as alone:
        said(node, message)
    assert node.round == before
    listed = {"accusations" if isinstance(message, Accusation) else "answers": (message,)}
    trained = node.builder.block(node.parent, (node.builder.candidate(node.parent, WINNER, 95),))
    empty = node.builder.empty_block(node.parent, Deadline.KEY)
    for draft in (trained, empty):
        with pytest.raises(Rejected) as carried:
            node.receive(altered(replace(draft, **listed)))
        assert carried.value.reason is alone.value.reason
    assert node.round == before
    return alone.value.reason


# --- who may accuse ----------------------------------------------------------------------------------------------


def test_an_accusation_is_carried_and_asks_for_the_steps() -> None:
    node = chain()
    found = disputed(node)
    assert (found.accused, found.accuser, found.segment) == (address(WINNER), address(ACCUSER), 1)
    assert (found.outcome, found.asked_height) == (DisputeOutcome.ASKED, node.parent.height)
    assert stake(node) == STAKE_WEI, "asking is free; asking in vain is not"


def test_empty_blocks_carry_accusations_and_answers_too() -> None:
    node = chain()
    said(node, accusation_of(first(node)))
    assert play_empty(node, Deadline.KEY).accusations
    found = node.parent.bonds.disputes[-1]
    said(node, answer_to(node, found))
    assert play_empty(node, Deadline.KEY).answers
    assert outcome(node) is DisputeOutcome.ANSWERED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chain_id": 1}, _R.WRONG_CHAIN),
        ({"parent": b"\x01" * 32}, _R.ACCUSATION_CLOSED),
        ({"segment": 3}, _R.ACCUSATION_WRONG),
        ({"accused": address("miner-2")}, _R.ACCUSATION_CLOSED),
        ({"accused": address(ACCUSER)}, _R.ACCUSATION_WRONG),
    ],
)
def test_an_accusation_names_a_segment_that_somebody_claims_to_have_trained(
    change: dict[str, object], reason: RejectionReason
) -> None:
    node = chain()
    assert refusal(node, accusation_of(first(node), **change)) is reason


def test_nobody_accuses_in_the_name_of_another() -> None:
    node = chain()
    assert refusal(node, replace(accusation_of(first(node)), accuser=address("node-4"))) is _R.WRONG_SIGNATURE


def test_an_accuser_stakes_what_it_may_cost() -> None:
    node = chain()
    assert refusal(node, accusation_of(first(node), accuser="node-4")) is _R.ACCUSATION_UNCOVERED
    poor = chain(accusation_cost_gwei=STAKE_WEI // WEI_PER_GWEI)
    disputed(poor, 0)
    assert refusal(poor, accusation_of(first(poor), 1)) is _R.ACCUSATION_UNCOVERED, "the stake covers one of them"
    free = chain(accusation_cost_gwei=0)
    said(free, accusation_of(first(free), accuser="node-4"))
    play_height(free)
    assert outcome(free) is DisputeOutcome.ASKED


def test_a_segment_is_disputed_once() -> None:
    node = chain(ACCUSER, "node-4")
    disputed(node)
    assert refusal(node, accusation_of(first(node))) is _R.ACCUSATION_DOUBLE
    assert refusal(node, accusation_of(first(node), accuser="node-4")) is _R.ACCUSATION_DOUBLE
    twin = chain(ACCUSER, "node-4")
    said(twin, accusation_of(first(twin)))
    with pytest.raises(Rejected) as caught:
        said(twin, accusation_of(first(twin), accuser="node-4"))
    assert caught.value.reason is _R.ACCUSATION_DOUBLE


def test_a_block_asks_for_one_segment_once_and_for_no_more_than_it_may() -> None:
    node = chain(ACCUSER, "node-4")
    block = node.builder.block(node.parent, (node.builder.candidate(node.parent, WINNER, 95),))
    both = tuple(accusation_of(first(node), accuser=each) for each in (ACCUSER, "node-4"))
    with pytest.raises(Rejected) as caught:
        node.receive(altered(replace(block, accusations=both)))
    assert caught.value.reason is _R.ACCUSATION_DOUBLE
    for segment in range(MAXIMUM_ACCUSATIONS + 1):
        fact = node.parent.bonds.facts[segment // 3]
        said(node, accusation_of(fact, segment % 3, ACCUSER if segment else "node-4"))
    assert len(play_height(node).accusations) == MAXIMUM_ACCUSATIONS
    assert len(node.round.disputes) == 1, "the last waits for the next block"


def test_an_accusation_leaves_time_for_answer_and_proof() -> None:
    node = chain()
    last = last_accusation_height(first(node), node.builder.parameters)
    early, late = accusation_of(first(node), 0), accusation_of(first(node), 1)
    pass_heights(node, last - 1 - node.parent.height)
    said(node, early)
    play_height(node)
    assert node.parent.height == last
    assert refusal(node, late) is _R.ACCUSATION_CLOSED
    pass_heights(node, node.builder.parameters.answer_blocks - 1)
    said(node, answer_to(node, node.parent.bonds.disputes[0]))
    play_height(node)
    pass_heights(node, node.builder.parameters.proof_blocks)
    assert outcome(node, 0) is DisputeOutcome.ANSWERED
    play_height(node)
    conserved(node.parent)
    assert stake(node) == STAKE_WEI - COST_WEI, "decided in the last block in which the height counts"


def test_a_height_beyond_the_head_is_waited_for() -> None:
    node, behind = chain(), chain()
    pass_heights(node, 1)
    with pytest.raises(Unavailable):
        said(behind, accusation_of(node.parent.bonds.facts[-1]))


def test_free_training_is_not_disputed() -> None:
    node = chain()
    bonds = node.parent.bonds
    free = tuple(replace(each, is_declared=False) for each in bonds.facts)
    tree = node.round.tree.with_state(replace(node.parent, bonds=replace(bonds, facts=free)))
    node.round = replace(node.round, tree=tree)
    with pytest.raises(Rejected) as caught:
        said(node, accusation_of(first(node)))
    assert caught.value.reason is _R.ACCUSATION_CLOSED


# --- answers -----------------------------------------------------------------------------------------------------


def test_an_honest_miner_answers_and_is_paid_for_it() -> None:
    node = chain()
    found = disputed(node)
    said(node, answer_to(node, found))
    play_height(node)
    assert outcome(node) is DisputeOutcome.ANSWERED
    pass_heights(node, node.builder.parameters.proof_blocks)
    assert stake(node) == STAKE_WEI
    play_height(node)
    assert outcome(node) is DisputeOutcome.UNPROVEN
    pot = bond_pot(address(ACCUSER))
    assert settled(node) == {(pot, address(WINNER)): COST_WEI * 3 // 4, (pot, b"\0" * 20): COST_WEI // 4}
    assert stake(node) == STAKE_WEI - COST_WEI
    assert not node.parent.bonds.punished
    conserved(node.parent)


def test_an_answer_may_come_in_the_last_block_and_not_after_it() -> None:
    node = chain()
    found = disputed(node)
    answer = answer_to(node, found)
    pass_heights(node, node.builder.parameters.answer_blocks - 1, empty=True)
    late = observe(node.builder)
    late.round = node.round
    said(node, answer)
    play_empty(node, Deadline.KEY)
    assert outcome(node) is DisputeOutcome.ANSWERED
    play_height(late)
    assert refusal(late, answer) is _R.ANSWER_CLOSED


def test_nobody_answers_what_nobody_asked_or_twice() -> None:
    node = chain()
    found = disputed(node)
    answer = answer_to(node, found)
    assert refusal(node, answer_to(node, replace(found, segment=0))) is _R.ANSWER_CLOSED
    said(node, answer)
    play_height(node)
    assert refusal(node, answer) is _R.ANSWER_CLOSED
    with pytest.raises(Rejected) as caught:
        said(node, replace(answer, parent=b"\x01" * 32))
    assert caught.value.reason is _R.ANSWER_CLOSED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chain_id": 1}, _R.WRONG_CHAIN),
        ({"commitment": b"\x01" * 32}, _R.ANSWER_WRONG),
        ({"states": 6}, _R.ANSWER_WRONG),
        ({"segment": 0}, _R.ANSWER_CLOSED),
    ],
)
def test_an_answer_is_about_the_segment_that_was_asked_for(change: dict[str, object], reason: RejectionReason) -> None:
    node = chain()
    assert refusal(node, answer_to(node, disputed(node), **change)) is reason


def test_an_answer_opens_its_segment_and_is_signed_by_the_accused() -> None:
    node = chain()
    answer = answer_to(node, disputed(node))
    assert refusal(node, other_segment(answer, node.builder, first(node), 2)) is _R.ANSWER_WRONG
    forged = replace(answer, opening=replace(answer.opening, first=answer.opening.following))
    assert refusal(node, forged) is _R.TRACE_MISMATCH
    stranger = replace(answer, answer=altered(answer.answer, "miner-2"))
    assert refusal(node, stranger) is _R.WRONG_SIGNATURE


def test_steps_that_nobody_can_fetch_are_no_answer() -> None:
    node = chain()
    found = disputed(node)
    answer = answer_to(node, found)
    node.builder.withheld.add(answer.answer.root)
    said(node, answer)
    assert play_height(node).answers == (), "no proposer carries it"
    carrying = node.builder.resealed(
        node.parent,
        node.builder.block(node.parent, (node.builder.candidate(node.parent, WINNER, 95),)),
        answers=(answer,),
    )
    before = node.parent
    node.receive(carrying)
    assert node.parent == before, "a block that carries it is not admitted before its files are here"
    assert any(isinstance(each, MeasureAnswer) for each in node.actions)
    pass_heights(node, node.builder.parameters.answer_blocks)
    assert outcome(node) is DisputeOutcome.UNANSWERED


def test_files_that_come_late_are_found_with_the_next_block() -> None:
    node = chain()
    answer = answer_to(node, disputed(node))
    node.builder.withheld.add(answer.answer.root)
    said(node, answer)
    node.builder.withheld.clear()
    assert play_height(node).answers == ()
    assert play_height(node).answers == (answer,)


# --- silence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [False, True])
def test_who_keeps_silent_loses_its_bond_by_the_clock_of_heights(empty: bool) -> None:
    node = chain()
    disputed(node)
    pass_heights(node, node.builder.parameters.answer_blocks, empty)
    assert outcome(node) is DisputeOutcome.ASKED
    pass_heights(node, 1, empty)
    assert outcome(node) is DisputeOutcome.UNANSWERED
    paid = {each.recipient: each.amount_gwei for each in node.parent.reward.payouts if each.kind == "slashed bond"}
    bond = BOND // WEI_PER_GWEI
    assert paid == {address(ACCUSER): bond // 4, address("miner-2"): bond // 2}
    assert stake(node) == STAKE_WEI
    conserved(node.parent)


def test_silence_about_two_segments_is_one_offence() -> None:
    node = chain()
    disputed(node, 0)
    disputed(node, 1)
    pass_heights(node, node.builder.parameters.answer_blocks + 1)
    assert (outcome(node, 0), outcome(node, 1)) == (DisputeOutcome.UNANSWERED, DisputeOutcome.PROVEN)
    assert len(node.parent.bonds.punished) == 1
    assert node.parent.ledger.forfeited_gwei == BOND // WEI_PER_GWEI // 4


def test_whoever_was_silent_is_not_punished_again_for_forging() -> None:
    node = chain()
    found = disputed(node)
    pass_heights(node, node.builder.parameters.answer_blocks + 1)
    steps = forged_steps(node, found)
    evidence = forgery(node, answer_to(node, found, steps), AuditFinding.FAULT_OUT_OF_BOUNDS)
    with pytest.raises(Rejected) as caught:
        report(node, evidence)
    assert caught.value.reason is _R.EVIDENCE_DOUBLE
    assert refusal(node, accusation_of(first(node), 2)) is _R.ACCUSATION_DOUBLE


# --- proofs ------------------------------------------------------------------------------------------------------


def test_forged_steps_are_proven_and_cost_the_bond() -> None:
    node = chain()
    found = disputed(node)
    answer = answer_to(node, found, forged_steps(node, found))
    said(node, answer)
    play_height(node)
    report(node, forgery(node, answer, AuditFinding.FAULT_OUT_OF_BOUNDS, "node-4"))
    assert [each.fault for each in play_height(node).evidence] == [Fault.TRACE_FORGED]
    assert outcome(node) is DisputeOutcome.PROVEN
    paid = {each.recipient: each.amount_gwei for each in node.parent.reward.payouts if each.kind == "slashed bond"}
    assert paid[address("node-4")] == BOND // WEI_PER_GWEI // 4, "anybody may prove what another asked for"
    pass_heights(node, node.builder.parameters.proof_blocks + 1)
    assert stake(node) == STAKE_WEI


def test_steps_that_begin_elsewhere_are_proven_by_their_digests() -> None:
    node = chain()
    found = disputed(node)
    answer = answer_to(node, found, (b"\x09" * 32,) * 7)
    said(node, answer)
    play_height(node)
    report(node, forgery(node, answer, AuditFinding.FAULT_STEP_CHAIN))
    play_height(node)
    assert outcome(node) is DisputeOutcome.PROVEN


@pytest.mark.parametrize("finding", [AuditFinding.FAULT_OUT_OF_BOUNDS, AuditFinding.FAULT_STEP_CHAIN])
def test_honest_steps_cannot_be_proven_wrong(finding: AuditFinding) -> None:
    node = chain()
    answer = answer_to(node, disputed(node))
    said(node, answer)
    play_height(node)
    report(node, forgery(node, answer, finding))
    assert node.round.evidence == {}
    pass_heights(node, node.builder.parameters.proof_blocks + 1)
    assert outcome(node) is DisputeOutcome.UNPROVEN


def test_evidence_of_another_kind_ends_the_dispute_without_cost() -> None:
    node = observe(ChainBuilder(Dlbc(), sample_parameters()))
    staked_accuser(node)
    play_height(node)
    evidence = trace_forged(node)
    disputed(node)
    node.builder.forged.add(evidence.fault_id)
    report(node, evidence)
    play_height(node)
    assert outcome(node) is DisputeOutcome.PROVEN
    pass_heights(node, node.builder.parameters.answer_blocks + 1)
    assert stake(node) == STAKE_WEI


# --- proposals and branches --------------------------------------------------------------------------------------


def test_both_kinds_of_proposals_offer_what_waits() -> None:
    node = chain()
    accusation = accusation_of(first(node))
    said(node, accusation)
    schedule = node.round.selection.schedule
    at = schedule.deadline(Deadline.KEY) + node.builder.parameters.empty_window_milliseconds
    actions = node.feed(DeadlineMissed(node.parent.block_hash, Deadline.KEY, at))
    (empty,) = [each for each in actions if isinstance(each, ProposeEmptyBlock)]
    assert empty.accusations == (accusation,)
    play_height(node)
    found = node.parent.bonds.disputes[-1]
    said(node, answer_to(node, found))
    play_height(node)
    last = [each for each in node.actions if isinstance(each, ProposeBlock)][-1]
    assert len(last.answers) == 1


def test_the_head_does_not_depend_on_the_order_of_arrival() -> None:
    node = chain()
    found = disputed(node)
    said(node, answer_to(node, found))
    play_height(node)
    pass_heights(node, node.builder.parameters.proof_blocks + 1)
    blocks: list[AnyBlock] = [
        record.block for record in node.round.tree.branch(node.round.head.block) if record.block is not None
    ]
    late = observe(node.builder)
    left = list(reversed(blocks))
    while left:
        rest = []
        for block in left:
            try:
                late.feed(BlockReceived(block, node.parent.end_milliseconds))
            except Unavailable:
                rest.append(block)
        left = rest
    assert late.parent == node.parent
    assert any(isinstance(each, Block) and each.answers for each in blocks)


def test_messages_wait_in_limited_number() -> None:
    names = ("node-1", "node-2", "node-3", "node-4", "miner-3", "miner-7", "miner-8")
    node = chain(*names, accusation_cost_gwei=0)
    pass_heights(node, 12)
    facts = [each for each in node.parent.bonds.facts if each.winner == address(WINNER)]
    asked = [(fact, segment) for fact in facts for segment in range(3)]
    reasons = set()
    for place, (fact, segment) in enumerate(asked):
        for name in names[place % len(names) :][:1]:
            try:
                node.feed(Disputed(accusation_of(fact, segment, name), node.parent.end_milliseconds))
            except Rejected as error:
                reasons.add(error.reason)
    assert len(node.round.disputes) <= 64
    assert reasons <= {_R.RATE_LIMITED}


def test_a_block_with_all_that_it_may_carry_fits_into_one_gossip_message() -> None:
    node = chain()
    answer = answer_to(node, disputed(node))
    block = node.builder.block(node.parent, (node.builder.candidate(node.parent, WINNER, 95),))
    branch = (b"\x01" * 32,) * 24
    opening = replace(answer.opening, first_branch=branch, following_branch=branch)
    longest = replace(answer, opening=opening)
    step = StepOpening(2, branch[0], branch, b"\x01" * 64, branch[0], branch, b"\x01" * 64)
    proof = replace(proof_of(answer, branch, AuditFinding.FAULT_OUT_OF_BOUNDS), segments=(opening,), steps=(step,))
    line = AuditedSegment(1, True, branch[0])
    place = (31_337, 1, branch[0], address(AUDITOR))
    report = AuditReport(*place, (line,) * MAXIMUM_AUDITED_SEGMENTS, branch[0], UNSIGNED)
    evidence = forgery(node, answer, AuditFinding.FAULT_STEP_CHAIN)
    full = replace(
        block,
        commitments=block.commitments * MAXIMUM_COMMITMENTS,
        verdict=replace(block.verdict, entries=block.verdict.entries * MAXIMUM_COMMITMENTS),
        evidence=(replace(evidence, statements=(encode(report), encode(proof))),) * MAXIMUM_EVIDENCE,
        audits=(AuditCommitment(*place, branch[0], branch[0], UNSIGNED),) * MAXIMUM_AUDITS,
        audit_reports=(report,) * MAXIMUM_AUDITS,
        accusations=(accusation_of(first(node)),) * MAXIMUM_ACCUSATIONS,
        answers=(longest,) * MAXIMUM_ANSWERS,
    )
    unselected = 256 * 33
    assert len(encode(full)) + unselected < MAXIMUM_GOSSIP_BYTES
