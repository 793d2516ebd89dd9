"""Evidence on real nodes: whoever contradicts itself in signed words pays, by the contract, to those it harmed."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learnchain.encoding.cryptography import sign
from learnchain.execution.escrow import bond_calldata, decode_stake
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Commitment, Evidence, Fault, ReleaseAnnouncement
from learnchain.protocol.payload import SettlementOutcome, bond_pot
from learnchain.protocol.state import ChainState
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.tasks.task_file import BUILT_IN

pytestmark = pytest.mark.slow

DIGITS: dict[str, Any] = {**BUILT_IN["digits"], "required_accuracy": "0.5", "model": {"preset": "mlp", "hidden": [32]}}
BOND = 10**17


def run(directory: Path, scenario: Callable[[SimulatedNodes], Awaitable[None]], miners: int = 3) -> None:
    async def main() -> None:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=miners), seed=7)
        nodes.publishers = {0, 1}
        await scenario(nodes)
        await nodes.close()

    run_simulated(main())


def branch(nodes: SimulatedNodes, index: int = 1) -> tuple[ChainState, ...]:
    ports = nodes.node(index).ports
    return ports.archive.branch(ports.chain.round.head.block, 0)


def listed(nodes: SimulatedNodes) -> list[Evidence]:
    archive = nodes.node(1).ports.archive
    return [each for state in branch(nodes) for each in archive.block(state.block_hash).evidence]


async def pot_wei(nodes: SimulatedNodes, owner: bytes) -> int:
    node = nodes.node(1)
    call = {"to": "0x" + node.genesis.parameters.escrow.hex(), "data": "0x" + bond_calldata(bond_pot(owner)).hex()}
    stake = decode_stake(bytes.fromhex((await node.engine.rpc("eth_call", [call, "latest"]))[2:]))
    return stake.active_wei + stake.leaving_wei


def sign_twice(nodes: SimulatedNodes, index: int, twin: Callable[[Any, bytes], Any]) -> None:
    """Let a node say a second thing right after the first, where `twin` returns one."""
    ports = nodes.node(index).ports
    publish = ports.network.publish

    async def twice(message: Any) -> None:
        await publish(message)
        other = twin(message, ports.wallet.private_key)
        if other is not None:
            await publish(other)

    ports.network.publish = twice  # type: ignore[method-assign]


def redated(message: Any, private_key: bytes) -> ReleaseAnnouncement | None:
    """A second release of a commissioned task; the steward's standing task has no bond."""
    if not isinstance(message, ReleaseAnnouncement):
        return None
    later = replace(message.release, released_milliseconds=message.release.released_milliseconds + 1)
    return ReleaseAnnouncement(sign(later, private_key), message.commitments)


def recommitted(message: Any, private_key: bytes) -> Commitment | None:
    return sign(replace(message, digest=b"\x05" * 32), private_key) if isinstance(message, Commitment) else None


def test_a_second_release_costs_the_publisher_its_bond_in_the_contract(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        publisher = nodes.node(1).ports
        sign_twice(nodes, 1, redated)
        await nodes.publish(DIGITS, index=1)
        await nodes.wait_until(lambda: bool(listed(nodes)), 120)
        evidence = listed(nodes)[0]
        assert (evidence.fault, evidence.offender) == (Fault.DOUBLE_RELEASE, publisher.wallet.address)
        punished = next(state for state in branch(nodes) if state.bonds.penalties)
        slashed = [each for each in punished.reward.settlements if each.outcome is SettlementOutcome.SLASHED]
        assert sum(each.amount_wei for each in slashed) == BOND
        assert slashed[0].recipient == evidence.reporter
        miners = {nodes.node(index).ports.wallet.address for index in (2, 3)}
        assert {each.recipient for each in slashed[1:-1]} == miners
        assert punished.bonds.deposit(publisher.wallet.address).total_wei == 0
        await nodes.wait_for_height(nodes.node(1).ports.chain.round.head.height + 4, 240)
        assert await pot_wei(nodes, publisher.wallet.address) == 0, "every share was claimed in the contract"
        assert len(listed(nodes)) == 1

    run(tmp_path, scenario)


def test_a_second_commitment_costs_the_reward_that_was_kept_back(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        cheat = nodes.node(2).ports
        sign_twice(nodes, 2, recommitted)
        await nodes.wait_until(lambda: bool(listed(nodes)), 120)
        evidence = listed(nodes)[0]
        assert (evidence.fault, evidence.offender) == (Fault.DOUBLE_COMMITMENT, cheat.wallet.address)
        assert evidence.reporter != cheat.wallet.address
        await nodes.wait_for_height(nodes.node(1).ports.chain.round.head.height + 2, 120)
        assert len(nodes.heads()) == 1

    run(tmp_path, scenario)
