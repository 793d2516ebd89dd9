"""Catch up with peers: compare heads, fetch what is missing from just above our final block, feed it in order."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from learnchain.node.chain import Chain
from learnchain.node.clock import Clock
from learnchain.node.network.network import Network
from learnchain.node.storage.archive import MAXIMUM_BLOCK_BYTES, Archive, decode_block
from learnchain.primitives.codec import Bound, Hash32, decode, encode
from learnchain.primitives.hashing import noun_hash
from learnchain.primitives.messages import block_bytes
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

logger = logging.getLogger(__name__)

STATUS, BLOCKS = "status", "blocks"
BLOCKS_PER_REQUEST = 32
PIECE_BYTES = 1 << 15
ALONE_SECONDS = 3.0
"""How long a starting node looks for peers before it takes itself for the first."""
IMPATIENT_SECONDS = 0.5
STALE_SECONDS = 3.0
"""How often we compare heads even when nobody new connects: gossip that was lost shows here."""


@dataclass(frozen=True, slots=True)
class Status:
    """Say where a node stands."""

    head: Hash32
    height: int
    weight: int


@dataclass(frozen=True, slots=True)
class BlockRange:
    """Ask for the blocks of a branch: those above a height, towards a tip."""

    tip: Hash32
    above_height: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """Answer with blocks, lowest first."""

    encoded: Annotated[tuple[Annotated[bytes, Bound(MAXIMUM_BLOCK_BYTES)], ...], Bound(BLOCKS_PER_REQUEST)]


class Synchroniser:
    """Answer for our chain and fetch from those that are ahead."""

    def __init__(self, network: Network, chain: Chain, archive: Archive, clock: Clock) -> None:
        self._network, self._chain, self._archive, self._clock = network, chain, archive, clock
        self._busy = asyncio.Lock()
        network.on_request(STATUS, self._answer_status)
        network.on_request(BLOCKS, self._answer_blocks)
        network.on_peer_connected(self._compare)

    async def run(self) -> None:
        """Compare heads with every peer again and again; a node that finds nobody for a while is the network."""
        started = self._clock.monotonic_seconds()
        while True:
            await asyncio.sleep(STALE_SECONDS if self._chain.is_current else IMPATIENT_SECONDS)
            for peer in self._network.peers():
                await self._compare(peer.peer_id)
            if not self._network.peers() and self._clock.monotonic_seconds() - started >= ALONE_SECONDS:
                self._chain.is_current = True

    async def _answer_status(self, peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        head = self._chain.round.head
        yield encode(Status(head.block, head.height, head.weight))

    async def _answer_blocks(self, peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        wanted = decode(BlockRange, body)
        tip = self._archive.state(wanted.tip)
        if wanted.above_height >= tip.height:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "the range is empty")
        path = self._archive.branch(wanted.tip, wanted.above_height)[:BLOCKS_PER_REQUEST]
        answer = encode(Blocks(tuple(block_bytes(self._archive.block(state.block_hash)) for state in path)))
        for start in range(0, len(answer), PIECE_BYTES):
            yield answer[start : start + PIECE_BYTES]

    async def _compare(self, peer_id: bytes) -> None:
        if self._busy.locked():
            return
        async with self._busy:
            try:
                answer = await self._network.request_bytes(peer_id, STATUS, b"", timeout_seconds=5.0, limit_bytes=256)
                status = decode(Status, answer)
                await self._follow(peer_id, status)
                if status.head in self._chain.round.tree or status.weight < self._chain.round.head.weight:
                    self._chain.is_current = True
            except Unavailable as error:
                logger.debug("peer %s: %s", peer_id.hex()[:16], error)
            except Rejected as error:
                self._network.report(peer_id, error)

    async def _follow(self, peer_id: bytes, status: Status) -> None:
        """Fetch the peer's branch from just above our final block until its tip is known or nothing new comes."""
        tree = self._chain.round.tree
        above = tree.state(tree.root).height
        while status.head not in self._chain.round.tree and status.height > above:
            body = encode(BlockRange(status.head, above))
            limit = BLOCKS_PER_REQUEST * MAXIMUM_BLOCK_BYTES
            answer = await self._network.request_bytes(peer_id, BLOCKS, body, timeout_seconds=30.0, limit_bytes=limit)
            encoded = decode(Blocks, answer).encoded
            if not encoded:
                return
            for each in encoded:
                above = await self._feed(each)

    async def _feed(self, encoded: bytes) -> int:
        """Feed one block and wait until it is admitted, because the next one builds on it."""
        block = decode_block(encoded)
        key = noun_hash(block)
        if key not in self._chain.round.tree:
            try:
                self._chain.receive(block)
            except Rejected as error:
                if error.reason not in (RejectionReason.BLOCK_DUPLICATE, RejectionReason.BELOW_FINAL):
                    raise
            await self._admitted(key)
        return block.height

    async def _admitted(self, key: Hash32) -> None:
        for _ in range(600):
            state = self._chain.round
            if key in state.tree or key not in state.pending:
                return
            await asyncio.sleep(0.05)
        raise Unavailable(f"what block {key.hex()[:16]} rests on")
