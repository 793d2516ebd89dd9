"""What a node remembers of the chain: bytes by kind, in atomic batches, under a format number.

The store knows no nouns. A `ChainBatch` collects changes, `write` makes them all at once: a killed node finds the
block, the head and the round's messages of one moment, never of two.

    v                       format number
    b hash                  block            h height hash        block hashes of a height
    t                       head             f                    final block
    m height kind id        round message    r name               any other record
    p height cid            blob to keep     a peer id            address of a peer
"""

from collections.abc import Iterator

from learnchain.primitives.codec import Hash32
from learnchain.primitives.content_id import Cid
from learnchain.primitives.key_value import KeyValueStore
from learnchain.primitives.rejection import Rejected, RejectionReason

FORMAT = 1
"""Raise it when keys or values change their meaning, and convert older stores when they are opened."""
MAXIMUM_BLOCK_BYTES = 16 * 1024 * 1024
MAXIMUM_MESSAGE_BYTES = 1024 * 1024
MAXIMUM_MESSAGES_PER_HEIGHT = 65_536
MAXIMUM_RECORD_BYTES = 64 * 1024 * 1024
MAXIMUM_PEERS = 1_024
_HEIGHT_BYTES = 8
_FORMAT_KEY = b"v"
_HEAD_KEY = b"t"
_FINAL_KEY = b"f"
_MAXIMUM_KEY_BYTES = 400
"""LMDB takes keys of 511 bytes."""


class ChainBatch:
    """Collect changes that belong together."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: dict[bytes, bytes | None] = {}

    def block(self, block_hash: Hash32, height: int, data: bytes) -> "ChainBatch":
        """Keep a block."""
        self._put(b"b" + _hash(block_hash), data, MAXIMUM_BLOCK_BYTES)
        return self._put(b"h" + _height(height) + block_hash, b"", 0)

    def forget_block(self, block_hash: Hash32, height: int) -> "ChainBatch":
        """Drop a block."""
        self.items[b"b" + _hash(block_hash)] = None
        self.items[b"h" + _height(height) + block_hash] = None
        return self

    def head(self, block_hash: Hash32, height: int) -> "ChainBatch":
        """Move the head."""
        return self._put(_HEAD_KEY, _height(height) + _hash(block_hash), 40)

    def final(self, block_hash: Hash32, height: int) -> "ChainBatch":
        """Move the final block."""
        return self._put(_FINAL_KEY, _height(height) + _hash(block_hash), 40)

    def message(self, height: int, kind: str, identifier: bytes, data: bytes) -> "ChainBatch":
        """Keep a message of a round."""
        return self._put(_message_prefix(height, kind) + identifier, data, MAXIMUM_MESSAGE_BYTES)

    def record(self, name: str, data: bytes | None) -> "ChainBatch":
        """Keep, or with None drop, a record of the node's own."""
        if data is None:
            self.items[b"r" + _name(name)] = None
            return self
        return self._put(b"r" + _name(name), data, MAXIMUM_RECORD_BYTES)

    def pin(self, height: int, cid: Cid) -> "ChainBatch":
        """Note that a blob is kept because of a block at this height."""
        return self._put(b"p" + _height(height) + cid, b"", 0)

    def unpin(self, height: int, cid: Cid) -> "ChainBatch":
        """Drop that note."""
        self.items[b"p" + _height(height) + cid] = None
        return self

    def peer(self, peer_id: bytes, address: str | None) -> "ChainBatch":
        """Remember, or with None forget, where a peer listens."""
        key = b"a" + _hash(peer_id)
        if address is None:
            self.items[key] = None
            return self
        return self._put(key, address.encode(), 512)

    def _put(self, key: bytes, value: bytes, maximum_bytes: int) -> "ChainBatch":
        if len(value) > maximum_bytes or len(key) > _MAXIMUM_KEY_BYTES:
            detail = f"{len(value)} bytes under a key of {len(key)} where {maximum_bytes} may be stored"
            raise Rejected(RejectionReason.TOO_LARGE, detail)
        self.items[key] = value
        return self


