"""Measure the embedded engine against what the project promises: transfers, contract calls, state, and latency.

Every function returns `{name, figures: [{what, value, unit, ratio, against}]}`; the anchor is the promised figure.
Rates are of processor time, signatures, roots and synced disk included; latency is of wall time on a busy machine.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings
from learnchain.benchmarks import Figures, figure
from learnchain.encoding.codec import Hash32
from learnchain.encoding.files import KeyValueStore, MemoryStore
from learnchain.execution.engine import SWITCH_SECONDS, WorkerEngine
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS, execution_genesis
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.pruning import PruningPolicy
from learnchain.execution.pyevm.records import Phase, Records
from learnchain.execution.wallet import Wallet
from learnchain.protocol.payload import ExecutionPayload, PayloadAttributes, PayloadStatusCode
from learnchain.storage.lmdb_store import LmdbStore

CHAIN_ID = 1337
GAS_LIMIT = 60_000_000
BLOCKS = 4
TRANSACTIONS_PER_BLOCK = 100
LONG_BLOCKS, LONG_TRANSACTIONS = 64, 8
REQUESTS = 1_000
PROMISED_TRANSFERS, PROMISED_CALLS, PROMISED_BYTES, PROMISED_MILLISECONDS = 200, 150, 1_000, 20
_GWEI_WEI = 10**9
_NONE = b"\0" * 32
_WALLETS = tuple(Wallet(bytes([index]) * 32) for index in range(1, 21))
_FAR_SECONDS = 10**10


def transfers() -> Figures:
    """Judge blocks of signed transfers to new accounts: decode, recover, execute, root, write."""
    rate, size_bytes = _measure_execution(_transfer)
    return {
        "name": "execution-transfers",
        "figures": [
            figure("signed transfers", rate, "1/s", rate / PROMISED_TRANSFERS, f"{PROMISED_TRANSFERS}/s promised"),
            figure("disk of a transfer", size_bytes, "bytes", size_bytes / PROMISED_BYTES, "1 kB promised"),
        ],
    }


def contract_calls() -> Figures:
    """Judge blocks of task postings: a call that writes five words, moves value and emits an event."""
    rate, size_bytes = _measure_execution(_posting)
    return {
        "name": "execution-calls",
        "figures": [
            figure("contract calls", rate, "1/s", rate / PROMISED_CALLS, f"{PROMISED_CALLS}/s promised"),
            figure("disk of a call", size_bytes, "bytes", size_bytes / PROMISED_BYTES, "1 kB promised"),
        ],
    }


def interface_latency() -> Figures:
    """Ask for the block number over HTTP while another process keeps a core busy, as a miner does."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        resting = asyncio.run(_slowest(executing=False))
        usual_seconds = sys.getswitchinterval()
        usual = asyncio.run(_slowest(executing=True))
        sys.setswitchinterval(SWITCH_SECONDS)
        ours = asyncio.run(_slowest(executing=True))
        sys.setswitchinterval(usual_seconds)
    finally:
        busy.kill()
        busy.wait()
    promised = f"{PROMISED_MILLISECONDS} ms promised"
    alone = f"{usual:.1f} ms with Python's own switching"
    return {
        "name": "execution-latency",
        "figures": [
            figure("eth_blockNumber p99", resting, "ms", resting / PROMISED_MILLISECONDS, promised),
            figure("the same while blocks are executed", ours, "ms", ours / usual, alone),
        ],
    }


