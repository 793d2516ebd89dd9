"""Spread messages: push small ones to a few peers, announce the rest, pull on demand, validate before forwarding.

Bitcoin's announce and fetch, with a push to save the round trip. A message whose validator raises `Unavailable`, or
whose topic has no validator yet, is kept for a minute and tried again: what arrives early is not lost. On a new
connection both sides announce what they accepted lately, so a short interruption loses nothing either.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

from learnchain.encoding.codec import Hash32, decode
from learnchain.network.concurrency import Clock, Tasks
from learnchain.network.peers import NetworkLimits, Peer, RecentIdentifiers
from learnchain.network.wire import MAXIMUM_IDENTIFIERS, Full, Have, MessageKind, Want, message_bytes, message_id
from learnchain.rejection import Rejected, RejectionReason, Unavailable

SEEN_IDENTIFIERS = 65_536
RECENT_MESSAGES = 4_096
RECENT_BYTES = 32 * 1024 * 1024
ANNOUNCED_SECONDS = 120.0
"""How old an accepted message may be to be announced to a peer that connects."""
WANTED_IDENTIFIERS = 4_096
WANTED_IDENTIFIERS_PER_PEER = 1_024
"""One peer's inventions must not push out what others announce."""
WANT_SECONDS = 2.0
"""How long we wait for a message from one announcer before we ask the next."""
LONGEST_WANT_SECONDS = 30.0
"""How long we wait when there is no other announcer."""
DEFERRED_MESSAGES = 512
DEFERRED_MESSAGES_PER_PEER = 128
DEFERRED_SECONDS = 60.0
_OTHER_ANNOUNCERS = 4
_log = logging.getLogger(__name__)


class ValidationResult(Enum):
    """Say what becomes of a message."""

    ACCEPT = "accept"
    """Valid and new: forward it."""
    IGNORE = "ignore"
    """Of no use, nobody's fault: keep it to ourselves."""
    REJECT = "reject"
    """Against the rules: count it against the peer that sent it."""
    DEFER = "defer"
    """Cannot be judged yet: try again for a minute (a validator that raises `Unavailable` says the same)."""


Validate = Callable[[bytes, bytes], Awaitable[ValidationResult]]
"""(peer id, payload) -> verdict."""


@dataclass(slots=True)
class _Wanted:
    asked_peer: bytes
    since_seconds: float
    others: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Deferred:
    full: Full
    source: bytes
    until_seconds: float
    next_seconds: float
    pause_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class GossipContext:
    """Hand gossip what it needs of its network."""

    clock: Clock
    random: random.Random
    limits: NetworkLimits
    tasks: Tasks
    peers: dict[bytes, Peer]
    report: Callable[[bytes, Rejected], None]


