"""A task over several blocks: how it goes on, when it ends, who is paid, and what overlaps what."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnchain.encoding.codec import Accuracy
from learnchain.engines.contract import Lookahead
from learnchain.engines.podl import Podl, TwoPhases
from learnchain.engines.podl.multi_block_progress import StoppingRule, decode_memory
from learnchain.engines.podl.parts import baseline_count, encode_baseline
from learnchain.engines.podl.scenario import PODL, PODL_BAD_INPUTS, build_multi_block_task, run_blocks, start_podl_node
from learnchain.protocol.actions import MeasureCandidate, ProposeBlock, RefuseBlock
from learnchain.protocol.events import BlockReceived
from learnchain.protocol.measurement import MeasurementKind
from learnchain.protocol.messages import Block, CandidateOutcome, Deadline
from learnchain.protocol.payload import SettlementOutcome as Settled
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.sample_tasks import FAR_DEADLINE_SECONDS, address, build_sample_specification
from learnchain.simulation.scenario import (
    HeightPlan,
    ScenarioNode,
    open_height,
    reveal_models,
    run_empty_height,
    run_height,
)
from learnchain_conformance.bad_inputs import BadInput, prepare


def settled(node: ScenarioNode) -> list[tuple[Settled, bytes]]:
    """Return how the block settled its task; who had committed to a struck one also has a share of its bond."""
    found = [(each.outcome, each.recipient) for each in node.parent.reward.settlements]
    shares = [each for each in found if each[0] is Settled.SLASHED]
    assert not shares or found[0][0] is Settled.STRUCK
    return [each for each in found if each not in shares]


def name(node: ScenarioNode) -> str:
    return node.round.selection.posted_task.specification.name


def lookahead(node: ScenarioNode) -> Lookahead | None:
    return PODL.parts.lookahead(node.parent, node.round.selection, node.builder.parameters)


# --- how a task goes on ------------------------------------------------------------------------------------------


def test_a_task_spans_blocks_each_with_the_next_test_set_until_the_last() -> None:
    node = run_blocks(())
    tests = node.round.selection.posted_task.specification.data.test_sets
    for turn in range(4):
        selection = node.round.selection
        assert (name(node), selection.position.block_index, selection.test_set) == ("wanted", turn, tests[turn])
        assert bool(PODL.parts.baseline_model(selection)) == (turn > 0)
        assert (lookahead(node) is not None) == (turn < 3)
        run_height(node, HeightPlan({"miner-1": 91 + turn}))
    assert settled(node) == [(Settled.PAID, address("miner-1"))]
    assert name(node) == "standing"


def test_seeds_follow_the_selecting_block_and_the_block_before_the_last() -> None:
    node = run_blocks(())
    origin = node.parent.block_hash
    for _ in range(3):
        course, before = node.round.selection.position, lookahead(node)
        assert course.initialisation_seed == origin
        assert course.batch_order_seed == node.parent.parent
        run_height(node, HeightPlan({"miner-1": 91 + node.parent.height}))
        if node.round.selection.position.block_index:
            assert before is not None
            assert node.round.selection.position == before.position
            assert node.round.selection.schedule.commitment_milliseconds == before.commitment_milliseconds


def test_the_champion_is_counted_on_the_winners_test_set_and_stays_when_it_is_better() -> None:
    node = run_blocks((95,))
    block = run_height(node, HeightPlan({"miner-2": 80}))
    assert (block.verdict.correct, *baseline_count(block.verdict)) == (80, 95, 100)
    progress = decode_memory(node.parent.reward.memory)
    assert progress is not None
    assert (progress.best_miner, progress.best_correct, progress.stalled_blocks) == (address("miner-1"), 95, 1)
    measured = [each.request.kind for each in node.actions if isinstance(each, MeasureCandidate)]
    assert measured.count(MeasurementKind.BASELINE) == 2


def test_a_gain_forgets_stalled_blocks() -> None:
    node = run_blocks((90, 90, 95))
    progress = decode_memory(node.parent.reward.memory)
    assert progress is not None
    assert progress.stalled_blocks == 0


def test_a_standing_task_makes_room_for_whoever_pays() -> None:
    node = start_podl_node()
    run_height(node, HeightPlan({"miner-1": 91}, posted_tasks=(build_multi_block_task("wanted"),)))
    assert (name(node), node.round.selection.position.block_index) == ("standing", 1)
    run_height(node, HeightPlan({"miner-1": 92}))
    assert (name(node), node.round.selection.position.block_index, node.round.selection.memory) == ("wanted", 0, b"")


def test_nobody_trains_a_standing_task_on_that_makes_room_with_the_next_block() -> None:
    node = start_podl_node()
    assert lookahead(node) is not None
    run_height(node, HeightPlan({"miner-1": 91}, posted_tasks=(build_multi_block_task("wanted"),)))
    assert (name(node), lookahead(node)) == ("standing", None)
    run_height(node, HeightPlan({"miner-1": 92}))
    assert (name(node), lookahead(node) is not None) == ("wanted", True)


def test_a_posted_task_that_comes_too_late_takes_no_head_start_away() -> None:
    node = start_podl_node()
    soon = node.parent.end_milliseconds // 1000 + 1_400
    run_height(
        node, HeightPlan({"miner-1": 91}, posted_tasks=(build_multi_block_task("hopeless", deadline_seconds=soon),))
    )
    assert node.parent.posted_tasks
    assert (name(node), lookahead(node) is not None) == ("standing", True)
    run_height(node, HeightPlan({"miner-1": 92}))
    assert (name(node), node.round.selection.position.block_index) == ("standing", 2)


def test_a_claim_counts_the_set_of_its_own_block_whatever_the_sizes_of_the_others() -> None:
    posted = build_multi_block_task("uneven")
    data = posted.specification.data
    shorter = replace(data.later_test_sets[0], rows=60)
    specification = replace(
        posted.specification, data=replace(data, later_test_sets=(shorter, *data.later_test_sets[1:]))
    )
    PODL.admit_task(posted.task, specification, start_podl_node().builder.parameters)
    specification.check_claim(Accuracy(60, 60), 1)
    for total, turn in ((100, 1), (60, 0), (60, 2), (0, 1)):
        with pytest.raises(Rejected) as refusal:
            specification.check_claim(Accuracy(0, total), turn)
        assert refusal.value.reason is RejectionReason.CLAIM_OUT_OF_RANGE


def test_requesters_are_served_in_the_order_of_posting() -> None:
    node = start_podl_node()
    run_height(node, HeightPlan(posted_tasks=(build_multi_block_task("early", tests=1, posted_height=1),)))
    run_height(node, HeightPlan(posted_tasks=(build_multi_block_task("late", tests=1, posted_height=2),)))
    assert name(node) == "early"
    run_height(node)
    assert name(node) == "late"


# --- when it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corrects", "outcome", "winner"),
    [
        ((95, 95, 95), Settled.PAID, "miner-1"),
        ((95, 60, 70), Settled.PAID, "miner-1"),
        ((80, 80, 80), Settled.REFUNDED, "publisher-1"),
        ((80, 81, 82, 95), Settled.PAID, "miner-1"),
    ],
)
def test_the_requester_collects_when_nothing_is_gained_any_more(
    corrects: tuple[int, ...], outcome: Settled, winner: str
) -> None:
    node = run_blocks(corrects)
    assert settled(node) == [(outcome, address(winner))]
    assert node.parent.ongoing_task == ()
    assert node.parent.ledger.locked_wei == 0


def test_the_reward_goes_to_the_champions_miner_though_others_won_later_blocks() -> None:
    node = run_blocks((95,))
    run_height(node, HeightPlan({"miner-2": 95}))
    run_height(node, HeightPlan({"miner-3": 94}))
    assert settled(node) == [(Settled.PAID, address("miner-1"))]
    assert [each.recipient for each in node.parent.reward.payouts] == [address("miner-3")]


def test_a_task_ends_before_its_deadline_can_pass() -> None:
    node = start_podl_node()
    # Three heights from the end of block 2 there is no time for a fourth with its claim.
    deadline = (node.parent.end_milliseconds + 4 * 660_000) // 1000
    run_height(node, HeightPlan(posted_tasks=(build_multi_block_task("hurried", deadline_seconds=deadline),)))
    run_height(node)
    assert name(node) == "hurried"
    run_height(node, HeightPlan({"miner-1": 95}))
    assert settled(node) == [(Settled.PAID, address("miner-1"))]
    assert deadline * 1000 > node.parent.end_milliseconds


@pytest.mark.parametrize(
    ("corrects", "missed", "outcome", "recipient"),
    [
        ((95,), Deadline.RELEASE, Settled.PAID, "miner-1"),
        ((95,), Deadline.COMMITMENT, Settled.PAID, "miner-1"),
        ((80,), Deadline.RELEASE, Settled.STRUCK, ""),
        ((80,), Deadline.COMMITMENT, Settled.REFUNDED, "publisher-1"),
        ((), Deadline.KEY, Settled.STRUCK, ""),
    ],
)
def test_a_missed_height_ends_the_task(
    corrects: tuple[int, ...], missed: Deadline, outcome: Settled, recipient: str
) -> None:
    node = run_blocks(corrects)
    if missed is Deadline.RELEASE:
        prepare(node, "committed")
    elif missed is Deadline.COMMITMENT:
        prepare(node, "opened")
    run_empty_height(node, missed)
    assert settled(node) == [(outcome, address(recipient) if recipient else b"\0" * 20)]
    assert node.parent.ledger.locked_wei == 0
    assert (name(node), node.round.selection.position.block_index) == ("standing", 0)


def test_money_of_a_task_that_goes_on_stays_locked() -> None:
    node = run_blocks((95,))
    task = node.round.selection.task
    assert node.parent.ledger.locked_wei == task.reward_wei + task.bond_wei
    assert [each.task for each in node.parent.ongoing_task] == [task]


MISSED_AT = {
    Deadline.KEY: "begun",
    Deadline.COMMITMENT: "opened",
    Deadline.RELEASE: "committed",
    Deadline.REVEAL: "released",
}
Turn = tuple[str, int] | Deadline
TURNS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["miner-1", "miner-2", "miner-3"]), st.integers(80, 100)),
        st.sampled_from(sorted(MISSED_AT)),
    ),
    min_size=4,
    max_size=4,
)


def expected_ending(turns: list[Turn]) -> tuple[int, Settled, str]:
    """Say after how many blocks the task ends, how, and who gets the reward: readings PODL-R1, R4 and R6 once more."""
    champion, stalled = ("", -1), 0
    for number, turn in enumerate(turns, 1):
        if isinstance(turn, Deadline):
            silent = turn in (Deadline.KEY, Deadline.RELEASE)
            return (number, *_reward(champion, Settled.STRUCK if silent else Settled.REFUNDED))
        gains = turn[1] > champion[1]
        champion, stalled = (turn, 0) if gains else (champion, stalled + 1)
        if stalled == 2 or number == 4:
            return (number, *_reward(champion, Settled.REFUNDED))
    raise AssertionError("four turns end every task of four test sets")


def _reward(champion: tuple[str, int], otherwise: Settled) -> tuple[Settled, str]:
    if champion[1] >= 90:
        return Settled.PAID, champion[0]
    return otherwise, "" if otherwise is Settled.STRUCK else "publisher-1"


def earned_before(node: ScenarioNode) -> int:
    return node.parent.ledger.minted_gwei + sum(each.amount_gwei for each in node.parent.bonds.withheld)


@settings(max_examples=100, deadline=None)
@given(TURNS)
def test_every_ending_settles_the_task_once_and_keeps_every_coin(turns: list[Turn]) -> None:
    node = run_blocks(())
    task = node.round.selection.task
    escrowed, earned = task.reward_wei + task.bond_wei, earned_before(node)
    length, outcome, recipient = expected_ending(turns)
    for number, turn in enumerate(turns[:length], 1):
        assert node.parent.ledger.locked_wei == escrowed
        if isinstance(turn, Deadline):
            prepare(node, MISSED_AT[turn])
            run_empty_height(node, turn)
        else:
            run_height(node, HeightPlan({turn[0]: turn[1]}))
            earned += node.builder.parameters.block_reward_gwei
        assert bool(node.parent.reward.settlements) == (number == length)
    assert settled(node) == [(outcome, address(recipient) if recipient else b"\0" * 20)]
    ledger = node.parent.ledger
    assert ledger.locked_wei == 0
    # What miners promised as bonds without depositing it is kept back from what they earned.
    assert ledger.minted_gwei + sum(each.amount_gwei for each in node.parent.bonds.withheld) == earned
    paid = task.reward_wei if outcome is Settled.PAID else 0
    burned = task.bond_wei if outcome is Settled.STRUCK else 0
    assert (ledger.paid_wei, ledger.burned_wei + ledger.compensated_wei) == (paid, burned)
    assert ledger.escrowed_wei == ledger.paid_wei + ledger.refunded_wei + burned == escrowed
    assert (name(node), node.round.selection.position.block_index) == ("standing", 0)


# --- phases ------------------------------------------------------------------------------------------------------


@given(st.integers(2_000, 10**7), st.integers(4, 10**6), st.integers(1, 4))
def test_phase_one_overlaps_the_last_phase_two_and_the_interval_is_phase_one(one: int, two: int, turn: int) -> None:
    if two + 2 > one:
        one, two = max(one, two) + 2, min(one, two)
    phases = TwoPhases(one, two, 1, 1, 2)
    phases.check()
    parent = start_podl_node().parent
    first = phases.schedule_height(parent, 0)
    after = replace(parent, end_milliseconds=first.deadline(Deadline.BLOCK))
    then = phases.schedule_height(after, turn)
    assert then.start_milliseconds == first.commitment_milliseconds
    assert then.deadline(Deadline.BLOCK) - first.deadline(Deadline.BLOCK) == one
    assert then.commitment_milliseconds > first.deadline(Deadline.BLOCK)
    assert then.start_milliseconds < first.deadline(Deadline.BLOCK)


@pytest.mark.parametrize(
    "rules",
    [
        replace(PODL, phases=TwoPhases(600_000, 600_000, 60_000, 15_000, 35_000)),
        replace(PODL, phases=TwoPhases(600_000, 60_000, 540_000, 15_000, 35_000)),
        replace(PODL, phases=TwoPhases(600_000, 60_000, 60_000, 35_000, 15_000)),
        replace(PODL, phases=TwoPhases(600_000, 30_000, 60_000, 15_000, 20_000)),
        replace(PODL, stopping=StoppingRule(50, 0)),
        replace(PODL, model_bits=16),
    ],
)
def test_a_genesis_that_cannot_run_is_refused(rules: Podl) -> None:
    with pytest.raises(Rejected) as refusal:
        rules.check_parameters(build_sample_parameters())
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


# --- judging -----------------------------------------------------------------------------------------------------


def test_full_nodes_stop_at_the_first_true_claim() -> None:
    node = start_podl_node()
    plan = HeightPlan({"miner-1": 95, "miner-2": 97, "miner-3": 80}, claims={"miner-2": 99})
    block = run_height(node, plan)
    counted = [each for each in node.actions if isinstance(each, MeasureCandidate)]
    kinds = [each.request.kind for each in counted if each.request.kind is MeasurementKind.COUNT]
    assert len(kinds) == 2
    outcomes = {each.miner: each.outcome for each in block.verdict.entries}
    assert outcomes == {
        address("miner-1"): CandidateOutcome.WINNER,
        address("miner-2"): CandidateOutcome.REJECTED,
        address("miner-3"): CandidateOutcome.LOWER_CLAIM,
    }


def test_ties_go_to_the_lower_commitment() -> None:
    node = start_podl_node()
    block = run_height(node, HeightPlan({"miner-1": 95, "miner-2": 95}))
    assert block.verdict.winner == min(each.commitment for each in block.verdict.entries)


def test_without_its_champion_nobody_proposes() -> None:
    node = run_blocks((95,))
    del node.builder.counts[PODL.parts.baseline_model(node.round.selection)]
    plan = HeightPlan({"miner-1": 96})
    actions = reveal_models(node, plan, open_height(node, plan))
    assert not any(isinstance(each, ProposeBlock) for each in actions)


def test_a_block_that_counts_the_champion_wrongly_is_refused() -> None:
    node = run_blocks((95,))
    builder, parent = node.builder, node.parent
    block = builder.build_block(parent, (builder.build_candidate(parent, "miner-1", 96),))
    wrong = alter(block, verdict=replace(block.verdict, engine=encode_baseline(94, 100)))
    actions = node.receive(wrong)
    refused = [each.reason for each in actions if isinstance(each, RefuseBlock)]
    assert refused == [RejectionReason.BASELINE_NOT_EXACT.value]
    node.receive(block)
    assert node.parent.height == parent.height + 1


# --- bad inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", PODL_BAD_INPUTS, ids=lambda each: each.name)
def test_bad_input_is_refused_and_the_height_goes_on(wrong: BadInput) -> None:
    node = start_podl_node()
    event = wrong.make(node, prepare(node, wrong.stage))
    before = repr(node.round)
    with pytest.raises(Rejected) as refusal:
        node.feed(event)
    assert refusal.value.reason is wrong.reason
    assert repr(node.round) == before
    height, builder, parent = node.parent.height, node.builder, node.parent
    block = builder.build_block(parent, (builder.build_candidate(parent, "miner-1", 95),))
    node.feed(BlockReceived(block, block.end_milliseconds))
    assert isinstance(node.round.tree.records[node.round.head.block].block, Block)
    assert node.parent.height == height + 1


def test_a_task_of_one_test_set_ends_in_one_block() -> None:
    builder = ChainBuilder(PODL)
    assert len(build_sample_specification("x").data.test_sets) == 1
    genesis = builder.build_genesis()
    selection = builder.select_task(genesis)
    assert PODL.parts.lookahead(genesis, selection, builder.parameters) is None
    assert selection.schedule.deadline(Deadline.BLOCK) < FAR_DEADLINE_SECONDS * 1000
