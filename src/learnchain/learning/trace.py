"""Commit to a training run: full training states on disk and the Merkle root over their hashes (DESIGN section 10).

A state is everything the next step depends on: weights, running statistics, the optimiser's memory and the step.
The first leaf is the derived initialisation, the last one holds the committed model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from learnchain.learning.safe_tensors import Array, raw_bytes, read_header, read_tensor, write_tensors
from learnchain.primitives.bounded_json import parse_json
from learnchain.primitives.codec import Hash32, decode, encode
from learnchain.primitives.merkle import list_root
from learnchain.primitives.rejection import Rejected, RejectionReason

INDEX_NAME = "trace.json"
MAXIMUM_INDEX_BYTES = 1 << 26
_HEADER_ALLOWANCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StateLeaf:
    """Name one training state: the steps taken and the digest over its tensors."""

    step: int
    digest: Hash32


@dataclass(frozen=True, slots=True)
class Trace:
    """Hold the leaves of one run in order."""

    leaves: tuple[StateLeaf, ...]

    def root(self) -> Hash32:
        """Return the trace root that a commitment holds."""
        return list_root(tuple(encode(leaf) for leaf in self.leaves))


def state_leaf(step: int, state: Mapping[str, Array]) -> StateLeaf:
    """Return the leaf of a state: BLAKE3 over names, shapes and little-endian bytes in their order."""
    digest = blake3(b"learnchain/1/training-state\0")
    for name, array in state.items():
        head = f"{name} {array.dtype.str} {array.shape}".encode()
        digest.update(len(head).to_bytes(8, "big") + head)
        digest.update(raw_bytes(array))
    return StateLeaf(step, digest.digest())


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

    def add(self, step: int, state: Mapping[str, Array]) -> None:
        """Hash a state and keep it; a state at the step of the last one is the same state."""
        if self._leaves and self._leaves[-1].step == step:
            return
        if self._directory is not None:
            write_tensors(state_path(self._directory, len(self._leaves)), state)
        self._leaves.append(state_leaf(step, state))

    def finish(self) -> Trace:
        """Write the index and return the trace."""
        trace = Trace(tuple(self._leaves))
        if self._directory is not None:
            index = {"root": trace.root().hex(), "leaves": [encode(leaf).hex() for leaf in trace.leaves]}
            (self._directory / INDEX_NAME).write_text(json.dumps(index))
        return trace


def read_trace(directory: Path, root: Hash32) -> Trace:
    """Return the published trace if it is the one under the committed root."""
    path = directory / INDEX_NAME
    if path.stat().st_size > MAXIMUM_INDEX_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"the trace's index is larger than {MAXIMUM_INDEX_BYTES} bytes")
    try:
        lines = parse_json(path.read_bytes())["leaves"]
        leaves = tuple(decode(StateLeaf, bytes.fromhex(line)) for line in lines)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"the trace's index is wrong: {error}") from error
    trace = Trace(leaves)
    if trace.root() != root:
        raise Rejected(RejectionReason.TRACE_MISMATCH, "the published states do not hash to the committed root")
    return trace


def read_state(path: Path, leaf: StateLeaf, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the tensors of a published state if they are exactly those of its leaf."""
    size = 4 * sum(int(np.prod(shape)) for shape in expected.values()) + _HEADER_ALLOWANCE_BYTES
    entries = read_header(path, size, RejectionReason.TRACE_MISMATCH)
    if {name: (entry.dtype, entry.shape) for name, entry in entries.items()} != {
        name: ("F32", tuple(shape)) for name, shape in expected.items()
    }:
        raise Rejected(RejectionReason.TRACE_MISMATCH, "the state holds other tensors than the run")
    state = {name: read_tensor(path, entries[name]) for name in expected}
    if state_leaf(leaf.step, state) != leaf:
        raise Rejected(RejectionReason.TRACE_MISMATCH, f"the state at step {leaf.step} does not hash to its leaf")
    return state
