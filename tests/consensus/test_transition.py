"""One node's life as the spine sees it: trained heights, empty heights, forks, tasks and money."""

from dataclasses import replace

import pytest

from learnchain.consensus import advance, resume
from learnchain.consensus.fork_choice import EMPTY_DEPTH_FACTOR
from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.actions import (
    MeasureCandidate,
    MoveHead,
    OpenHeight,
    ProposeBlock,
    ProposeEmptyBlock,
    RefuseBlock,
    RefuseTask,
    StoreBlock,
    TrainModel,
)
from learnchain.protocol.events import (
    BlockReceived,
    CommitmentReceived,
    DeadlineMissed,
    HeadOverridden,
    KeyReleaseReceived,
    MeasurementFinished,
    ReleaseReceived,
    RevealReceived,
)
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind
from learnchain.protocol.messages import AnyBlock, Block, CandidateOutcome, Deadline, empty_block_tie_breaker
from learnchain.protocol.payload import SettlementOutcome as Money
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.chain_builder import ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.sample_tasks import address, build_sample_task, name_of, release_key
from learnchain.simulation.scenario import (
    HeightPlan,
    ScenarioNode,
    open_height,
    reveal_models,
    run_empty_height,
    run_height,
    start_from_genesis,
)
from learnchain_conformance.bad_inputs import prepare


def chain_of(**changes: int) -> ScenarioNode:
    return start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters(**changes)))


def copy_of(node: ScenarioNode) -> ScenarioNode:
    """A node with the same view that lives on by itself from here."""
    return ScenarioNode(node.builder, node.round)


def block_hash(node: ScenarioNode) -> bytes:
    return node.round.head.block


def stored(node: ScenarioNode) -> list[AnyBlock]:
    return [each.block for each in node.actions if isinstance(each, StoreBlock)]


# --- trained heights ---------------------------------------------------------------------------------------------


def test_a_trained_height_from_key_to_head() -> None:
    node = chain_of()
    block = run_height(node, HeightPlan({"miner-1": 95, "miner-2": 97, "miner-3": 12}))
    assert name_of(block.proposer) == "miner-2"
    assert (block.verdict.correct, block.verdict.total) == (97, 100)
    outcomes = {name_of(each.miner): each.outcome for each in block.verdict.entries}
    lower = CandidateOutcome.LOWER_CLAIM
    assert outcomes == {"miner-1": lower, "miner-2": CandidateOutcome.WINNER, "miner-3": lower}
    assert (node.round.head.height, node.round.head.weight) == (1, 1)
    kinds = [type(each) for each in node.actions]
    assert kinds.index(TrainModel) < kinds.index(ProposeBlock) < kinds.index(StoreBlock)
    assert kinds[-2:] == [MoveHead, OpenHeight]
    assert stored(node) == [block]


def test_only_the_best_claim_is_measured_when_it_is_honest() -> None:
    node = chain_of()
    run_height(node, HeightPlan({"miner-1": 95, "miner-2": 97}))
    measured = [each.measurement for each in node.events if isinstance(each, MeasurementFinished)]
    assert [each.kind for each in measured] == [
        MeasurementKind.PAYLOAD,
        MeasurementKind.WATERMARK,
        MeasurementKind.COUNT,
    ]
    assert len({each.candidate for each in measured}) == 1


@pytest.mark.parametrize(
    ("claims", "unmarked", "reason"),
    [({"miner-2": 99}, False, "claim_not_exact"), ({}, True, "watermark_missing")],
)
def test_a_dishonest_leader_is_rejected_and_the_next_one_wins(
    claims: dict[str, int], unmarked: bool, reason: str
) -> None:
    node, plan = chain_of(), HeightPlan({"miner-1": 95, "miner-2": 97}, claims)
    if unmarked:
        node.builder.unwatermarked_models.add(node.builder.build_candidate(node.parent, "miner-2", 97).model.model_cid)
    block = run_height(node, plan)
    assert name_of(block.proposer) == "miner-1"
    entry = next(each for each in block.verdict.entries if name_of(each.miner) == "miner-2")
    assert (entry.outcome, entry.reason) == (CandidateOutcome.REJECTED, reason)


