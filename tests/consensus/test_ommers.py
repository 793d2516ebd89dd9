"""Losers of earlier heights as one node sees them: kept, measured, cited, refused."""

from dataclasses import replace

import pytest

from learnchain.encoding.hashing import noun_hash
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.pole.scenario import THREE, learning
from learnchain.protocol.actions import MeasureCandidate, ProposeBlock, RefuseBlock
from learnchain.protocol.events import BlockReceived
from learnchain.protocol.measurement import MeasureKind
from learnchain.protocol.messages import Block, Deadline
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import Candidate, ChainBuilder, sample_parameters
from learnchain.simulation.sample_tasks import name_of
from learnchain.simulation.scenario import Observer, Plan, observe, open_height, play_empty, play_height, reveal_models

ALONE = Plan({"miner-1": 95})


def lost(node: Observer, miner: str = "miner-2") -> Candidate:
    """The candidate with which a miner of THREE competes on the present head."""
    return node.builder.candidate(node.parent, miner, THREE.correct[miner])


def citing(node: Observer, *cited: object) -> Block:
    won = node.builder.candidate(node.parent, "miner-1", 95)
    return node.builder.block(node.parent, (won,), ommers=cited)  # type: ignore[arg-type]


def test_the_best_loser_is_measured_at_once_and_cited_by_the_next_winner() -> None:
    node = learning()
    loser = lost(node)
    play_height(node, THREE)
    asked = [each for each in node.actions if isinstance(each, MeasureCandidate)]
    (key,) = node.round.losers
    assert [each.measure.kind for each in asked if each.measure.candidate == key] == [
        MeasureKind.COUNT,
        MeasureKind.TRAINING,
    ]
    block = play_height(node, ALONE)
    assert [each.miner for each in block.ommers] == [loser.commitment.miner]
    kinds = {name_of(each.recipient): each.kind for each in node.parent.reward.payouts if "ommer r" in each.kind}
    assert kinds == {"miner-2": "ommer reward"}
    assert node.round.losers == {}


def test_an_ommer_waits_through_empty_heights_and_is_cited_six_heights_later_at_the_latest() -> None:
    node = learning()
    play_height(node, THREE)
    for _ in range(5):
        play_empty(node, Deadline.COMMITMENT)
        assert len(node.round.losers) == 1
    block = play_height(node, ALONE)
    assert [each.height for each in block.ommers] == [1]
    assert block.height == 7


def test_after_six_heights_nobody_can_cite_it() -> None:
    node = learning()
    play_height(node, THREE)
    for _ in range(6):
        play_empty(node, Deadline.COMMITMENT)
    assert node.round.losers == {}
    assert play_height(node, ALONE).ommers == ()


def test_a_dishonest_loser_is_not_cited() -> None:
    node = learning()
    play_height(node, Plan({"miner-1": 95, "miner-2": 60}, claims={"miner-2": 94}))
    assert play_height(node, ALONE).ommers == ()


def test_a_block_that_cites_a_dishonest_loser_is_refused() -> None:
    node = learning()
    liar = node.builder.candidate(node.parent, "miner-2", 60)
    opening = node.builder.reveal(node.parent, liar, 94)
    play_height(node, Plan({"miner-1": 95, "miner-2": 60}, claims={"miner-2": 94}))
    block = citing(node, opening)
    node.receive(block)
    refused = [each for each in node.actions if isinstance(each, RefuseBlock)]
    assert [(each.block, each.reason) for each in refused] == [
        (noun_hash(block), RejectionReason.CLAIM_NOT_EXACT.value)
    ]
    assert node.round.head.height == 1


def test_a_late_node_measures_what_a_block_cites() -> None:
    node = learning()
    blocks = [play_height(node, THREE), play_height(node, THREE)]
    late = observe(node.builder)
    for block in blocks:
        late.receive(block)
    asked = [each for each in late.actions if isinstance(each, MeasureCandidate)]
    cited = noun_hash(blocks[1].ommers[0])
    assert {each.measure.kind for each in asked if each.measure.candidate == cited} == {
        MeasureKind.COUNT,
        MeasureKind.TRAINING,
    }
    assert late.round.head == node.round.head


def test_an_ommers_payload_is_never_executed() -> None:
    node = learning()
    loser = lost(node)
    play_height(node, THREE)
    del node.builder.payloads[loser.payload_hash]
    assert len(play_height(node, ALONE).ommers) == 1


def test_a_loser_of_another_branch_is_refused() -> None:
    node = learning()
    genesis = node.parent
    found = tuple(node.builder.candidate(genesis, miner, right) for miner, right in THREE.correct.items())
    play_height(node, THREE)
    fork = node.builder.block(genesis, found[:1])
    node.receive(fork)
    parent = node.round.tree.state(noun_hash(fork))
    won = node.builder.candidate(parent, "miner-1", 95)
    block = node.builder.block(parent, (won,), ommers=(node.builder.reveal(genesis, found[1]),))
    with pytest.raises(Rejected) as refusal:
        node.receive(block)
    assert refusal.value.reason is RejectionReason.OMMER_NOT_CITABLE


def test_an_engine_without_ommers_takes_none() -> None:
    node = observe(ChainBuilder(Dlbc(), sample_parameters()))
    genesis, loser = node.parent, node.builder.candidate(node.parent, "miner-2", 93)
    play_height(node, Plan({"miner-1": 95, "miner-2": 93}))
    block = citing(node, node.builder.reveal(genesis, loser))
    with pytest.raises(Rejected) as refusal:
        node.feed(BlockReceived(block, block.end_milliseconds))
    assert refusal.value.reason is RejectionReason.OMMER_NOT_CITABLE


def test_a_forged_opening_is_refused() -> None:
    node = learning()
    genesis, loser = node.parent, lost(node)
    play_height(node, THREE)
    opening = replace(node.builder.reveal(genesis, loser), signature=b"\1" * 65)
    block = citing(node, opening)
    with pytest.raises(Rejected) as refusal:
        node.receive(block)
    assert refusal.value.reason is RejectionReason.WRONG_SIGNATURE


def test_a_proposal_comes_without_an_ommer_while_it_is_unmeasured() -> None:
    node = learning()
    play_height(node, THREE)
    missing = replace(node.round, measurements={})
    node.round = missing
    plan = Plan({"miner-1": 95})
    proposals = [each for each in reveal_models(node, plan, open_height(node, plan)) if isinstance(each, ProposeBlock)]
    assert proposals[0].ommers == ()
