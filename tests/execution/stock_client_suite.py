"""Questions for a stock client that runs beside us on the loopback; `test_stock_client` starts this in a namespace.

One client serves the whole file, because it starts slowly; each question grows the chain that it finds.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from learnchain.encoding.files import MemoryStore
from learnchain.execution.engine_api import Endpoints, EngineApiClient, HttpCaller, load_secret
from learnchain.execution.escrow import decode_task_posted, post_calldata, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.protocol.payload import ExecutionPayload, PayloadStatusCode
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from tests.execution.doors import SynchronousDoor
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, KEYS, NONE, Chain, genesis, reward, signed
from tests.execution.stock_process import ENGINE, SECRET_NAME, START_SECONDS, WALLETS, stock_client


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """Start the client."""
    directory = tmp_path_factory.mktemp("client")
    with stock_client(directory, genesis()):
        yield load_secret(directory / SECRET_NAME)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def stock(secret: bytes, loop: asyncio.AbstractEventLoop) -> Iterator[SynchronousDoor]:
    now: Callable[[], int] = lambda: int(time.time())  # noqa: E731
    endpoints = Endpoints(HttpCaller(ENGINE, secret, now), HttpCaller(WALLETS, None, now))
    engine = EngineApiClient(endpoints, genesis(), build_seconds=0.2)
    door = SynchronousDoor(engine, loop)
    ends = time.monotonic() + START_SECONDS
    while True:
        try:
            door.capabilities()
            break
        except Unavailable:
            assert time.monotonic() < ends, "the client does not start"
            time.sleep(0.2)
    yield door
    loop.run_until_complete(engine.close())


@pytest.fixture(scope="module")
def chains(stock: SynchronousDoor) -> tuple[Chain, Chain]:
    """Return the chain that the stock client drives and the one of the embedded engine, in step from genesis on."""
    return Chain(stock), Chain(PyEvmEngine(MemoryStore(), genesis()))


def both(chains: tuple[Chain, Chain], payload: ExecutionPayload) -> None:
    """Let both engines judge and choose a payload."""
    for chain in chains:
        chain.accept(payload)
        chain.choose(payload.block_hash)
        chain.seconds[payload.block_hash] = payload.timestamp_seconds


def test_both_engines_have_one_genesis(chains: tuple[Chain, Chain]):
    infos = [chain.door.capabilities() for chain in chains]
    assert infos[0].genesis_hash == infos[1].genesis_hash == infos[0].head
    assert (infos[0].chain_id, infos[0].head_number, infos[0].gas_limit) == (CHAIN_ID, 0, 6_000_000)


def test_a_wrong_secret_opens_nothing(loop: asyncio.AbstractEventLoop, stock: SynchronousDoor):
    caller = HttpCaller(ENGINE, b"\1" * 32, lambda: int(time.time()))
    with pytest.raises(Unavailable):
        loop.run_until_complete(caller.call("engine_exchangeCapabilities", [[]]))
    loop.run_until_complete(caller.close())


def test_they_agree_on_twenty_blocks_with_transactions_built_in_turn(chains: tuple[Chain, Chain]):
    for height in range(1, 21):
        builder = chains[height % 2]
        transactions = (signed(KEYS[0], height - 1, to=b"\x99" * 20, value=height),)
        if height % 5 == 0:
            data = post_calldata(b"task %d" % height, ETHER, 0, 10**10)
            value = posting_value_wei(ETHER, 0)
            transactions += (signed(KEYS[1], height // 5 - 1, to=ESCROW_ADDRESS, data=data, gas=300_000, value=value),)
        rewards = (reward(b"\x55" * 20, height, height),)
        payload = builder.build(transactions, withdrawals=rewards, beacon_root=bytes([height]) * 32)
        assert len(payload.transactions) == len(transactions)
        both(chains, payload)
        logs = [chain.door.logs(payload.block_hash, ESCROW_ADDRESS) for chain in chains]
        assert logs[0] == logs[1]
        assert [decode_task_posted(log).specification for log in logs[0]] == (
            [b"task %d" % height] if height % 5 == 0 else []
        )
    for address, balance_wei in ((b"\x99" * 20, 210), (b"\x55" * 20, 210 * 10**9)):
        assert {chain.door.balance(chain.head, address) for chain in chains} == {balance_wei}
    assert chains[0].door.capabilities().head_number == 20


def test_they_reorganise_alike(chains: tuple[Chain, Chain]):
    root, nonce = chains[0].head, 20
    left = chains[0].build((signed(KEYS[0], nonce, value=7),), withdrawals=(reward(b"\x56" * 20, 1, 50),))
    right = chains[1].build((), withdrawals=(reward(b"\x56" * 20, 2, 50),), miner=b"\xbb" * 20)
    both(chains, left)
    both(chains, right)
    assert {chain.door.balance(right.block_hash, b"\x56" * 20) for chain in chains} == {2 * 10**9}
    grown = chains[1].build((), parent=right.block_hash)
    both(chains, grown)
    both(chains, left)
    for chain in chains:
        assert chain.door.balance(chain.head, b"\x56" * 20) == 10**9
        assert chain.door.capabilities().head == left.block_hash
    assert left.parent_hash == right.parent_hash == root


def test_a_rival_branch_is_built_without_leaving_the_head(chains: tuple[Chain, Chain]):
    stock, embedded = chains
    head = stock.door.capabilities().head
    parent = embedded.door._records.load_payload(head).parent_hash
    rival = stock.build((), parent=parent, miner=b"\xcc" * 20, randao=b"\x08" * 32)
    embedded.accept(rival)
    assert stock.door.capabilities().head == head


def test_tampered_payloads_are_invalid_for_both(chains: tuple[Chain, Chain]):
    from learnchain.execution.pyevm.transactions import seal_payload

    payload = chains[1].build((), withdrawals=(reward(b"\x55" * 20, 3, 99),))
    changes = ({"state_root": b"\1" * 32}, {"gas_used": 1}, {"receipts_root": b"\1" * 32}, {"gas_limit": 6_000_001})
    for change in (*changes, {"base_fee_wei": 7}, {"withdrawals": ()}, {"number": 2**70}, {"blob_gas_used": 131_072}):
        tampered = seal_payload(replace(payload, **change))
        for chain in chains:
            assert chain.door.new_payload(tampered, tampered.beacon_root).status is PayloadStatusCode.INVALID, change
    renamed = replace(payload, block_hash=b"\1" * 32)
    for chain in chains:
        assert chain.door.new_payload(renamed, renamed.beacon_root).status is PayloadStatusCode.INVALID
        assert chain.door.new_payload(payload, b"\x0c" * 32).status is PayloadStatusCode.INVALID


def test_unknown_payloads_wait(chains: tuple[Chain, Chain]):
    from learnchain.execution.pyevm.transactions import seal_payload

    orphan = seal_payload(replace(chains[1].build(()), parent_hash=b"\7" * 32))
    for chain in chains:
        assert chain.door.new_payload(orphan, orphan.beacon_root).status is not PayloadStatusCode.VALID
        assert chain.door.set_head(b"\1" * 32, NONE, NONE).status is PayloadStatusCode.SYNCING
        with pytest.raises(Unavailable):
            chain.door.build(b"\1" * 32, None)


def test_time_must_rise_for_both(chains: tuple[Chain, Chain]):
    for chain in chains:
        with pytest.raises(Rejected) as caught:
            chain.build((), step_seconds=0)
        assert caught.value.reason == RejectionReason.TIMESTAMP_WRONG


def test_wallets_are_answered_alike(chains: tuple[Chain, Chain]):
    address = "0x" + ADDRESSES[2].hex()
    for method, params in (
        ("eth_chainId", []),
        ("eth_blockNumber", []),
        ("eth_getBalance", [address, "latest"]),
        ("eth_getTransactionCount", ["0x" + ADDRESSES[0].hex(), "latest"]),
        ("eth_getCode", ["0x" + ESCROW_ADDRESS.hex(), "latest"]),
        ("eth_call", [{"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x61bc221a"}, "latest"]),
        ("eth_accounts", []),
    ):
        answers = [chain.door.rpc(method, params) for chain in chains]
        assert answers[0] == answers[1], method
    for chain in chains:
        for method in ("eth_mine", "engine_newPayloadV4", "admin_peers", "eth_sendTransaction", "eth_sign"):
            with pytest.raises(Rejected) as caught:
                chain.door.rpc(method, [])
            assert caught.value.reason == RejectionReason.METHOD_UNKNOWN
