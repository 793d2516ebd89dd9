"""What the embedded engine keeps in the store: payloads, receipts, states, the chosen chain and its head."""

import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from learnchain.execution.pyevm.nodes import Batch, NodeStore
from learnchain.primitives.codec import Address, Bound, Hash32, decode, encode
from learnchain.primitives.key_value import KeyValueStore
from learnchain.primitives.payload import ExecutionPayload, Log, decode_payload, encode_payload
from learnchain.primitives.rejection import Unavailable

_PAYLOAD = b"execution/payload/"
_RECEIPTS = b"execution/receipts/"
_CANONICAL = b"execution/canonical/"
_LOCATION = b"execution/location/"
_HEAD = b"execution/head"
_WAITING = b"execution/waiting/"
_ROOT = b"execution/root/"
_LISTED_FROM = b"execution/listed"
_CACHED_PAYLOADS = 64
_PACKED = 0x78
"""The first byte of packed values; stores of earlier versions hold plain RLP lists, which begin at 0xc0."""
_PACKING_LEVEL = 1
_MAXIMUM_RECORD_BYTES = 1 << 27


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

    __slots__ = ("_payloads", "_store", "nodes")

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self.nodes = NodeStore(store)
        self._payloads: OrderedDict[bytes, ExecutionPayload] = OrderedDict()

    def put(self, batch: Batch) -> None:
        """Write a prepared batch atomically."""
        self._store.put_many(batch)
        self.nodes.refresh()

    def node(self, key: bytes) -> bytes | None:
        """Return a trie node or a contract's code by its hash."""
        return self.nodes.node(key)

    def has_state(self, payload: ExecutionPayload) -> bool:
        """Say whether the accounts after a kept payload are still known."""
        return payload.number >= self.nodes.state.floor

    def check_state(self, payload: ExecutionPayload) -> None:
        """Raise `Unavailable` for a payload whose accounts are not kept any more."""
        if not self.has_state(payload):
            floor = self.nodes.state.floor
            raise Unavailable(f"the state after block {payload.number}; this node keeps states from block {floor} on")

    def executed(self, payload: ExecutionPayload, receipts: tuple[Receipt, ...], nodes: dict[bytes, bytes]) -> Batch:
        """Return the batch that keeps an executed payload with its receipts, its state root and new trie nodes."""
        batch = self.nodes.written(nodes)
        batch[_PAYLOAD + payload.block_hash] = _packed(encode_payload(payload))
        batch[_RECEIPTS + payload.block_hash] = _packed(encode(_Receipts(receipts)))
        batch[_ROOT + payload.number.to_bytes(8, "big") + payload.block_hash] = payload.state_root
        return batch

    def kept_roots(self, floor: int) -> list[Hash32]:
        """Return the state roots of all payloads from a number on, on whatever branch, lowest first."""
        return [root for key, root in self._store.scan(_ROOT) if _number_of(key) >= floor]

    def forgotten_roots(self, floor: int) -> Batch:
        """Return the batch that forgets the state roots below a number."""
        return {key: None for key, _ in self._store.scan(_ROOT) if _number_of(key) < floor}

    def listed_from(self) -> int | None:
        """Return the number from which on every payload's state root is listed; None in a store of earlier versions."""
        data = self._store.get(_LISTED_FROM)
        return None if data is None else int.from_bytes(data, "big")

    def payload(self, block_hash: Hash32) -> ExecutionPayload | None:
        """Return a kept payload; all kept payloads are valid."""
        known = self._payloads.get(block_hash)
        if known is not None:
            self._payloads.move_to_end(block_hash)
            return known
        data = self._store.get(_PAYLOAD + block_hash)
        if data is None:
            return None
        payload = decode_payload(_unpacked(data))
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
        return decode(_Receipts, _unpacked(data)).receipts

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

    def waiting(self) -> dict[Hash32, bytes]:
        """Return the raw transactions that waited when the head moved last, by hash."""
        return {key[len(_WAITING) :]: raw for key, raw in self._store.scan(_WAITING)}

    def ancestors(self, block_hash: Hash32) -> Iterator[Hash32]:
        """Yield a payload's own hash and those of its ancestors, newest first."""
        while (payload := self.payload(block_hash)) is not None:
            yield block_hash
            if payload.number == 0:
                return
            block_hash = payload.parent_hash


def _packed(data: bytes) -> bytes:
    """Return bytes for the disk: call data and logs are mostly zeros."""
    return zlib.compress(data, _PACKING_LEVEL)


def _unpacked(data: bytes) -> bytes:
    """Return what was packed; a damaged value cannot fill the memory."""
    if data[:1] != bytes([_PACKED]):
        return data
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(data, _MAXIMUM_RECORD_BYTES)
    except zlib.error as error:
        raise Unavailable(f"a record of the store, which is damaged: {error}") from error
    if not unpacking.eof:
        raise Unavailable("a record of the store, which is damaged: it has no end")
    return plain


def _number_of(key: bytes) -> int:
    return int.from_bytes(key[len(_ROOT) : len(_ROOT) + 8], "big")


def listing_batch(number: int) -> Batch:
    """Return the batch that says from which number on every payload's state root is listed."""
    return {_LISTED_FROM: number.to_bytes(8, "big")}


def head_batch(head: Head) -> Batch:
    """Return the batch that records a fork choice."""
    return {_HEAD: encode(head)}


def canonical_batch(payload: ExecutionPayload, transaction_hashes: tuple[Hash32, ...]) -> Batch:
    """Return the batch that puts a payload and its transactions on the chosen chain."""
    batch: Batch = {_CANONICAL + payload.number.to_bytes(8, "big"): payload.block_hash}
    for index, transaction_hash in enumerate(transaction_hashes):
        batch[_LOCATION + transaction_hash] = encode(Location(payload.block_hash, index))
    return batch


def waiting_batch(before: dict[Hash32, bytes], now: dict[Hash32, bytes]) -> Batch:
    """Return the batch that turns the kept waiting transactions into those that wait now."""
    batch: Batch = {_WAITING + key: None for key in before.keys() - now.keys()}
    return batch | {_WAITING + key: raw for key, raw in now.items() if key not in before}


def removal_batch(payload: ExecutionPayload, transaction_hashes: tuple[Hash32, ...]) -> Batch:
    """Return the batch that takes a payload and its transactions off the chosen chain."""
    batch: Batch = {_CANONICAL + payload.number.to_bytes(8, "big"): None}
    for transaction_hash in transaction_hashes:
        batch[_LOCATION + transaction_hash] = None
    return batch
