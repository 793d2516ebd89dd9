"""What we know about peers: their standing, which outlives a connection, and the connected ones with their outboxes."""

import asyncio
import ipaddress
from collections import OrderedDict, deque
from dataclasses import dataclass

from learnchain.network.transport import Connection, PeerAddress
from learnchain.rejection import Rejected, RejectionReason


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """Bound what peers may cost us; the defaults suit a node on a public network."""

    target_peers: int = 8
    maximum_peers: int = 64
    maximum_peers_per_range: int = 32
    """Peers from one /16 (IPv4) or /32 (IPv6): somebody with one address block cannot surround us."""
    push_peers: int = 6
    push_bytes: int = 4_096
    messages_per_second: float = 200.0
    message_burst: float = 1_000.0
    bytes_per_second: float = 4.0 * 1024 * 1024
    byte_burst: float = 16.0 * 1024 * 1024
    requests_per_second: float = 200.0
    request_burst: float = 400.0
    ban_score: float = -90.0
    ban_seconds: float = 600.0
    host_bans_after: int = 3
    """Identities banned from one host before the host is: keys cost nothing, addresses do."""
    score_recovered_per_second: float = 0.1
    outbox_messages: int = 2_048
    outbox_bytes: int = 4 * 1024 * 1024
    validations_at_a_time: int = 8
    validation_seconds: float = 30.0
    hello_seconds: float = 5.0


HONEST_DIFFERENCES = frozenset(
    {
        RejectionReason.WRONG_HEIGHT,
        RejectionReason.WRONG_PARENT,
        RejectionReason.WRONG_PHASE,
        RejectionReason.WRONG_TASK,
        RejectionReason.TASK_DUPLICATE,
        RejectionReason.TASK_EXPIRED,
        RejectionReason.COMMITMENT_LATE,
        RejectionReason.COMMITMENT_DOUBLE,
        RejectionReason.COMMITMENTS_FULL,
        RejectionReason.COMMITMENT_UNKNOWN,
        RejectionReason.COMMITMENT_NOT_RELEASED,
        RejectionReason.REVEAL_DOUBLE,
        RejectionReason.RELEASE_DOUBLE,
        RejectionReason.RELEASE_EARLY,
        RejectionReason.BLOCK_UNKNOWN_PARENT,
        RejectionReason.BLOCK_DUPLICATE,
        RejectionReason.TIMESTAMP_WRONG,
        RejectionReason.EMPTY_BLOCK_EARLY,
        RejectionReason.BELOW_FINAL,
        RejectionReason.METHOD_UNKNOWN,
        RejectionReason.FORMAT_UNSUPPORTED,
        RejectionReason.RATE_LIMITED,
        RejectionReason.PEER_RECORD_STALE,
    }
)
"""Reasons that two honest nodes may differ on, because their clocks, heads or versions do: a flood of them bans, one
does not. The other reasons say that the bytes themselves are bad, whoever looks."""

LIGHT_PENALTY = 1.0
DEFAULT_PENALTY = 20.0
"""What a message that is bad by itself costs: five of them in a row are a ban."""
_REMEMBERED_STANDINGS = 4_096
_REMEMBERED_REFUSALS = 256
_KNOWN_IDENTIFIERS = 4_096


class TokenBucket:
    """Let a steady rate through, and a burst after a pause."""

    __slots__ = ("_burst", "_filled_seconds", "_rate", "_tokens")

    def __init__(self, rate_per_second: float, burst: float, now_seconds: float) -> None:
        self._rate = rate_per_second
        self._burst = burst
        self._tokens = burst
        self._filled_seconds = now_seconds

    def take(self, tokens: float, now_seconds: float) -> bool:
        """Return whether the tokens were there; take them if so."""
        self._tokens = min(self._burst, self._tokens + (now_seconds - self._filled_seconds) * self._rate)
        self._filled_seconds = now_seconds
        if tokens > self._tokens:
            return False
        self._tokens -= tokens
        return True


class PeerStanding:
    """Count what a peer did: score, ban and rates; a reconnection resets none of it."""

    def __init__(self, limits: NetworkLimits, now_seconds: float) -> None:
        self._limits = limits
        self._score = 0.0
        self._scored_seconds = now_seconds
        self.banned_until_seconds = 0.0
        self.messages = TokenBucket(limits.messages_per_second, limits.message_burst, now_seconds)
        self.bytes = TokenBucket(limits.bytes_per_second, limits.byte_burst, now_seconds)
        self.requests = TokenBucket(limits.requests_per_second, limits.request_burst, now_seconds)

    def score(self, now_seconds: float) -> float:
        """Return the score: 0 is spotless, broken rules lower it, time heals."""
        healed = (now_seconds - self._scored_seconds) * self._limits.score_recovered_per_second
        self._score, self._scored_seconds = min(0.0, self._score + healed), now_seconds
        return self._score

    def penalise(self, rejected: Rejected, now_seconds: float) -> bool:
        """Lower the score by what the rule weighs; return whether that bans the peer."""
        light = rejected.reason in HONEST_DIFFERENCES
        self._score = self.score(now_seconds) - (LIGHT_PENALTY if light else DEFAULT_PENALTY)
        if self._score > self._limits.ban_score:
            return False
        self._score = 0.0
        self.banned_until_seconds = now_seconds + self._limits.ban_seconds
        return True


