"""The tree of blocks and the pure rule that picks its head."""

from itertools import permutations

import pytest

from learnchain.consensus.fork_choice import (
    BlockRecord,
    BlockTree,
    empty_block_priority,
    find_divergence,
    find_heaviest,
    is_eligible,
    lowest_priority,
)
from learnchain.consensus.state import apply_block
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.messages import AnyBlock, Deadline
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder
from learnchain.simulation.sample_tasks import address

BUILDER = ChainBuilder(Dlbc())
GENESIS = BUILDER.build_genesis()
NOTHING: frozenset[tuple[bytes, Deadline]] = frozenset()


def grown(parent: ChainState, block: AnyBlock) -> ChainState:
    selection = BUILDER.select_task(parent)
    reward = BUILDER.rules.compute_reward(selection, block, BUILDER.parameters)
    return apply_block(parent, selection, block, reward, BUILDER.parameters)


def trained(parent: ChainState, correct: int = 95, miner: str = "miner-1") -> tuple[AnyBlock, ChainState]:
    block = BUILDER.build_block(parent, (BUILDER.build_candidate(parent, miner, correct, variant=str(correct)),))
    return block, grown(parent, block)


def empty(parent: ChainState, missed: Deadline, proposer: str = "node-1") -> tuple[AnyBlock, ChainState]:
    block = BUILDER.build_empty_block(parent, missed, proposer)
    return block, grown(parent, block)


def tree_of(*grew: tuple[AnyBlock, ChainState]) -> BlockTree:
    tree = BlockTree(GENESIS.block_hash, {GENESIS.block_hash: BlockRecord(GENESIS, None)})
    for each in grew:
        tree = tree.with_block(*each)
    return tree


def head_of(tree: BlockTree) -> bytes:
    return find_heaviest(tree, BUILDER.rules.weigh, tree.leaves())


def test_the_head_is_the_same_for_every_order_of_the_tips() -> None:
    first = trained(GENESIS)
    tree = tree_of(
        first,
        trained(first[1], 50),
        empty(first[1], Deadline.KEY),
        empty(GENESIS, Deadline.KEY, "node-2"),
        trained(GENESIS, 97, "miner-2"),
    )
    heads = {find_heaviest(tree, BUILDER.rules.weigh, tips) for tips in permutations(tree.leaves())}
    assert len(heads) == 1
    assert tree.weight(heads.pop(), BUILDER.rules.weigh) == 2


def test_the_higher_count_wins_at_equal_weight() -> None:
    lower, higher = trained(GENESIS, 95), trained(GENESIS, 96, "miner-2")
    assert head_of(tree_of(lower, higher)) == higher[1].block_hash


def test_the_present_is_the_longer_of_two_equal_weights() -> None:
    first = trained(GENESIS)
    ended = empty(first[1], Deadline.KEY)
    tree = tree_of(first, ended)
    assert find_heaviest(tree, BUILDER.rules.weigh, (first[1].block_hash, ended[1].block_hash)) == ended[1].block_hash


def test_a_changed_tree_is_a_new_tree() -> None:
    tree = tree_of()
    block, state = trained(GENESIS)
    larger = tree.with_block(block, state)
    assert state.block_hash in larger
    assert state.block_hash not in tree
    with pytest.raises(Rejected) as refusal:
        larger.with_block(block, state)
    assert refusal.value.reason is RejectionReason.BLOCK_DUPLICATE
    with pytest.raises(Rejected) as refusal:
        tree.state(state.block_hash)
    assert refusal.value.reason is RejectionReason.BLOCK_UNKNOWN_PARENT


def test_pruning_keeps_what_descends_from_the_root() -> None:
    first, rival = trained(GENESIS), empty(GENESIS, Deadline.KEY)
    second = trained(first[1], 60)
    tree = tree_of(first, rival, second).prune_below(first[1].block_hash)
    assert set(tree.records) == {first[1].block_hash, second[1].block_hash}
    assert tree.leaves() == (second[1].block_hash,)
    assert [each.state for each in tree.branch(second[1].block_hash)] == [second[1]]


def test_divergence_starts_at_the_first_difference() -> None:
    first = trained(GENESIS)
    left, right = trained(first[1], 60), empty(first[1], Deadline.KEY)
    ours, theirs = find_divergence(tree_of(first, left, right), left[1].block_hash, right[1].block_hash)
    assert [each.state for each in ours] == [left[1]]
    assert [each.state for each in theirs] == [right[1]]


@pytest.mark.parametrize("missed", [Deadline.KEY, Deadline.COMMITMENT, Deadline.RELEASE, Deadline.REVEAL])
def test_an_empty_block_that_contradicts_a_witness_leads_only_when_heavier(missed: Deadline) -> None:
    witnessed = frozenset({(GENESIS.block_hash, missed)})
    ended = empty(GENESIS, missed)
    tree, weigh = tree_of(ended), BUILDER.rules.weigh
    assert is_eligible(tree, weigh, GENESIS.block_hash, ended[1].block_hash, NOTHING)
    assert not is_eligible(tree, weigh, GENESIS.block_hash, ended[1].block_hash, witnessed)
    later = trained(ended[1])
    assert is_eligible(tree.with_block(*later), weigh, GENESIS.block_hash, later[1].block_hash, witnessed)


