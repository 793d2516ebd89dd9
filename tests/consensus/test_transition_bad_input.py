"""Every wrong event is refused for its reason, changes nothing, and the height goes on to a trained block."""

import pytest

from learnchain.consensus import advance
from learnchain.engines.contract import Rules
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.proof_of_work.scenario import PROOF_OF_WORK, PROOF_OF_WORK_BAD_INPUTS
from learnchain.protocol.messages import Block
from learnchain.rejection import Rejected
from learnchain.simulation.chain_builder import ChainBuilder
from learnchain.simulation.scenario import start_from_genesis
from learnchain_conformance.bad_inputs import BAD_INPUTS, BadInput, prepare

EVERY = [
    pytest.param(rules, wrong, id=f"{rules.name}-{wrong.name}")
    for rules, inputs in ((Dlbc(), BAD_INPUTS), (PROOF_OF_WORK, PROOF_OF_WORK_BAD_INPUTS))
    for wrong in inputs
]


@pytest.mark.parametrize(("rules", "wrong"), EVERY)
def test_bad_input_is_refused_and_the_height_goes_on(rules: Rules, wrong: BadInput) -> None:
    node = start_from_genesis(ChainBuilder(rules))
    found = prepare(node, wrong.stage)
    event = wrong.make(node, found)
    before = repr(node.round)
    with pytest.raises(Rejected) as refusal:
        advance(node.round, event)
    assert refusal.value.reason is wrong.reason
    assert repr(node.round) == before
    if node.round.head.height == 0:
        node.receive(node.builder.build_block(node.parent, found))
    assert isinstance(node.round.tree.records[node.round.head.block].block, Block)
    assert node.round.head.weight == node.round.head.height


def test_names_are_unique() -> None:
    names = [each.name for each in BAD_INPUTS]
    assert len(set(names)) == len(names)
