"""Empty blocks whose payload never comes: they do not crowd out others, and what waits is asked for again."""

import pytest

from learnchain.consensus import Round, advance, begin
from learnchain.consensus.blocks import MAXIMUM_PENDING_EMPTY_SIBLINGS
from learnchain.encoding.hashing import noun_hash
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.actions import MeasureCandidate
from learnchain.protocol.events import BlockReceived, Measured
from learnchain.protocol.measurement import Finding, MeasureKind, Measurement
from learnchain.protocol.messages import Deadline, EmptyBlock, empty_block_ticket
from learnchain.protocol.state import ChainState
from learnchain.rejection import Unavailable
from learnchain.simulation.chain_builder import ChainBuilder
from learnchain.simulation.sample_tasks import PEOPLE

LATER = 1 << 60


def opened() -> tuple[ChainBuilder, ChainState, Round]:
    builder = ChainBuilder(Dlbc())
    genesis = builder.genesis()
    state, _ = begin(builder.rules, builder.parameters, genesis)
    return builder, genesis, state


def rivals(builder: ChainBuilder, parent: ChainState, count: int) -> list[EmptyBlock]:
    """Empty blocks of one height, the highest lot first."""
    found = [builder.empty_block(parent, Deadline.KEY, PEOPLE[number]) for number in range(count)]
    return sorted(found, key=lambda each: empty_block_ticket(each.parent, each.proposer), reverse=True)


def test_of_many_empty_siblings_only_those_with_the_lowest_lots_wait() -> None:
    builder, genesis, state = opened()
    blocks = rivals(builder, genesis, len(PEOPLE))
    for block in blocks:
        state, actions = advance(state, BlockReceived(block, LATER))
        assert [type(each) for each in actions] == [MeasureCandidate]
    lowest = {noun_hash(block) for block in blocks[-MAXIMUM_PENDING_EMPTY_SIBLINGS:]}
    assert set(state.pending) == lowest
    assert {key for key, _ in state.asked} == lowest
    with pytest.raises(Unavailable):
        advance(state, BlockReceived(blocks[0], LATER))


def test_an_empty_block_without_a_payload_makes_room_and_may_come_again() -> None:
    builder, genesis, state = opened()
    blocks = rivals(builder, genesis, MAXIMUM_PENDING_EMPTY_SIBLINGS + 1)
    for block in blocks[1:]:
        state, _ = advance(state, BlockReceived(block, LATER))
    with pytest.raises(Unavailable):
        advance(state, BlockReceived(blocks[0], LATER))
    gone = noun_hash(blocks[-1])
    missing = Measurement(gone, MeasureKind.PAYLOAD, Finding.UNAVAILABLE)
    state, _ = advance(state, Measured(missing, LATER))
    assert gone not in state.pending
    state, actions = advance(state, BlockReceived(blocks[0], LATER))
    assert isinstance(actions[0], MeasureCandidate)
    assert noun_hash(blocks[0]) in state.pending
    facts = builder.payloads[blocks[0].payload_hash]
    key = noun_hash(blocks[0])
    state, _ = advance(state, Measured(Measurement(key, MeasureKind.PAYLOAD, Finding.ACCEPTED, facts=facts), LATER))
    assert key in state.tree
