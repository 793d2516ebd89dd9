"""Disputes through the spine: who may ask for steps, who answers until when, and what silence and forgery cost."""

from dataclasses import replace

import pytest

from learnchain.consensus.audits import AuditFinding, StepOpening
from learnchain.consensus.disputes import last_challenge_height
from learnchain.encoding.codec import WEI_PER_GWEI, encode
from learnchain.encoding.cryptography import UNSIGNED
from learnchain.engines.dlbc import Dlbc
from learnchain.network.wire import MAXIMUM_GOSSIP_BYTES
from learnchain.protocol.actions import MeasureResponse, ProposeBlock, ProposeEmptyBlock
from learnchain.protocol.audit_messages import (
    MAXIMUM_AUDITED_SEGMENTS,
    MAXIMUM_AUDITS,
    MAXIMUM_CHALLENGES,
    MAXIMUM_RESPONSES,
    AuditCommitment,
    AuditedSegment,
    AuditReport,
    Challenge,
    ChallengeResponse,
)
from learnchain.protocol.events import BlockReceived, DeadlineMissed, DisputeMessageReceived, EvidenceReported
from learnchain.protocol.messages import (
    MAXIMUM_COMMITMENTS,
    MAXIMUM_EVIDENCE,
    AnyBlock,
    Block,
    Deadline,
    Evidence,
    Fault,
)
from learnchain.protocol.payload import SettlementOutcome, bond_pot
from learnchain.protocol.state import ChainState, Dispute, DisputeOutcome, HeightRecord
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.chain_builder import ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.dispute_cases import (
    AUDITOR,
    CHALLENGER,
    STAKE_WEI,
    build_challenge,
    build_forgery_evidence,
    build_fraud_proof,
    build_response,
    carry_challenge,
    forge_steps,
    open_other_segment,
    send_message,
    stake_challenger,
)
from learnchain.simulation.sample_tasks import address
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, run_empty_height, run_height, start_from_genesis
from learnchain_conformance.evidence_cases import build_forged_trace

COST_WEI = 10**15
BOND = 10**15
WINNER = "miner-1"
_R = RejectionReason


def chain(*accusers: str, **changes: object) -> ScenarioNode:
    """A chain of two trained blocks; the first winner competed with another miner."""
    node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters(**changes)))
    stake_challenger(node, *(accusers or (CHALLENGER,)))
    run_height(node, HeightPlan({WINNER: 95, "miner-2": 90}))
    run_height(node)
    return node


def first(node: ScenarioNode) -> HeightRecord:
    return next(each for each in node.parent.bonds.height_records if each.height == 1)


def disputed(node: ScenarioNode, segment: int = 1, accuser: str = CHALLENGER) -> Dispute:
    return carry_challenge(node, build_challenge(first(node), segment, accuser))


def outcome(node: ScenarioNode, segment: int = 1) -> DisputeOutcome:
    return next(each.outcome for each in node.parent.bonds.disputes if each.segment == segment)


def pass_heights(node: ScenarioNode, count: int, empty: bool = False) -> None:
    for _ in range(count):
        _ = run_empty_height(node, Deadline.KEY) if empty else run_height(node)


def stake(node: ScenarioNode, name: str = CHALLENGER) -> int:
    return node.parent.bonds.deposit(address(name)).total_wei


def settled(node: ScenarioNode) -> dict[tuple[bytes, bytes], int]:
    """What the last block's slashings moved, by pot and recipient."""
    found = [each for each in node.parent.reward.settlements if each.outcome is SettlementOutcome.SLASHED]
    return {(each.task_id, each.recipient): each.amount_wei for each in found}


def conserved(state: ChainState) -> None:
    ledger, book = state.ledger, state.bonds
    held = sum(each.total_wei for each in book.deposits)
    assert held == ledger.bonded_wei - ledger.unbonded_wei - ledger.slashed_wei


def report(node: ScenarioNode, evidence: Evidence) -> None:
    node.feed(EvidenceReported(evidence, node.parent.end_milliseconds))


def refusal(node: ScenarioNode, message: Challenge | ChallengeResponse) -> RejectionReason:
    """Return why the spine refuses a message; blocks of both kinds that carry it are refused for the same reason."""
    before = node.round
    with pytest.raises(Rejected) as alone:
        send_message(node, message)
    assert node.round == before
    listed = {"challenges" if isinstance(message, Challenge) else "responses": (message,)}
    trained = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, WINNER, 95),))
    empty = node.builder.build_empty_block(node.parent, Deadline.KEY)
    for draft in (trained, empty):
        with pytest.raises(Rejected) as carried:
            node.receive(alter(replace(draft, **listed)))
        assert carried.value.reason is alone.value.reason
    assert node.round == before
    return alone.value.reason


