"""Both trees: roots against plain recomputation, branches for every leaf, and every wrong branch refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.cryptography import (
    HISTORY_DEPTH,
    History,
    check_list_branch,
    history_branch,
    keccak256,
    list_branch,
    list_root,
    tagged_hash,
)
from learnchain.rejection import Rejected, RejectionReason

LEAVES = st.lists(st.binary(max_size=8), min_size=1, max_size=20).map(tuple)
HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=20).map(tuple)


def plain_root(leaves: tuple[bytes, ...]) -> bytes:
    """The same root by recursion over halves whose left part is the largest power of two."""

    def node(part: tuple[bytes, ...]) -> bytes:
        if len(part) == 1:
            return tagged_hash("merkle/leaf", part[0])
        split = 1
        while split * 2 < len(part):
            split *= 2
        return tagged_hash("merkle/node", node(part[:split]), node(part[split:]))

    return tagged_hash("merkle/root", len(leaves).to_bytes(8, "big"), node(leaves) if leaves else b"")


@given(LEAVES)
def test_list_root_is_the_recursive_one_and_every_branch_leads_there(leaves: tuple[bytes, ...]) -> None:
    root = list_root(leaves)
    assert root == plain_root(leaves)
    for index, leaf in enumerate(leaves):
        check_list_branch(root, leaf, index, len(leaves), list_branch(leaves, index))


@given(LEAVES, st.data())
def test_a_wrong_branch_is_refused(leaves: tuple[bytes, ...], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    branch = list_branch(leaves, index)
    wrong = (
        (leaves[index] + b"x", index, len(leaves), branch),
        (leaves[index], index, len(leaves) + 1, branch),
        (leaves[index], len(leaves), len(leaves), branch),
        (leaves[index], -1, len(leaves), branch),
        (leaves[index], index, len(leaves), (*branch, b"\0" * 32)),
        (leaves[index], index, len(leaves), tuple(bytes(32) for _ in branch)) if branch else None,
        (leaves[index], index, len(leaves), branch[:-1]) if branch else None,
    )
    for each in wrong:
        if each is None:
            continue
        with pytest.raises(Rejected) as refusal:
            check_list_branch(list_root(leaves), *each)
        assert refusal.value.reason is RejectionReason.WRONG_HASH


@given(LEAVES, LEAVES)
def test_lists_with_one_root_are_equal(left: tuple[bytes, ...], right: tuple[bytes, ...]) -> None:
    assert (list_root(left) == list_root(right)) == (left == right)


def test_the_empty_list_has_a_root_and_no_branches() -> None:
    assert list_root(()) == plain_root(())
    for branch in (list_branch, history_branch):
        with pytest.raises(Rejected) as refusal:
            branch((), 0)
        assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


def full_root(leaves: tuple[bytes, ...]) -> bytes:
    """The root of the tree of depth 32, level by level, with zero leaves to the right."""
    level, zero = list(leaves), b"\0" * 32
    for _ in range(HISTORY_DEPTH):
        if len(level) % 2:
            level.append(zero)
        level = [keccak256(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
        zero = keccak256(zero + zero)
    return level[0] if level else zero


@given(HASHES)
def test_history_root_is_the_recomputed_one(leaves: tuple[bytes, ...]) -> None:
    history = History()
    for count, leaf in enumerate(leaves):
        assert history.root() == full_root(leaves[:count])
        history = history.append(leaf)
    assert (history.count, history.root()) == (len(leaves), full_root(leaves))


@given(HASHES.filter(bool), st.data())
def test_a_history_branch_leads_to_the_root(leaves: tuple[bytes, ...], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    branch = history_branch(leaves, index)
    assert len(branch) == HISTORY_DEPTH
    node = leaves[index]
    for level, sibling in enumerate(branch):
        node = keccak256(sibling + node) if (index >> level) & 1 else keccak256(node + sibling)
    assert node == full_root(leaves)


def test_a_full_history_refuses_one_more() -> None:
    with pytest.raises(Rejected) as refusal:
        History(count=2**HISTORY_DEPTH - 1).append(b"\0" * 32)
    assert refusal.value.reason is RejectionReason.TOO_LARGE