def test_who_does_not_reveal_cannot_win() -> None:
    node = chain_of()
    block = run_height(node, HeightPlan({"miner-1": 60, "miner-2": 97}, silent_miners=frozenset({"miner-2"})))
    assert name_of(block.proposer) == "miner-1"
    entry = next(each for each in block.verdict.entries if name_of(each.miner) == "miner-2")
    assert (entry.outcome, entry.claim_correct) == (CandidateOutcome.UNREVEALED, 0)


def test_equal_claims_go_to_the_lower_commitment_hash() -> None:
    node = chain_of()
    plan = HeightPlan({f"miner-{number}": 95 for number in range(1, 6)})
    found = open_height(node, plan)
    proposal = next(each for each in reveal_models(node, plan, found) if isinstance(each, ProposeBlock))
    assert proposal.verdict.winner == min(each.key for each in found)


def test_a_second_signature_on_the_same_key_does_not_restart_training() -> None:
    node = chain_of()
    prepare(node, "opened")
    again = replace(node.builder.build_key_release(node.parent), signature=_other_signature(node))
    assert node.feed(KeyReleaseReceived(again, node.round.selection.schedule.start_milliseconds)) == ()


def _other_signature(node: ScenarioNode) -> bytes:
    """The publisher may sign with a nonce of its own; both signatures are valid."""
    from coincurve import PrivateKey

    from learnchain.encoding.cryptography import signing_hash
    from learnchain.simulation.sample_tasks import private_key

    digest = signing_hash(node.builder.build_key_release(node.parent))
    key = PrivateKey(private_key("steward"))
    number = int.from_bytes(key.secret, "big")
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    nonce = PrivateKey((12345).to_bytes(32, "big"))
    point = nonce.public_key.point()
    r = point[0] % order
    s = pow(12345, -1, order) * (int.from_bytes(digest, "big") + r * number) % order
    parity = point[1] & 1
    if s > order // 2:
        s, parity = order - s, parity ^ 1
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([parity])


def test_what_comes_too_early_is_unavailable_and_changes_nothing() -> None:
    node = chain_of()
    ahead = start_from_genesis(node.builder)
    run_height(ahead)
    before = repr(node.round)
    early = [
        KeyReleaseReceived(ahead.builder.build_key_release(ahead.parent), 0),
        CommitmentReceived(ahead.builder.build_candidate(ahead.parent, "miner-1", 95).commitment, 0),
        RevealReceived(
            node.builder.build_reveal(node.parent, node.builder.build_candidate(node.parent, "miner-1", 95)), 0
        ),
        BlockReceived(ahead.builder.build_empty_block(ahead.parent, Deadline.KEY), 1 << 60),
    ]
    for event in early:
        with pytest.raises(Unavailable):
            advance(node.round, event)
    assert repr(node.round) == before


def test_commitments_are_bounded() -> None:
    node = chain_of(maximum_commitments=1)
    found = prepare(node, "committed")
    with pytest.raises(Rejected) as refusal:
        node.feed(CommitmentReceived(found[1].commitment, 0))
    assert refusal.value.reason is RejectionReason.COMMITMENTS_FULL


# --- empty heights -----------------------------------------------------------------------------------------------

MISSED = (
    (Deadline.KEY, "begun"),
    (Deadline.COMMITMENT, "opened"),
    (Deadline.RELEASE, "committed"),
    (Deadline.REVEAL, "released"),
    (Deadline.BLOCK, "revealed"),
)


@pytest.mark.parametrize(("missed", "stage"), MISSED)
def test_a_missed_deadline_ends_in_an_empty_block(missed: Deadline, stage: str) -> None:
    node = chain_of()
    prepare(node, stage)
    block = run_empty_height(node, missed)
    assert (node.round.head.height, node.round.head.weight) == (1, 0)
    assert stored(node) == [block]
    assert node.parent.reward.payouts == ()
    run_height(node)
    assert (node.round.head.height, node.round.head.weight) == (2, 1)