# --- who may accuse ----------------------------------------------------------------------------------------------


def test_an_accusation_is_carried_and_asks_for_the_steps() -> None:
    node = chain()
    found = disputed(node)
    assert (found.respondent, found.challenger, found.segment) == (address(WINNER), address(CHALLENGER), 1)
    assert (found.outcome, found.challenged_height) == (DisputeOutcome.CHALLENGED, node.parent.height)
    assert stake(node) == STAKE_WEI, "asking is free; asking in vain is not"


def test_empty_blocks_carry_accusations_and_answers_too() -> None:
    node = chain()
    send_message(node, build_challenge(first(node)))
    assert run_empty_height(node, Deadline.KEY).challenges
    found = node.parent.bonds.disputes[-1]
    send_message(node, build_response(node, found))
    assert run_empty_height(node, Deadline.KEY).responses
    assert outcome(node) is DisputeOutcome.RESPONDED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chain_id": 1}, _R.WRONG_CHAIN),
        ({"parent": b"\x01" * 32}, _R.CHALLENGE_CLOSED),
        ({"segment": 3}, _R.CHALLENGE_INVALID),
        ({"respondent": address("miner-2")}, _R.CHALLENGE_CLOSED),
        ({"respondent": address(CHALLENGER)}, _R.CHALLENGE_INVALID),
    ],
)
def test_an_accusation_names_a_segment_that_somebody_claims_to_have_trained(
    change: dict[str, object], reason: RejectionReason
) -> None:
    node = chain()
    assert refusal(node, build_challenge(first(node), **change)) is reason


def test_nobody_accuses_in_the_name_of_another() -> None:
    node = chain()
    assert refusal(node, replace(build_challenge(first(node)), challenger=address("node-4"))) is _R.WRONG_SIGNATURE


