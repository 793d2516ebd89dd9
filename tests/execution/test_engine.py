"""The worker keeps the event loop free, keeps order, and stops cleanly."""

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from learnchain.execution.engine import MAXIMUM_WAITING_CALLS, ExecutionEngine, WorkerEngine
from learnchain.protocol.payload import PayloadAttributes, PayloadStatusCode, Withdrawal
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain_conformance.null_execution import NullEngine
from tests.execution.pyevm.chain import ADDRESSES, ETHER, NONE, genesis

ATTRIBUTES = PayloadAttributes(1_012, NONE, b"\xaa" * 20, (Withdrawal(0, 0, b"\x55" * 20, 3),), b"\x0b" * 32)


def test_every_question_is_passed_through():
    async def scenario() -> None:
        async with WorkerEngine(NullEngine(genesis())) as worker:
            engine: ExecutionEngine = worker
            info = await engine.capabilities()
            payload = await engine.build(info.head, ATTRIBUTES, (b"ignored",))
            assert (await engine.new_payload(payload, payload.beacon_root)).status == PayloadStatusCode.VALID
            assert (await engine.set_head(payload.block_hash, NONE, info.head)).status == PayloadStatusCode.VALID
            assert await engine.balance(payload.block_hash, b"\x55" * 20) == 3 * 10**9
            assert await engine.balance(info.head, ADDRESSES[0]) == 100 * ETHER
            assert await engine.logs(payload.block_hash, ADDRESSES[0]) == ()
            assert await engine.rpc("eth_blockNumber", []) == "0x1"
            with pytest.raises(Rejected) as caught:
                await engine.rpc("eth_mine", [])
            assert caught.value.reason == RejectionReason.METHOD_UNKNOWN

    asyncio.run(scenario())


class SlowEngine(NullEngine):
    """Wait inside a call until the event loop has shown that it is alive."""

    __slots__ = ("calls", "permit")

    def __init__(self) -> None:
        super().__init__(genesis())
        self.permit = threading.Event()
        self.calls: list[tuple[str, int]] = []

    def rpc(self, method: str, params: object) -> str:
        assert self.permit.wait(100)
        self.calls.append((method, threading.get_ident()))
        return method


def test_the_event_loop_runs_on_while_the_engine_works_and_calls_keep_their_order():
    async def scenario() -> None:
        door = SlowEngine()
        async with WorkerEngine(door) as engine:
            calls = [asyncio.create_task(engine.rpc(f"call {index}", [])) for index in range(5)]
            await asyncio.sleep(0)
            door.permit.set()
            assert await asyncio.gather(*calls) == [f"call {index}" for index in range(5)]
        assert [method for method, _ in door.calls] == [f"call {index}" for index in range(5)]
        assert {thread for _, thread in door.calls}.isdisjoint({threading.get_ident()})
        assert len({thread for _, thread in door.calls}) == 1

    asyncio.run(scenario())


def test_consensus_overtakes_waiting_interface_calls():
    async def scenario() -> None:
        door = SlowEngine()
        order: list[str] = []

        async def ask(name: str, call: Awaitable[object]) -> None:
            await call
            order.append(name)

        async with WorkerEngine(door) as engine:
            calls = [asyncio.create_task(ask(f"call {index}", engine.rpc("x", []))) for index in range(3)]
            await asyncio.sleep(0.01)
            calls.append(asyncio.create_task(ask("consensus", engine.capabilities())))
            await asyncio.sleep(0.01)
            door.permit.set()
            await asyncio.gather(*calls)
        assert order.index("consensus") <= 1

    asyncio.run(scenario())


def test_a_flood_of_interface_calls_is_turned_away():
    async def scenario() -> None:
        door = SlowEngine()
        async with WorkerEngine(door) as engine:
            calls = [asyncio.create_task(engine.rpc("x", [])) for _ in range(MAXIMUM_WAITING_CALLS)]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await engine.rpc("one more", [])
            door.permit.set()
            await asyncio.gather(*calls)
            assert await engine.rpc("again", []) == "again"

    asyncio.run(scenario())


def test_a_closed_engine_is_unavailable():
    async def scenario() -> None:
        engine = WorkerEngine(NullEngine(genesis()))
        await engine.close()
        with pytest.raises(Unavailable):
            await engine.capabilities()

    asyncio.run(scenario())
