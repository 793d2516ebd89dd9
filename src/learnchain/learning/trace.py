"""Commit to a training run: full training states on disk and the Merkle root over their hashes (ROUND-11).

A state is everything the next step depends on: weights, running statistics, the optimiser's memory, the step and the
random state. A leaf also binds what was shown since the leaf before: the rows' numbers in their order and the rows
themselves. The first leaf is the derived initialisation, the last one holds the committed model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from learnchain.encoding.codec import Hash32, decode, encode, parse_json
from learnchain.encoding.content_id import Cid, cid_from_text
from learnchain.encoding.cryptography import list_root
from learnchain.learning.data import DataSet
from learnchain.learning.safe_tensors import Array, raw_bytes, read_header, read_tensor, write_tensors
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.protocol.messages import MAXIMUM_STATES, TrainingRecord
from learnchain.rejection import Rejected, RejectionReason

INDEX_NAME = "trace.json"

MAXIMUM_INDEX_BYTES = 1 << 26
"""Room for the index of a run with `MAXIMUM_STATES` states, which takes about a third of it."""

CONTINUES_KEY = "continues"

FIRST_DIGEST = b"\0" * 32
"""Stands for the rows shown before the first step."""

_HEADER_ALLOWANCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Trace:
    """Hold the leaves of one run in order."""

    leaves: tuple[StateLeaf, ...]

    def root(self) -> Hash32:
        """Return the trace root that a commitment holds."""
        return list_root(tuple(encode(leaf) for leaf in self.leaves))


def state_digest(state: Mapping[str, Array]) -> Hash32:
    """Return BLAKE3 over the names, shapes and little-endian bytes of a state's tensors in their order."""
    digest = blake3(b"learnchain/1/training-state\0")
    for name, array in state.items():
        head = f"{name} {array.dtype.str} {array.shape}".encode()
        digest.update(len(head).to_bytes(8, "big") + head)
        digest.update(raw_bytes(array))
    return digest.digest()


class ShownRows:
    """Digest the rows that a run shows, segment by segment; each segment's digest starts from the one before."""

    def __init__(self, data: DataSet, order: Hash32 = FIRST_DIGEST, points: Hash32 = FIRST_DIGEST) -> None:
        self._inputs, self._labels = data.inputs, data.labels
        self._start(order, points)

    def add(self, rows: Array) -> None:
        """Take up one batch: where its rows stand in the data, and what they hold."""
        self._order.update(rows.astype("<u8").tobytes())
        self._points.update(raw_bytes(self._inputs[rows]))
        self._points.update(raw_bytes(self._labels[rows]))

    def close(self) -> tuple[Hash32, Hash32]:
        """Return the digests of the segment that ends here and begin the next one."""
        order, points = self._order.digest(), self._points.digest()
        self._start(order, points)
        return order, points

    def _start(self, order: Hash32, points: Hash32) -> None:
        self._order = blake3(b"learnchain/1/batch-order\0" + order)
        self._points = blake3(b"learnchain/1/points-shown\0" + points)


def state_path(directory: Path, index: int) -> Path:
    """Return where the state of a leaf lies."""
    return directory / f"state-{index:06}.safetensors"


class TraceWriter:
    """Write states into a directory as training goes on, and their index at its end."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._leaves: list[StateLeaf] = []
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    @property
    def last_step(self) -> int:
        """Name the step of the state that was kept last; -1 before the first."""
        return self._leaves[-1].step if self._leaves else -1

    def add(self, leaf: StateLeaf, state: Mapping[str, Array]) -> None:
        """Keep a state and its leaf."""
        if self._directory is not None:
            write_tensors(state_path(self._directory, len(self._leaves)), state)
        self._leaves.append(leaf)

    def finish(self) -> Trace:
        """Write the index and return the trace."""
        trace = Trace(tuple(self._leaves))
        if self._directory is not None:
            index = {"root": trace.root().hex(), "leaves": [encode(leaf).hex() for leaf in trace.leaves]}
            (self._directory / INDEX_NAME).write_text(json.dumps(index))
        return trace


@dataclass(frozen=True, slots=True)
class TraceIndex:
    """Hold what the published index of a run names: its leaves' bytes, its states' files, what the run went on from.

    The index is a stranger's file: `read_index` bounds it, `check` compares it with what a training record promises.
    """

    leaf_bytes: tuple[bytes, ...]
    states: tuple[Cid, ...]
    continues: bytes
    """The opening of the commitment whose end state the run began with, or nothing."""

    def trace(self) -> Trace:
        """Return the decoded leaves."""
        return Trace(tuple(decode(StateLeaf, leaf) for leaf in self.leaf_bytes))

    def check_root(self, root: Hash32) -> None:
        """Refuse leaves that are not under the committed root."""
        if list_root(self.leaf_bytes) != root:
            raise Rejected(RejectionReason.TRACE_MISMATCH, "the published states do not hash to the committed root")

    def check(self, training: TrainingRecord) -> None:
        """Refuse an index that is not the one of a training record."""
        self.check_root(training.state_root)
        if not len(self.leaf_bytes) == len(self.states) == training.states:
            raise Rejected(RejectionReason.TRACE_MISMATCH, "the trace has another number of states than revealed")


def read_index(data: bytes) -> TraceIndex:
    """Return what an index names: the one reader of a trace's index, under the one limit of its states (AUDIT-9)."""
    if len(data) > MAXIMUM_INDEX_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"the trace's index is larger than {MAXIMUM_INDEX_BYTES} bytes")
    try:
        index = parse_json(data)
        named, states = index["leaves"], index.get("states", [])
        if not isinstance(named, list) or not isinstance(states, list):
            raise TypeError("no lists of states")
        if max(len(named), len(states)) > MAXIMUM_STATES:
            raise Rejected(RejectionReason.TRACE_TOO_LONG, f"an index of more than {MAXIMUM_STATES} states")
        leaves, continues = tuple(bytes.fromhex(line) for line in named), bytes.fromhex(index.get(CONTINUES_KEY, ""))
        return TraceIndex(leaves, tuple(cid_from_text(text) for text in states), continues)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"the trace's index is wrong: {error}") from error


def read_trace(directory: Path, root: Hash32) -> Trace:
    """Return the published trace if it is the one under the committed root."""
    with (directory / INDEX_NAME).open("rb") as file:
        index = read_index(file.read(MAXIMUM_INDEX_BYTES + 1))
    trace = index.trace()
    index.check_root(root)
    return trace


def read_state(path: Path, digest: Hash32, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the tensors of a published state if they are exactly those of its digest."""
    size = 4 * sum(int(np.prod(shape)) for shape in expected.values()) + _HEADER_ALLOWANCE_BYTES
    entries = read_header(path, size, RejectionReason.TRACE_MISMATCH)
    if {name: (entry.dtype, entry.shape) for name, entry in entries.items()} != {
        name: ("F32", tuple(shape)) for name, shape in expected.items()
    }:
        raise Rejected(RejectionReason.TRACE_MISMATCH, "the state holds other tensors than the run")
    state = {name: read_tensor(path, entries[name]) for name in expected}
    if state_digest(state) != digest:
        raise Rejected(RejectionReason.TRACE_MISMATCH, f"{path.name} does not hash to its committed digest")
    return state
