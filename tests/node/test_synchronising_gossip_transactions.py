"""Transactions reach every node's pool once; what a node refuses goes no further."""

import asyncio
from pathlib import Path

import pytest

from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.wallet import Wallet, development_accounts
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC, LocalPlan
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.verification.assurance import NoTraining

MINERS = 3


def raw_transfer(wallet: Wallet, nonce: int, **changes: int) -> bytes:
    fields = {"chainId": 1337, "nonce": nonce, "to": b"\x99" * 20, "value": 1, "gas": 21_000}
    return wallet.sign_transaction(fields | {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9} | changes)


def test_a_transaction_reaches_every_pool_and_a_bad_one_none(tmp_path: Path):
    engines: dict[int, PyEvmEngine] = {}

    def execution(index: int, engine: PyEvmEngine) -> PyEvmEngine:
        engines[index] = engine
        return engine

    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=MINERS), seed=4)
        nodes.make_training = nodes.make_judge = lambda _index: NoTraining()
        nodes.make_execution = execution
        await nodes.start()
        spender = development_accounts(DEVELOPMENT_MNEMONIC, MINERS + 2)[-1]
        good, poor = raw_transfer(spender, 0), raw_transfer(Wallet(b"\x21" * 32), 0)
        await asyncio.sleep(2)
        await nodes.node(2).submit_transaction(good)
        with pytest.raises(Rejected) as caught:
            await nodes.node(1).submit_transaction(poor)
        assert caught.value.reason is RejectionReason.TRANSACTION_INVALID
        # A peer that does not check sends it all the same, and a blob transaction after it.
        for raw in (poor, b"\x03" + good[1:]):
            await nodes.node(1).network.publish("transaction", raw)
        await asyncio.sleep(2)
        pools = [[each.raw for each in engine.pool.transactions()] for engine in engines.values()]
        assert pools == [[good]] * (MINERS + 1)
        await nodes.close()

    run_simulated(scenario())
