"""The chain on disk: blocks, the states after them, the head, and what this node signed; each step one atomic batch."""

from collections import OrderedDict
from dataclasses import dataclass

from learnchain.primitives.block_tree import BlockRecord
from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.codec import Hash32, decode, encode
from learnchain.primitives.key_value import KeyValueStore
from learnchain.primitives.messages import (
    AnyBlock,
    Block,
    Commitment,
    EmptyBlock,
    Head,
    ReleaseAnnouncement,
    TrainingRecord,
    block_bytes,
)
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable
from learnchain.primitives.settlement import Settlement
from learnchain.primitives.task_specification import Cid

FORMAT = b"1"
MAXIMUM_BLOCK_BYTES = 1 << 18
MAXIMUM_REMEMBERED_BRANCHES = 128
"""Blocks whose list of settlements is kept in memory, so that a claim does not walk back to genesis."""


@dataclass(frozen=True, slots=True)
class OwnCandidate:
    """Hold what this miner committed to and must be able to open."""

    commitment: Commitment
    model_cid: Cid
    training: TrainingRecord
    payload_hash: Hash32
    payload_cid: Cid
    salt: Hash32


def decode_block(data: bytes) -> AnyBlock:
    """Return the block behind its stored or transmitted form; the first byte names its kind."""
    if len(data) > MAXIMUM_BLOCK_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a block of {len(data)} bytes")
    if data[:1] == b"\x01":
        return decode(Block, data[1:])
    if data[:1] == b"\x00":
        return decode(EmptyBlock, data[1:])
    raise Rejected(RejectionReason.MALFORMED, "the bytes are neither a block nor an empty block")


class Archive:
    """Keep what a node may not forget; reopening it continues exactly where the last atomic batch ended."""

    def __init__(self, store: KeyValueStore, genesis: ChainState) -> None:
        self._store = store
        self._settled: OrderedDict[Hash32, tuple[Settlement, ...]] = OrderedDict()
        known = store.get(b"format")
        if known is None:
            head = Head(genesis.block_hash, 0, 0, genesis.block_hash, genesis.block_hash)
            store.put_many(
                {
                    b"format": FORMAT,
                    b"genesis": genesis.block_hash,
                    b"state/" + genesis.block_hash: encode(genesis),
                    b"head": encode(head),
                }
            )
        elif known != FORMAT:
            detail = f"the data directory has format {known.decode()}, this program reads {FORMAT.decode()}"
            raise Rejected(RejectionReason.MALFORMED, detail)
        elif store.get(b"genesis") != genesis.block_hash:
            raise Rejected(RejectionReason.WRONG_CHAIN, "the data directory belongs to another network's genesis")

    # --- blocks and states ---------------------------------------------------------------------------------------

    def store_block(self, block: AnyBlock, state: ChainState) -> None:
        """Write a block and the state after it in one batch."""
        self._store.put_many(
            {
                b"block/" + state.block_hash: block_bytes(block),
                b"state/" + state.block_hash: encode(state),
                b"height/" + state.height.to_bytes(8, "big") + state.block_hash: b"",
            }
        )

    def block(self, block_hash: Hash32) -> AnyBlock:
        """Return a stored block."""
        data = self._store.get(b"block/" + block_hash)
        if data is None:
            raise Unavailable(f"block {block_hash.hex()}")
        return decode_block(data)

    def state(self, block_hash: Hash32) -> ChainState:
        """Return the state after a stored block."""
        data = self._store.get(b"state/" + block_hash)
        if data is None:
            raise Unavailable(f"state after block {block_hash.hex()}")
        return decode(ChainState, data)

    def payload_hash(self, block_hash: Hash32) -> Hash32:
        """Return the hash of the payload that a block carries."""
        return self.state(block_hash).payload_hash

    def at_height(self, height: int) -> tuple[Hash32, ...]:
        """Return all stored blocks of a height, on whatever branch."""
        prefix = b"height/" + height.to_bytes(8, "big")
        return tuple(key[len(prefix) :] for key, _ in self._store.scan(prefix))

    def records_above(self, final: ChainState) -> tuple[BlockRecord, ...]:
        """Return every stored block above a final state, lowest first."""
        found: list[BlockRecord] = []
        height = final.height + 1
        while hashes := self.at_height(height):
            found.extend(BlockRecord(self.state(key), self.block(key)) for key in hashes)
            height += 1
        return tuple(found)

    def branch(self, tip: Hash32, down_to_height: int) -> tuple[ChainState, ...]:
        """Return the states from just above `down_to_height` up to a block."""
        path: list[ChainState] = []
        state = self.state(tip)
        while state.height > down_to_height:
            path.append(state)
            state = self.state(state.parent)
        return tuple(reversed(path))

    def settlements(self, tip: Hash32) -> tuple[Settlement, ...]:
        """Return everything settled on a branch, in the order of the history tree."""
        path: list[ChainState] = []
        state = self.state(tip)
        while state.height > 0 and state.block_hash not in self._settled:
            path.append(state)
            state = self.state(state.parent)
        settled = self._settled.get(state.block_hash, ())
        for state in reversed(path):
            settled = (*settled, *state.reward.settlements)
            self._settled[state.block_hash] = settled
        while len(self._settled) > MAXIMUM_REMEMBERED_BRANCHES:
            self._settled.popitem(last=False)
        return settled

    # --- head ----------------------------------------------------------------------------------------------------

    def store_head(self, head: Head) -> None:
        """Write the head."""
        self._store.put_many({b"head": encode(head)})

    def head(self) -> Head:
        """Return the head of the last run; the genesis block at first."""
        data = self._store.get(b"head")
        if data is None:
            raise Unavailable("the head of a data directory that was not set up")
        return decode(Head, data)

    # --- what this node signed -----------------------------------------------------------------------------------

    def keep_own_candidate(self, own: OwnCandidate) -> None:
        """Write what this miner committed to, before the commitment leaves the node."""
        self._store.put_many({b"candidate/" + own.commitment.parent: encode(own)})

    def own_candidate(self, parent: Hash32) -> OwnCandidate | None:
        """Return what this miner committed to on a parent."""
        data = self._store.get(b"candidate/" + parent)
        return None if data is None else decode(OwnCandidate, data)

    def keep_own_release(self, announcement: ReleaseAnnouncement) -> None:
        """Write the release that this publisher signed, before it leaves the node."""
        self._store.put_many({b"release/" + announcement.release.parent: encode(announcement)})

    def own_release(self, parent: Hash32) -> ReleaseAnnouncement | None:
        """Return the release that this publisher signed on a parent."""
        data = self._store.get(b"release/" + parent)
        return None if data is None else decode(ReleaseAnnouncement, data)
