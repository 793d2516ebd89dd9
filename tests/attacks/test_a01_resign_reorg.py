"""A01: the winner of a height signs its block again with another ECDSA nonce, the same statement under another hash.

The hash of a block covers its signature, equal weight is decided by the lower hash whenever it comes, and no evidence
names two blocks of one winner. So the winner replaces its own block while everybody trains on top of it.

Earns: all training and all commitments of the next height are thrown away for one signature (0.4 ms), and the hash of
the parent (seeds, prevRandao, lots of the next height) is the winner's to choose.
Kind: the chain stops or is owned at no cost; pure round; every engine.
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass

import pytest

from learnchain.encoding.cryptography import message_hash, recover, signing_hash
from learnchain.protocol.events import BlockReceived, CommitmentReceived, KeyReleaseReceived
from learnchain.simulation.sample_tasks import private_key_of
from learnchain.simulation.scenario import HeightPlan, build_candidates, run_height
from learnchain_conformance.engine_scenarios import EngineScenario, find_scenario, shipped_engines
from tests.attacks.signing import sign_until_lower


@dataclass(frozen=True)
class Reorganisation:
    """What a second signature of one block did to the height on top of it."""

    same_statement: bool
    reorganised: bool
    commitments_before: int
    commitments_after: int


def attack(play: EngineScenario) -> Reorganisation:
    """Let the winner of height 1 sign it again while a miner has committed to height 2 already."""
    node = play.start_node()
    block = run_height(node, HeightPlan(correct={"miner-1": 95, "miner-2": 90}))
    schedule = node.round.selection.schedule
    node.feed(KeyReleaseReceived(node.builder.build_key_release(node.parent), schedule.start_milliseconds))
    (honest,) = build_candidates(node, HeightPlan(correct={"miner-2": 80}))
    last = schedule.time_limit_milliseconds or schedule.commitment_milliseconds
    node.feed(CommitmentReceived(honest.commitment, last - 2))
    before = len(node.round.commitments)
    other = sign_until_lower(block, private_key_of(block.proposer))
    node.feed(BlockReceived(other, schedule.commitment_milliseconds - 1))
    return Reorganisation(
        same_statement=other.verdict == block.verdict
        and recover(signing_hash(other), other.signature) == block.proposer,
        reorganised=message_hash(other) != message_hash(block) and node.round.head.block == message_hash(other),
        commitments_before=before,
        commitments_after=len(node.round.commitments),
    )


@pytest.mark.parametrize("play", map(find_scenario, shipped_engines()), ids=lambda play: play.rules.name)
def test_the_winner_voids_the_next_height_by_signing_again(play: EngineScenario) -> None:
    result = attack(play)
    assert result.same_statement
    assert result.reorganised
    assert (result.commitments_before, result.commitments_after) == (1, 0)
