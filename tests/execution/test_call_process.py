"""Strangers' calls run in a child that may be killed: what they cost, what they return, what they cannot do."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from learnchain.execution.call_process import MAXIMUM_WAITING, CallProcess
from learnchain.execution.engine import Reverted, WorkerEngine
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.pruning import PruningPolicy
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.lmdb_store import LmdbStore
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, KEYS, Chain, genesis, signed

pytestmark = pytest.mark.network

LOOP = bytes.fromhex("5b5f56")
"""JUMPDEST PUSH0 JUMP: burn all gas."""


def deployment(code: bytes) -> bytes:
    """Return init code that returns `code`."""
    size = len(code)
    return bytes.fromhex("60") + bytes([size]) + bytes.fromhex("600c60003960") + bytes([size]) + b"\x60\x00\xf3" + code


def run(
    path: Path, scenario: Callable[[Chain, CallProcess, LmdbStore], Awaitable[None]], limit_seconds: float = 5.0
) -> None:
    async def main() -> None:
        store = LmdbStore(path / "execution", map_size_bytes=1 << 20)
        door = PyEvmEngine(store, genesis(60_000_000))
        async with (
            WorkerEngine(door) as engine,
            CallProcess(engine, path / "execution", CHAIN_ID, limit_seconds) as calls,
        ):
            await scenario(Chain(door), calls, store)
        store.close()

    asyncio.run(main())


def test_calls_follow_the_head_even_when_the_store_grows(tmp_path: Path):
    async def scenario(chain: Chain, calls: CallProcess, store: LmdbStore) -> None:
        assert await calls.rpc("eth_call", [{"to": "0x" + "99" * 20}]) == "0x"
        assert await calls.rpc("eth_getBlockReceipts", ["latest"]) == []
        # Fill the store beyond its first map, so that the child meets a file that has grown.
        store.put_many({b"filler/%d" % index: b"x" * 4_000 for index in range(1_000)})
        for nonce in range(3):
            chain.extend(signed(KEYS[0], nonce))
        receipts = await calls.rpc("eth_getBlockReceipts", ["latest"])
        assert [each["blockNumber"] for each in receipts] == ["0x3"]
        assert await calls.rpc("eth_chainId", []) == hex(CHAIN_ID)
        proof = await calls.rpc("eth_getProof", ["0x" + ADDRESSES[1].hex(), [], "latest"])
        assert int(proof["balance"], 16) == 100 * ETHER

    run(tmp_path, scenario)


def test_refusals_come_back_as_they_are(tmp_path: Path):
    async def scenario(_chain: Chain, calls: CallProcess, _store: LmdbStore) -> None:
        with pytest.raises(Reverted) as reverted:
            await calls.rpc("eth_call", [{"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x3ccfd60b"}])
        assert reverted.value.data.hex() == "d0d04f60"
        with pytest.raises(Rejected) as caught:
            await calls.rpc("eth_call", ["nonsense"])
        assert caught.value.reason == RejectionReason.ARGUMENT_INVALID
        answers = await asyncio.gather(
            *(calls.rpc("eth_call", [{}]) for _ in range(MAXIMUM_WAITING + 1)), return_exceptions=True
        )
        assert [type(each) for each in answers] == [str] * MAXIMUM_WAITING + [Unavailable]

    run(tmp_path, scenario)


def test_a_hostile_call_ends_in_time_and_stalls_nobody(tmp_path: Path):
    async def scenario(chain: Chain, calls: CallProcess, _store: LmdbStore) -> None:
        creation = signed(KEYS[0], 0, to=None, data=deployment(LOOP), gas=200_000, value=0)
        chain.extend(creation)
        receipt = (await calls.rpc("eth_getBlockReceipts", ["latest"]))[0]
        started = time.monotonic()
        hostile = asyncio.create_task(calls.rpc("eth_call", [{"to": receipt["contractAddress"]}]))
        await asyncio.sleep(0.05)
        assert await calls.rpc("eth_getBalance", ["0x" + ADDRESSES[1].hex(), "latest"]) == hex(100 * ETHER)
        # Answered while the hostile call still runs: not after its limit of one second.
        assert not hostile.done()
        with pytest.raises(Rejected) as caught:
            await hostile
        assert caught.value.reason == RejectionReason.CALL_ABORTED
        assert time.monotonic() - started < 5
        # The next caller gets its own answer from a fresh child.
        assert await calls.rpc("eth_call", [{"to": "0x" + "99" * 20}]) == "0x"

    run(tmp_path, scenario, limit_seconds=1.0)


def test_a_cancelled_call_leaves_no_answer_behind(tmp_path: Path):
    async def scenario(_chain: Chain, calls: CallProcess, _store: LmdbStore) -> None:
        await calls.rpc("eth_call", [{}])
        first = asyncio.create_task(calls.rpc("eth_getProof", ["0x" + ADDRESSES[1].hex(), [], "latest"]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await calls.rpc("eth_call", [{"to": "0x" + "99" * 20}]) == "0x"

    run(tmp_path, scenario)


def test_a_closed_process_answers_nothing(tmp_path: Path):
    async def scenario(_chain: Chain, calls: CallProcess, _store: LmdbStore) -> None:
        await calls.close()
        with pytest.raises(Unavailable):
            await calls.rpc("eth_call", [{}])

    run(tmp_path, scenario)


def test_calls_are_answered_while_old_states_are_let_go(tmp_path: Path):
    async def main() -> None:
        store = LmdbStore(tmp_path / "execution", map_size_bytes=1 << 20)
        door = PyEvmEngine(store, genesis(), PruningPolicy(blocks=1, least_bytes=1, step_nodes=40))
        chain = Chain(door)
        path = [chain.head]
        async with WorkerEngine(door) as engine, CallProcess(engine, tmp_path / "execution", CHAIN_ID) as calls:
            for nonce in range(40):
                payload = chain.accept(chain.build((signed(KEYS[0], nonce, ADDRESSES[1]),)))
                door.set_head(payload.block_hash, path[max(0, len(path) - 2)], path[max(0, len(path) - 2)])
                chain.head = payload.block_hash
                path.append(payload.block_hash)
                proof = await calls.rpc("eth_getProof", ["0x" + ADDRESSES[1].hex(), [], "latest"])
                assert int(proof["balance"], 16) == 100 * ETHER + nonce + 1
                assert await calls.rpc("eth_call", [{"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x61bc221a"}])
            with pytest.raises(Unavailable):
                await calls.rpc("eth_call", [{}, "0x1"])
        store.close()

    asyncio.run(main())
