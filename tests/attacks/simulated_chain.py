"""Read the chain that simulated nodes agree on: its blocks, their winners, what was said against them."""

from collections.abc import Iterator

from learnchain.encoding.codec import Address
from learnchain.protocol.messages import AnyBlock, Block
from learnchain.protocol.state import ChainState
from learnchain.simulation.simulated_nodes import SimulatedNodes


def chain_of(nodes: SimulatedNodes, index: int = 0) -> Iterator[tuple[ChainState, AnyBlock]]:
    """Yield every state of a node's best branch with its block, from height 1 on."""
    ports = nodes.node(index).ports
    for state in ports.archive.branch(ports.chain.round.head.block, 0):
        block = ports.archive.block(state.block_hash)
        if block is not None:
            yield state, block


def trained_blocks(nodes: SimulatedNodes, index: int = 0) -> list[Block]:
    """Return the blocks of a node's best branch that a model won."""
    return [block for _, block in chain_of(nodes, index) if isinstance(block, Block)]


def address_of_node(nodes: SimulatedNodes, index: int) -> Address:
    """Return the address of a node's wallet."""
    return nodes.node(index).ports.wallet.address


async def balance_wei(nodes: SimulatedNodes, index: int) -> int:
    """Return what a node's account holds at the head of node 0."""
    address = "0x" + address_of_node(nodes, index).hex()
    return int(await nodes.node(0).engine.rpc("eth_getBalance", [address, "latest"]), 16)