@pytest.mark.parametrize("missed", [Deadline.RELEASE, Deadline.REVEAL, Deadline.BLOCK])
def test_an_empty_block_that_leaves_out_the_commitments_contradicts_who_saw_one(missed: Deadline) -> None:
    witnessed = frozenset({(GENESIS.block_hash, Deadline.COMMITMENT)})
    silent = empty(GENESIS, missed)
    committed = (BUILDER.build_candidate(GENESIS, "miner-1", 95).commitment,)
    listing = BUILDER.reseal(GENESIS, silent[0], commitments=committed)
    listed = (listing, grown(GENESIS, listing))
    tree, weigh = tree_of(silent, listed), BUILDER.rules.weigh
    assert not is_eligible(tree, weigh, GENESIS.block_hash, silent[1].block_hash, witnessed)
    assert is_eligible(tree, weigh, GENESIS.block_hash, listed[1].block_hash, witnessed)
    assert lowest_priority(tree_of(silent), GENESIS.block_hash, witnessed) == b"\xff" * 34


@pytest.mark.parametrize("missed", [Deadline.RELEASE, Deadline.BLOCK])
@pytest.mark.parametrize("later", [Deadline.RELEASE, Deadline.BLOCK])
def test_who_saw_no_commitment_follows_who_saw_one_whatever_the_tickets(missed: Deadline, later: Deadline) -> None:
    """Neither would follow the other else, and a publisher without miners waits for ever."""
    saw, saw_none = frozenset({(GENESIS.block_hash, Deadline.COMMITMENT)}), NOTHING
    committed = (BUILDER.build_candidate(GENESIS, "miner-1", 95).commitment,)
    for name in ("node-1", "node-2", "node-3", "node-4"):
        listing = BUILDER.reseal(GENESIS, BUILDER.build_empty_block(GENESIS, missed, name), commitments=committed)
        listed = (listing, grown(GENESIS, listing))
        for other in ("miner-1", "miner-2", "miner-3"):
            silent = empty(GENESIS, later, other)
            tree = tree_of(silent, listed)
            for witnessed, here in ((saw, listed), (saw_none, silent)):
                tips = [tip for tip in tree.leaves() if tip != here[1].block_hash]
                may = [
                    tip for tip in tips if is_eligible(tree, BUILDER.rules.weigh, here[1].block_hash, tip, witnessed)
                ]
                assert find_heaviest(tree, BUILDER.rules.weigh, (here[1].block_hash, *may)) == listed[1].block_hash


def test_a_release_seen_in_time_binds_whatever_the_weight() -> None:
    here, ended = trained(GENESIS), empty(GENESIS, Deadline.RELEASE)
    second = trained(ended[1], 60)
    third = trained(second[1], 61)
    tree, weigh = tree_of(here, ended, second, third), BUILDER.rules.weigh
    seen = frozenset({(GENESIS.block_hash, Deadline.RELEASE)})
    assert tree.weight(third[1].block_hash, weigh) > tree.weight(here[1].block_hash, weigh)
    assert not is_eligible(tree, weigh, here[1].block_hash, third[1].block_hash, seen)
    assert is_eligible(tree, weigh, here[1].block_hash, third[1].block_hash, NOTHING)


def test_the_lowest_lot_of_the_known_empty_blocks() -> None:
    tree = tree_of()
    assert lowest_priority(tree, GENESIS.block_hash, NOTHING) == b"\xff" * 34
    for number in (1, 2, 3):
        tree = tree.with_block(*empty(GENESIS, Deadline.KEY, f"node-{number}"))
    people = [address(f"node-{number}") for number in (1, 2, 3)]
    lots = [empty_block_priority(GENESIS.block_hash, Deadline.KEY, each, listing=False) for each in people]
    assert lowest_priority(tree, GENESIS.block_hash, NOTHING) == min(lots)
    seen = frozenset({(GENESIS.block_hash, Deadline.KEY)})
    assert lowest_priority(tree, GENESIS.block_hash, seen) == b"\xff" * 34


def test_who_saw_more_of_a_height_leads_whatever_the_tickets() -> None:
    for proposer in ("publisher-1", "node-1", "node-2", "node-3"):
        key, more = empty(GENESIS, Deadline.KEY, proposer), empty(GENESIS, Deadline.COMMITMENT, "node-4")
        after = empty(key[1], Deadline.KEY, "node-4")
        tree, weigh = tree_of(key, more, after), BUILDER.rules.weigh
        tips = after[1].block_hash, more[1].block_hash
        # The publisher saw its own key and would never follow the others: so the others follow it.
        assert find_heaviest(tree, weigh, tips) == find_heaviest(tree, weigh, tips[::-1]) == more[1].block_hash
        seen = frozenset({(GENESIS.block_hash, Deadline.KEY)})
        assert not is_eligible(tree, weigh, more[1].block_hash, after[1].block_hash, seen)
        assert is_eligible(tree, weigh, after[1].block_hash, more[1].block_hash, NOTHING)
