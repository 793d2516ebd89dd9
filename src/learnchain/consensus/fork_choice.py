"""Every known block above the final one, and the pure rule that picks the head among them (ROUND-2).

Bound what a tree keeps of empty blocks that lost: anybody may sign them, and they weigh nothing (ROUND-22).

Nothing that fork choice needs is lost. The head is the best of what is known; an empty block beside its branch can lead
only once it carries a trained block, and then it comes again with whoever built on it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType

from learnchain.encoding.codec import Accuracy, Address, Hash32
from learnchain.protocol.messages import AnyBlock, Block, Deadline, EmptyBlock, empty_block_tie_breaker
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason

WitnessedDeadlines = frozenset[tuple[Hash32, Deadline]]
"""What this node saw in time, by the parent it belongs to."""

CONFIRMATIONS_OF_SAFE = 2
"""High-accuracy models that must follow a block before wallets call it safe (DLBC IV-H)."""

_LATEST_FIRST = tuple(reversed(Deadline))
_AFTER_COMMITMENTS = (Deadline.RELEASE, Deadline.REVEAL, Deadline.BLOCK)

EMPTY_DEPTH_FACTOR = 16
"""How many times D heights may stay open while nothing of weight happens: the bound on what a tree holds."""


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """Join a complete, checked block with the state after it; the root of the tree has no block."""

    state: ChainState
    block: AnyBlock | None


Weigh = Callable[[AnyBlock, tuple[AnyBlock, ...]], int]
"""The engine's answer: what a block weighs, given its siblings on the same parent."""


@dataclass(frozen=True, slots=True)
class BlockTree:
    """Hold complete blocks by hash, from the final block upwards; every change returns a new tree."""

    root: Hash32
    records: Mapping[Hash32, BlockRecord]
    children: Mapping[Hash32, tuple[Hash32, ...]] = field(default_factory=dict)

    def __contains__(self, block_hash: Hash32) -> bool:
        return block_hash in self.records

    def state(self, block_hash: Hash32) -> ChainState:
        """Return the state after a block of the tree."""
        record = self.records.get(block_hash)
        if record is None:
            raise Rejected(RejectionReason.BLOCK_UNKNOWN_PARENT, f"block {block_hash.hex()[:16]} is not known")
        return record.state

    def with_block(self, block: AnyBlock, state: ChainState) -> "BlockTree":
        """Return the tree with one more complete block."""
        if state.block_hash in self.records:
            raise Rejected(RejectionReason.BLOCK_DUPLICATE, f"block {state.block_hash.hex()[:16]} is known")
        records = {**self.records, state.block_hash: BlockRecord(state, block)}
        siblings = (*self.children.get(state.parent, ()), state.block_hash)
        children = {**self.children, state.parent: tuple(sorted(siblings))}
        return BlockTree(self.root, MappingProxyType(records), MappingProxyType(children))

    def with_state(self, state: ChainState) -> "BlockTree":
        """Return the tree with the state of a known block replaced (tasks of its payload were admitted)."""
        record = self.records[state.block_hash]
        records = {**self.records, state.block_hash: BlockRecord(state, record.block)}
        return BlockTree(self.root, MappingProxyType(records), self.children)

    def prune_below(self, root: Hash32) -> "BlockTree":
        """Return the tree above a new final block; everything that does not descend from it is forgotten."""
        if root == self.root:
            return self
        kept = set(self._descendants(root))
        records = {key: record for key, record in self.records.items() if key in kept}
        children = {key: hashes for key, hashes in self.children.items() if key in kept}
        return BlockTree(root, MappingProxyType(records), MappingProxyType(children))

    def remove_blocks(self, gone: Collection[Hash32]) -> "BlockTree":
        """Return the tree without some blocks that nothing else in it builds on."""
        records = {key: record for key, record in self.records.items() if key not in gone}
        left = ((key, tuple(each for each in below if each not in gone)) for key, below in self.children.items())
        children = {key: below for key, below in left if below and key in records}
        return BlockTree(self.root, MappingProxyType(records), MappingProxyType(children))

    def branch(self, tip: Hash32) -> tuple[BlockRecord, ...]:
        """Return the records from just above the root up to `tip`."""
        path: list[BlockRecord] = []
        while tip != self.root:
            path.append(self.records[tip])
            tip = path[-1].state.parent
        return tuple(reversed(path))

    def leaves(self) -> tuple[Hash32, ...]:
        """Return the hashes that nothing builds on, in the order of the hashes."""
        return tuple(sorted(key for key in self.records if not self.children.get(key)))

    def siblings(self, block: AnyBlock) -> tuple[AnyBlock, ...]:
        """Return all known blocks on the same parent, the block itself included."""
        found = (self.records[key].block for key in self.children.get(block.parent, ()))
        return tuple(each for each in found if each is not None)

    def weight(self, tip: Hash32, weigh: Weigh) -> int:
        """Return the weight of the branch from the root to `tip`."""
        blocks = (record.block for record in self.branch(tip))
        return sum(weigh(block, self.siblings(block)) for block in blocks if block is not None)

    def _descendants(self, root: Hash32) -> Iterator[Hash32]:
        waiting = [root]
        while waiting:
            key = waiting.pop()
            yield key
            waiting.extend(self.children.get(key, ()))


