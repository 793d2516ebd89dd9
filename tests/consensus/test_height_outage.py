"""A height that the whole network slept through: its task goes back into the list; every other missed one settles."""

import pytest

from learnchain.consensus.state import is_task_requeued
from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.podl import Podl
from learnchain.engines.pole import Pole
from learnchain.protocol.messages import Block, Deadline
from learnchain.protocol.payload import SettlementOutcome
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, build_sample_parameters
from learnchain.simulation.sample_tasks import address, build_sample_task
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, run_height, start_from_genesis
from learnchain_conformance.bad_inputs import prepare


def chain_with_task(rules: Dlbc | Podl | Pole) -> ScenarioNode:
    """A chain whose next height trains a commissioned task."""
    node = start_from_genesis(ChainBuilder(rules, build_sample_parameters()))
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("wanted"),)))
    run_height(node)
    while node.round.selection.task.is_standing:
        run_height(node)
    return node


def windows_of_an_outage(node: ScenarioNode, missed: Deadline) -> int:
    """Return how many windows after a deadline an empty block ends at the earliest that ends an outage."""
    schedule, window = node.round.selection.schedule, node.builder.parameters.empty_window_milliseconds
    over = schedule.deadline(Deadline.BLOCK)
    earliest = schedule.deadline(missed) + window
    return -((earliest - 2 * over + schedule.start_milliseconds) // window)


@pytest.mark.parametrize("missed", [Deadline.KEY, Deadline.COMMITMENT, Deadline.RELEASE, Deadline.BLOCK])
def test_a_task_whose_height_everybody_slept_through_is_selected_again_and_paid(missed: Deadline) -> None:
    node = chain_with_task(Dlbc())
    task = node.round.selection.posted_task
    node.receive(node.builder.build_empty_block(node.parent, missed, windows=windows_of_an_outage(node, missed)))
    assert (node.parent.queued_tasks, node.parent.ongoing_task, node.parent.reward.settlements) == ((task,), (), ())
    assert node.parent.ledger.locked_wei == task.task.reward_wei + task.task.bond_wei
    assert node.round.selection.posted_task == task
    run_height(node, HeightPlan({"miner-2": 95}))
    paid = [(each.outcome, each.recipient) for each in node.parent.reward.settlements]
    assert paid == [(SettlementOutcome.PAID, address("miner-2"))]
    assert (node.parent.ledger.locked_wei, node.parent.ledger.paid_wei) == (0, WEI_PER_ETHER)


@pytest.mark.parametrize("rules", [Podl(), Pole()])
def test_other_engines_go_on_with_the_task_too(rules: Podl | Pole) -> None:
    node = chain_with_task(rules)
    task = node.round.selection.posted_task
    windows = windows_of_an_outage(node, Deadline.BLOCK)
    node.receive(node.builder.build_empty_block(node.parent, Deadline.BLOCK, windows=windows))
    assert node.round.selection.posted_task == task
    assert node.parent.reward.settlements == ()


@pytest.mark.parametrize(
    ("missed", "outcome"), [(Deadline.KEY, SettlementOutcome.STRUCK), (Deadline.COMMITMENT, SettlementOutcome.REFUNDED)]
)
def test_one_window_less_than_an_outage_settles(missed: Deadline, outcome: SettlementOutcome) -> None:
    node = chain_with_task(Dlbc())
    node.receive(node.builder.build_empty_block(node.parent, missed, windows=windows_of_an_outage(node, missed) - 1))
    assert [each.outcome for each in node.parent.reward.settlements] == [outcome]
    assert (node.parent.queued_tasks, node.parent.ledger.locked_wei) == ((), 0)


def test_a_height_with_commitments_settles_however_long_it_lay() -> None:
    node = chain_with_task(Dlbc())
    parent = node.parent
    prepare(node, "committed")
    block = node.builder.build_empty_block(parent, Deadline.BLOCK, windows=windows_of_an_outage(node, Deadline.BLOCK))
    assert is_task_requeued(node.round.selection, block)
    listed = tuple(node.round.commitments.values())
    assert len(listed) == 1
    node.receive(
        node.builder.reseal(parent, block, commitments=listed, queued_tasks=node.builder.list_queued_tasks(parent))
    )
    assert [each.outcome for each in node.parent.reward.settlements] == [SettlementOutcome.REFUNDED]


def test_a_list_without_the_returned_task_is_refused() -> None:
    node = chain_with_task(Dlbc())
    block = node.builder.build_empty_block(node.parent, Deadline.KEY, windows=windows_of_an_outage(node, Deadline.KEY))
    with pytest.raises(Rejected) as refused:
        node.receive(node.builder.reseal(node.parent, block, queued_tasks=()))
    assert refused.value.reason is RejectionReason.QUEUED_TASKS_WRONG


def test_a_task_that_expired_during_the_outage_is_dropped_and_refundable() -> None:
    node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters()))
    schedule = node.round.selection.schedule
    interval = schedule.deadline(Deadline.BLOCK) - schedule.start_milliseconds
    soon = (schedule.start_milliseconds + 10 * interval) // 1000
    run_height(node, HeightPlan(posted_tasks=(build_sample_task("soon", deadline_seconds=soon),)))
    run_height(node)
    assert not node.round.selection.task.is_standing
    window = node.builder.parameters.empty_window_milliseconds
    node.receive(node.builder.build_empty_block(node.parent, Deadline.KEY, windows=20 * interval // window))
    assert node.round.selection.task.is_standing
    assert isinstance(run_height(node), Block)
    assert (node.parent.queued_tasks, node.parent.ledger.locked_wei) == ((), 0)