@dataclass(frozen=True, slots=True)
class RefusedPeer:
    """Name a peer of another format version, or one that refused this node, and say why to people."""

    peer_id: bytes
    host: str
    why: str
    since_seconds: float


class PeerBook:
    """Remember the standing of the peers seen last, and of their hosts; the oldest is forgotten first."""

    def __init__(self, limits: NetworkLimits) -> None:
        self._limits = limits
        self._host_bans: OrderedDict[str, deque[float]] = OrderedDict()
        self._standings: OrderedDict[bytes, PeerStanding] = OrderedDict()
        self.refused: OrderedDict[bytes, RefusedPeer] = OrderedDict()
        """The peers refused last, by identity; one that connects after all is taken out."""

    def remember_refusal(self, refused: RefusedPeer) -> bool:
        """Note a refusal; return whether it says anything new."""
        before = self.refused.pop(refused.peer_id, None)
        self.refused[refused.peer_id] = refused
        if len(self.refused) > _REMEMBERED_REFUSALS:
            self.refused.popitem(last=False)
        return before is None or before.why != refused.why

    def standing(self, peer_id: bytes, now_seconds: float) -> PeerStanding:
        """Return a peer's standing, a spotless one for a stranger."""
        standing = self._standings.pop(peer_id, None) or PeerStanding(self._limits, now_seconds)
        self._standings[peer_id] = standing
        if len(self._standings) > _REMEMBERED_STANDINGS:
            self._standings.popitem(last=False)
        return standing

    def count_ban(self, host: str, now_seconds: float) -> None:
        """Note that an identity of this host was banned; loopback is never, for all of a machine share it."""
        if not _is_loopback(host):
            bans = self._host_bans.pop(host, None) or deque(maxlen=self._limits.host_bans_after)
            bans.append(now_seconds)
            self._host_bans[host] = bans
            if len(self._host_bans) > _REMEMBERED_STANDINGS:
                self._host_bans.popitem(last=False)

    def is_host_banned(self, host: str, now_seconds: float) -> bool:
        """Return whether so many identities of a host were banned lately that none is let in."""
        bans = self._host_bans.get(host, deque[float]())
        recent = sum(1 for each in bans if now_seconds - each < self._limits.ban_seconds)
        return recent >= self._limits.host_bans_after


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Describe a connected peer to people and programs."""

    peer_id: bytes
    address: PeerAddress | None
    score: float
    connected_seconds: float
    dialled: bool


class RecentIdentifiers:
    """Remember the identifiers added last, up to a bound."""

    __slots__ = ("_known", "_maximum")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, identifier: bytes) -> bool:
        return identifier in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, identifier: bytes) -> None:
        """Remember one; forget the oldest when full."""
        self._known[identifier] = None
        if len(self._known) > self._maximum:
            self._known.popitem(last=False)

    def discard(self, identifier: bytes) -> None:
        """Forget one, if it is there."""
        self._known.pop(identifier, None)


class Peer:
    """Hold one connected peer: its connection, what it knows, and a bounded outbox for gossip."""

    def __init__(
        self, connection: Connection, standing: PeerStanding, limits: NetworkLimits, now_seconds: float
    ) -> None:
        self.connection = connection
        self.standing = standing
        self.since_seconds = now_seconds
        self.session = b""
        self.address: PeerAddress | None = None
        self.knows = RecentIdentifiers(_KNOWN_IDENTIFIERS)
        self.was_sent = RecentIdentifiers(_KNOWN_IDENTIFIERS)
        self.validations = asyncio.Semaphore(limits.validations_at_a_time)
        self._limits = limits
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._filled = asyncio.Event()
        self.too_slow = asyncio.Event()

    @property
    def peer_id(self) -> bytes:
        """Return the proven identity."""
        return self.connection.peer_id

    def post(self, message: bytes) -> None:
        """Queue a gossip message; a peer whose outbox is full is too slow and will be dropped."""
        full = len(self._outbox) >= self._limits.outbox_messages
        if full or self._outbox_bytes + len(message) > self._limits.outbox_bytes:
            self.too_slow.set()
            return
        self._outbox.append(message)
        self._outbox_bytes += len(message)
        self._filled.set()

    @property
    def waiting_bytes(self) -> int:
        """Return the bytes in the outbox."""
        return self._outbox_bytes

    async def next_message(self) -> bytes:
        """Return the oldest message of the outbox."""
        while not self._outbox:
            self._filled.clear()
            await self._filled.wait()
        message = self._outbox.popleft()
        self._outbox_bytes -= len(message)
        return message


def address_range(host: str) -> str:
    """Return the block of addresses that is taken for one owner: /16 for IPv4, /32 for IPv6, else the host itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 16 if address.version == 4 else 32), strict=False))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
