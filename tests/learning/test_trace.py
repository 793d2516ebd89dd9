import json

import numpy as np
import pytest

from learnchain.encoding.codec import encode
from learnchain.encoding.content_id import cid_of_block, cid_text
from learnchain.encoding.cryptography import check_list_branch, list_branch
from learnchain.learning.data import DataSet
from learnchain.learning.safe_tensors import write_tensors
from learnchain.learning.trace import (
    INDEX_NAME,
    MAXIMUM_INDEX_BYTES,
    ShownRows,
    TraceWriter,
    read_index,
    read_state,
    read_trace,
    state_digest,
    state_path,
)
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.protocol.messages import MAXIMUM_STATES
from learnchain.rejection import Rejected, RejectionReason

STATE = {"w": np.arange(4, dtype=np.float32), "m/w": np.zeros(4, dtype=np.float32)}
SHAPES = {"w": (4,), "m/w": (4,)}


@pytest.fixture
def written(tmp_path):
    writer = TraceWriter(tmp_path)
    assert writer.last_step == -1
    writer.add(leaf(0, STATE), STATE)
    later = {**STATE, "w": STATE["w"] + 1}
    writer.add(leaf(5, later), later)
    assert writer.last_step == 5
    return tmp_path, writer.finish()


def leaf(step, state):
    return StateLeaf(step, b"\1" * 32, b"\2" * 32, b"\3" * 32, state_digest(state))


def refusal(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


def test_a_digest_binds_names_order_shapes_and_bits():
    digests = {
        state_digest(STATE),
        state_digest(dict(reversed(STATE.items()))),
        state_digest({"v": STATE["w"], "m/w": STATE["m/w"]}),
        state_digest({**STATE, "w": STATE["w"].reshape(2, 2)}),
        state_digest({**STATE, "m/w": -STATE["m/w"]}),
    }
    assert len(digests) == 5


def test_the_rows_shown_are_bound_in_their_order_with_what_they_hold():
    data = DataSet(np.arange(8, dtype=np.uint8).reshape(4, 2), np.arange(4, dtype=np.uint8))
    other = DataSet(data.inputs + np.uint8(1), data.labels)
    relabelled = DataSet(data.inputs, data.labels[::-1].copy())

    def shown(rows, source=data, cut=0):
        digests = ShownRows(source)
        for place in (rows[:cut], rows[cut:]) if cut else (rows,):
            digests.add(np.array(place))
        return digests.close()

    assert shown([0, 1, 2]) == shown([0, 1, 2])
    assert shown([0, 1, 2])[0] == shown([0, 1, 2], other)[0] != shown([0, 2, 1])[0]
    assert len({shown(rows, source)[1] for rows in ([0, 1], [1, 0]) for source in (data, other, relabelled)}) == 6
    continued = ShownRows(data)
    continued.add(np.array([0]))
    assert continued.close() != continued.close()


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
    state = read_state(state_path(directory, 0), trace.leaves[0].digest, SHAPES)
    assert np.array_equal(state["w"], STATE["w"])
    path = state_path(directory, 1)
    assert refusal(read_state, path, trace.leaves[0].digest, SHAPES) is RejectionReason.TRACE_MISMATCH
    assert refusal(read_state, path, trace.leaves[1].digest, {"w": (4,)}) is RejectionReason.TRACE_MISMATCH
    write_tensors(path, {"w": STATE["w"]})
    assert refusal(read_state, path, trace.leaves[1].digest, SHAPES) is RejectionReason.TRACE_MISMATCH
    assert "root" in json.loads((directory / INDEX_NAME).read_text())


def index_of(states):
    """Return the longest index that a run of so many states can have, but for what it went on from."""
    named = encode(StateLeaf((1 << 63) - 1, b"\xff" * 32, b"\xff" * 32, b"\xff" * 32, b"\xff" * 32)).hex()
    text = cid_text(cid_of_block(b"state"))
    return json.dumps({"root": "ff" * 32, "leaves": [named] * states, "states": [text] * states}).encode()


def test_an_index_of_as_many_states_as_a_run_may_have_is_read_and_one_more_is_refused_by_name():
    longest = index_of(MAXIMUM_STATES)
    assert len(longest) < MAXIMUM_INDEX_BYTES // 2
    index = read_index(longest)
    assert len(index.leaf_bytes) == len(index.states) == MAXIMUM_STATES
    assert refusal(read_index, index_of(MAXIMUM_STATES + 1)) is RejectionReason.TRACE_TOO_LONG
    assert refusal(read_index, b" " * (MAXIMUM_INDEX_BYTES + 1)) is RejectionReason.TOO_LARGE