def test_an_accuser_stakes_what_it_may_cost() -> None:
    node = chain()
    assert refusal(node, build_challenge(first(node), challenger="node-4")) is _R.CHALLENGE_UNCOVERED
    poor = chain(challenge_cost_gwei=STAKE_WEI // WEI_PER_GWEI)
    disputed(poor, 0)
    assert refusal(poor, build_challenge(first(poor), 1)) is _R.CHALLENGE_UNCOVERED, "the stake covers one of them"
    free = chain(challenge_cost_gwei=0)
    send_message(free, build_challenge(first(free), challenger="node-4"))
    run_height(free)
    assert outcome(free) is DisputeOutcome.CHALLENGED


def test_a_segment_is_disputed_once() -> None:
    node = chain(CHALLENGER, "node-4")
    disputed(node)
    assert refusal(node, build_challenge(first(node))) is _R.CHALLENGE_DOUBLE
    assert refusal(node, build_challenge(first(node), challenger="node-4")) is _R.CHALLENGE_DOUBLE
    twin = chain(CHALLENGER, "node-4")
    send_message(twin, build_challenge(first(twin)))
    with pytest.raises(Rejected) as caught:
        send_message(twin, build_challenge(first(twin), challenger="node-4"))
    assert caught.value.reason is _R.CHALLENGE_DOUBLE


def test_a_block_asks_for_one_segment_once_and_for_no_more_than_it_may() -> None:
    node = chain(CHALLENGER, "node-4")
    block = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, WINNER, 95),))
    both = tuple(build_challenge(first(node), challenger=each) for each in (CHALLENGER, "node-4"))
    with pytest.raises(Rejected) as caught:
        node.receive(alter(replace(block, challenges=both)))
    assert caught.value.reason is _R.CHALLENGE_DOUBLE
    for segment in range(MAXIMUM_CHALLENGES + 1):
        fact = node.parent.bonds.height_records[segment // 3]
        send_message(node, build_challenge(fact, segment % 3, CHALLENGER if segment else "node-4"))
    assert len(run_height(node).challenges) == MAXIMUM_CHALLENGES
    assert len(node.round.disputes) == 1, "the last waits for the next block"


def test_an_accusation_leaves_time_for_answer_and_proof() -> None:
    node = chain()
    last = last_challenge_height(first(node), node.builder.parameters)
    early, late = build_challenge(first(node), 0), build_challenge(first(node), 1)
    pass_heights(node, last - 1 - node.parent.height)
    send_message(node, early)
    run_height(node)
    assert node.parent.height == last
    assert refusal(node, late) is _R.CHALLENGE_CLOSED
    pass_heights(node, node.builder.parameters.response_blocks - 1)
    send_message(node, build_response(node, node.parent.bonds.disputes[0]))
    run_height(node)
    pass_heights(node, node.builder.parameters.proof_blocks)
    assert outcome(node, 0) is DisputeOutcome.RESPONDED
    run_height(node)
    conserved(node.parent)
    assert stake(node) == STAKE_WEI - COST_WEI, "decided in the last block in which the height counts"


def test_a_height_beyond_the_head_is_waited_for() -> None:
    node, behind = chain(), chain()
    pass_heights(node, 1)
    with pytest.raises(Unavailable):
        send_message(behind, build_challenge(node.parent.bonds.height_records[-1]))


def test_free_training_is_not_disputed() -> None:
    node = chain()
    bonds = node.parent.bonds
    free = tuple(replace(each, is_declared=False) for each in bonds.height_records)
    tree = node.round.tree.with_state(replace(node.parent, bonds=replace(bonds, height_records=free)))
    node.round = replace(node.round, tree=tree)
    with pytest.raises(Rejected) as caught:
        send_message(node, build_challenge(first(node)))
    assert caught.value.reason is _R.CHALLENGE_CLOSED


# --- answers -----------------------------------------------------------------------------------------------------


def test_an_honest_miner_answers_and_is_paid_for_it() -> None:
    node = chain()
    found = disputed(node)
    send_message(node, build_response(node, found))
    run_height(node)
    assert outcome(node) is DisputeOutcome.RESPONDED
    pass_heights(node, node.builder.parameters.proof_blocks)
    assert stake(node) == STAKE_WEI
    run_height(node)
    assert outcome(node) is DisputeOutcome.DEFENDED
    pot = bond_pot(address(CHALLENGER))
    assert settled(node) == {(pot, address(WINNER)): COST_WEI * 3 // 4, (pot, b"\0" * 20): COST_WEI // 4}
    assert stake(node) == STAKE_WEI - COST_WEI
    assert not node.parent.bonds.penalties
    conserved(node.parent)


def test_an_answer_may_come_in_the_last_block_and_not_after_it() -> None:
    node = chain()
    found = disputed(node)
    answer = build_response(node, found)
    pass_heights(node, node.builder.parameters.response_blocks - 1, empty=True)
    late = start_from_genesis(node.builder)
    late.round = node.round
    send_message(node, answer)
    run_empty_height(node, Deadline.KEY)
    assert outcome(node) is DisputeOutcome.RESPONDED
    run_height(late)
    assert refusal(late, answer) is _R.RESPONSE_CLOSED


def test_nobody_answers_what_nobody_asked_or_twice() -> None:
    node = chain()
    found = disputed(node)
    answer = build_response(node, found)
    assert refusal(node, build_response(node, replace(found, segment=0))) is _R.RESPONSE_CLOSED
    send_message(node, answer)
    run_height(node)
    assert refusal(node, answer) is _R.RESPONSE_CLOSED
    with pytest.raises(Rejected) as caught:
        send_message(node, replace(answer, parent=b"\x01" * 32))
    assert caught.value.reason is _R.RESPONSE_CLOSED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chain_id": 1}, _R.WRONG_CHAIN),
        ({"commitment": b"\x01" * 32}, _R.RESPONSE_INVALID),
        ({"states": 6}, _R.RESPONSE_INVALID),
        ({"segment": 0}, _R.RESPONSE_CLOSED),
    ],
)
def test_an_answer_is_about_the_segment_that_was_asked_for(change: dict[str, object], reason: RejectionReason) -> None:
    node = chain()
    assert refusal(node, build_response(node, disputed(node), **change)) is reason


def test_an_answer_opens_its_segment_and_is_signed_by_the_accused() -> None:
    node = chain()
    answer = build_response(node, disputed(node))
    assert refusal(node, open_other_segment(answer, node.builder, first(node), 2)) is _R.RESPONSE_INVALID
    forged = replace(answer, opening=replace(answer.opening, first=answer.opening.following))
    assert refusal(node, forged) is _R.TRACE_MISMATCH
    stranger = replace(answer, disclosure=alter(answer.disclosure, "miner-2"))
    assert refusal(node, stranger) is _R.WRONG_SIGNATURE