@pytest.mark.parametrize(
    ("missed", "stage"), [(each, MISSED[index + 1][1]) for index, (each, _) in enumerate(MISSED[:4])]
)
def test_what_was_seen_in_time_is_not_called_missed(missed: Deadline, stage: str) -> None:
    node = chain_of()
    prepare(node, stage)
    schedule = node.round.selection.schedule
    event = DeadlineMissed(node.parent.block_hash, missed, schedule.deadline(missed) + 1_000)
    assert node.feed(event) == ()
    node.receive(node.builder.build_empty_block(node.parent, missed))
    assert node.round.head.height == 0, "the node moved to a block that contradicts what it saw"


def test_an_empty_block_proposal_ends_on_a_whole_window() -> None:
    node = chain_of()
    deadline = node.round.selection.schedule.key_milliseconds
    offer = node.feed(DeadlineMissed(node.parent.block_hash, Deadline.KEY, deadline + 3_700))[0]
    assert isinstance(offer, ProposeEmptyBlock)
    assert offer.end_milliseconds == deadline + 3_000


def test_the_lowest_ticket_wins_among_empty_blocks() -> None:
    node = chain_of()
    parent = node.parent
    for number in range(1, 5):
        node.receive(node.builder.build_empty_block(parent, Deadline.KEY, f"node-{number}"))
    head = node.round.tree.records[block_hash(node)].block
    assert head is not None
    tickets = [empty_block_tie_breaker(parent.block_hash, address(f"node-{number}")) for number in range(1, 5)]
    assert empty_block_tie_breaker(parent.block_hash, head.proposer) == min(tickets)


def test_a_trained_block_outweighs_an_empty_one_that_came_first() -> None:
    node = chain_of()
    late = node.builder.build_block(node.parent, (node.builder.build_candidate(node.parent, "miner-1", 95),))
    run_empty_height(node, Deadline.KEY)
    node.receive(late)
    assert (node.round.head.height, node.round.head.weight) == (1, 1)


# --- fork choice -------------------------------------------------------------------------------------------------


def test_a_fork_heals_to_the_heavier_branch() -> None:
    left = chain_of()
    right = start_from_genesis(left.builder)
    run_empty_height(left, Deadline.KEY)
    run_height(left)
    run_height(right)
    for _ in range(2):
        run_height(right)
    for block in stored(right):
        left.receive(block)
    assert block_hash(left) == block_hash(right)
    assert left.round.head.weight == 3


def test_a_better_sibling_takes_the_weight() -> None:
    node = chain_of()
    pair = tuple(
        node.builder.build_candidate(node.parent, miner, correct)
        for miner, correct in (("miner-1", 95), ("miner-2", 97))
    )
    genesis = node.parent
    worse = node.builder.build_block(genesis, pair, winner=pair[0], hidden=(pair[1],))
    better = node.builder.build_block(genesis, pair)
    node.receive(worse)
    run_height(node)
    assert node.round.head.weight == 2
    node.receive(better)
    assert node.round.tree.records[block_hash(node)].block == better
    assert node.round.head.weight == 1


def test_two_blocks_of_one_winner_go_to_the_lower_hash() -> None:
    heads = []
    for order in (1, -1):
        node = chain_of()
        first = node.builder.build_candidate(node.parent, "miner-1", 95)
        second = node.builder.build_candidate(node.parent, "miner-2", 93)
        blocks = [
            node.builder.build_block(node.parent, (first, second)),
            node.builder.build_block(node.parent, (first, second), hidden=(second,)),
        ]
        for block in blocks[::order]:
            node.receive(block)
        heads.append(block_hash(node))
    assert heads[0] == heads[1] == min(node.round.tree.leaves())


def rival_branch() -> tuple[ScenarioNode, ScenarioNode]:
    """One node on a block whose release it saw, and one on a heavier branch that begins with an empty block."""
    here = chain_of()
    there = start_from_genesis(here.builder)
    run_empty_height(there, Deadline.KEY)
    run_height(there)
    run_height(there)
    run_height(here)
    return here, there


