"""A chain that hashes: what a solution is, what it earns, and a whole network in virtual time."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import pytest

from learnchain.node.local_network import LocalPlan
from learnchain.primitives.actions import ReleaseTestSet
from learnchain.primitives.events import Committed, KeyReleased
from learnchain.primitives.hashing import noun_hash
from learnchain.primitives.messages import Block, commitment_digest
from learnchain.primitives.puzzle import LARGEST_TARGET, Puzzle, is_solved
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.rules.proof_of_work import LOCAL, ProofOfWork
from learnchain.rules.proof_of_work.difficulty import Difficulty
from learnchain.testing.bad_inputs import PLAN, prepare
from learnchain.testing.chain_builder import sample_parameters
from learnchain.testing.in_process_training import InProcessTraining
from learnchain.testing.play import play_height
from learnchain.testing.proof_of_work_play import PROOF_OF_WORK, solving
from learnchain.testing.simulated_clock import run_simulated
from learnchain.testing.simulated_nodes import SimulatedNodes


def test_the_search_finds_what_the_commitment_hashes_to() -> None:
    node = solving()
    found = prepare(node, "begun")[0]
    puzzle = Puzzle(b"\1" * 32, found.model, found.payload_hash, b"\1\x55", LARGEST_TARGET // 1_000)
    salt, attempts = puzzle.search(1 << 100, 100_000)
    assert is_solved(commitment_digest(b"\1" * 32, found.model, found.payload_hash, b"\1\x55", salt), puzzle.target)
    assert int.from_bytes(salt, "big") == (1 << 100) + attempts - 1
    assert puzzle.search(1 << 100, attempts - 1) == (b"", attempts - 1)


def test_the_first_solution_ends_the_search() -> None:
    node = solving()
    found = prepare(node, "begun")
    schedule = node.round.selection.schedule
    node.feed(KeyReleased(node.builder.key_release(node.parent), schedule.start_milliseconds))
    actions = node.feed(Committed(found[0].commitment, schedule.start_milliseconds + 1))
    assert [type(each) for each in actions] == [ReleaseTestSet]


def test_the_lowest_solution_of_a_release_wins_and_mints() -> None:
    node = solving()
    block = play_height(node, PLAN)
    assert block.verdict.winner == min(noun_hash(each) for each in block.commitments)
    reward = node.parent.reward
    assert [(each.recipient, each.amount_gwei) for each in reward.payouts] == [(block.proposer, 1_999_000_000)]
    assert [each.amount_gwei for each in node.parent.bonds.withheld] == [1_000_000], "the bond is kept back"
    assert PROOF_OF_WORK.difficulty.target(reward.memory) < PROOF_OF_WORK.difficulty.first_target


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
        rules.check_parameters(sample_parameters())
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


def test_real_nodes_mine_in_virtual_time_and_intervals_spread(tmp_path: Path) -> None:
    difficulty = Difficulty(20_000, LARGEST_TARGET // 24_000, 8)
    rules = replace(LOCAL, difficulty=difficulty, limit_milliseconds=600_000)

    async def main() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, "proof_of_work", rules=rules), seed=7)
        nodes.make_training = lambda _index: InProcessTraining(hashes_per_second=400)
        await nodes.start()
        await nodes.until_height(25, 10_000)
        ports = nodes.node(0).ports
        states = ports.archive.branch(ports.chain.round.head.block, 0)
        assert all(isinstance(ports.archive.block(each.block_hash), Block) for each in states)
        ends = [each.end_milliseconds for each in states]
        intervals = [later - earlier for earlier, later in pairwise(ends)]
        assert stdev(intervals) > 0.5 * mean(intervals)
        await nodes.close()

    run_simulated(main())
