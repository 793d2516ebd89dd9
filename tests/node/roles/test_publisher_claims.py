"""Miners that own nothing: they win, are paid, and the contract is settled from what they won."""

from pathlib import Path
from typing import Any

import pytest

from learnchain.execution.escrow import STATUS_OPEN, decode_task, task_calldata
from learnchain.execution.genesis import execution_genesis
from learnchain.execution.wallet import development_accounts
from learnchain.node import local_network
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC, LocalPlan
from learnchain.protocol.payload import SettlementOutcome
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.tasks.task_file import BUILT_IN

MINERS = 3
DIGITS: dict[str, Any] = {**BUILT_IN["digits"], "required_accuracy": "0.5", "model": {"preset": "mlp", "hidden": [32]}}


def test_miners_without_coins_settle_from_what_they_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    miners = {wallet.address for wallet in development_accounts(DEVELOPMENT_MNEMONIC, MINERS + 1)[1:]}

    def poor(chain_id: int, stamp: int, gas_limit: int, funded: dict[bytes, int]) -> dict[str, Any]:
        rich = {address: balance_wei for address, balance_wei in funded.items() if address not in miners}
        return execution_genesis(chain_id, stamp, gas_limit, rich)

    monkeypatch.setattr(local_network, "execution_genesis", poor)

    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=MINERS), seed=5)
        await nodes.start()
        engine = nodes.node(0).engine
        genesis = (await engine.capabilities()).genesis_hash
        assert {await engine.balance(genesis, miner) for miner in miners} == {0}
        await nodes.publish(DIGITS)
        settled: list[bytes] = []
        for height in range(1, 13):
            await nodes.wait_for_height(height, 120)
            ports = nodes.node(0).ports
            settled = [each.task_id for each in ports.archive.settlements(ports.chain.round.head.block)]
            if settled and await status(nodes, settled[0]) != STATUS_OPEN:
                break
        assert await status(nodes, settled[0]) == SettlementOutcome.PAID.code
        head = (await engine.capabilities()).head
        assert sum([await engine.balance(head, miner) for miner in miners]) > 0
        await nodes.close()

    run_simulated(scenario())


async def status(nodes: SimulatedNodes, task_id: bytes) -> int:
    node = nodes.node(0)
    call = {"to": "0x" + node.genesis.parameters.escrow.hex(), "data": "0x" + task_calldata(task_id).hex()}
    answer = await node.engine.rpc("eth_call", [call, "latest"])
    return decode_task(bytes.fromhex(answer[2:])).status