def state_growth() -> Figures:
    """Grow a long chain of small blocks on an archive and on a store that lets old states go; compare their disks."""
    figures: list[dict[str, Any]] = []
    for what, make in (("transfer", _transfer), ("task posting", _posting)):
        payloads = _payloads(make, LONG_BLOCKS, LONG_TRANSACTIONS)
        archive_bytes = _grown_bytes(payloads, PruningPolicy())
        kept_bytes = _grown_bytes(payloads, PruningPolicy(LONG_BLOCKS // 8, 1, 1_000))
        against = f"{archive_bytes:.0f} bytes with all states"
        figures.append(figure(f"disk of a {what}", kept_bytes, "bytes", kept_bytes / archive_bytes, against))
    return {"name": "execution-state", "figures": figures}


BENCHMARKS: dict[str, Callable[[], Figures]] = {
    "execution-transfers": transfers,
    "execution-calls": contract_calls,
    "execution-latency": interface_latency,
    "execution-state": state_growth,
}


def _genesis() -> dict[str, Any]:
    balances = {wallet.address: 10**24 for wallet in _WALLETS}
    return execution_genesis(CHAIN_ID, 1_000, GAS_LIMIT, balances)


def _fees(nonce: int) -> dict[str, Any]:
    return {
        "chainId": CHAIN_ID,
        "nonce": nonce,
        "maxFeePerGas": 100 * _GWEI_WEI,
        "maxPriorityFeePerGas": _GWEI_WEI,
    }


def _transfer(index: int) -> bytes:
    wallet, nonce = _WALLETS[index % len(_WALLETS)], index // len(_WALLETS)
    recipient = b"\x77" * 12 + index.to_bytes(8, "big")
    return wallet.sign_transaction(_fees(nonce) | {"gas": 21_000, "to": recipient, "value": 1})


def _posting(index: int) -> bytes:
    wallet, nonce = _WALLETS[index % len(_WALLETS)], index // len(_WALLETS)
    data = post_calldata(b"x" * 64, 1, 0, _FAR_SECONDS)
    fields = {"gas": 250_000, "to": ESCROW_ADDRESS, "value": posting_value_wei(1, 0), "data": data}
    return wallet.sign_transaction(_fees(nonce) | fields)


def _payloads(make: Callable[[int], bytes], blocks: int, size: int) -> list[ExecutionPayload]:
    engine = PyEvmEngine(MemoryStore(), _genesis())
    payloads: list[ExecutionPayload] = []
    for block in range(blocks):
        raws = tuple(make(block * size + index) for index in range(size))
        head = engine.capabilities().head
        payload = engine.build(head, PayloadAttributes(1_012 + 12 * block, _NONE, b"\xaa" * 20, (), b"\x0b" * 32), raws)
        if len(payload.transactions) != size:
            raise RuntimeError(f"{len(payload.transactions)} of {size} transactions were taken")
        _execute_payload(engine, payload)
        payloads.append(payload)
    return payloads


def _execute_payload(engine: PyEvmEngine, payload: ExecutionPayload) -> None:
    if engine.new_payload(payload, payload.beacon_root).status is not PayloadStatusCode.VALID:
        raise RuntimeError("the engine refuses its own payload")
    engine.set_head(payload.block_hash, _NONE, _NONE)


def _measure_execution(make: Callable[[int], bytes]) -> tuple[float, float]:
    """Return transactions a second of processor time and the disk bytes of one."""
    payloads = _payloads(make, BLOCKS, TRANSACTIONS_PER_BLOCK)
    with TemporaryDirectory() as place:
        store = LmdbStore(Path(place) / "execution")
        engine = PyEvmEngine(store, _genesis())
        _execute_payload(engine, payloads[0])
        size_bytes = _used_bytes(store)
        started = time.process_time()
        for payload in payloads[1:]:
            _execute_payload(engine, payload)
        seconds = time.process_time() - started
        grown_bytes = _used_bytes(store) - size_bytes
        store.close()
    count = (BLOCKS - 1) * TRANSACTIONS_PER_BLOCK
    return count / seconds, grown_bytes / count


def _grown_bytes(payloads: list[ExecutionPayload], keeping: PruningPolicy) -> float:
    """Return the disk bytes of one transaction, once everything that may go is gone."""
    store = MemoryStore()
    engine = PyEvmEngine(store, _genesis(), keeping)
    size_bytes = _used_bytes(store)
    for payload in payloads:
        _execute_payload(engine, payload)
    final = payloads[-1].block_hash
    engine.set_head(final, final, final)
    while Records(store).nodes.state.phase != Phase.RESTING:
        engine.set_head(final, final, final)
    return (_used_bytes(store) - size_bytes) / sum(len(payload.transactions) for payload in payloads)


def _used_bytes(store: KeyValueStore) -> int:
    """Return the bytes of all keys and values: what the file holds, without the room it keeps for later."""
    return sum(len(key) + len(value) for key, value in store.scan(b""))


async def _slowest(executing: bool) -> float:
    """Return the 99th percentile of many questions in milliseconds; the engine may execute all the while."""
    async with WorkerEngine(PyEvmEngine(MemoryStore(), _genesis())) as engine:
        info = await engine.capabilities()
        await engine.set_head(info.head, _NONE, _NONE)
        work = asyncio.create_task(_build_for_ever(engine, info.head)) if executing else None
        async with JsonRpcServer(engine, JsonRpcSettings(port=0)) as server:
            found = sorted(await _latencies(server.port))
        if work is not None:
            work.cancel()
    return found[len(found) * 99 // 100]


async def _build_for_ever(engine: WorkerEngine, head: Hash32) -> None:
    raws = tuple(_transfer(index) for index in range(TRANSACTIONS_PER_BLOCK))
    attributes = PayloadAttributes(1_012, _NONE, b"\xaa" * 20, (), b"\x0b" * 32)
    while True:
        await engine.build(head, attributes, raws)


async def _latencies(port: int) -> list[float]:
    found: list[float] = []
    body = b'{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}'
    async with aiohttp.ClientSession() as session:
        for _ in range(REQUESTS):
            started = time.perf_counter()
            async with session.post(f"http://127.0.0.1:{port}/", data=body) as response:
                await response.read()
            found.append(1000 * (time.perf_counter() - started))
    return found