class Gossip:
    """Keep what was seen, what is wanted and what must wait, all bounded."""

    def __init__(self, context: GossipContext) -> None:
        self._context = context
        self._topics: dict[str, Validate] = {}
        self._seen = RecentIdentifiers(SEEN_IDENTIFIERS)
        self._recent: OrderedDict[Hash32, tuple[Full, float]] = OrderedDict()
        self._recent_bytes = 0
        self._wanted: OrderedDict[Hash32, _Wanted] = OrderedDict()
        self._deferred: OrderedDict[Hash32, _Deferred] = OrderedDict()

    def on_topic(self, topic: str, validate: Validate) -> None:
        """Route a topic's messages to a validator; messages that came too early follow at the next tick."""
        self._topics[topic] = validate

    def publish(self, topic: str, payload: bytes) -> Hash32:
        """Spread a message of our own."""
        full = Full(topic, payload)
        message = message_bytes(MessageKind.FULL, full)
        identifier = message_id(full)
        self._seen.add(identifier)
        self._remember(identifier, full)
        self._spread(identifier, message)
        return identifier

    def greet(self, peer: Peer) -> None:
        """Announce what was accepted lately to a peer that has just connected."""
        youngest = self._now() - ANNOUNCED_SECONDS
        recent = [identifier for identifier, (_, since) in self._recent.items() if since >= youngest]
        for start in range(0, len(recent), MAXIMUM_IDENTIFIERS):
            peer.post(message_bytes(MessageKind.HAVE, Have(tuple(recent[start : start + MAXIMUM_IDENTIFIERS]))))

    async def handle(self, peer: Peer, kind: MessageKind, body: bytes) -> None:
        """Take one gossip message of a peer; malformed ones raise `Rejected`, too many are dropped and counted."""
        match kind:
            case MessageKind.FULL:
                full = decode(Full, body)
                await self._take(peer, message_id(full), full)
            case MessageKind.HAVE:
                if self._may_send(peer, len(body)):
                    self._ask(peer, decode(Have, body).identifiers)
            case _:
                if self._may_send(peer, len(body)):
                    self._answer(peer, decode(Want, body).identifiers)

    def tick(self) -> None:
        """Ask the next announcer for what did not come; try what was deferred. Called twice a second."""
        now = self._now()
        for identifier, wanted in list(self._wanted.items()):
            if now - wanted.since_seconds >= WANT_SECONDS:
                self._ask_next(identifier, wanted)
        for identifier, deferred in list(self._deferred.items()):
            if now >= deferred.next_seconds:
                self._retry(identifier, deferred)

    def retry_deferred(self) -> None:
        """Try every deferred message now: the node calls this when its state has changed."""
        for identifier, deferred in list(self._deferred.items()):
            self._retry(identifier, deferred)

    def _now(self) -> float:
        return self._context.clock.monotonic_seconds()

    def _may_send(self, peer: Peer, size_bytes: int) -> bool:
        now, standing = self._now(), peer.standing
        if standing.messages.take(1.0 + size_bytes / 4_096, now) and standing.bytes.take(size_bytes, now):
            return True
        self._context.report(peer.peer_id, Rejected(RejectionReason.RATE_LIMITED, "gossip above the rate"))
        return False

    async def _take(self, peer: Peer, identifier: Hash32, full: Full) -> None:
        peer.knows.add(identifier)
        wanted = self._wanted.get(identifier)
        # What we asked for is free: a peer that answers a long list of ours does not flood us.
        solicited = wanted is not None and wanted.asked_peer == peer.peer_id
        if not solicited and not self._may_send(peer, len(full.payload)):
            return
        self._wanted.pop(identifier, None)
        if identifier in self._seen:
            return
        self._seen.add(identifier)
        await peer.validations.acquire()

        async def validated() -> None:
            try:
                await self._process_message(identifier, full, peer.peer_id)
            finally:
                peer.validations.release()

        self._context.tasks.start(f"validation of {full.topic}", validated())

    async def _process_message(self, identifier: Hash32, full: Full, source: bytes) -> None:
        verdict = await self._validate_message(full, source)
        if verdict is ValidationResult.ACCEPT:
            self._remember(identifier, full)
            self._spread(identifier, message_bytes(MessageKind.FULL, full))
        elif verdict is ValidationResult.DEFER:
            self._defer(identifier, full, source)

    async def _validate_message(self, full: Full, source: bytes) -> ValidationResult:
        validate = self._topics.get(full.topic)
        if validate is None:
            return ValidationResult.DEFER
        try:
            async with asyncio.timeout(self._context.limits.validation_seconds):
                verdict = await validate(source, full.payload)
        except Unavailable:
            return ValidationResult.DEFER
        except TimeoutError:
            _log.warning("a message on %s was not judged in time", full.topic)
            return ValidationResult.IGNORE
        except Rejected as rejected:
            self._context.report(source, rejected)
            return ValidationResult.REJECT
        if verdict is ValidationResult.REJECT:
            self._context.report(source, Rejected(RejectionReason.MALFORMED, f"rejected on {full.topic}"))
        return verdict

    def _remember(self, identifier: Hash32, full: Full) -> None:
        self._recent[identifier] = (full, self._now())
        self._recent_bytes += len(full.payload)
        while len(self._recent) > RECENT_MESSAGES or self._recent_bytes > RECENT_BYTES:
            _, (oldest, _) = self._recent.popitem(last=False)
            self._recent_bytes -= len(oldest.payload)

    def _spread(self, identifier: Hash32, message: bytes) -> None:
        limits = self._context.limits
        ignorant = [peer for peer in self._context.peers.values() if identifier not in peer.knows]
        self._context.random.shuffle(ignorant)
        pushed = limits.push_peers if len(message) <= limits.push_bytes else 0
        for peer in ignorant[:pushed]:
            self._send_full(peer, identifier, message)
        if ignorant[pushed:]:
            announcement = message_bytes(MessageKind.HAVE, Have((identifier,)))
            for peer in ignorant[pushed:]:
                peer.post(announcement)

    def _send_full(self, peer: Peer, identifier: Hash32, message: bytes) -> None:
        peer.knows.add(identifier)
        peer.was_sent.add(identifier)
        peer.post(message)

    def _ask(self, peer: Peer, identifiers: tuple[Hash32, ...]) -> None:
        fresh: list[Hash32] = []
        room = WANTED_IDENTIFIERS_PER_PEER - sum(wanted.asked_peer == peer.peer_id for wanted in self._wanted.values())
        for identifier in identifiers:
            peer.knows.add(identifier)
            if identifier in self._seen:
                continue
            wanted = self._wanted.get(identifier)
            if wanted is None and len(fresh) < room:
                fresh.append(identifier)
                self._wanted[identifier] = _Wanted(peer.peer_id, self._now())
            elif wanted is not None and len(wanted.others) < _OTHER_ANNOUNCERS:
                wanted.others.append(peer.peer_id)
        while len(self._wanted) > WANTED_IDENTIFIERS:
            self._wanted.popitem(last=False)
        if fresh:
            peer.post(message_bytes(MessageKind.WANT, Want(tuple(fresh))))

    def _ask_next(self, identifier: Hash32, wanted: _Wanted) -> None:
        while wanted.others:
            peer = self._context.peers.get(wanted.others.pop(0))
            if peer is not None:
                wanted.asked_peer, wanted.since_seconds = peer.peer_id, self._now()
                peer.post(message_bytes(MessageKind.WANT, Want((identifier,))))
                return
        if self._now() - wanted.since_seconds >= LONGEST_WANT_SECONDS:
            del self._wanted[identifier]

    def _answer(self, peer: Peer, identifiers: tuple[Hash32, ...]) -> None:
        for identifier in identifiers:
            found = self._recent.get(identifier)
            # Once a connection: asking again and again must not make us send again and again.
            if found is not None and identifier not in peer.was_sent:
                self._send_full(peer, identifier, message_bytes(MessageKind.FULL, found[0]))

    def _defer(self, identifier: Hash32, full: Full, source: bytes) -> None:
        known = self._deferred.get(identifier)
        now = self._now()
        if known is not None:
            known.pause_seconds = min(2 * known.pause_seconds, 8.0)
            known.next_seconds = now + known.pause_seconds
            return
        of_this_peer = sum(1 for deferred in self._deferred.values() if deferred.source == source)
        if of_this_peer < DEFERRED_MESSAGES_PER_PEER and len(self._deferred) < DEFERRED_MESSAGES:
            self._deferred[identifier] = _Deferred(full, source, now + DEFERRED_SECONDS, now + 1.0)
        else:
            self._seen.discard(identifier)

    def _retry(self, identifier: Hash32, deferred: _Deferred) -> None:
        now = self._now()
        if now >= deferred.until_seconds:
            del self._deferred[identifier]
            self._seen.discard(identifier)
            return
        # Out of the way until this attempt has ended; `_defer` or the deletion decides what follows.
        deferred.next_seconds = deferred.until_seconds
        self._context.tasks.start(
            f"another look at {deferred.full.topic}", self._process_deferred(identifier, deferred)
        )

    async def _process_deferred(self, identifier: Hash32, deferred: _Deferred) -> None:
        verdict = await self._validate_message(deferred.full, deferred.source)
        if verdict is ValidationResult.DEFER:
            if identifier in self._deferred:
                self._defer(identifier, deferred.full, deferred.source)
            return
        if self._deferred.pop(identifier, None) is not None and verdict is ValidationResult.ACCEPT:
            self._remember(identifier, deferred.full)
            self._spread(identifier, message_bytes(MessageKind.FULL, deferred.full))
