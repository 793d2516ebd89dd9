"""Trie nodes in generations: what old states alone rest on can be dropped whole, after what is needed was copied on.

Nodes of one content are one entry, whoever refers to it, and the same node may be left and written again; so nothing
can be deleted when it falls out of one state. The older generation is copied from instead, root by root, children
first, while the chain goes on; then it is deleted as a whole. Each step is one atomic batch and any step may be the
last one before a kill.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

from learnchain.primitives.codec import Hash32, decode, encode
from learnchain.primitives.key_value import KeyValueStore

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
        found = self._in_generation(key, state.generation)
        if found is None and state.phase == Phase.COPYING:
            found = self._in_generation(key, state.generation - 1)
        return found

    def is_complete(self, key: Hash32) -> bool:
        """Say whether a node and everything below it lies in the newest generation."""
        generation = self.state.generation
        data = self._store.get(_prefix(generation) + key) if generation else None
        return data is not None and data[:1] == _COMPLETE

    def is_copied(self, key: Hash32) -> bool:
        """Say whether an entry itself lies in the newest generation."""
        return self._in_generation(key, self.state.generation) is not None

    def written(self, nodes: dict[bytes, bytes]) -> Batch:
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

    def _in_generation(self, key: Hash32, generation: int) -> bytes | None:
        data = self._store.get(_prefix(generation) + key)
        return data[1:] if data is not None and generation else data


def _prefix(generation: int) -> bytes:
    return _LATER + generation.to_bytes(4, "big") if generation else _FIRST
