"""What a node knows about peers: where they listen, how they behaved, and who is connected.

Addresses are records that the peer itself signs, with a sequence number: an older one is stale, and two different ones
under one number are equivocation, after which that signer is not believed. What a book holds is bounded in all and for
each range of addresses, and a dial first draws a range and then a record, so that many identities in one block of
addresses are not dialled more often than one. Standing outlives a connection.
"""

import asyncio
import ipaddress
import random
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Annotated

from learnchain.encoding.codec import Bound, Exact, Hash32, encode
from learnchain.encoding.cryptography import tagged_hash
from learnchain.network.transport import Connection, PeerAddress, Transport
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_RECORDS = 1_024
MAXIMUM_RECORDS_PER_RANGE = 64
MAXIMUM_TOLD = 64
MAXIMUM_SEQUENCE = (1 << 64) - 1
FORGOTTEN_AFTER_FAILURES = 3
_REMEMBERED_EQUIVOCATORS = 1_024


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """Say where a peer listens, in its own words and with its own signature."""

    peer_id: Hash32
    host: Annotated[str, Bound(253)]
    port: int
    sequence: int
    """Milliseconds since 1970 when the node took this address: a later start counts as newer."""
    signature: Annotated[bytes, Exact(64)]

    @property
    def address(self) -> PeerAddress:
        """Return where to dial."""
        return PeerAddress(self.host, self.port, self.peer_id)


@dataclass(frozen=True, slots=True)
class AddressRecords:
    """Answer a peer exchange."""

    records: Annotated[tuple[AddressRecord, ...], Bound(MAXIMUM_TOLD)]


@dataclass(frozen=True, slots=True)
class _SignedPart:
    network_id: Hash32
    peer_id: Hash32
    host: Annotated[str, Bound(253)]
    port: int
    sequence: int


def compute_signed_hash(network_id: Hash32, record: AddressRecord) -> bytes:
    """Return what the peer signs: a record of one network is none of another."""
    part = _SignedPart(network_id, record.peer_id, record.host, record.port, record.sequence)
    return tagged_hash("address-record", encode(part))


class AddressBook:
    """Hold the newest valid record of each peer, bounded; `stale` and `equivocating` count what was refused."""

    def __init__(self, transport: Transport, network_id: Hash32, random_source: random.Random) -> None:
        self._transport = transport
        self._network_id = network_id
        self._random = random_source
        self._records: OrderedDict[bytes, AddressRecord] = OrderedDict()
        self._ranges: Counter[str] = Counter()
        self._failures: Counter[bytes] = Counter()
        self._equivocators = RecentIdentifiers(_REMEMBERED_EQUIVOCATORS)
        self._own: AddressRecord | None = None
        self.stale = 0
        self.equivocating = 0

    def __len__(self) -> int:
        return len(self._records)

    def sign_own(self, now_milliseconds: int) -> None:
        """Make our own record; a node that listens everywhere does not know its address and tells none."""
        address = self._transport.address()
        if address.host in {"", "0.0.0.0", "::"}:
            return
        unsigned = AddressRecord(address.peer_id, address.host, address.port, now_milliseconds, bytes(64))
        signature = self._transport.sign(compute_signed_hash(self._network_id, unsigned))
        self._own = AddressRecord(address.peer_id, address.host, address.port, now_milliseconds, signature)

    @property
    def own_record(self) -> AddressRecord | None:
        """Return our own record."""
        return self._own

    def record(self, peer_id: bytes) -> AddressRecord | None:
        """Return what we know of a peer."""
        return self._records.get(peer_id)

    def learn(self, record: AddressRecord) -> None:
        """Take a record in; the reason of a refusal says whether the teller or the signer is to blame.

        `PEER_RECORD_DOUBLE` blames the signer, who is forgotten; `PEER_RECORD_STALE` happens between honest nodes;
        every other reason blames whoever passed the record on, for he could check it too.
        """
        self._check(record)
        known = self._records.get(record.peer_id)
        if record.peer_id == self._transport.peer_id or record == known:
            return
        if record.peer_id in self._equivocators:
            raise Rejected(RejectionReason.PEER_RECORD_DOUBLE, "the peer equivocated before")
        if known is not None and record.sequence == known.sequence and record.address != known.address:
            self.equivocating += 1
            self._equivocators.add(record.peer_id)
            self.forget(record.peer_id)
            raise Rejected(RejectionReason.PEER_RECORD_DOUBLE, f"two addresses under number {record.sequence}")
        if known is not None and record.sequence <= known.sequence:
            self.stale += 1
            raise Rejected(RejectionReason.PEER_RECORD_STALE, f"number {record.sequence} after {known.sequence}")
        self._keep(record)

    def select_records(self, asker: bytes) -> AddressRecords:
        """Return some records for a peer that asks: our own first, never the asker's."""
        others = [record for peer_id, record in self._records.items() if peer_id != asker]
        chosen = self._random.sample(others, min(len(others), MAXIMUM_TOLD - 1))
        return AddressRecords((*((self._own,) if self._own else ()), *chosen))

    def choose(self, but: set[bytes]) -> PeerAddress | None:
        """Return an address to dial, of a peer that is not among `but`: a range by lot, then a record of it."""
        ranges: dict[str, list[AddressRecord]] = {}
        for peer_id, record in self._records.items():
            if peer_id not in but:
                ranges.setdefault(address_range(record.host), []).append(record)
        if not ranges:
            return None
        return self._random.choice(ranges[self._random.choice(sorted(ranges))]).address

    def count_failure(self, peer_id: bytes) -> None:
        """Count a dial that nobody answered; after some the record is forgotten."""
        self._failures[peer_id] += 1
        if self._failures[peer_id] >= FORGOTTEN_AFTER_FAILURES:
            self.forget(peer_id)

    def clear_failures(self, peer_id: bytes) -> None:
        """Note that a peer is there: its earlier failures count no more."""
        self._failures.pop(peer_id, None)

    def forget(self, peer_id: bytes) -> None:
        """Drop a record, if there is one."""
        record = self._records.pop(peer_id, None)
        self._failures.pop(peer_id, None)
        if record is not None:
            self._ranges[address_range(record.host)] -= 1
            self._ranges += Counter()

    def _check(self, record: AddressRecord) -> None:
        if not (0 < record.port < 65_536 and len(record.host) > 0 and record.sequence <= MAXIMUM_SEQUENCE):
            raise Rejected(RejectionReason.MALFORMED, "a record names no address or an impossible number")
        if not self._transport.verify(record.peer_id, compute_signed_hash(self._network_id, record), record.signature):
            raise Rejected(RejectionReason.WRONG_SIGNATURE, "the record is not signed by its peer")

    def _keep(self, record: AddressRecord) -> None:
        self.forget(record.peer_id)
        block = address_range(record.host)
        if self._ranges[block] >= MAXIMUM_RECORDS_PER_RANGE:
            self.forget(next(peer for peer, each in self._records.items() if address_range(each.host) == block))
        elif len(self._records) >= MAXIMUM_RECORDS:
            # The fullest range gives way: a newcomer's block of addresses cannot push everybody else out.
            fullest = self._ranges.most_common(1)[0][0]
            self.forget(next(peer for peer, each in self._records.items() if address_range(each.host) == fullest))
        self._records[record.peer_id] = record
        self._ranges[block] += 1


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
