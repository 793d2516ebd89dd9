"""Empty blocks that lost: what a tree keeps of them is bounded, and nothing that fork choice needs is lost."""

from collections.abc import Iterable

import pytest

from learnchain.consensus import advance
from learnchain.consensus.blocks import MAXIMUM_PENDING_EMPTY_SIBLINGS
from learnchain.consensus.fork_choice import (
    EMPTY_DEPTH_FACTOR,
    MAXIMUM_SIDE_SIBLINGS,
    find_side_branches,
    maximum_side_branches,
)
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.actions import ForgetBlocks, StoreBlock
from learnchain.protocol.events import BlockReceived, MeasurementFinished
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind
from learnchain.protocol.messages import Block, Deadline, EmptyBlock, empty_block_tie_breaker
from learnchain.protocol.state import ChainState
from learnchain.rejection import Unavailable
from learnchain.simulation.chain_builder import ChainBuilder, build_sample_parameters
from learnchain.simulation.sample_tasks import PEOPLE, address
from learnchain.simulation.scenario import ScenarioNode, run_height, start_from_genesis

LATER = 1 << 60


def chain_of(**changes: int) -> ScenarioNode:
    return start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters(**changes)))


def copy_of(node: ScenarioNode) -> ScenarioNode:
    return ScenarioNode(node.builder, node.round)


def rivals(node: ScenarioNode, parent: ChainState, missed: Deadline = Deadline.KEY) -> list[EmptyBlock]:
    """Empty blocks of everybody on one parent, the lowest ticket first."""
    found = [node.builder.build_empty_block(parent, missed, name) for name in PEOPLE]
    return sorted(found, key=lambda each: empty_block_tie_breaker(each.parent, each.proposer))


def receive_all(node: ScenarioNode, blocks: Iterable[EmptyBlock]) -> None:
    for block in blocks:
        node.receive(block)


def empties(node: ScenarioNode) -> int:
    return sum(isinstance(record.block, EmptyBlock) for record in node.round.tree.records.values())


def on_disk(node: ScenarioNode) -> set[bytes]:
    """What the actions, carried out in their order, leave on disk."""
    kept: set[bytes] = set()
    for each in node.actions:
        if isinstance(each, StoreBlock):
            kept.add(each.state.block_hash)
        elif isinstance(each, ForgetBlocks):
            kept -= {message_hash(block) for block in each.blocks}
    return kept


def test_of_many_rivals_the_head_and_the_lowest_tickets_stay_whatever_the_order() -> None:
    first = chain_of()
    second = copy_of(first)
    blocks = rivals(first, first.parent)
    receive_all(first, reversed(blocks))
    receive_all(second, blocks)
    hashes = [message_hash(each) for each in blocks]
    lowest = set(hashes[: MAXIMUM_SIDE_SIBLINGS + 1])
    assert len(blocks) > len(lowest) + 1
    assert first.round.head.block == second.round.head.block == hashes[0]
    # Beside the lowest stays what came last.
    assert set(first.round.tree.records) == {first.round.tree.root, *lowest}
    assert set(second.round.tree.records) == {second.round.tree.root, *lowest, hashes[-1]}
    for node in (first, second):
        assert on_disk(node) == set(node.round.tree.records) - {node.round.tree.root}


def test_one_signer_takes_one_place() -> None:
    node = chain_of()
    blocks = rivals(node, node.parent)
    receive_all(node, blocks[:3])
    loser = next(name for name in PEOPLE if address(name) == blocks[2].proposer)
    parent = node.round.tree.state(blocks[0].parent)
    more = [node.builder.build_empty_block(parent, Deadline.KEY, loser, windows=number) for number in range(1, 6)]
    receive_all(node, more)
    of_loser = [
        record.block.end_milliseconds
        for record in node.round.tree.records.values()
        if isinstance(record.block, EmptyBlock) and record.block.proposer == address(loser)
    ]
    # The lower hash of those before, and the one that came last.
    assert len(of_loser) == 2
    assert more[-1].end_milliseconds in of_loser


