"""Serve an embedded engine as a node does, a block every few tenths of a second: `serve.py PORT DIRECTORY`."""

import asyncio
import os
import sys
import time
from pathlib import Path

from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings
from learnchain.execution.call_process import CallProcess
from learnchain.execution.engine import WorkerEngine
from learnchain.execution.genesis import execution_genesis
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.wallet import development_accounts
from learnchain.node.local_network import DEVELOPMENT_MNEMONIC
from learnchain.protocol.payload import PayloadAttributes
from learnchain.storage.lmdb_store import LmdbStore

CHAIN_ID = 1337
INTERVAL_SECONDS = 0.3
NONE = b"\0" * 32


async def produce(engine: WorkerEngine) -> None:
    """Build, judge and choose, as consensus does; the time runs ahead when blocks come faster than seconds."""
    seconds = int(time.time())
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        head = (await engine.capabilities()).head
        seconds += 1
        attributes = PayloadAttributes(seconds, os.urandom(32), b"\xaa" * 20, (), b"\x0b" * 32)
        payload = await engine.build(head, attributes)
        await engine.new_payload(payload, payload.beacon_root)
        await engine.set_head(payload.block_hash, NONE, NONE)


async def main(port: int, directory: Path) -> None:
    balances = {wallet.address: 10_000 * 10**18 for wallet in development_accounts(DEVELOPMENT_MNEMONIC, 10)}
    genesis = execution_genesis(CHAIN_ID, int(time.time()) - 1, 6_000_000, balances)
    store = LmdbStore(directory / "execution")
    engine = WorkerEngine(PyEvmEngine(store, genesis))
    calls = CallProcess(engine, directory / "execution", CHAIN_ID)
    async with JsonRpcServer(engine, JsonRpcSettings(port=port), None, calls):
        await produce(engine)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