def find_heaviest(tree: BlockTree, weigh: Weigh, tips: tuple[Hash32, ...]) -> Hash32:
    """Return the tip that every node prefers, whatever the order in which the blocks arrived."""
    best = tips[0]
    for tip in tips[1:]:
        if _is_preferred(tree, weigh, tip, best):
            best = tip
    return best


def find_divergence(
    tree: BlockTree, left: Hash32, right: Hash32
) -> tuple[tuple[BlockRecord, ...], tuple[BlockRecord, ...]]:
    """Return what two branches do not share, each from the first height at which they differ."""
    first, second = tree.branch(left), tree.branch(right)
    shared = 0
    for one, other in zip(first, second, strict=False):
        if one.state.block_hash != other.state.block_hash:
            break
        shared += 1
    return first[shared:], second[shared:]


def is_eligible(tree: BlockTree, weigh: Weigh, here: Hash32, tip: Hash32, witnessed: WitnessedDeadlines) -> bool:
    """Refuse a branch that leaves out what this node saw in time on the branch it is on (ROUND-17)."""
    if tip == here:
        return True
    ours, theirs = find_divergence(tree, here, tip)
    if ours and theirs and isinstance(ours[0].block, Block) and isinstance(theirs[0].block, EmptyBlock):
        return (ours[0].block.parent, Deadline.RELEASE) not in witnessed
    empty = (each.block for each in theirs if isinstance(each.block, EmptyBlock))
    if any(_is_contradicted(tree, each, witnessed) for each in empty):
        return tree.weight(tip, weigh) > tree.weight(here, weigh)
    return True


def _is_contradicted(tree: BlockTree, block: EmptyBlock, witnessed: WitnessedDeadlines) -> bool:
    """Return whether this node saw in time what the empty block says was missed, or that it leaves out.

    Later deadlines without a commitment say that none came. Were that believed, a publisher that keeps its test set
    back could end the height under a name with a low ticket: a release owed to nobody costs no bond.
    """
    if (
        not block.commitments
        and block.missed in _AFTER_COMMITMENTS
        and (block.parent, Deadline.COMMITMENT) in witnessed
    ):
        return True
    if block.missed is Deadline.BLOCK:
        return any(isinstance(each, Block) for each in tree.siblings(block))
    return (block.parent, block.missed) in witnessed


def find_safe_block(branch: tuple[BlockRecord, ...], final: Hash32) -> Hash32:
    """Return the newest block that enough high-accuracy models follow; the final one if there is none."""
    followers = 0
    for record in reversed(branch):
        if followers >= CONFIRMATIONS_OF_SAFE:
            return record.state.block_hash
        followers += record.state.high_accuracy
    return final


def find_final_block(tree: BlockTree, tip: Hash32, weigh: Weigh, depth: int) -> Hash32:
    """Return the newest block of a branch that D blocks of weight follow (ROUND-21); the root if none is.

    Empty blocks weigh nothing, so they make nothing final: who was alone for a while, and ended height after height
    because nobody else was there, must be able to come back to the branch on which the others went on training.
    """
    weight = 0
    for heights, record in enumerate(reversed(tree.branch(tip))):
        if weight >= depth or heights >= EMPTY_DEPTH_FACTOR * depth:
            return record.state.block_hash
        if record.block is not None:
            weight += weigh(record.block, tree.siblings(record.block))
    return tree.root


def empty_block_priority(parent: Hash32, missed: Deadline, proposer: Address, *, listing: bool) -> bytes:
    """Order empty blocks on one parent, lowest first: who saw more of the height, then the lower ticket (ROUND-3).

    `listing` says whether it lists commitments. Who saw the key or a commitment in time never follows a block that says
    there was none; who did not may well believe the other. Were the ticket to decide alone, a miner without the key
    and a publisher without miners could each stay where they are for ever, at equal weight, and neither could train.
    """
    saw_models = listing and missed in _AFTER_COMMITMENTS
    return bytes([not saw_models, _LATEST_FIRST.index(missed)]) + empty_block_tie_breaker(parent, proposer)


