"""Losers of earlier heights as one node sees them: kept, measured, cited, refused."""

from dataclasses import replace

import pytest

from learnchain.encoding.codec import encode
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.pole.parts import CitedLosers, list_cited_losers
from learnchain.engines.pole.scenario import THREE_SOLUTIONS, start_pole_node
from learnchain.protocol.actions import MeasureCandidate, ProposeBlock, RefuseBlock
from learnchain.protocol.events import BlockReceived
from learnchain.protocol.measurement import MeasurementKind
from learnchain.protocol.messages import Block, Deadline
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import Candidate, ChainBuilder, alter, build_sample_parameters
from learnchain.simulation.sample_tasks import name_of
from learnchain.simulation.scenario import (
    HeightPlan,
    ScenarioNode,
    open_height,
    reveal_models,
    run_empty_height,
    run_height,
    start_from_genesis,
)

ALONE = HeightPlan({"miner-1": 95})


def lost(node: ScenarioNode, miner: str = "miner-2") -> Candidate:
    """The candidate with which a miner of THREE competes on the present head."""
    return node.builder.build_candidate(node.parent, miner, THREE_SOLUTIONS.correct[miner])


def citing(node: ScenarioNode, *cited: object) -> Block:
    won = node.builder.build_candidate(node.parent, "miner-1", 95)
    return node.builder.build_block(node.parent, (won,), cited=cited)  # type: ignore[arg-type]


def test_the_best_loser_is_measured_at_once_and_cited_by_the_next_winner() -> None:
    node = start_pole_node()
    loser = lost(node)
    run_height(node, THREE_SOLUTIONS)
    asked = [each for each in node.actions if isinstance(each, MeasureCandidate)]
    (key,) = node.round.losers
    assert [each.request.kind for each in asked if each.request.candidate == key] == [
        MeasurementKind.COUNT,
        MeasurementKind.TRAINING,
    ]
    block = run_height(node, ALONE)
    assert [each.miner for each in list_cited_losers(block)] == [loser.commitment.miner]
    kinds = {name_of(each.recipient): each.kind for each in node.parent.reward.payouts if "ommer r" in each.kind}
    assert kinds == {"miner-2": "ommer reward"}
    assert node.round.losers == {}


def test_an_ommer_waits_through_empty_heights_and_is_cited_six_heights_later_at_the_latest() -> None:
    node = start_pole_node()
    run_height(node, THREE_SOLUTIONS)
    for _ in range(5):
        run_empty_height(node, Deadline.COMMITMENT)
        assert len(node.round.losers) == 1
    block = run_height(node, ALONE)
    assert [each.height for each in list_cited_losers(block)] == [1]
    assert block.height == 7


def test_after_six_heights_nobody_can_cite_it() -> None:
    node = start_pole_node()
    run_height(node, THREE_SOLUTIONS)
    for _ in range(6):
        run_empty_height(node, Deadline.COMMITMENT)
    assert node.round.losers == {}
    assert run_height(node, ALONE).engine == b""


def test_a_dishonest_loser_is_not_cited() -> None:
    node = start_pole_node()
    run_height(node, HeightPlan({"miner-1": 95, "miner-2": 60}, claims={"miner-2": 94}))
    assert run_height(node, ALONE).engine == b""


def test_a_block_that_cites_a_dishonest_loser_is_refused() -> None:
    node = start_pole_node()
    liar = node.builder.build_candidate(node.parent, "miner-2", 60)
    opening = node.builder.build_reveal(node.parent, liar, 94)
    run_height(node, HeightPlan({"miner-1": 95, "miner-2": 60}, claims={"miner-2": 94}))
    block = citing(node, opening)
    node.receive(block)
    refused = [each for each in node.actions if isinstance(each, RefuseBlock)]
    assert [(each.block, each.reason) for each in refused] == [
        (message_hash(block), RejectionReason.CLAIM_NOT_EXACT.value)
    ]
    assert node.round.head.height == 1


def test_a_late_node_measures_what_a_block_cites() -> None:
    node = start_pole_node()
    blocks = [run_height(node, THREE_SOLUTIONS), run_height(node, THREE_SOLUTIONS)]
    late = start_from_genesis(node.builder)
    for block in blocks:
        late.receive(block)
    asked = [each for each in late.actions if isinstance(each, MeasureCandidate)]
    cited = message_hash(list_cited_losers(blocks[1])[0])
    assert {each.request.kind for each in asked if each.request.candidate == cited} == {
        MeasurementKind.COUNT,
        MeasurementKind.TRAINING,
    }
    assert late.round.head == node.round.head


def test_an_ommers_payload_is_never_executed() -> None:
    node = start_pole_node()
    loser = lost(node)
    run_height(node, THREE_SOLUTIONS)
    del node.builder.payloads[loser.payload_hash]
    assert len(list_cited_losers(run_height(node, ALONE))) == 1


def test_a_loser_of_another_branch_is_refused() -> None:
    node = start_pole_node()
    genesis = node.parent
    found = tuple(
        node.builder.build_candidate(genesis, miner, right) for miner, right in THREE_SOLUTIONS.correct.items()
    )
    run_height(node, THREE_SOLUTIONS)
    fork = node.builder.build_block(genesis, found[:1])
    node.receive(fork)
    parent = node.round.tree.state(message_hash(fork))
    won = node.builder.build_candidate(parent, "miner-1", 95)
    block = node.builder.build_block(parent, (won,), cited=(node.builder.build_reveal(genesis, found[1]),))
    with pytest.raises(Rejected) as refusal:
        node.receive(block)
    assert refusal.value.reason is RejectionReason.OMMER_NOT_CITABLE


def test_an_engine_without_ommers_takes_none() -> None:
    node = start_from_genesis(ChainBuilder(Dlbc(), build_sample_parameters()))
    genesis, loser = node.parent, node.builder.build_candidate(node.parent, "miner-2", 93)
    run_height(node, HeightPlan({"miner-1": 95, "miner-2": 93}))
    cited = CitedLosers((node.builder.build_reveal(genesis, loser),))
    block = alter(citing(node), engine=encode(cited))
    with pytest.raises(Rejected) as refusal:
        node.feed(BlockReceived(block, block.end_milliseconds))
    assert refusal.value.reason is RejectionReason.MALFORMED


def test_a_forged_opening_is_refused() -> None:
    node = start_pole_node()
    genesis, loser = node.parent, lost(node)
    run_height(node, THREE_SOLUTIONS)
    opening = replace(node.builder.build_reveal(genesis, loser), signature=b"\1" * 65)
    block = citing(node, opening)
    with pytest.raises(Rejected) as refusal:
        node.receive(block)
    assert refusal.value.reason is RejectionReason.WRONG_SIGNATURE


def test_a_proposal_comes_without_an_ommer_while_it_is_unmeasured() -> None:
    node = start_pole_node()
    run_height(node, THREE_SOLUTIONS)
    missing = replace(node.round, measurements={})
    node.round = missing
    plan = HeightPlan({"miner-1": 95})
    proposals = [each for each in reveal_models(node, plan, open_height(node, plan)) if isinstance(each, ProposeBlock)]
    assert proposals[0].engine == b""