def test_a_forgotten_block_comes_again_with_the_trained_block_on_it_and_leads() -> None:
    node = chain_of()
    there = copy_of(node)
    blocks = rivals(node, node.parent)
    there.receive(blocks[-2])
    run_height(there)
    trained = there.round.tree.records[there.round.head.block].block
    receive_all(node, [blocks[-2], blocks[-1], *blocks[:-2]])
    assert message_hash(blocks[-2]) not in node.round.tree
    node.receive(blocks[-2])
    assert isinstance(trained, Block)
    node.receive(trained)
    assert node.round.head.block == there.round.head.block
    # What it rests on is not forgotten any more, however many come.
    later = [
        node.builder.build_empty_block(node.builder.build_genesis(), Deadline.KEY, "stranger", number)
        for number in (1, 2, 3)
    ]
    receive_all(node, later)
    assert message_hash(blocks[-2]) in node.round.tree


def test_a_tree_of_losers_on_losers_is_bounded_and_the_branch_that_is_being_fetched_is_not_cut() -> None:
    node = chain_of(finality_depth=2)
    limit = maximum_side_branches(2)
    start = node.parent
    best, other = rivals(node, start)[:2]
    node.receive(best)
    other_side = [other]
    node.receive(other)
    parents = [node.round.tree.state(message_hash(other))]
    while empties(node) < limit + 1:
        wide = rivals(node, parents[-1])
        receive_all(node, wide[:MAXIMUM_SIDE_SIBLINGS])
        other_side.append(wide[0])
        parents.append(node.round.tree.state(message_hash(wide[0])))
    deepest = parents[-1]
    for name in PEOPLE:
        node.receive(node.builder.build_empty_block(deepest, Deadline.RELEASE, name))
        assert empties(node) <= limit + 1
    assert all(message_hash(each) in node.round.tree for each in other_side)
    assert len(find_side_branches(node.round.tree, (node.round.head.block,))) <= limit


def test_losers_below_the_final_block_leave_the_disk() -> None:
    node = chain_of(finality_depth=2)
    blocks = rivals(node, node.parent)[:4]
    receive_all(node, blocks)
    for _ in range(4):
        run_height(node)
    assert node.round.tree.root not in {message_hash(each) for each in blocks[1:]}
    assert not on_disk(node) & {message_hash(each) for each in blocks[1:]}
    assert message_hash(blocks[0]) in on_disk(node)


def test_a_run_of_empty_heights_leaves_nothing_but_itself() -> None:
    node = chain_of(finality_depth=2)
    for _ in range(EMPTY_DEPTH_FACTOR * 2 + 3):
        parent = node.parent
        receive_all(node, [node.builder.build_empty_block(parent, Deadline.KEY, name) for name in PEOPLE[:4]])
    assert node.round.head.height == EMPTY_DEPTH_FACTOR * 2 + 3
    assert len(find_side_branches(node.round.tree, (node.round.head.block,))) <= maximum_side_branches(2)
    assert on_disk(node) >= set(node.round.tree.records) - {node.round.tree.root}


def test_what_is_measured_already_does_not_wait_behind_blocks_whose_payloads_never_come() -> None:
    node = chain_of()
    blocks = rivals(node, node.parent)
    state = node.round
    for block in blocks[:MAXIMUM_PENDING_EMPTY_SIBLINGS]:
        state, _ = advance(state, BlockReceived(block, LATER))
    own = blocks[-1]
    with pytest.raises(Unavailable):
        advance(state, BlockReceived(own, LATER))
    key, facts = message_hash(own), node.builder.payloads[own.payload_hash]
    state, _ = advance(
        state, MeasurementFinished(Measurement(key, MeasurementKind.PAYLOAD, Finding.ACCEPTED, facts=facts), LATER)
    )
    state, _ = advance(state, BlockReceived(own, LATER))
    assert state.head.block == key
    assert len(state.tree.records) == 2
