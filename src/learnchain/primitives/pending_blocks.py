"""Bound what waits for measurements: anybody may sign blocks without ever serving what they rest on."""

from learnchain.primitives.codec import Hash32
from learnchain.primitives.messages import AnyBlock, EmptyBlock, empty_block_ticket
from learnchain.primitives.rejection import Unavailable

MAXIMUM_PENDING_BLOCKS = 64
"""Blocks that wait for measurements at one time; more are asked for again later."""
MAXIMUM_PENDING_EMPTY = 32
MAXIMUM_PENDING_EMPTY_SIBLINGS = 4
"""Anybody may sign an empty block without ever serving its payload: they never take the place of trained blocks."""


def with_room(pending: dict[Hash32, AnyBlock], block: AnyBlock) -> dict[Hash32, AnyBlock]:
    """Return who goes on waiting beside a block: of empty siblings the lowest lots stay, of all the highest."""
    if isinstance(block, EmptyBlock):
        empty = {key: each for key, each in pending.items() if isinstance(each, EmptyBlock)}
        siblings = {key: each for key, each in empty.items() if each.parent == block.parent}
        if len(siblings) >= MAXIMUM_PENDING_EMPTY_SIBLINGS:
            return _in_place_of(pending, block, siblings)
        if len(empty) >= MAXIMUM_PENDING_EMPTY:
            return _in_place_of(pending, block, empty)
    if len(pending) >= MAXIMUM_PENDING_BLOCKS:
        raise Unavailable("room for one more block to be measured")
    return pending


def _in_place_of(
    pending: dict[Hash32, AnyBlock], block: EmptyBlock, rivals: dict[Hash32, EmptyBlock]
) -> dict[Hash32, AnyBlock]:
    """Drop the last of the rivals when the new block comes before it."""
    last = max(rivals, key=lambda key: _place(rivals[key]))
    if _place(block) >= _place(rivals[last]):
        raise Unavailable("room for one more empty block to be measured")
    return {key: each for key, each in pending.items() if key != last}


def _place(block: EmptyBlock) -> tuple[int, bytes]:
    return -block.height, empty_block_ticket(block.parent, block.proposer)