def test_steps_that_nobody_can_fetch_are_no_answer() -> None:
    node = chain()
    found = disputed(node)
    answer = build_response(node, found)
    node.builder.withheld.add(answer.disclosure.root)
    send_message(node, answer)
    assert run_height(node).responses == (), "no proposer carries it"
    carrying = node.builder.reseal(
        node.parent,
        node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, WINNER, 95),)),
        responses=(answer,),
    )
    before = node.parent
    node.receive(carrying)
    assert node.parent == before, "a block that carries it is not admitted before its files are here"
    assert any(isinstance(each, MeasureResponse) for each in node.actions)
    pass_heights(node, node.builder.parameters.response_blocks)
    assert outcome(node) is DisputeOutcome.TIMED_OUT


def test_files_that_come_late_are_found_with_the_next_block() -> None:
    node = chain()
    answer = build_response(node, disputed(node))
    node.builder.withheld.add(answer.disclosure.root)
    send_message(node, answer)
    node.builder.withheld.clear()
    assert run_height(node).responses == ()
    assert run_height(node).responses == (answer,)


# --- silence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [False, True])
def test_who_keeps_silent_loses_its_bond_by_the_clock_of_heights(empty: bool) -> None:
    node = chain()
    disputed(node)
    pass_heights(node, node.builder.parameters.response_blocks, empty)
    assert outcome(node) is DisputeOutcome.CHALLENGED
    pass_heights(node, 1, empty)
    assert outcome(node) is DisputeOutcome.TIMED_OUT
    paid = {each.recipient: each.amount_gwei for each in node.parent.reward.payouts if each.kind == "slashed bond"}
    bond = BOND // WEI_PER_GWEI
    assert paid == {address(CHALLENGER): bond // 4, address("miner-2"): bond // 2}
    assert stake(node) == STAKE_WEI
    conserved(node.parent)


def test_silence_about_two_segments_is_one_offence() -> None:
    node = chain()
    disputed(node, 0)
    disputed(node, 1)
    pass_heights(node, node.builder.parameters.response_blocks + 1)
    assert (outcome(node, 0), outcome(node, 1)) == (DisputeOutcome.TIMED_OUT, DisputeOutcome.FRAUD_PROVEN)
    assert len(node.parent.bonds.penalties) == 1
    assert node.parent.ledger.forfeited_gwei == BOND // WEI_PER_GWEI // 4


def test_whoever_was_silent_is_not_punished_again_for_forging() -> None:
    node = chain()
    found = disputed(node)
    pass_heights(node, node.builder.parameters.response_blocks + 1)
    steps = forge_steps(node, found)
    evidence = build_forgery_evidence(node, build_response(node, found, steps), AuditFinding.FAULT_OUT_OF_BOUNDS)
    with pytest.raises(Rejected) as caught:
        report(node, evidence)
    assert caught.value.reason is _R.EVIDENCE_DOUBLE
    assert refusal(node, build_challenge(first(node), 2)) is _R.CHALLENGE_DOUBLE


# --- proofs ------------------------------------------------------------------------------------------------------


def test_forged_steps_are_proven_and_cost_the_bond() -> None:
    node = chain()
    found = disputed(node)
    answer = build_response(node, found, forge_steps(node, found))
    send_message(node, answer)
    run_height(node)
    report(node, build_forgery_evidence(node, answer, AuditFinding.FAULT_OUT_OF_BOUNDS, "node-4"))
    assert [each.fault for each in run_height(node).evidence] == [Fault.TRACE_FORGED]
    assert outcome(node) is DisputeOutcome.FRAUD_PROVEN
    paid = {each.recipient: each.amount_gwei for each in node.parent.reward.payouts if each.kind == "slashed bond"}
    assert paid[address("node-4")] == BOND // WEI_PER_GWEI // 4, "anybody may prove what another asked for"
    pass_heights(node, node.builder.parameters.proof_blocks + 1)
    assert stake(node) == STAKE_WEI


def test_steps_that_begin_elsewhere_are_proven_by_their_digests() -> None:
    node = chain()
    found = disputed(node)
    answer = build_response(node, found, (b"\x09" * 32,) * 7)
    send_message(node, answer)
    run_height(node)
    report(node, build_forgery_evidence(node, answer, AuditFinding.FAULT_STEP_CHAIN))
    run_height(node)
    assert outcome(node) is DisputeOutcome.FRAUD_PROVEN


@pytest.mark.parametrize("finding", [AuditFinding.FAULT_OUT_OF_BOUNDS, AuditFinding.FAULT_STEP_CHAIN])
def test_honest_steps_cannot_be_proven_wrong(finding: AuditFinding) -> None:
    node = chain()
    answer = build_response(node, disputed(node))
    send_message(node, answer)
    run_height(node)
    report(node, build_forgery_evidence(node, answer, finding))
    assert node.round.evidence == {}
    pass_heights(node, node.builder.parameters.proof_blocks + 1)
    assert outcome(node) is DisputeOutcome.DEFENDED


def test_evidence_of_another_kind_ends_the_dispute_without_cost() -> None:
    node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters()))
    stake_challenger(node)
    run_height(node)
    evidence = build_forged_trace(node)
    disputed(node)
    node.builder.forged.add(evidence.fault_id)
    report(node, evidence)
    run_height(node)
    assert outcome(node) is DisputeOutcome.FRAUD_PROVEN
    pass_heights(node, node.builder.parameters.response_blocks + 1)
    assert stake(node) == STAKE_WEI