def test_no_reorganisation_across_a_release_seen_in_time() -> None:
    here, there = rival_branch()
    stays = block_hash(here)
    for block in stored(there):
        here.receive(block)
    assert block_hash(here) == stays
    newcomer = start_from_genesis(here.builder)
    for block in (*stored(here)[:1], *stored(there)):
        newcomer.receive(block)
    assert block_hash(newcomer) == block_hash(there)


def test_the_operator_overrides() -> None:
    here, there = rival_branch()
    for block in stored(there):
        here.receive(block)
    here.feed(HeadOverridden(block_hash(there), 0))
    assert block_hash(here) == block_hash(there)
    run_height(there)
    here.receive(stored(there)[-1])
    assert block_hash(here) == block_hash(there)


def test_an_override_holds_for_what_is_built_on_it() -> None:
    here, there = rival_branch()
    run_height(here)
    first, second, third = stored(there)
    here.receive(first)
    here.feed(HeadOverridden(there.round.tree.state(third.parent).parent, 0))
    for block in (second, third):
        here.receive(block)
    run_height(there)
    here.receive(stored(there)[-1])
    assert block_hash(here) == block_hash(there)


def test_an_override_names_a_known_block() -> None:
    node = chain_of()
    with pytest.raises(Rejected) as refusal:
        node.feed(HeadOverridden(b"\x01" * 32, 0))
    assert refusal.value.reason is RejectionReason.BLOCK_UNKNOWN_PARENT


def test_a_contradicted_child_does_not_send_the_head_to_a_lighter_branch() -> None:
    node = chain_of()
    rival = node.builder.build_empty_block(node.parent, Deadline.KEY, "node-2")
    run_height(node)
    run_height(node)
    node.receive(rival)
    here = block_hash(node)
    prepare(node, "committed")
    node.receive(node.builder.build_empty_block(node.parent, Deadline.KEY))
    assert block_hash(node) == here


def test_final_blocks_are_forgotten_and_their_rivals_refused() -> None:
    node = chain_of(finality_depth=2)
    genesis = node.parent
    for _ in range(4):
        run_height(node)
    head = node.round.head
    assert node.round.tree.state(head.finalized).height == 2
    assert len(node.round.tree.records) == 3
    assert head.weight == 4
    with pytest.raises(Rejected) as refusal:
        node.receive(node.builder.build_empty_block(genesis, Deadline.KEY))
    assert refusal.value.reason is RejectionReason.BELOW_FINAL


def test_empty_blocks_make_nothing_final() -> None:
    node = chain_of(finality_depth=2)
    genesis = node.parent
    aside = ScenarioNode(node.builder, node.round)
    run_height(aside)
    for _ in range(8):
        run_empty_height(node, Deadline.KEY)
    assert node.round.head.finalized == genesis.block_hash
    # Whoever was alone comes back to the branch on which the others trained.
    for each in aside.actions:
        if isinstance(each, StoreBlock):
            node.receive(each.block)
    assert node.round.head.block == aside.round.head.block


def test_a_tree_is_bounded_although_nothing_has_weight() -> None:
    node = chain_of(finality_depth=1)
    for _ in range(EMPTY_DEPTH_FACTOR + 4):
        run_empty_height(node, Deadline.KEY)
    assert node.round.tree.state(node.round.head.finalized).height == 4
    assert len(node.round.tree.records) == EMPTY_DEPTH_FACTOR + 1


def test_safe_needs_two_accurate_models_on_top() -> None:
    node = chain_of()
    hashes = []
    for correct in (95, 40, 96, 97):
        run_height(node, HeightPlan({"miner-1": correct}))
        hashes.append(block_hash(node))
    assert node.round.head.safe == hashes[1]


def test_resume_comes_back_to_the_same_head() -> None:
    node = chain_of(finality_depth=3)
    genesis = node.parent
    run_height(node)
    run_empty_height(node, Deadline.KEY)
    run_height(node)
    kept = tuple((each.block, each.state) for each in node.actions if isinstance(each, StoreBlock))
    state, actions = resume(node.builder.rules, node.builder.parameters, genesis, kept, node.round.head)
    assert state.head == node.round.head
    assert state.parent == node.parent
    assert [type(each) for each in actions] == [MoveHead, OpenHeight]
    again = ScenarioNode(node.builder, state)
    assert run_height(again) == run_height(node)


