"""A02: the winner of a block voids the height on top by signing its block again, and an innocent publisher pays for it.

The release of the next height's publisher is on a parent that no longer counts. On the new parent the key of its task
is due before that parent was seen, so the height ends empty, "missed key".

Earns: for one signature a commissioned task is struck, its publisher's bond of 0.1 coins is burned, and three
commitments are thrown away; no evidence against the winner exists.
Kind: the chain stops or is owned at no cost; real nodes in virtual time, models that take no time.
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learnchain.encoding.cryptography import message_hash
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Block, Deadline, EmptyBlock
from learnchain.protocol.payload import SettlementOutcome
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.tasks.task_file import BUILT_IN
from learnchain_conformance.instant_training import InstantTraining
from tests.attacks.signing import sign_until_lower
from tests.attacks.simulated_chain import address_of_node, chain_of, trained_blocks

TASK: dict[str, Any] = {**BUILT_IN["iris"], "required_accuracy": "0.5"}
PUBLISHER, NODES, TEST_ROWS = 1, 4, 50
NOTHING = b"\0" * 20


@dataclass(frozen=True)
class VoidedHeight:
    """What a second signature did to a height that trained a commissioned task."""

    commitments_before: int
    commitments_after: int
    missed: Deadline | None
    outcomes: tuple[SettlementOutcome, ...]
    burned_wei: int
    bond_left_wei: int
    evidence: int


def is_training_a_commission(nodes: SimulatedNodes) -> bool:
    """Return whether a published task is being trained and somebody has committed."""
    state = nodes.node(0).ports.chain.round
    return not state.selection.task.is_standing and state.key_release is not None and bool(state.commitments)


async def play(directory: Path) -> VoidedHeight:
    """Publish a task, let it be trained, and sign its parent again."""
    nodes = SimulatedNodes(directory, LocalPlan(directory, miners=NODES - 1, standing=("iris",)), seed=7)
    nodes.make_training = nodes.make_judge = lambda _index: InstantTraining(TEST_ROWS)
    nodes.publishers = {0, PUBLISHER}
    await nodes.start()
    await nodes.publish(TASK, index=PUBLISHER)
    await nodes.wait_until(lambda: is_training_a_commission(nodes), 300)
    ports = nodes.node(0).ports
    selection, before = ports.chain.round.selection, len(ports.chain.round.commitments)
    parent = ports.archive.block(selection.parent)
    assert isinstance(parent, Block)
    winner = next(index for index in range(NODES) if address_of_node(nodes, index) == parent.proposer)
    again = sign_until_lower(parent, nodes.node(winner).ports.wallet.private_key)
    await nodes.node(winner).ports.announce(again)

    def is_followed() -> bool:
        branch = ports.chain.round.tree.branch(ports.chain.round.head.block)
        return message_hash(again) in {entry.state.block_hash for entry in branch}

    await nodes.wait_until(is_followed, 60)
    after = len(ports.chain.round.commitments)
    await nodes.wait_for_height(selection.height + 1, 300)
    state, block = next((state, block) for state, block in chain_of(nodes) if state.height == selection.height)
    result = VoidedHeight(
        commitments_before=before,
        commitments_after=after,
        missed=block.missed if isinstance(block, EmptyBlock) else None,
        outcomes=tuple(settlement.outcome for settlement in state.reward.settlements),
        burned_wei=state.ledger.burned_wei,
        bond_left_wei=state.bonds.deposit(address_of_node(nodes, PUBLISHER)).total_wei,
        evidence=sum(len(won.evidence) for won in trained_blocks(nodes)),
    )
    await nodes.close()
    return result


def attack(directory: Path) -> VoidedHeight:
    """Run the attack in virtual time."""
    return run_simulated(play(directory))


def test_a_winner_burns_the_bond_of_the_next_publisher(tmp_path: Path) -> None:
    result = attack(tmp_path)
    assert result.commitments_before > 0
    assert result.commitments_after == 0
    assert result.missed is Deadline.KEY
    assert SettlementOutcome.STRUCK in result.outcomes
    assert result.burned_wei == 10**17
    assert result.evidence == 0