# --- proposals and branches --------------------------------------------------------------------------------------


def test_both_kinds_of_proposals_offer_what_waits() -> None:
    node = chain()
    accusation = build_challenge(first(node))
    send_message(node, accusation)
    schedule = node.round.selection.schedule
    at = schedule.deadline(Deadline.KEY) + node.builder.parameters.empty_window_milliseconds
    actions = node.feed(DeadlineMissed(node.parent.block_hash, Deadline.KEY, at))
    (empty,) = [each for each in actions if isinstance(each, ProposeEmptyBlock)]
    assert empty.challenges == (accusation,)
    run_height(node)
    found = node.parent.bonds.disputes[-1]
    send_message(node, build_response(node, found))
    run_height(node)
    last = [each for each in node.actions if isinstance(each, ProposeBlock)][-1]
    assert len(last.responses) == 1


def test_the_head_does_not_depend_on_the_order_of_arrival() -> None:
    node = chain()
    found = disputed(node)
    send_message(node, build_response(node, found))
    run_height(node)
    pass_heights(node, node.builder.parameters.proof_blocks + 1)
    blocks: list[AnyBlock] = [
        record.block for record in node.round.tree.branch(node.round.head.block) if record.block is not None
    ]
    late = start_from_genesis(node.builder)
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
    assert any(isinstance(each, Block) and each.responses for each in blocks)


def test_messages_wait_in_limited_number() -> None:
    names = ("node-1", "node-2", "node-3", "node-4", "miner-3", "miner-7", "miner-8")
    node = chain(*names, challenge_cost_gwei=0)
    pass_heights(node, 12)
    facts = [each for each in node.parent.bonds.height_records if each.winner == address(WINNER)]
    asked = [(fact, segment) for fact in facts for segment in range(3)]
    reasons = set()
    for place, (fact, segment) in enumerate(asked):
        for name in names[place % len(names) :][:1]:
            try:
                node.feed(DisputeMessageReceived(build_challenge(fact, segment, name), node.parent.end_milliseconds))
            except Rejected as error:
                reasons.add(error.reason)
    assert len(node.round.disputes) <= 64
    assert reasons <= {_R.RATE_LIMITED}


def test_a_block_with_all_that_it_may_carry_fits_into_one_gossip_message() -> None:
    node = chain()
    answer = build_response(node, disputed(node))
    block = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, WINNER, 95),))
    branch = (b"\x01" * 32,) * 24
    opening = replace(answer.opening, first_branch=branch, following_branch=branch)
    longest = replace(answer, opening=opening)
    step = StepOpening(2, branch[0], branch, b"\x01" * 64, branch[0], branch, b"\x01" * 64)
    proof = replace(
        build_fraud_proof(answer, branch, AuditFinding.FAULT_OUT_OF_BOUNDS), segments=(opening,), steps=(step,)
    )
    line = AuditedSegment(1, True, branch[0])
    place = (31_337, 1, branch[0], address(AUDITOR))
    report = AuditReport(*place, (line,) * MAXIMUM_AUDITED_SEGMENTS, branch[0], UNSIGNED)
    evidence = build_forgery_evidence(node, answer, AuditFinding.FAULT_STEP_CHAIN)
    full = replace(
        block,
        commitments=block.commitments * MAXIMUM_COMMITMENTS,
        verdict=replace(block.verdict, entries=block.verdict.entries * MAXIMUM_COMMITMENTS),
        evidence=(replace(evidence, statements=(encode(report), encode(proof))),) * MAXIMUM_EVIDENCE,
        audits=(AuditCommitment(*place, branch[0], branch[0], UNSIGNED),) * MAXIMUM_AUDITS,
        audit_reports=(report,) * MAXIMUM_AUDITS,
        challenges=(build_challenge(first(node)),) * MAXIMUM_CHALLENGES,
        responses=(longest,) * MAXIMUM_RESPONSES,
    )
    unselected = 256 * 33
    assert len(encode(full)) + unselected < MAXIMUM_GOSSIP_BYTES
