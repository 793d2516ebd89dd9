"""A chain that hashes: what a solution is, what it earns, and a whole network in virtual time."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import pytest

from learnchain.encoding.cryptography import message_hash
from learnchain.engines.proof_of_work import LOCAL, ProofOfWork
from learnchain.engines.proof_of_work.rules import Difficulty
from learnchain.engines.proof_of_work.scenario import PROOF_OF_WORK, start_proof_of_work_node
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.actions import ReleaseTestSet
from learnchain.protocol.events import CommitmentReceived, KeyReleaseReceived
from learnchain.protocol.messages import Block, commitment_digest
from learnchain.protocol.puzzle import LARGEST_TARGET, Puzzle, is_solved
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import build_sample_parameters
from learnchain.simulation.scenario import run_height
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from learnchain_conformance.bad_inputs import PLAN, prepare


def test_the_search_finds_what_the_commitment_hashes_to() -> None:
    node = start_proof_of_work_node()
    found = prepare(node, "begun")[0]
    puzzle = Puzzle(b"\1" * 32, found.model, found.payload_hash, b"\1\x55", LARGEST_TARGET // 1_000)
    salt, attempts = puzzle.search(1 << 100, 100_000)
    assert is_solved(commitment_digest(b"\1" * 32, found.model, found.payload_hash, b"\1\x55", salt), puzzle.target)
    assert int.from_bytes(salt, "big") == (1 << 100) + attempts - 1
    assert puzzle.search(1 << 100, attempts - 1) == (b"", attempts - 1)


def test_the_first_solution_ends_the_search() -> None:
    node = start_proof_of_work_node()
    found = prepare(node, "begun")
    schedule = node.round.selection.schedule
    node.feed(KeyReleaseReceived(node.builder.build_key_release(node.parent), schedule.start_milliseconds))
    actions = node.feed(CommitmentReceived(found[0].commitment, schedule.start_milliseconds + 1))
    assert [type(each) for each in actions] == [ReleaseTestSet]


def test_the_lowest_solution_of_a_release_wins_and_mints() -> None:
    node = start_proof_of_work_node()
    block = run_height(node, PLAN)
    assert block.verdict.winner == min(message_hash(each) for each in block.commitments)
    reward = node.parent.reward
    assert [(each.recipient, each.amount_gwei) for each in reward.payouts] == [(block.proposer, 1_999_000_000)]
    assert [each.amount_gwei for each in node.parent.bonds.withheld] == [1_000_000], "the bond is kept back"
    assert PROOF_OF_WORK.difficulty.decode_target(reward.memory) < PROOF_OF_WORK.difficulty.first_target


@pytest.mark.parametrize(
    "rules",
    [
        replace(PROOF_OF_WORK, block_milliseconds=1),
        replace(PROOF_OF_WORK, reveal_milliseconds=60_000),
        replace(PROOF_OF_WORK, limit_milliseconds=60_000),
        replace(PROOF_OF_WORK, difficulty=Difficulty(60_000, 0, 8)),
        replace(PROOF_OF_WORK, difficulty=Difficulty(60_000, 1, 0)),
    ],
)
def test_a_genesis_that_cannot_run_is_refused(rules: ProofOfWork) -> None:
    with pytest.raises(Rejected) as refusal:
        rules.check_parameters(build_sample_parameters())
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


def test_real_nodes_mine_in_virtual_time_and_intervals_spread(tmp_path: Path) -> None:
    difficulty = Difficulty(20_000, LARGEST_TARGET // 24_000, 8)
    rules = replace(LOCAL, difficulty=difficulty, limit_milliseconds=600_000)

    async def main() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, "proof_of_work", rules=rules), seed=7)
        nodes.make_training = lambda _index: InProcessTraining(hashes_per_second=400)
        await nodes.start()
        await nodes.wait_for_height(25, 10_000)
        ports = nodes.node(0).ports
        states = ports.archive.branch(ports.chain.round.head.block, 0)
        assert all(isinstance(ports.archive.block(each.block_hash), Block) for each in states)
        ends = [each.end_milliseconds for each in states]
        intervals = [later - earlier for earlier, later in pairwise(ends)]
        assert stdev(intervals) > 0.5 * mean(intervals)
        await nodes.close()

    run_simulated(main())
