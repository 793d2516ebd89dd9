"""Let old states go: copy what the kept states rest on into a new generation, a bounded piece at each move of the head.

A collection begins when as many bytes were written as the last one left, so its work is a constant share of writing.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import rlp

from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import keccak256
from learnchain.execution.pyevm.records import Batch, Collection, ExecutionHead, Phase, Records
from learnchain.execution.pyevm.transactions import EMPTY_TRIE_ROOT

logger = logging.getLogger(__name__)
LEAST_BYTES = 4 * 1024 * 1024
"""Nodes worth a collection: below this a store is small enough to be left alone."""
STEP_NODES = 1_000
"""Nodes that one step visits at least: some tens of milliseconds."""
_BYTES_OF_A_VISIT = 50
"""A step visits one node more for so many bytes written since the last one: copying overtakes writing."""
_EMPTY_CODE_HASH: Hash32 = keccak256(b"")
_BRANCH_ITEMS = 17
_LEAF_FLAG = 0x20
_FIRST_LIST = 0xC0
_LEADING_BYTES = 256
_NOTHING_BELOW = b"\xc2\x20\x80"
"""A leaf without a value: what a walk that is about to stop is given for a node that is missing."""


@dataclass(frozen=True, slots=True)
class PruningPolicy:
    """Say how many final payloads keep their states, beside everything above them; `blocks` 0 keeps all states."""

    blocks: int = 0
    least_bytes: int = LEAST_BYTES
    step_nodes: int = STEP_NODES


class StatePruner:
    """Collect in steps; what is in memory only saves work, everything that must last is in the store."""

    __slots__ = ("_done", "_keeping", "_records", "_seen_bytes", "_stack", "_stopped")

    def __init__(self, records: Records, keeping: PruningPolicy) -> None:
        self._records = records
        self._keeping = keeping
        self._stack: list[tuple[Hash32, bytes | None]] = []
        self._done: set[Hash32] = set()
        self._seen_bytes = 0
        self._stopped = False

    def step(self, head: ExecutionHead) -> None:
        """Do one bounded piece of work, if there is any."""
        if not self._keeping.blocks or self._stopped:
            return
        phase = self._records.nodes.state.phase
        if phase == Phase.COPYING:
            self._copy()
        elif phase == Phase.DROPPING:
            self._drop()
        else:
            self._begin(head)

    def _begin(self, head: ExecutionHead) -> None:
        state = self._records.nodes.state
        final = self._records.payload(head.finalized)
        floor = 0 if final is None else final.number - self._keeping.blocks
        worthwhile = state.written_bytes >= max(self._keeping.least_bytes, state.live_bytes)
        listed = self._records.first_listed_number()
        if not worthwhile or listed is None or floor <= max(state.floor, listed):
            return
        generation = state.generation + 1
        begun = Collection(generation, Phase.COPYING, floor=state.floor, next_floor=floor)
        self._records.put(self._records.nodes.record(begun))
        self._seen_bytes = 0

    def _copy(self) -> None:
        """Copy a piece; once every kept root is complete, the older generation counts no longer."""
        state = self._records.nodes.state
        left = self._keeping.step_nodes + max(0, state.written_bytes - self._seen_bytes) // _BYTES_OF_A_VISIT
        self._seen_bytes = state.written_bytes
        batch: Batch = {}
        try:
            finished = self._fill(batch, left)
            if self._stopped:
                return
            copied_bytes = sum(len(key) + len(value or b"") for key, value in batch.items())
            state = replace(state, live_bytes=state.live_bytes + copied_bytes)
            if finished:
                state = replace(state, phase=Phase.DROPPING, floor=state.next_floor, dropped=0)
                batch |= self._records.forgotten_roots(state.floor)
            self._records.put(batch | self._records.nodes.record(state))
        except BaseException:
            # What was walked and not written must be walked again.
            self._stack.clear()
            raise
        finally:
            self._done.clear()

    def _fill(self, batch: Batch, left: int) -> bool:
        """Walk for so many visits; return whether every kept root is complete."""
        roots = iter(self._records.list_kept_roots(self._records.nodes.state.next_floor))
        while left > 0:
            if self._stack:
                left -= 1
                self._visit(batch)
                if self._stopped:
                    return False
                continue
            root = next((each for each in roots if not self._is_complete(each)), None)
            if root is None:
                return True
            self._stack.append((root, None))
        return False

    def _visit(self, batch: Batch) -> None:
        """Take one node off the stack: seen first, it puts its children above itself; seen again, it is complete."""
        nodes = self._records.nodes
        key, value = self._stack.pop()
        if value is not None:
            batch |= nodes.entries({key: value}, complete=True)
            self._done.add(key)
            return
        if self._is_complete(key):
            return
        value = self._read_node(key)
        children, codes = references(value)
        for code in codes:
            # A contract's code may be the bytes of a node: it is copied as a node that was not walked yet.
            if code not in self._done and not nodes.is_copied(code):
                batch |= nodes.entries({code: self._read_node(code)})
        self._stack.append((key, value))
        self._stack.extend((child, None) for child in children)

    def _read_node(self, key: Hash32) -> bytes:
        value = self._records.nodes.node(key)
        if value is None:
            # A damaged store: whatever is left of it is kept.
            self._stopped = True
            logger.error("node %s is missing from the store; old states are kept from now on", key.hex())
            return _NOTHING_BELOW
        return value

    def _is_complete(self, key: Hash32) -> bool:
        return key == EMPTY_TRIE_ROOT or key in self._done or self._records.nodes.is_complete(key)

    def _drop(self) -> None:
        """Delete a piece of the older generation."""
        state = self._records.nodes.state
        batch: Batch = {}
        dropped = state.dropped
        while dropped < _LEADING_BYTES and len(batch) < self._keeping.step_nodes:
            batch |= dict.fromkeys(self._records.nodes.older_keys(dropped))
            dropped += 1
        phase = Phase.DROPPING if dropped < _LEADING_BYTES else Phase.RESTING
        self._records.put(batch | self._records.nodes.record(replace(state, dropped=dropped, phase=phase)))


def references(node: bytes) -> tuple[list[Hash32], list[Hash32]]:
    """Return the nodes and the codes that a trie node names; a leaf whose value is a list is an account.

    Values of storage are single numbers, so one look tells the two kinds of tries apart (yellow paper, section 4.1).
    """
    children: list[Hash32] = []
    codes: list[Hash32] = []
    pending: list[Any] = [rlp.decode(node)]
    while pending:
        items = pending.pop()
        named = items[:-1] if len(items) == _BRANCH_ITEMS else items[1:]
        if len(items) != _BRANCH_ITEMS and items[0][0] >= _LEAF_FLAG:
            if items[1] and items[1][0] >= _FIRST_LIST:
                account: Any = rlp.decode(items[1])
                storage_root, code_hash = bytes(account[2]), bytes(account[3])
                children += [storage_root] if storage_root != EMPTY_TRIE_ROOT else []
                codes += [code_hash] if code_hash != _EMPTY_CODE_HASH else []
            continue
        for each in named:
            if isinstance(each, list):
                pending.append(each)
            elif each:
                children.append(each)
    return children, codes
