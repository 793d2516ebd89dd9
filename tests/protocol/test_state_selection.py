"""What is assigned to whom: one race for everybody, or work for many at once in the messages that a race has."""

from dataclasses import dataclass, replace

import pytest
from typing_extensions import override

from learnchain.encoding.cryptography import message_hash
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.events import BlockReceived, CommitmentReceived
from learnchain.protocol.messages import CandidateOutcome
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import Assignment, ChainState, PostedTask, Selection
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.sample_tasks import address, build_sample_task
from learnchain.simulation.scenario import HeightPlan, ScenarioNode, open_height, run_height, start_from_genesis

BOTH = HeightPlan({"miner-1": 95, "miner-2": 93})


@dataclass(frozen=True, slots=True)
class TwoAtOnce(Dlbc):
    """DLBC, but as soon as two tasks wait each goes to a miner of its own."""

    @override
    def select_task(self, parent: ChainState, parameters: ChainParameters) -> Selection:
        race = Dlbc.select_task(self, parent, parameters)
        if len(parent.queued_tasks) < 2:
            return race
        shared = zip(parent.queued_tasks, ("miner-1", "miner-2"), strict=False)
        return replace(race, assignments=tuple(Assignment(task, (address(miner),)) for task, miner in shared))


def start_two_tasks() -> tuple[ScenarioNode, tuple[PostedTask, ...]]:
    """Return a node at the height at which two tasks are assigned at once."""
    tasks = tuple(build_sample_task(name) for name in ("first", "second"))
    node = start_from_genesis(ChainBuilder(TwoAtOnce(), build_sample_parameters()))
    run_height(node, HeightPlan({"miner-1": 95}, posted_tasks=tasks))
    run_height(node, HeightPlan({"miner-1": 95}))
    return node, tuple(each.posted_task for each in node.round.selection.assignments)


def test_a_race_is_one_assignment_for_everybody() -> None:
    selection = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters())).round.selection
    assert len(selection.assignments) == 1
    assert (
        selection.select_assignment(address("miner-1")) is selection.select_assignment(address("miner-3")) is selection
    )


def test_a_miner_reads_its_own_assignment_alone() -> None:
    node, tasks = start_two_tasks()
    assert len(tasks) == 2
    for miner, posted in zip(("miner-1", "miner-2"), tasks, strict=True):
        own = node.round.selection.select_assignment(address(miner))
        assert own is not None
        assert (own.posted_task, own.assignments) == (posted, (Assignment(posted, (address(miner),)),))
    assert node.round.selection.select_assignment(address("miner-3")) is None


def test_a_commitment_to_what_is_assigned_to_another_miner_is_refused() -> None:
    node, tasks = start_two_tasks()
    own = node.builder.build_candidate(node.parent, "miner-2", 93).commitment
    start = node.round.selection.schedule.start_milliseconds
    stranger = node.builder.build_candidate(node.parent, "miner-3", 99).commitment
    for wrong in (alter(own, task_id=tasks[0].task.task_id), stranger):
        with pytest.raises(Rejected) as refusal:
            node.feed(CommitmentReceived(wrong, start + 1))
        assert refusal.value.reason is RejectionReason.WRONG_TASK
    node.feed(CommitmentReceived(own, start + 1))
    assert message_hash(own) in node.round.commitments


def test_one_verdict_speaks_of_every_assignment_and_no_assigned_task_stays_in_the_list() -> None:
    node, tasks = start_two_tasks()
    block = run_height(node, BOTH)
    assert [each.task_id for each in sorted(block.commitments, key=lambda each: each.miner)] == [
        posted.task.task_id for _, posted in sorted(zip(map(address, BOTH.correct), tasks, strict=True))
    ]
    assert [each.commitment for each in block.verdict.entries] == [message_hash(each) for each in block.commitments]
    assert {each.outcome for each in block.verdict.entries} == {CandidateOutcome.WINNER, CandidateOutcome.LOWER_CLAIM}
    assert block.queued_tasks == ()
    record = node.parent.bonds.height_records[-1]
    assert set(record.task_ids) == {each.task.task_id for each in tasks}
    assert [each.task for each in node.parent.ongoing_task] == [tasks[1].task]


def test_a_verdict_that_leaves_out_an_assignment_is_refused() -> None:
    node, _ = start_two_tasks()
    found = open_height(node, BOTH)
    block = node.builder.build_block(node.parent, found)
    partial = replace(block.verdict, entries=tuple(e for e in block.verdict.entries if e.commitment == found[0].key))
    with pytest.raises(Rejected) as refusal:
        node.feed(BlockReceived(alter(block, verdict=partial), block.end_milliseconds))
    assert refusal.value.reason is RejectionReason.VERDICT_WRONG
