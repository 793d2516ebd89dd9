"""Carry the round's messages between nodes, and catch up with peers.

Gossip has one topic a message, judged by the spine before it is forwarded. Catching up compares heads, fetches what is
missing from just above our final block, and feeds it in order.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from learnchain.consensus.fork_choice import empty_block_priority, lowest_priority
from learnchain.encoding.codec import Bound, Hash32, decode, encode
from learnchain.encoding.cryptography import message_hash
from learnchain.execution.engine import ExecutionEngine
from learnchain.network.concurrency import Clock
from learnchain.network.gossip import ValidationResult
from learnchain.network.network import Network
from learnchain.network.transport import DIAL_TIMEOUT_SECONDS
from learnchain.node.chain import Chain, WireMessage
from learnchain.protocol import messages
from learnchain.protocol.audit_messages import AuditCommitment, AuditReport, Challenge, ChallengeResponse
from learnchain.protocol.payload import MAXIMUM_PAYLOAD_BYTES, PayloadStatusCode, decode_payload
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.archive import MAXIMUM_BLOCK_BYTES, Archive, decode_block
from learnchain.storage.blobs.blob_store import BlobStore
from learnchain.storage.blobs.peer_blobs import content_of

logger = logging.getLogger(__name__)

GossipMessage = (
    messages.KeyRelease
    | messages.Commitment
    | messages.ReleaseAnnouncement
    | messages.Reveal
    | messages.Evidence
    | AuditCommitment
    | AuditReport
    | Challenge
    | ChallengeResponse
)

TOPICS: dict[str, type[GossipMessage]] = {
    "key": messages.KeyRelease,
    "commitment": messages.Commitment,
    "release": messages.ReleaseAnnouncement,
    "reveal": messages.Reveal,
    "evidence": messages.Evidence,
    "audit": AuditCommitment,
    "audit_report": AuditReport,
    "challenge": Challenge,
    "response": ChallengeResponse,
}

BLOCK_TOPIC = "block"

IGNORED_REASONS = frozenset(
    {
        RejectionReason.BLOCK_DUPLICATE,
        RejectionReason.WRONG_PARENT,
        RejectionReason.WRONG_HEIGHT,
        RejectionReason.WRONG_PHASE,
        RejectionReason.COMMITMENT_LATE,
        RejectionReason.COMMITMENTS_FULL,
        RejectionReason.BELOW_FINAL,
        RejectionReason.EMPTY_BLOCK_EARLY,
        RejectionReason.RELEASE_EARLY,
        RejectionReason.EVIDENCE_STALE,
        RejectionReason.EVIDENCE_DOUBLE,
        RejectionReason.AUDIT_DOUBLE,
        RejectionReason.CHALLENGE_DOUBLE,
        RejectionReason.CHALLENGE_UNCOVERED,
        RejectionReason.RATE_LIMITED,
    }
)
"""What an honest peer on a rival branch, or with a clock beside ours, sends too: not forwarded, not counted."""

DEFERRED_REASONS = frozenset(
    {RejectionReason.AUDIT_CLOSED, RejectionReason.CHALLENGE_CLOSED, RejectionReason.RESPONSE_CLOSED}
)
"""What an honest peer sends that is a block ahead of us: looked at again when that block is here too."""


class RoundGossip:
    """Publish our messages and feed those of others to the chain."""

    def __init__(self, network: Network, chain: Chain) -> None:
        self._network = network
        self._chain = chain
        self.on_received: Callable[[WireMessage, RejectionReason | None], None] = lambda _message, _reason: None
        """What looks for contradictions in messages from the wire, taken or refused."""
        for topic in TOPICS:
            network.on_topic(topic, self._validator(topic))
        network.on_topic(BLOCK_TOPIC, self._validate_block)

    async def publish(self, message: WireMessage) -> None:
        """Spread one message of the round."""
        if isinstance(message, messages.Block | messages.EmptyBlock):
            await self._network.publish(BLOCK_TOPIC, messages.block_bytes(message))
            return
        topic = next(name for name, kind in TOPICS.items() if isinstance(message, kind))
        await self._network.publish(topic, encode(message))

    def _validator(self, topic: str):  # noqa: ANN202 - the type is gossip's Validate
        async def validate(peer_id: bytes, payload: bytes) -> ValidationResult:
            return self._validate_message(decode(TOPICS[topic], payload))

        return validate

    async def _validate_block(self, peer_id: bytes, payload: bytes) -> ValidationResult:
        block = decode_block(payload)
        if isinstance(block, messages.EmptyBlock) and self._loses(block):
            return ValidationResult.IGNORE
        return self._validate_message(block)

    def _loses(self, block: messages.EmptyBlock) -> bool:
        """Return whether a better empty block of the same height is known: only the lowest lot can win."""
        state = self._chain.round
        known = lowest_priority(state.tree, block.parent, state.witnessed_deadlines)
        listing = bool(block.commitments)
        return empty_block_priority(block.parent, block.missed, block.proposer, listing=listing) >= known

    def _validate_message(self, message: WireMessage) -> ValidationResult:
        try:
            self._chain.receive(message)
        except Unavailable as error:
            logger.debug("%s %s waits: %s", type(message).__name__, message_hash(message).hex()[:12], error)
            return ValidationResult.DEFER
        except Rejected as error:
            self.on_received(message, error.reason)
            if error.reason in DEFERRED_REASONS:
                logger.debug("%s is not due yet, or not any more: %s", type(message).__name__, error)
                return ValidationResult.DEFER
            if error.reason in IGNORED_REASONS:
                logger.debug("%s is of no use now: %s", type(message).__name__, error)
                return ValidationResult.IGNORE
            raise
        self.on_received(message, None)
        return ValidationResult.ACCEPT


STATUS, BLOCKS, ROUND = "status", "blocks", "round"
MAXIMUM_ROUND_BYTES = 2 << 20
BLOCKS_PER_REQUEST = 32
PIECE_BYTES = 1 << 15

ALONE_SECONDS = DIAL_TIMEOUT_SECONDS + 1.0
"""How long a starting node looks for peers before it takes itself for the first: longer than one dial may take."""

IMPATIENT_SECONDS = 0.5
ADMITTED_SECONDS = 30.0
FETCHES_AT_ONCE = 8

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


@dataclass(frozen=True, slots=True)
class RoundSoFar:
    """Answer with what came on a parent: for a node that was away while it was gossiped."""

    keys: Annotated[tuple[messages.KeyRelease, ...], Bound(1)]
    commitments: Annotated[tuple[messages.Commitment, ...], Bound(messages.MAXIMUM_COMMITMENTS)]
    releases: Annotated[tuple[messages.ReleaseAnnouncement, ...], Bound(1)]
    reveals: Annotated[tuple[messages.Reveal, ...], Bound(messages.MAXIMUM_COMMITMENTS)]


class Synchroniser:
    """Answer for our chain and fetch from those that are ahead."""

    def __init__(self, network: Network, chain: Chain, archive: Archive, clock: Clock) -> None:
        self._network, self._chain, self._archive, self._clock = network, chain, archive, clock
        self._blobs: BlobStore | None = None
        self._engine: ExecutionEngine | None = None
        self._busy = asyncio.Lock()
        network.on_request(STATUS, self._answer_status)
        network.on_request(BLOCKS, self._answer_blocks)
        network.on_request(ROUND, self._answer_round)
        network.on_peer_connected(self._greet)

    def enable_early_execution(self, blobs: BlobStore, engine: ExecutionEngine) -> None:
        """Work on the payloads of a batch while its first blocks are judged."""
        self._blobs, self._engine = blobs, engine

    async def run(self) -> None:
        """Compare heads with every peer again and again; a node that finds nobody for a while is the network."""
        started = self._clock.monotonic_seconds()
        while True:
            await asyncio.sleep(STALE_SECONDS if self._chain.is_current else IMPATIENT_SECONDS)
            for peer in self._network.peers():
                before = self._chain.round.head.block
                await self._compare(peer.peer_id)
                if self._chain.round.head.block != before:
                    await self._enter_round(peer.peer_id)
            if not self._network.peers() and self._clock.monotonic_seconds() - started >= ALONE_SECONDS:
                self._chain.is_current = True

    async def _answer_status(self, peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        head = self._chain.round.head
        yield encode(Status(head.block, head.height, head.weight))

    async def _answer_blocks(self, peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        wanted = decode(BlockRange, body)
        tip = self._archive.standing(wanted.tip)
        if wanted.above_height >= tip.height:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "the range is empty")
        path = self._archive.hashes_above(wanted.tip, wanted.above_height, BLOCKS_PER_REQUEST)
        answer = encode(Blocks(tuple(self._archive.block_data(each) for each in path)))
        for start in range(0, len(answer), PIECE_BYTES):
            yield answer[start : start + PIECE_BYTES]

    async def _answer_round(self, peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        state = self._chain.round
        if body != state.selection.parent:
            raise Unavailable("a round on another parent is decided here")
        here = state.key_release, state.announcement
        answer = RoundSoFar(
            () if here[0] is None else (here[0],),
            () if here[1] is not None else tuple(state.commitments.values()),
            () if here[1] is None else (here[1],),
            tuple(state.reveals.values()),
        )
        encoded = encode(answer)
        for start in range(0, len(encoded), PIECE_BYTES):
            yield encoded[start : start + PIECE_BYTES]

    async def _greet(self, peer_id: bytes) -> None:
        """Compare heads with a new peer, then enter the height that is being decided."""
        await self._compare(peer_id)
        await self._enter_round(peer_id)

    async def _enter_round(self, peer_id: bytes) -> None:
        """Ask a peer for what came on our head so far: it was gossiped before we were on this branch."""
        try:
            parent = self._chain.round.selection.parent
            answer = await self._network.request_bytes(
                peer_id, ROUND, parent, timeout_seconds=10.0, limit_bytes=MAXIMUM_ROUND_BYTES
            )
            sofar = decode(RoundSoFar, answer)
        except Unavailable as error:
            logger.debug("peer %s: %s", peer_id.hex()[:16], error)
            return
        except Rejected as error:
            self._network.report(peer_id, error)
            return
        for message in (*sofar.keys, *sofar.commitments, *sofar.releases, *sofar.reveals):
            try:
                self._chain.receive(message)
            except (Rejected, Unavailable) as error:
                # Late here, however timely it was there: what is held against nobody.
                logger.debug("%s of a round under way: %s", type(message).__name__, error)

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
        """Fetch the peer's branch from just above our final block until its tip is known or nothing new comes.

        While a batch is judged, the next one is fetched and its payloads are executed: two are in memory, never more.
        """
        tree = self._chain.round.tree
        above = tree.state(tree.root).height
        ahead: list[asyncio.Task[None]] = []
        coming: asyncio.Task[tuple[messages.AnyBlock, ...]] | None = None
        try:
            while status.head not in self._chain.round.tree and above < status.height:
                batch = await (coming or self._prepare_batch(peer_id, status, above, ahead))
                if not batch or batch[-1].height <= above:
                    return
                above, coming = batch[-1].height, None
                if above < status.height:
                    coming = asyncio.create_task(self._prepare_batch(peer_id, status, above, ahead))
                for block in batch:
                    await self._feed(block)
        finally:
            left = [*ahead, *([coming] if coming else [])]
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _prepare_batch(
        self, peer_id: bytes, status: Status, above_height: int, ahead: list[asyncio.Task[None]]
    ) -> tuple[messages.AnyBlock, ...]:
        """Return the next batch; its payloads are executed from now on, after those of the one before."""
        batch = await self._batch(peer_id, status, above_height)
        ahead[:] = [each for each in ahead if not each.done()]
        ahead.append(asyncio.create_task(self._execute_payloads(batch, peer_id, ahead[-1] if ahead else None)))
        return batch

    async def _batch(self, peer_id: bytes, status: Status, above_height: int) -> tuple[messages.AnyBlock, ...]:
        body = encode(BlockRange(status.head, above_height))
        limit = BLOCKS_PER_REQUEST * MAXIMUM_BLOCK_BYTES
        answer = await self._network.request_bytes(peer_id, BLOCKS, body, timeout_seconds=30.0, limit_bytes=limit)
        return tuple(decode_block(each) for each in decode(Blocks, answer).encoded)

    async def _execute_payloads(
        self, blocks: tuple[messages.AnyBlock, ...], peer_id: bytes, before: asyncio.Task[None] | None
    ) -> None:
        """Fetch and execute the payloads of a batch while blocks before it are judged; that changes no head."""
        if before is not None:
            await asyncio.wait({before})
        if self._blobs is None or self._engine is None:
            return
        blobs, at_once = self._blobs, asyncio.Semaphore(FETCHES_AT_ONCE)

        async def fetch(block: messages.AnyBlock) -> bytes:
            async with at_once:
                path = await blobs.fetch(block.payload_cid, max_bytes=MAXIMUM_PAYLOAD_BYTES, sources=(peer_id,))
                return await content_of(path)

        coming = [asyncio.create_task(fetch(block)) for block in blocks]
        try:
            with suppress(Unavailable, Rejected):
                for block, data in zip(blocks, coming, strict=True):
                    payload = decode_payload(await data)
                    if payload.block_hash != block.payload_hash:
                        return
                    status = await self._engine.new_payload(payload, payload.beacon_root)
                    if status.status is not PayloadStatusCode.VALID:
                        return
        finally:
            for each in coming:
                each.cancel()
            await asyncio.gather(*coming, return_exceptions=True)

    async def _feed(self, block: messages.AnyBlock) -> None:
        """Feed one block and wait until it is admitted, because the next one builds on it."""
        key = message_hash(block)
        if key not in self._chain.round.tree:
            try:
                self._chain.receive(block)
            except Rejected as error:
                if error.reason not in (RejectionReason.BLOCK_DUPLICATE, RejectionReason.BELOW_FINAL):
                    raise
            await self._wait_until_admitted(key)

    async def _wait_until_admitted(self, key: Hash32) -> None:
        """Wait until a block is judged: everything that comes after it rests on it."""
        try:
            async with asyncio.timeout(ADMITTED_SECONDS):
                while (state := self._chain.round) and key not in state.tree and key in state.pending_blocks:
                    await self._chain.next_step(ADMITTED_SECONDS)
        except TimeoutError as error:
            raise Unavailable(f"what block {key.hex()[:16]} rests on") from error
