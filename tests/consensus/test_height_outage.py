"""A height that the whole network slept through: its task goes back into the list; every other missed one settles."""

import pytest

from learnchain.consensus.state import returns_task
from learnchain.encoding.numbers import WEI_PER_ETHER
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.podl import Podl
from learnchain.engines.pole import Pole
from learnchain.protocol.messages import Block, Deadline
from learnchain.protocol.payload import Outcome
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, sample_parameters
from learnchain.simulation.sample_tasks import address, sample_task
from learnchain.simulation.scenario import Observer, Plan, observe, play_height
from learnchain_conformance.bad_inputs import prepare


def chain_with_task(rules: Dlbc | Podl | Pole) -> Observer:
    """A chain whose next height trains a commissioned task."""
    node = observe(ChainBuilder(rules, sample_parameters()))
    play_height(node, Plan(posted=(sample_task("wanted"),)))
    play_height(node)
    while node.round.selection.task.standing:
        play_height(node)
    return node


def windows_of_an_outage(node: Observer, missed: Deadline) -> int:
    """Return how many windows after a deadline an empty block ends at the earliest that ends an outage."""
    schedule, window = node.round.selection.schedule, node.builder.parameters.empty_window_milliseconds
    over = schedule.deadline(Deadline.BLOCK)
    earliest = schedule.deadline(missed) + window
    return -((earliest - 2 * over + schedule.start_milliseconds) // window)


@pytest.mark.parametrize("missed", [Deadline.KEY, Deadline.COMMITMENT, Deadline.RELEASE, Deadline.BLOCK])
def test_a_task_whose_height_everybody_slept_through_is_selected_again_and_paid(missed: Deadline) -> None:
    node = chain_with_task(Dlbc())
    task = node.round.selection.posted
    node.receive(node.builder.empty_block(node.parent, missed, windows=windows_of_an_outage(node, missed)))
    assert (node.parent.pool, node.parent.going_on, node.parent.reward.settlements) == ((task,), (), ())
    assert node.parent.ledger.locked_wei == task.task.reward_wei + task.task.bond_wei
    assert node.round.selection.posted == task
    play_height(node, Plan({"miner-2": 95}))
    paid = [(each.outcome, each.recipient) for each in node.parent.reward.settlements]
    assert paid == [(Outcome.PAID, address("miner-2"))]
    assert (node.parent.ledger.locked_wei, node.parent.ledger.paid_wei) == (0, WEI_PER_ETHER)


@pytest.mark.parametrize("rules", [Podl(), Pole()])
def test_other_engines_go_on_with_the_task_too(rules: Podl | Pole) -> None:
    node = chain_with_task(rules)
    task = node.round.selection.posted
    windows = windows_of_an_outage(node, Deadline.BLOCK)
    node.receive(node.builder.empty_block(node.parent, Deadline.BLOCK, windows=windows))
    assert node.round.selection.posted == task
    assert node.parent.reward.settlements == ()


@pytest.mark.parametrize(
    ("missed", "outcome"), [(Deadline.KEY, Outcome.STRUCK), (Deadline.COMMITMENT, Outcome.REFUNDED)]
)
def test_one_window_less_than_an_outage_settles(missed: Deadline, outcome: Outcome) -> None:
    node = chain_with_task(Dlbc())
    node.receive(node.builder.empty_block(node.parent, missed, windows=windows_of_an_outage(node, missed) - 1))
    assert [each.outcome for each in node.parent.reward.settlements] == [outcome]
    assert (node.parent.pool, node.parent.ledger.locked_wei) == ((), 0)


def test_a_height_with_commitments_settles_however_long_it_lay() -> None:
    node = chain_with_task(Dlbc())
    parent = node.parent
    prepare(node, "committed")
    block = node.builder.empty_block(parent, Deadline.BLOCK, windows=windows_of_an_outage(node, Deadline.BLOCK))
    assert returns_task(node.round.selection, block)
    listed = tuple(node.round.commitments.values())
    assert len(listed) == 1
    node.receive(node.builder.resealed(parent, block, commitments=listed, unselected=node.builder.unselected(parent)))
    assert [each.outcome for each in node.parent.reward.settlements] == [Outcome.REFUNDED]


def test_a_list_without_the_returned_task_is_refused() -> None:
    node = chain_with_task(Dlbc())
    block = node.builder.empty_block(node.parent, Deadline.KEY, windows=windows_of_an_outage(node, Deadline.KEY))
    with pytest.raises(Rejected) as refused:
        node.receive(node.builder.resealed(node.parent, block, unselected=()))
    assert refused.value.reason is RejectionReason.UNSELECTED_LIST_WRONG


def test_a_task_that_expired_during_the_outage_is_dropped_and_refundable() -> None:
    node = observe(ChainBuilder(Dlbc(), sample_parameters()))
    schedule = node.round.selection.schedule
    interval = schedule.deadline(Deadline.BLOCK) - schedule.start_milliseconds
    soon = (schedule.start_milliseconds + 10 * interval) // 1000
    play_height(node, Plan(posted=(sample_task("soon", deadline_seconds=soon),)))
    play_height(node)
    assert not node.round.selection.task.standing
    window = node.builder.parameters.empty_window_milliseconds
    node.receive(node.builder.empty_block(node.parent, Deadline.KEY, windows=20 * interval // window))
    assert node.round.selection.task.standing
    assert isinstance(play_height(node), Block)
    assert (node.parent.pool, node.parent.ledger.locked_wei) == ((), 0)