def lowest_priority(tree: BlockTree, parent: Hash32, witnessed: WitnessedDeadlines) -> bytes:
    """Return the lowest lot among the empty blocks on `parent` that may become head, or more than any lot."""
    known = (tree.records[key].block for key in tree.children.get(parent, ()))
    rivals = (each for each in known if isinstance(each, EmptyBlock) and not _is_contradicted(tree, each, witnessed))
    return min((_priority(each) for each in rivals), default=b"\xff" * 34)


def _is_preferred(tree: BlockTree, weigh: Weigh, left: Hash32, right: Hash32) -> bool:
    """Compare weights, then exact counts at the first differing height, then length, then lots or hashes."""
    weights = tree.weight(left, weigh), tree.weight(right, weigh)
    if weights[0] != weights[1]:
        return weights[0] > weights[1]
    ours, theirs = find_divergence(tree, left, right)
    if not ours or not theirs:
        # One extends the other by empty blocks alone: they end a height, so the longer one is the present.
        return len(ours) > len(theirs)
    return _rival_order(ours[0]) < _rival_order(theirs[0])


def _rival_order(record: BlockRecord) -> tuple[Fraction, bytes]:
    """Order rivals on one parent, best first: a higher exact count, a lower lot, a lower hash."""
    block = record.block
    if isinstance(block, Block):
        return -Accuracy(block.verdict.correct, block.verdict.total).share, record.state.block_hash
    if block is None:
        raise AssertionError("the root of a tree has no rivals")
    return Fraction(1), _priority(block) + record.state.block_hash


def _priority(block: EmptyBlock) -> bytes:
    return empty_block_priority(block.parent, block.missed, block.proposer, listing=bool(block.commitments))


MAXIMUM_SIDE_SIBLINGS = 8
"""Losers on one parent that nothing builds on: the lowest tickets stay, of one signer one for each deadline."""

SPARE_SIDE_BRANCHES = 64
"""Losers beyond the longest branch of empty blocks that may have to be fetched: its beginning must not go meanwhile."""


def maximum_side_branches(finality_depth: int) -> int:
    """Return how many losers a tree holds in all."""
    return EMPTY_DEPTH_FACTOR * finality_depth + SPARE_SIDE_BRANCHES


def find_side_branches(tree: BlockTree, kept: Iterable[Hash32]) -> tuple[Hash32, ...]:
    """Return the empty blocks that lost: neither below a kept nor below a trained block, in the order of arrival."""
    needed = {tree.root}
    trained = (key for key, record in tree.records.items() if isinstance(record.block, Block))
    for tip in (*kept, *trained):
        here = tip
        while here not in needed:
            needed.add(here)
            here = tree.state(here).parent
    return tuple(key for key in tree.records if key not in needed)


def excess_blocks(tree: BlockTree, kept: Collection[Hash32], maximum: int) -> tuple[Hash32, ...]:
    """Return the losers to forget; whatever came last on a parent stays, as somebody may be about to build on it."""
    sides = find_side_branches(tree, kept)
    siblings: dict[Hash32, list[Hash32]] = {}
    for key in sides:
        if not tree.children.get(key):
            siblings.setdefault(tree.state(key).parent, []).append(key)
    crowd = {key for leaves in siblings.values() for key in _excess_siblings(tree, leaves)}
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


def _excess_siblings(tree: BlockTree, leaves: list[Hash32]) -> list[Hash32]:
    """Return which of the losers on one parent go: the lowest tickets stay, and the last that came."""
    signers: set[tuple[Address, Deadline]] = set()
    ranked: list[Hash32] = []
    repeated: list[Hash32] = []
    for key in sorted(leaves, key=lambda each: (_tie_breaker(tree.records[each].block), each)):
        block = tree.records[key].block
        if not isinstance(block, EmptyBlock):
            raise AssertionError("a trained block is no loser")
        (repeated if (block.proposer, block.missed) in signers else ranked).append(key)
        signers.add((block.proposer, block.missed))
    return [each for each in (*ranked[MAXIMUM_SIDE_SIBLINGS:], *repeated) if each != leaves[-1]]


def _tie_breaker(block: AnyBlock | None) -> bytes:
    return b"" if block is None else empty_block_tie_breaker(block.parent, block.proposer)