# --- measurements of received blocks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"withdrawals": ()}, RejectionReason.WITHDRAWALS_WRONG),
        ({"timestamp_seconds": 7}, RejectionReason.TIMESTAMP_WRONG),
        ({"parent_hash": b"\x01" * 32}, RejectionReason.PAYLOAD_INVALID),
        ({"beacon_root": b"\x01" * 32}, RejectionReason.PAYLOAD_INVALID),
        ({"previous_randao": b"\x01" * 32}, RejectionReason.PAYLOAD_INVALID),
        ({"payload_hash": b"\x01" * 32}, RejectionReason.PAYLOAD_INVALID),
    ],
)
def test_a_payload_that_does_not_follow_is_refused(change: dict[str, object], reason: RejectionReason) -> None:
    node = chain_of()
    run_height(node)
    here = block_hash(node)
    won = node.builder.build_candidate(node.parent, "miner-1", 95)
    facts = node.builder.payloads[won.payload_hash]
    node.builder.payloads[won.payload_hash] = replace(facts, **change)  # type: ignore[arg-type]
    actions = node.receive(node.builder.build_block(node.parent, (won,)))
    assert RefuseBlock in [type(each) for each in actions]
    assert next(each.reason for each in actions if isinstance(each, RefuseBlock)) == reason.value
    assert block_hash(node) == here


def test_a_false_block_is_refused_for_its_count() -> None:
    node = chain_of()
    liar = node.builder.build_candidate(node.parent, "miner-1", 99)
    block = node.builder.build_block(node.parent, (liar,))
    node.builder.counts[liar.model.model_cid] = 60
    actions = node.receive(block)
    assert [each.reason for each in actions if isinstance(each, RefuseBlock)] == ["claim_not_exact"]


def test_a_miner_cannot_show_one_claim_to_judges_and_another_in_its_block() -> None:
    node, plan = chain_of(), HeightPlan({"miner-1": 95})
    found = open_height(node, plan)
    reveal_models(node, plan, found)
    honest = node.builder.build_block(node.parent, found)
    inflated = alter(
        honest,
        reveal=alter(honest.reveal, claim_correct=99),
        verdict=replace(
            honest.verdict,
            correct=99,
            entries=tuple(replace(each, claim_correct=99) for each in honest.verdict.entries),
        ),
    )
    actions = node.receive(inflated)
    assert [each.reason for each in actions if isinstance(each, RefuseBlock)] == ["claim_not_exact"]
    node.receive(honest)
    assert node.round.head.weight == 1


def test_a_false_first_claim_does_not_condemn_a_true_block() -> None:
    node, plan = chain_of(), HeightPlan({"miner-1": 95}, claims={"miner-1": 99})
    found = open_height(node, plan)
    reveal_models(node, plan, found)
    node.receive(node.builder.build_block(node.parent, found))
    assert node.round.head.weight == 1


def test_a_missing_payload_makes_a_block_wait_and_is_held_against_nobody() -> None:
    node = chain_of()
    won = node.builder.build_candidate(node.parent, "miner-1", 95)
    facts = node.builder.payloads.pop(won.payload_hash)
    actions = node.receive(node.builder.build_block(node.parent, (won,)))
    assert node.round.head.height == 0
    assert RefuseBlock not in [type(each) for each in actions]
    assert len(node.round.pending_blocks) == 1
    node.builder.payloads[won.payload_hash] = facts
    node.feed(MeasurementFinished(Measurement(won.key, MeasurementKind.PAYLOAD, Finding.ACCEPTED, facts=facts), 0))
    assert node.round.head.height == 1


