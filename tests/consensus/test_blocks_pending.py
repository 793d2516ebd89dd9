"""Empty blocks whose payload never comes: they do not crowd out others, and what waits is asked for again."""

import pytest

from learnchain.consensus import Round, advance, begin
from learnchain.consensus.blocks import MAXIMUM_PENDING_EMPTY_SIBLINGS
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.dlbc import Dlbc
from learnchain.protocol.actions import MeasureCandidate
from learnchain.protocol.events import BlockReceived, MeasurementFinished
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind
from learnchain.protocol.messages import Deadline, EmptyBlock, empty_block_tie_breaker
from learnchain.protocol.state import ChainState
from learnchain.rejection import Unavailable
from learnchain.simulation.chain_builder import ChainBuilder
from learnchain.simulation.sample_tasks import PEOPLE

LATER = 1 << 60


def opened() -> tuple[ChainBuilder, ChainState, Round]:
    builder = ChainBuilder(Dlbc())
    genesis = builder.build_genesis()
    state, _ = begin(builder.rules, builder.parameters, genesis)
    return builder, genesis, state


def rivals(builder: ChainBuilder, parent: ChainState, count: int) -> list[EmptyBlock]:
    """Empty blocks of one height, the highest lot first."""
    found = [builder.build_empty_block(parent, Deadline.KEY, PEOPLE[number]) for number in range(count)]
    return sorted(found, key=lambda each: empty_block_tie_breaker(each.parent, each.proposer), reverse=True)


def test_of_many_empty_siblings_only_those_with_the_lowest_lots_wait() -> None:
    builder, genesis, state = opened()
    blocks = rivals(builder, genesis, len(PEOPLE))
    for block in blocks:
        state, actions = advance(state, BlockReceived(block, LATER))
        assert [type(each) for each in actions] == [MeasureCandidate]
    lowest = {message_hash(block) for block in blocks[-MAXIMUM_PENDING_EMPTY_SIBLINGS:]}
    assert set(state.pending_blocks) == lowest
    assert {key for key, _ in state.requested_measurements} == lowest
    with pytest.raises(Unavailable):
        advance(state, BlockReceived(blocks[0], LATER))


def test_an_empty_block_without_a_payload_makes_room_and_may_come_again() -> None:
    builder, genesis, state = opened()
    blocks = rivals(builder, genesis, MAXIMUM_PENDING_EMPTY_SIBLINGS + 1)
    for block in blocks[1:]:
        state, _ = advance(state, BlockReceived(block, LATER))
    with pytest.raises(Unavailable):
        advance(state, BlockReceived(blocks[0], LATER))
    gone = message_hash(blocks[-1])
    missing = Measurement(gone, MeasurementKind.PAYLOAD, Finding.UNAVAILABLE)
    state, _ = advance(state, MeasurementFinished(missing, LATER))
    assert gone not in state.pending_blocks
    state, actions = advance(state, BlockReceived(blocks[0], LATER))
    assert isinstance(actions[0], MeasureCandidate)
    assert message_hash(blocks[0]) in state.pending_blocks
    facts = builder.payloads[blocks[0].payload_hash]
    key = message_hash(blocks[0])
    state, _ = advance(
        state, MeasurementFinished(Measurement(key, MeasurementKind.PAYLOAD, Finding.ACCEPTED, facts=facts), LATER)
    )
    assert key in state.tree
