"""What the embedded engine keeps in the store: payloads, receipts, trie nodes, the chosen chain and its head."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from learnchain.primitives.codec import Address, Bound, Hash32, decode, encode
from learnchain.primitives.key_value import KeyValueStore
from learnchain.primitives.payload import ExecutionPayload, Log, decode_payload, encode_payload
from learnchain.primitives.rejection import Unavailable

_NODE = b"execution/node/"
_PAYLOAD = b"execution/payload/"
_RECEIPTS = b"execution/receipts/"
_CANONICAL = b"execution/canonical/"
_LOCATION = b"execution/location/"
_HEAD = b"execution/head"
_CACHED_PAYLOADS = 64

Batch = dict[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Hold what one transaction did; `contract` is the address it created, or empty."""

    transaction_hash: Hash32
    kind: int
    sender: Address
    succeeded: bool
    gas_used: int
    cumulative_gas: int
    price_wei: int
    contract: Annotated[bytes, Bound(20)]
    logs: Annotated[tuple[Log, ...], Bound(1 << 20)]


@dataclass(frozen=True, slots=True)
class _Receipts:
    receipts: Annotated[tuple[Receipt, ...], Bound(1 << 20)]


@dataclass(frozen=True, slots=True)
class Location:
    """Say where on the chosen chain a transaction stands."""

    block_hash: Hash32
    index: int


@dataclass(frozen=True, slots=True)
class Head:
    """Hold the fork choice that consensus made; safe and finalized are zero until named."""

    head: Hash32
    safe: Hash32
    finalized: Hash32


class Records:
    """Read and write the engine's records; every write is prepared as a batch that its caller puts at once."""

    __slots__ = ("_payloads", "_store")

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._payloads: OrderedDict[bytes, ExecutionPayload] = OrderedDict()

    def put(self, batch: Batch) -> None:
        """Write a prepared batch atomically."""
        self._store.put_many(batch)

    def node(self, key: bytes) -> bytes | None:
        """Return a trie node or a contract's code by its hash."""
        return self._store.get(_NODE + key)

    def payload(self, block_hash: Hash32) -> ExecutionPayload | None:
        """Return a kept payload; all kept payloads are valid."""
        known = self._payloads.get(block_hash)
        if known is not None:
            self._payloads.move_to_end(block_hash)
            return known
        data = self._store.get(_PAYLOAD + block_hash)
        if data is None:
            return None
        payload = decode_payload(data)
        self._payloads[block_hash] = payload
        if len(self._payloads) > _CACHED_PAYLOADS:
            self._payloads.popitem(last=False)
        return payload

    def known_payload(self, block_hash: Hash32) -> ExecutionPayload:
        """Return a kept payload or raise `Unavailable`."""
        payload = self.payload(block_hash)
        if payload is None:
            raise Unavailable(f"execution payload 0x{block_hash.hex()}")
        return payload

    def receipts(self, block_hash: Hash32) -> tuple[Receipt, ...]:
        """Return the receipts of a kept payload or raise `Unavailable`."""
        data = self._store.get(_RECEIPTS + block_hash)
        if data is None:
            raise Unavailable(f"receipts of payload 0x{block_hash.hex()}")
        return decode(_Receipts, data).receipts

    def canonical(self, number: int) -> Hash32 | None:
        """Return the hash of the chosen chain's payload of a number."""
        return self._store.get(_CANONICAL + number.to_bytes(8, "big"))

    def location(self, transaction_hash: Hash32) -> Location | None:
        """Return where on the chosen chain a transaction stands."""
        data = self._store.get(_LOCATION + transaction_hash)
        return None if data is None else decode(Location, data)

    def head(self) -> Head | None:
        """Return the stored fork choice; None in an empty store."""
        data = self._store.get(_HEAD)
        return None if data is None else decode(Head, data)

    def ancestors(self, block_hash: Hash32) -> Iterator[Hash32]:
        """Yield a payload's own hash and those of its ancestors, newest first."""
        while (payload := self.payload(block_hash)) is not None:
            yield block_hash
            if payload.number == 0:
                return
            block_hash = payload.parent_hash


def payload_batch(payload: ExecutionPayload, receipts: tuple[Receipt, ...], nodes: dict[bytes, bytes]) -> Batch:
    """Return the batch that keeps an executed payload with its receipts and new trie nodes."""
    batch: Batch = {_NODE + key: value for key, value in nodes.items()}
    batch[_PAYLOAD + payload.block_hash] = encode_payload(payload)
    batch[_RECEIPTS + payload.block_hash] = encode(_Receipts(receipts))
    return batch


def head_batch(head: Head) -> Batch:
    """Return the batch that records a fork choice."""
    return {_HEAD: encode(head)}


def canonical_batch(payload: ExecutionPayload, transaction_hashes: tuple[Hash32, ...]) -> Batch:
    """Return the batch that puts a payload and its transactions on the chosen chain."""
    batch: Batch = {_CANONICAL + payload.number.to_bytes(8, "big"): payload.block_hash}
    for index, transaction_hash in enumerate(transaction_hashes):
        batch[_LOCATION + transaction_hash] = encode(Location(payload.block_hash, index))
    return batch


def removal_batch(payload: ExecutionPayload, transaction_hashes: tuple[Hash32, ...]) -> Batch:
    """Return the batch that takes a payload and its transactions off the chosen chain."""
    batch: Batch = {_CANONICAL + payload.number.to_bytes(8, "big"): None}
    for transaction_hash in transaction_hashes:
        batch[_LOCATION + transaction_hash] = None
    return batch
