"""Trie nodes in generations: what old states alone rest on can be dropped whole, after what is needed was copied on.

Nodes of one content are one entry, whoever refers to it, and the same node may be left and written again; so nothing
can be deleted when it falls out of one state. The older generation is copied from instead, root by root, children
first, while the chain goes on; then it is deleted as a whole. Each step is one atomic batch and any step may be the
last one before a kill.

What the embedded engine keeps in the store: payloads, receipts, states, the chosen chain and its head.
"""

import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Annotated

from learnchain.encoding.codec import Address, Bound, Hash32, decode, encode
from learnchain.encoding.files import KeyValueStore
from learnchain.protocol.payload import ExecutionPayload, Log, decode_payload, encode_payload
from learnchain.rejection import Unavailable

_FIRST = b"execution/node/"
"""Generation 0 has plain values: stores of earlier versions hold nothing else."""
_LATER = b"execution/n/"
_COLLECTION = b"execution/collection"
_OPEN, _COMPLETE = b"\0", b"\1"
"""The first byte of later generations: whether everything below the node lies in its generation too."""
Batch = dict[bytes, bytes | None]


class Phase(IntEnum):
    """Name what happens to the generation before the present one."""

    RESTING = 0
    COPYING = 1
    DROPPING = 2


@dataclass(frozen=True, slots=True)
class Collection:
    """Hold where collecting stands; states of payloads with a number below `floor` are not kept.

    `written_bytes` were added since the last collection ended, when `live_bytes` were left.
    """

    generation: int = 0
    phase: int = Phase.RESTING
    floor: int = 0
    next_floor: int = 0
    dropped: int = 0
    written_bytes: int = 0
    live_bytes: int = 0


class NodeStore:
    """Read nodes of the generations that count, and write into the newest one."""

    __slots__ = ("_store", "state")

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self.state = Collection()
        self.refresh()

    def refresh(self) -> None:
        """Read again where collecting stands: another process may own the store."""
        data = self._store.get(_COLLECTION)
        self.state = Collection() if data is None else decode(Collection, data)

    def node(self, key: Hash32) -> bytes | None:
        """Return a trie node or a contract's code by its hash."""
        state = self.state
        found = self._read_from_generation(key, state.generation)
        if found is None and state.phase == Phase.COPYING:
            found = self._read_from_generation(key, state.generation - 1)
        return found

    def is_complete(self, key: Hash32) -> bool:
        """Say whether a node and everything below it lies in the newest generation."""
        generation = self.state.generation
        data = self._store.get(_prefix(generation) + key) if generation else None
        return data is not None and data[:1] == _COMPLETE

    def is_copied(self, key: Hash32) -> bool:
        """Say whether an entry itself lies in the newest generation."""
        return self._read_from_generation(key, self.state.generation) is not None

    def build_write_batch(self, nodes: dict[bytes, bytes]) -> Batch:
        """Return the batch that keeps what a block wrote, and count its bytes."""
        batch = self.entries(nodes)
        size_bytes = sum(len(key) + len(value or b"") for key, value in batch.items())
        changed = replace(self.state, written_bytes=self.state.written_bytes + size_bytes)
        return batch | self.record(changed)

    def entries(self, nodes: dict[bytes, bytes], complete: bool = False) -> Batch:
        """Return the entries of nodes in the newest generation."""
        prefix = _prefix(self.state.generation)
        if not self.state.generation:
            return {prefix + key: value for key, value in nodes.items()}
        mark = _COMPLETE if complete else _OPEN
        return {prefix + key: mark + value for key, value in nodes.items()}

    def older_keys(self, first_byte: int) -> list[bytes]:
        """Return the keys of the older generation whose hashes begin with a byte."""
        prefix = _prefix(self.state.generation - 1) + bytes([first_byte])
        return [key for key, _ in self._store.scan(prefix)]

    def record(self, state: Collection) -> Batch:
        """Return the batch that says where collecting stands; `refresh` follows once it is on disk."""
        return {_COLLECTION: encode(state)}

    def _read_from_generation(self, key: Hash32, generation: int) -> bytes | None:
        data = self._store.get(_prefix(generation) + key)
        return data[1:] if data is not None and generation else data