class ChainStore:
    """Read what batches wrote. Opening an empty store makes it one of this format; a newer format is refused."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        written = store.get(_FORMAT_KEY)
        if written is None:
            if next(store.scan(b""), None) is not None:
                raise Rejected(RejectionReason.MALFORMED, "this store holds something else than a chain")
            store.put_many({_FORMAT_KEY: FORMAT.to_bytes(4, "big")})
        elif int.from_bytes(written, "big") != FORMAT:
            detail = (
                f"the store has format {int.from_bytes(written, 'big')}, this program reads {FORMAT}: use the newer one"
            )
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def write(self, batch: ChainBatch) -> None:
        """Make every change of a batch at once."""
        self._store.put_many(batch.items)

    def block(self, block_hash: Hash32) -> bytes | None:
        """Return a block."""
        return self._store.get(b"b" + _hash(block_hash))

    def has_block(self, block_hash: Hash32) -> bool:
        """Return whether a block is here."""
        return self.block(block_hash) is not None

    def hashes_at(self, height: int) -> tuple[Hash32, ...]:
        """Return the hashes of all blocks of a height, ascending."""
        prefix = b"h" + _height(height)
        return tuple(key[len(prefix) :] for key, _ in self._store.scan(prefix))

    def head(self) -> tuple[Hash32, int] | None:
        """Return hash and height of the head."""
        return self._place(_HEAD_KEY)

    def final(self) -> tuple[Hash32, int] | None:
        """Return hash and height of the final block."""
        return self._place(_FINAL_KEY)

    def message(self, height: int, kind: str, identifier: bytes) -> bytes | None:
        """Return one message of a round."""
        return self._store.get(_message_prefix(height, kind) + identifier)

    def messages(self, height: int, kind: str) -> tuple[tuple[bytes, bytes], ...]:
        """Return identifier and bytes of every message of a kind, ascending, at most the bound of a height."""
        prefix = _message_prefix(height, kind)
        found: list[tuple[bytes, bytes]] = []
        for key, value in self._store.scan(prefix):
            if len(found) == MAXIMUM_MESSAGES_PER_HEIGHT:
                break
            found.append((key[len(prefix) :], value))
        return tuple(found)

    def record(self, name: str) -> bytes | None:
        """Return a record of the node's own."""
        return self._store.get(b"r" + _name(name))

    def pins(self) -> tuple[tuple[int, Cid], ...]:
        """Return every blob that is kept, by the height it is kept for."""
        return tuple(_split_height(key[1:]) for key, _ in self._store.scan(b"p"))

    def peers(self) -> tuple[tuple[bytes, str], ...]:
        """Return the remembered peers and where they listen."""
        found = [(key[1:], value.decode(errors="replace")) for key, value in self._store.scan(b"a")]
        return tuple(found[:MAXIMUM_PEERS])

    def forget_messages_below(self, height: int) -> int:
        """Drop the messages of all rounds below a height; return how many there were."""
        old: dict[bytes, bytes | None] = {}
        for key, _ in self._store.scan(b"m"):
            if _split_height(key[1:])[0] >= height:
                break
            old[key] = None
        self._store.put_many(old)
        return len(old)

    def forget_pins_below(self, height: int) -> tuple[Cid, ...]:
        """Drop the pins of all blocks below a height; return the blobs that nothing above keeps."""
        pins = self.pins()
        kept = {cid for at, cid in pins if at >= height}
        batch = ChainBatch()
        for at, cid in pins:
            if at < height:
                batch.unpin(at, cid)
        self.write(batch)
        return tuple(sorted({cid for at, cid in pins if at < height} - kept))

    def blocks(self) -> Iterator[tuple[Hash32, int]]:
        """Yield hash and height of every block, by height."""
        for key, _ in self._store.scan(b"h"):
            height, block_hash = _split_height(key[1:])
            yield block_hash, height

    def _place(self, key: bytes) -> tuple[Hash32, int] | None:
        value = self._store.get(key)
        if value is None:
            return None
        height, block_hash = _split_height(value)
        return block_hash, height


def _height(height: int) -> bytes:
    if not 0 <= height < 1 << 64:
        raise Rejected(RejectionReason.WRONG_HEIGHT, f"there is no height {height}")
    return height.to_bytes(_HEIGHT_BYTES, "big")


def _split_height(data: bytes) -> tuple[int, bytes]:
    return int.from_bytes(data[:_HEIGHT_BYTES], "big"), data[_HEIGHT_BYTES:]


def _hash(value: bytes) -> bytes:
    if len(value) != 32:
        raise Rejected(RejectionReason.MALFORMED, f"{len(value)} bytes are no hash")
    return value


def _name(name: str) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) <= 255:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "a name has 1 to 255 bytes")
    return encoded


def _message_prefix(height: int, kind: str) -> bytes:
    name = _name(kind)
    return b"m" + _height(height) + bytes((len(name),)) + name
