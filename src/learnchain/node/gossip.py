"""Carry the round's messages between nodes: one topic each, judged by the spine before they are forwarded."""

import logging
from collections.abc import Callable

from learnchain.consensus.fork_choice import empty_block_lot, lowest_lot
from learnchain.encoding.codec import decode, encode
from learnchain.encoding.hashing import noun_hash
from learnchain.network.gossip import Verdict
from learnchain.network.network import Network
from learnchain.node.chain import Chain, WireMessage
from learnchain.protocol.audit_messages import AuditCommitment, AuditReport
from learnchain.protocol.dispute_messages import Accusation, DisputeAnswer
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


Spoken = (
    KeyRelease
    | Commitment
    | ReleaseAnnouncement
    | Reveal
    | Evidence
    | AuditCommitment
    | AuditReport
    | Accusation
    | DisputeAnswer
)


TOPICS: dict[str, type[Spoken]] = {
    "key": KeyRelease,
    "commitment": Commitment,
    "release": ReleaseAnnouncement,
    "reveal": Reveal,
    "evidence": Evidence,
    "audit": AuditCommitment,
    "audit_report": AuditReport,
    "accusation": Accusation,
    "answer": DisputeAnswer,
}


BLOCK_TOPIC = "block"


HARMLESS = frozenset(
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
        RejectionReason.ACCUSATION_DOUBLE,
        RejectionReason.ACCUSATION_UNCOVERED,
        RejectionReason.RATE_LIMITED,
    }
)
"""What an honest peer on a rival branch, or with a clock beside ours, sends too: not forwarded, not counted."""


EARLY = frozenset({RejectionReason.AUDIT_CLOSED, RejectionReason.ACCUSATION_CLOSED, RejectionReason.ANSWER_CLOSED})
"""What an honest peer sends that is a block ahead of us: looked at again when that block is here too."""


class RoundGossip:
    """Publish our messages and feed those of others to the chain."""

    def __init__(self, network: Network, chain: Chain) -> None:
        self._network = network
        self._chain = chain
        self.compared: Callable[[WireMessage, RejectionReason | None], None] = lambda _message, _reason: None
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
        async def validate(peer_id: bytes, payload: bytes) -> Verdict:
            return self._validate_message(decode(TOPICS[topic], payload))

        return validate

    async def _validate_block(self, peer_id: bytes, payload: bytes) -> Verdict:
        block = decode_block(payload)
        if isinstance(block, EmptyBlock) and self._loses(block):
            return Verdict.IGNORE
        return self._validate_message(block)

    def _loses(self, block: EmptyBlock) -> bool:
        """Return whether a better empty block of the same height is known: only the lowest lot can win."""
        state = self._chain.round
        known = lowest_lot(state.tree, block.parent, state.witnessed)
        listing = bool(block.commitments)
        return empty_block_lot(block.parent, block.missed, block.proposer, listing=listing) >= known

    def _validate_message(self, message: WireMessage) -> Verdict:
        try:
            self._chain.receive(message)
        except Unavailable as error:
            logger.debug("%s %s waits: %s", type(message).__name__, noun_hash(message).hex()[:12], error)
            return Verdict.DEFER
        except Rejected as error:
            self.compared(message, error.reason)
            if error.reason in EARLY:
                logger.debug("%s is not due yet, or not any more: %s", type(message).__name__, error)
                return Verdict.DEFER
            if error.reason in HARMLESS:
                logger.debug("%s is of no use now: %s", type(message).__name__, error)
                return Verdict.IGNORE
            raise
        self.compared(message, None)
        return Verdict.ACCEPT
