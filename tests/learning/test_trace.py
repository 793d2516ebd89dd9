import json

import numpy as np
import pytest

from learnchain.learning.safe_tensors import write_tensors
from learnchain.learning.trace import INDEX_NAME, TraceWriter, read_state, read_trace, state_leaf, state_path
from learnchain.primitives.codec import encode
from learnchain.primitives.merkle import check_list_branch, list_branch
from learnchain.primitives.rejection import Rejected, RejectionReason

STATE = {"w": np.arange(4, dtype=np.float32), "m/w": np.zeros(4, dtype=np.float32)}
SHAPES = {"w": (4,), "m/w": (4,)}


@pytest.fixture
def written(tmp_path):
    writer = TraceWriter(tmp_path)
    writer.add(0, STATE)
    writer.add(5, {**STATE, "w": STATE["w"] + 1})
    writer.add(5, STATE)
    return tmp_path, writer.finish()


def refusal(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


def test_a_leaf_binds_step_names_order_shapes_and_bits():
    leaves = {
        state_leaf(0, STATE),
        state_leaf(1, STATE),
        state_leaf(0, dict(reversed(STATE.items()))),
        state_leaf(0, {"v": STATE["w"], "m/w": STATE["m/w"]}),
        state_leaf(0, {**STATE, "w": STATE["w"].reshape(2, 2)}),
        state_leaf(0, {**STATE, "m/w": -STATE["m/w"]}),
    }
    assert len(leaves) == 6


def test_the_index_gives_back_the_trace_under_its_root_only(written):
    directory, trace = written
    assert [leaf.step for leaf in trace.leaves] == [0, 5]
    assert read_trace(directory, trace.root()) == trace
    assert refusal(read_trace, directory, b"\0" * 32) is RejectionReason.TRACE_MISMATCH


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"leaves":["zz"]}', '{"leaves":[1]}', '{"leaves":["c0"]}'])
def test_a_damaged_index_is_malformed(written, text):
    directory, trace = written
    (directory / INDEX_NAME).write_text(text)
    assert refusal(read_trace, directory, trace.root()) is RejectionReason.MALFORMED


def test_a_state_is_proven_by_a_branch(written):
    _, trace = written
    leaves = tuple(encode(leaf) for leaf in trace.leaves)
    check_list_branch(trace.root(), leaves[1], 1, 2, list_branch(leaves, 1))


def test_states_are_read_only_if_they_hash_to_their_leaf(written):
    directory, trace = written
    state = read_state(state_path(directory, 0), trace.leaves[0], SHAPES)
    assert np.array_equal(state["w"], STATE["w"])
    path = state_path(directory, 1)
    assert refusal(read_state, path, trace.leaves[0], SHAPES) is RejectionReason.TRACE_MISMATCH
    assert refusal(read_state, path, trace.leaves[1], {"w": (4,)}) is RejectionReason.TRACE_MISMATCH
    write_tensors(path, {"w": STATE["w"]})
    assert refusal(read_state, path, trace.leaves[1], SHAPES) is RejectionReason.TRACE_MISMATCH
    assert "root" in json.loads((directory / INDEX_NAME).read_text())
