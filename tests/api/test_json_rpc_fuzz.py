"""Random and mutated requests: every one is answered with a right code, nothing breaks, and memory stays bounded."""

import asyncio
import json
import os
import random
import resource
from typing import Any

import pytest

from learnchain.api import json_rpc
from learnchain.api.json_rpc import JsonRpcServer, JsonRpcSettings, Origin
from learnchain.encoding.files import MemoryStore
from learnchain.execution.engine import WorkerEngine
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.queries import ETHEREUM_METHODS
from learnchain.execution.pyevm.transactions import MAXIMUM_BYTES, MAXIMUM_COUNT
from learnchain.rejection import Rejected
from tests.execution.pyevm.chain import ADDRESSES, KEYS, Chain, genesis, signed

CODES = {-32700, -32600, -32601, -32602, -32000, 3}
"""What a caller may be told; -32603 would be a bug of ours."""
SLOW_COUNT = 100_000
COUNT = 3_000
MAXIMUM_GROWTH_KIB = 256 * 1024
METHODS = (*ETHEREUM_METHODS, "eth_newFilter", "eth_newBlockFilter", "eth_getFilterChanges", "eth_getFilterLogs")
METHODS += ("eth_uninstallFilter", "eth_newPendingTransactionFilter", "eth_mine", "engine_newPayloadV4", "")


def word(chance: random.Random, known: list[str]) -> Any:
    """Return one value as callers send it, right or wrong."""
    kinds: tuple[Any, ...] = (
        None,
        True,
        chance.randrange(-5, 2**70),
        chance.random(),
        "",
        "latest",
        "pending",
        "earliest",
        "finalized",
        hex(chance.randrange(6)),
        hex(chance.getrandbits(chance.choice((8, 64, 256, 300)))),
        "0x" + chance.randbytes(chance.choice((0, 1, 4, 20, 32, 33, 100))).hex(),
        "0x" + chance.choice(ADDRESSES).hex(),
        "0x" + ESCROW_ADDRESS.hex(),
        chance.choice(known),
        "\ud800" if chance.random() < 0.1 else "é",
    )
    return chance.choice(kinds)


def value(chance: random.Random, known: list[str], depth: int = 0) -> Any:
    """Return a word, a list or one of the objects that methods take."""
    choice = chance.random()
    if depth > 3 or choice < 0.6:
        return word(chance, known)
    if choice < 0.75:
        return [value(chance, known, depth + 1) for _ in range(chance.randrange(4))]
    names = ("to", "from", "data", "input", "gas", "value", "accessList", "address", "topics", "fromBlock", "toBlock")
    names += ("blockHash", "blockNumber", "tracer", "tracerConfig", "storageKeys", "x")
    return {chance.choice(names): value(chance, known, depth + 1) for _ in range(chance.randrange(5))}


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return bytes with a few of them changed, cut or repeated."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(changed) or 1)
        kind = chance.randrange(4)
        if kind == 0 and changed:
            changed[place % len(changed)] = chance.randrange(256)
        elif kind == 1:
            del changed[place : place + chance.randrange(8)]
        elif kind == 2:
            changed[place:place] = chance.randbytes(chance.randrange(8))
        else:
            changed += changed[: chance.randrange(32)]
    return bytes(changed)


def transaction(chance: random.Random) -> bytes:
    kind = chance.choice((0, 1, 2, 2, 3))
    fields: dict[str, Any] = {"gas": chance.choice((21_000, 100_000, 6_000_000)), "data": chance.randbytes(4)}
    if kind in (0, 1):
        fields |= {"type": kind, "gasPrice": 10**10, "maxFeePerGas": None, "maxPriorityFeePerGas": None}
    if kind == 3:
        fields |= {"to": ESCROW_ADDRESS, "data": post_calldata(b"t", 1, 0, 10_000), "value": posting_value_wei(1, 0)}
    if kind == 0:
        fields["type"] = None
    return signed(chance.choice(KEYS), chance.randrange(20), **fields)


def request(chance: random.Random, known: list[str]) -> bytes:
    """Return a request: most are well formed, some are mutated bytes or batches of both."""
    method = chance.choice(METHODS)
    params: Any = [value(chance, known) for _ in range(chance.randrange(4))]
    if chance.random() < 0.2:
        raw = transaction(chance)
        method, params = (
            "eth_sendRawTransaction",
            ["0x" + (raw if chance.random() < 0.3 else mutated(chance, raw)).hex()],
        )
    message: Any = {"jsonrpc": "2.0", "id": chance.choice((1, "a", None, 1.5)), "method": method, "params": params}
    if chance.random() < 0.05:
        message = [message, value(chance, known), message]
    if chance.random() < 0.05:
        message = value(chance, known)
    data = json.dumps(message).encode()
    return mutated(chance, data) if chance.random() < 0.15 else data


def check(text: str | None) -> None:
    """Fail unless the answer is JSON-RPC with a code that a caller may see."""
    if text is None:
        return
    answers = json.loads(text)
    for answer in answers if isinstance(answers, list) else [answers]:
        assert answer["jsonrpc"] == "2.0"
        assert ("result" in answer) != ("error" in answer)
        if "error" in answer:
            assert answer["error"]["code"] in CODES, answer


async def storm(count: int, seed: int) -> None:
    chance = random.Random(seed)
    door = PyEvmEngine(MemoryStore(), genesis())
    chain = Chain(door)
    async with WorkerEngine(door) as engine:
        server = JsonRpcServer(engine, JsonRpcSettings(port=0, maximum_batch=5))
        known = ["0x" + chain.head.hex()]
        before = 0
        for index in range(count):
            if index == count // 10:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            check(await server.answer(request(chance, known), Origin(from_browser=chance.random() < 0.5)))
            if index % max(count // 20, 1) == 0:
                payload = chain.extend()
                known = [*known[-9:], "0x" + payload.block_hash.hex()]
        assert len(door.pool) <= MAXIMUM_COUNT
        assert door.pool.size_bytes <= MAXIMUM_BYTES
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAXIMUM_GROWTH_KIB
        assert chain.extend().number == door.capabilities().head_number
        await server.close()


@pytest.fixture(autouse=True)
def fail_on_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    def internal(method: str, error: Exception) -> Exception:
        raise AssertionError(f"{method} raised {error!r}") from error

    monkeypatch.setattr(json_rpc, "_internal", internal)


def test_random_requests_are_answered_rightly():
    asyncio.run(storm(COUNT, seed=1))


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_a_hundred_thousand_random_requests_are_answered_rightly():
    asyncio.run(storm(int(os.environ.get("LEARNCHAIN_FUZZ_COUNT", SLOW_COUNT)), seed=2))


def test_mutated_transactions_are_taken_or_refused():
    chance = random.Random(3)
    door = PyEvmEngine(MemoryStore(), genesis())
    for _ in range(COUNT):
        raw = transaction(chance)
        try:
            door.submit(raw if chance.random() < 0.1 else mutated(chance, raw))
        except Rejected as error:
            assert error.detail
    payload = Chain(door).extend()
    assert payload.transactions
