"""Bound what a tree keeps of empty blocks that lost: anybody may sign them, and they weigh nothing (ROUND-22).

Nothing that fork choice needs is lost. The head is the best of what is known; an empty block beside its branch can lead
only once it carries a trained block, and then it comes again with whoever built on it.
"""

from collections.abc import Collection, Iterable

from learnchain.primitives.block_tree import EMPTY_DEPTH_FACTOR, BlockTree
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.messages import AnyBlock, Block, Deadline, EmptyBlock, empty_block_ticket

MAXIMUM_SIDE_SIBLINGS = 8
"""Losers on one parent that nothing builds on: the lowest tickets stay, of one signer one for each deadline."""
SPARE_SIDE_BLOCKS = 64
"""Losers beyond the longest branch of empty blocks that may have to be fetched: its beginning must not go meanwhile."""


def maximum_side_blocks(finality_depth: int) -> int:
    """Return how many losers a tree holds in all."""
    return EMPTY_DEPTH_FACTOR * finality_depth + SPARE_SIDE_BLOCKS


def side_blocks(tree: BlockTree, kept: Iterable[Hash32]) -> tuple[Hash32, ...]:
    """Return the empty blocks that lost: neither below a kept nor below a trained block, in the order of arrival."""
    needed = {tree.root}
    trained = (key for key, record in tree.records.items() if isinstance(record.block, Block))
    for tip in (*kept, *trained):
        here = tip
        while here not in needed:
            needed.add(here)
            here = tree.state(here).parent
    return tuple(key for key in tree.records if key not in needed)


def surplus(tree: BlockTree, kept: Collection[Hash32], maximum: int) -> tuple[Hash32, ...]:
    """Return the losers to forget; whatever came last on a parent stays, as somebody may be about to build on it."""
    sides = side_blocks(tree, kept)
    siblings: dict[Hash32, list[Hash32]] = {}
    for key in sides:
        if not tree.children.get(key):
            siblings.setdefault(tree.state(key).parent, []).append(key)
    crowd = {key for leaves in siblings.values() for key in _crowded_out(tree, leaves)}
    left = [key for key in sides if key not in crowd]
    while len(left) > maximum:
        built_on = {tree.state(key).parent for key in left}
        oldest = next((key for key in left[:-1] if key not in built_on), None)
        if oldest is None:
            # One branch without a fork: only time makes it longer.
            break
        left.remove(oldest)
    remaining = set(left)
    return tuple(key for key in sides if key not in remaining)


def _crowded_out(tree: BlockTree, leaves: list[Hash32]) -> list[Hash32]:
    """Return which of the losers on one parent go: the lowest tickets stay, and the last that came."""
    signers: set[tuple[Address, Deadline]] = set()
    ranked: list[Hash32] = []
    repeated: list[Hash32] = []
    for key in sorted(leaves, key=lambda each: (_ticket(tree.records[each].block), each)):
        block = tree.records[key].block
        if not isinstance(block, EmptyBlock):
            raise AssertionError("a trained block is no loser")
        (repeated if (block.proposer, block.missed) in signers else ranked).append(key)
        signers.add((block.proposer, block.missed))
    return [each for each in (*ranked[MAXIMUM_SIDE_SIBLINGS:], *repeated) if each != leaves[-1]]


def _ticket(block: AnyBlock | None) -> bytes:
    return b"" if block is None else empty_block_ticket(block.parent, block.proposer)