def _prefix(generation: int) -> bytes:
    return _LATER + generation.to_bytes(4, "big") if generation else _FIRST


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
class ExecutionHead:
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

    def build_execution_batch(
        self, payload: ExecutionPayload, receipts: tuple[Receipt, ...], nodes: dict[bytes, bytes]
    ) -> Batch:
        """Return the batch that keeps an executed payload with its receipts, its state root and new trie nodes."""
        batch = self.nodes.build_write_batch(nodes)
        batch[_PAYLOAD + payload.block_hash] = _compress(encode_payload(payload))
        batch[_RECEIPTS + payload.block_hash] = _compress(encode(_Receipts(receipts)))
        batch[_ROOT + payload.number.to_bytes(8, "big") + payload.block_hash] = payload.state_root
        return batch

    def list_kept_roots(self, floor: int) -> list[Hash32]:
        """Return the state roots of all payloads from a number on, on whatever branch, lowest first."""
        return [root for key, root in self._store.scan(_ROOT) if _number_of(key) >= floor]

    def forgotten_roots(self, floor: int) -> Batch:
        """Return the batch that forgets the state roots below a number."""
        return {key: None for key, _ in self._store.scan(_ROOT) if _number_of(key) < floor}

    def first_listed_number(self) -> int | None:
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
        payload = decode_payload(_decompress(data))
        self._payloads[block_hash] = payload
        if len(self._payloads) > _CACHED_PAYLOADS:
            self._payloads.popitem(last=False)
        return payload

    def load_payload(self, block_hash: Hash32) -> ExecutionPayload:
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
        return decode(_Receipts, _decompress(data)).receipts

    def canonical(self, number: int) -> Hash32 | None:
        """Return the hash of the chosen chain's payload of a number."""
        return self._store.get(_CANONICAL + number.to_bytes(8, "big"))

    def location(self, transaction_hash: Hash32) -> Location | None:
        """Return where on the chosen chain a transaction stands."""
        data = self._store.get(_LOCATION + transaction_hash)
        return None if data is None else decode(Location, data)

    def head(self) -> ExecutionHead | None:
        """Return the stored fork choice; None in an empty store."""
        data = self._store.get(_HEAD)
        return None if data is None else decode(ExecutionHead, data)

    def read_pool_transactions(self) -> dict[Hash32, bytes]:
        """Return the raw transactions that waited when the head moved last, by hash."""
        return {key[len(_WAITING) :]: raw for key, raw in self._store.scan(_WAITING)}

    def ancestors(self, block_hash: Hash32) -> Iterator[Hash32]:
        """Yield a payload's own hash and those of its ancestors, newest first."""
        while (payload := self.payload(block_hash)) is not None:
            yield block_hash
            if payload.number == 0:
                return
            block_hash = payload.parent_hash


def _compress(data: bytes) -> bytes:
    """Return bytes for the disk: call data and logs are mostly zeros."""
    return zlib.compress(data, _PACKING_LEVEL)


def _decompress(data: bytes) -> bytes:
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


def head_batch(head: ExecutionHead) -> Batch:
    """Return the batch that records a fork choice."""
    return {_HEAD: encode(head)}


def canonical_batch(payload: ExecutionPayload, transaction_hashes: tuple[Hash32, ...]) -> Batch:
    """Return the batch that puts a payload and its transactions on the chosen chain."""
    batch: Batch = {_CANONICAL + payload.number.to_bytes(8, "big"): payload.block_hash}
    for index, transaction_hash in enumerate(transaction_hashes):
        batch[_LOCATION + transaction_hash] = encode(Location(payload.block_hash, index))
    return batch


def build_pool_batch(before: dict[Hash32, bytes], now: dict[Hash32, bytes]) -> Batch:
    """Return the batch that turns the kept waiting transactions into those that wait now."""
    batch: Batch = {_WAITING + key: None for key in before.keys() - now.keys()}
    return batch | {_WAITING + key: raw for key, raw in now.items() if key not in before}


def removal_batch(payload: ExecutionPayload, transaction_hashes: tuple[Hash32, ...]) -> Batch:
    """Return the batch that takes a payload and its transactions off the chosen chain."""
    batch: Batch = {_CANONICAL + payload.number.to_bytes(8, "big"): None}
    for transaction_hash in transaction_hashes:
        batch[_LOCATION + transaction_hash] = None
    return batch
