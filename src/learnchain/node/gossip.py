"""Carry the round's messages between nodes: one topic each, judged by the spine before they are forwarded."""

import logging
from collections.abc import Callable

from learnchain.consensus.fork_choice import empty_block_priority, lowest_priority
from learnchain.encoding.codec import decode, encode
from learnchain.encoding.hashing import message_hash
from learnchain.network.gossip import ValidationResult
from learnchain.network.network import Network
from learnchain.node.chain import Chain, WireMessage
from learnchain.protocol.audit_messages import AuditCommitment, AuditReport
from learnchain.protocol.dispute_messages import Challenge, ChallengeResponse
from learnchain.protocol.messages import (
    Block,
    Commitment,
    EmptyBlock,
    Evidence,
    KeyRelease,
    ReleaseAnnouncement,
    Reveal,
    block_bytes,
)
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.archive import decode_block

logger = logging.getLogger(__name__)

GossipMessage = (
    KeyRelease
    | Commitment
    | ReleaseAnnouncement
    | Reveal
    | Evidence
    | AuditCommitment
    | AuditReport
    | Challenge
    | ChallengeResponse
)

TOPICS: dict[str, type[GossipMessage]] = {
    "key": KeyRelease,
    "commitment": Commitment,
    "release": ReleaseAnnouncement,
    "reveal": Reveal,
    "evidence": Evidence,
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
        if isinstance(message, Block | EmptyBlock):
            await self._network.publish(BLOCK_TOPIC, block_bytes(message))
            return
        topic = next(name for name, kind in TOPICS.items() if isinstance(message, kind))
        await self._network.publish(topic, encode(message))

    def _validator(self, topic: str):  # noqa: ANN202 - the type is gossip's Validate
        async def validate(peer_id: bytes, payload: bytes) -> ValidationResult:
            return self._validate_message(decode(TOPICS[topic], payload))

        return validate

    async def _validate_block(self, peer_id: bytes, payload: bytes) -> ValidationResult:
        block = decode_block(payload)
        if isinstance(block, EmptyBlock) and self._loses(block):
            return ValidationResult.IGNORE
        return self._validate_message(block)

    def _loses(self, block: EmptyBlock) -> bool:
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
