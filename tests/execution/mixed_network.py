"""One network, two kinds of engine: the story that both of its tests tell, whatever client stands behind the door."""

from collections.abc import Callable
from pathlib import Path

from learnchain.execution.engine_api import EngineApiClient
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.wallet import development_accounts
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC, LocalPlan
from learnchain.simulation.simulated_nodes import SimulatedNodes
from tests.execution.pyevm.chain import ETHER

HEIGHTS = 20
MINERS = 3
MakeExecution = Callable[[SimulatedNodes, PyEvmEngine], EngineApiClient]


async def both_kinds_agree(directory: Path, remote: tuple[int, ...], make_client: MakeExecution) -> None:
    """Mine twenty heights with transactions and a partition in between; the `remote` nodes drive a client."""
    moves: dict[bytes, int] = {}
    nodes = SimulatedNodes(directory, LocalPlan(directory, miners=MINERS), seed=11)
    nodes.publishers = {0, 1}
    nodes.make_execution = lambda index, embedded: make_client(nodes, embedded) if index in remote else embedded
    await nodes.start()
    for index in range(MINERS + 1):
        node = nodes.node(index)
        node.engine.signals.head_listeners.append(lambda head, index=index: moves.update({head: index}))
    spender = development_accounts(DEVELOPMENT_MNEMONIC, MINERS + 2)[-1]
    sent = 0

    async def spend(index: int) -> None:
        nonlocal sent
        fields = {"chainId": 1337, "nonce": sent, "to": b"\x99" * 20, "value": ETHER, "gas": 21_000}
        fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}
        await nodes.node(index).submit_transaction(spender.sign_transaction(fields | fees))
        sent += 1

    for height in range(1, 6):
        await spend(height % 4)
        await nodes.wait_for_height(height, 200)
    await split_and_heal(nodes)
    for height in range(nodes.node(0).ports.chain.round.head.height + 1, HEIGHTS + 1):
        await spend(height % 4)
        await nodes.wait_for_height(height, 200)
    engines = [nodes.node(index).engine for index in range(MINERS + 1)]
    infos = [await engine.capabilities() for engine in engines]
    assert len({info.head for info in infos}) == 1
    assert [info.name for info in infos].count("engine-api") == len(remote)
    assert infos[0].head_number >= HEIGHTS
    balances = {await engine.balance(infos[0].head, b"\x99" * 20) for engine in engines}
    assert len(balances) == 1
    assert balances.pop() >= (sent - 1) * ETHER
    # More heads were chosen than the chain is long: some of them left it again.
    assert len(moves) > infos[0].head_number
    await nodes.close()


async def split_and_heal(nodes: SimulatedNodes) -> None:
    """Part the network until both halves have a head of their own, then join it: one half reorganises."""
    identities = [place.transport.peer_id for place in nodes.places]
    fork = nodes.node(0).ports.chain.round.head.height
    nodes.network.partition({identities[0], identities[1]}, {identities[2], identities[3]})
    await nodes.wait_until(
        lambda: min(nodes.node(index).ports.chain.round.head.height for index in (0, 2)) > fork, within_seconds=300
    )
    assert len(nodes.heads()) == 2
    nodes.network.heal()
    await nodes.wait_for_height(fork + 2, 300)
