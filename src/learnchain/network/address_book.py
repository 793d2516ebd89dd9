"""Where peers say that they listen: records signed by the peer itself, so that nobody can place another elsewhere.

A record carries a sequence number. An older one than the known is stale and of no use; two different ones under one
number are equivocation: whoever signs that is believed nothing any more. What a book holds is bounded in all and for
each range of addresses, and a dial first draws a range and then a record, so that many identities in one block of
addresses are not dialled more often than one.
"""

import random
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Annotated

from learnchain.encoding.codec import Bound, Exact, Hash32, encode
from learnchain.encoding.hashing import tagged_hash
from learnchain.network.peers import RecentIdentifiers, address_range
from learnchain.network.transport import PeerAddress, Transport
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