def test_a_model_nobody_can_fetch_is_passed_over() -> None:
    node, plan = chain_of(), HeightPlan({"miner-1": 95, "miner-2": 97})
    found = open_height(node, plan)
    del node.builder.counts[found[1].model.model_cid]
    proposal = next(each for each in reveal_models(node, plan, found) if isinstance(each, ProposeBlock))
    assert proposal.verdict.winner == found[0].key
    outcomes = {each.commitment: each.outcome for each in proposal.verdict.entries}
    assert outcomes[found[1].key] is CandidateOutcome.UNREVEALED


def test_a_measurement_is_asked_for_once() -> None:
    node = chain_of()
    found = open_height(node, HeightPlan())
    reveal = RevealReceived(
        node.builder.build_reveal(node.parent, found[0]), node.round.selection.schedule.release_milliseconds
    )
    state, first = advance(node.round, reveal)
    assert [type(each) for each in first] == [MeasureCandidate]
    block = BlockReceived(node.builder.build_block(node.parent, found), 1 << 60)
    _, second = advance(state, block)
    assert second == ()


# --- tasks and money ---------------------------------------------------------------------------------------------


def chain_with_task(reward_wei: int = WEI_PER_ETHER) -> ScenarioNode:
    """A task posted in the payload of block 1 is recorded by block 2 and selected for block 3."""
    node = chain_of()
    task = build_sample_task("wanted", reward_wei)
    run_height(node, HeightPlan(posted_tasks=(task,)))
    assert node.parent.posted_tasks == (task,)
    assert node.parent.queued_tasks == ()
    assert node.round.selection.task.is_standing
    run_height(node)
    assert node.parent.queued_tasks == (task,)
    assert node.round.selection.posted_task == task
    return node


def kept_back(node: ScenarioNode) -> int:
    """Return what stands in for the bond that the winner of the last height had not deposited."""
    return sum(each.amount_gwei for each in node.parent.bonds.withheld if each.height == node.parent.height)


def assert_settled(node: ScenarioNode, outcome: Money, recipient: bytes) -> None:
    ledger = node.parent.ledger
    assert [(each.outcome, each.recipient) for each in node.parent.reward.settlements] == [(outcome, recipient)]
    assert ledger.locked_wei == 0
    assert ledger.escrowed_wei == ledger.paid_wei + ledger.refunded_wei + ledger.burned_wei
    assert node.parent.history.count == 1


def test_a_task_is_paid_at_its_accuracy() -> None:
    node = chain_with_task()
    run_height(node, HeightPlan({"miner-1": 90}))
    assert_settled(node, Money.PAID, address("miner-1"))
    assert node.parent.ledger.paid_wei == WEI_PER_ETHER
    assert node.round.selection.task.is_standing, "a settled task is not selected again"


def test_a_task_below_its_accuracy_is_refunded_and_the_block_still_counts() -> None:
    node = chain_with_task()
    run_height(node, HeightPlan({"miner-1": 89}))
    assert_settled(node, Money.REFUNDED, address("publisher-1"))
    assert node.round.head.weight == 3
    assert sum(each.amount_gwei for each in node.parent.reward.payouts) + kept_back(node) == 2_000_000_000


@pytest.mark.parametrize(
    ("missed", "outcome", "recipient"),
    [
        (Deadline.KEY, Money.STRUCK, b"\0" * 20),
        # Nobody committed, so nothing had to be released; what it costs to keep waiting miners is with the evidence.
        (Deadline.RELEASE, Money.REFUNDED, address("publisher-1")),
        (Deadline.COMMITMENT, Money.REFUNDED, address("publisher-1")),
        (Deadline.BLOCK, Money.REFUNDED, address("publisher-1")),
    ],
)
def test_a_task_that_nobody_finishes_is_settled(missed: Deadline, outcome: Money, recipient: bytes) -> None:
    node = chain_with_task()
    run_empty_height(node, missed)
    assert_settled(node, outcome, recipient)
    assert node.parent.ledger.burned_wei == (WEI_PER_ETHER // 100 if outcome is Money.STRUCK else 0)


def test_an_expired_task_is_dropped_and_refundable() -> None:
    node = chain_of()
    soon = node.round.selection.schedule.deadline(Deadline.BLOCK) // 1000 + 10
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("too late", deadline_seconds=soon),)))
    assert node.parent.ledger.locked_wei > 0
    run_height(node)
    run_height(node)
    assert (node.parent.queued_tasks, node.parent.ledger.locked_wei) == ((), 0)


