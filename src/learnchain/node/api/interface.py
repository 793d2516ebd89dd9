"""Open a node's interface: Ethereum's methods, the node's own, the explorer, and the faucet where coins are free."""

from pathlib import Path
from typing import Any

from learnchain.node.api.chain_feed import Caller
from learnchain.node.api.faucet import Faucet, faucet_wallet
from learnchain.node.api.inspection import Inspection
from learnchain.node.api.json_rpc import JsonRpcServer, JsonRpcSettings
from learnchain.node.api.views import LearnInterface
from learnchain.node.execution.call_process import CallProcess
from learnchain.node.execution.engine import WorkerEngine
from learnchain.node.node import TRANSACTION_TOPIC, Node
from learnchain.node.settings import NodeSettings
from learnchain.node.web.explorer import Explorer


async def open_interface(node: Node, settings: NodeSettings, directory: Path) -> JsonRpcServer:
    """Return the listening server; whoever closes it also ends the process for calls."""
    chain_id = node.genesis.parameters.chain_id

    async def gossip(raw: bytes) -> None:
        await node.network.publish(TRANSACTION_TOPIC, raw)

    calls: Caller | None = None
    if isinstance(node.engine, WorkerEngine):
        # An external client bounds its calls itself, and its state is not in our store.
        calls = CallProcess(node.engine, directory / "execution", chain_id)
    server = JsonRpcServer(node.engine, JsonRpcSettings(port=settings.rpc_port), gossip, calls)
    learn, inspection = LearnInterface(node.ports, node.network, node.genesis, directory), Inspection(node.ports)
    learn.register(server, publishes=settings.is_publisher)
    inspection.register(server)
    server.add_pages(Explorer(learn, inspection, node.engine).routes())
    wallet = faucet_wallet(node.genesis)
    if wallet is not None:
        faucet = Faucet(node.engine, wallet, chain_id, node.ports.clock, node.submit_transaction)

        async def give(address: Any) -> str:
            return await faucet.give(address)

        server.register("learn_faucet", give, sensitive=True)
    await server.start()
    return server