def test_a_task_that_is_over_when_its_block_ends_is_refused() -> None:
    node = chain_of()
    over = node.round.selection.schedule.deadline(Deadline.BLOCK) // 1000
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("over", deadline_seconds=over),)))
    refused = [each for each in node.actions if isinstance(each, RefuseTask)]
    # The escrow of a task that was not admitted is refused after it.
    assert [each.reason for each in refused] == [RejectionReason.TASK_EXPIRED, RejectionReason.TASK_UNKNOWN]
    assert (node.parent.posted_tasks, node.parent.ledger.locked_wei) == ((), 0)


def test_rewards_are_withdrawn_one_block_late() -> None:
    node = chain_of()
    assert node.parent.next_withdrawals() == ()
    run_height(node, HeightPlan({"miner-3": 95}))
    due = node.parent.next_withdrawals()
    # A thousandth is kept back: the bond that the miner promised and had no coins to deposit.
    assert [(each.index, each.address, each.amount_gwei) for each in due] == [(0, address("miner-3"), 1_999_000_000)]
    block = run_height(node)
    assert node.builder.payloads[block.payload_hash].withdrawals == due
    assert [each.index for each in node.parent.next_withdrawals()] == [1]


def test_the_publishers_share_is_minted_and_capped_by_its_escrow() -> None:
    rich, poor = chain_with_task(50 * WEI_PER_ETHER), chain_with_task(WEI_PER_ETHER // 100)
    shares = []
    for node in (rich, poor):
        run_height(node)
        payouts = {name_of(each.recipient): each.amount_gwei for each in node.parent.reward.payouts}
        assert sum(payouts.values()) + kept_back(node) == 2_000_000_000
        shares.append(payouts["publisher-1"])
    assert shares == [2_000_000_000 * 1023 // 1024, 10_000_000]


def test_a_bad_task_is_the_publishers_loss_and_not_the_blocks() -> None:
    node = chain_of()
    bad = build_sample_task("free work", reward_wei=1)
    run_height(node, HeightPlan(posted_tasks=(bad,)))
    refusals = [each.reason for each in node.actions if isinstance(each, RefuseTask)]
    assert refusals == [RejectionReason.REWARD_TOO_LOW, RejectionReason.TASK_UNKNOWN]
    assert node.round.head.height == 1
    assert node.parent.ledger.escrowed_wei == 0


def test_the_escrow_pays_once_whatever_the_fork() -> None:
    node = chain_with_task()
    other = copy_of(node)
    run_height(node, HeightPlan({"miner-1": 95}))
    run_empty_height(other, Deadline.KEY)
    run_height(other)
    other.receive(stored(node)[-1])
    tips = [other.round.tree.state(tip) for tip in other.round.tree.leaves()]
    assert len(tips) == 2
    for state in tips:
        assert state.history.count == 1
        assert state.ledger.locked_wei == 0


def test_another_publishers_release_is_refused() -> None:
    node = chain_with_task()
    release = node.builder.build_key_release(node.parent)
    with pytest.raises(Rejected) as refusal:
        node.feed(KeyReleaseReceived(alter(release, "publisher-2"), 0))
    assert refusal.value.reason is RejectionReason.WRONG_SIGNATURE
    assert release_key("wanted") != release.key
    assert isinstance(node.feed(KeyReleaseReceived(release, 0))[0], TrainModel)


def test_an_empty_release_ends_the_height_by_its_commitment_deadline() -> None:
    node = chain_of()
    prepare(node, "opened")
    opens = node.round.selection.schedule.release_opens_milliseconds
    node.feed(ReleaseReceived(node.builder.build_announcement(node.parent, ()), opens))
    assert node.round.announcement is not None
    run_empty_height(node, Deadline.COMMITMENT)
    assert node.round.head.height == 1
    assert not isinstance(node.round.tree.records[block_hash(node)].block, Block)
