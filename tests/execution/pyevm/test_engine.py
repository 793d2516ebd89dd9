"""What only the embedded engine does: contracts, fees, persistence, the pool across reorganisations."""

import zlib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from eth.vm.forks.prague.computation import PragueComputation
from eth_account import Account
from eth_hash.auto import keccak
from eth_utils import to_checksum_address

from learnchain.encoding.files import MemoryStore
from learnchain.execution.genesis import BEACON_ROOTS_ADDRESS, BLOCK_HASHES_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.transactions import block_hash, seal_payload
from learnchain.protocol.payload import PayloadStatusCode
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, KEYS, NONE, Chain, genesis, reward, signed

OTHER = b"\x99" * 20


def test_a_transfer_moves_value_and_pays_fees(chain: Chain, engine: PyEvmEngine):
    payload = chain.extend(signed(KEYS[0], 0, OTHER, value=5))
    assert len(payload.transactions) == 1
    assert payload.gas_used == 21_000
    assert engine.balance(chain.head, OTHER) == 5
    price_wei = payload.base_fee_wei + 10**9
    assert engine.balance(chain.head, ADDRESSES[0]) == 100 * ETHER - 5 - 21_000 * price_wei
    assert engine.balance(chain.head, payload.fee_recipient) == 21_000 * 10**9


def test_the_base_fee_falls_when_blocks_are_empty_and_rises_when_full(chain: Chain, engine: PyEvmEngine):
    fees = [chain.extend().base_fee_wei for _ in range(3)]
    assert fees == [875_000_000, 765_625_000, 669_921_875]
    for nonce in range(256):
        engine.submit(signed(KEYS[0], nonce))
    full = chain.extend()
    # 256 transfers use 5,376,000 gas; the target is 3,000,000.
    expected = full.base_fee_wei + full.base_fee_wei * (5_376_000 - 3_000_000) // 3_000_000 // 8
    assert chain.build().base_fee_wei == expected


def test_a_block_never_exceeds_its_gas(chain: Chain, engine: PyEvmEngine):
    for key in KEYS[:2]:
        for nonce in range(200):
            engine.submit(signed(key, nonce))
    payload = chain.extend()
    assert len(payload.transactions) == 6_000_000 // 21_000
    assert payload.gas_used <= payload.gas_limit
    assert len(engine.pool) == 400 - len(payload.transactions)


def test_given_transactions_come_first_and_bad_ones_are_left_out(chain: Chain, engine: PyEvmEngine):
    engine.submit(signed(KEYS[1], 0))
    given = signed(KEYS[0], 0)
    payload = chain.build((b"\x02junk", given, given, signed(KEYS[2], 7)))
    assert payload.transactions == (given, signed(KEYS[1], 0))


def test_code_reads_the_beacon_root_and_the_parent_hash(chain: Chain, engine: PyEvmEngine):
    root = b"\xbe" * 32
    payload = chain.extend(beacon_root=root)
    child = chain.extend()
    seconds = "0x" + payload.timestamp_seconds.to_bytes(32, "big").hex()
    assert engine.rpc("eth_call", [{"to": "0x" + BEACON_ROOTS_ADDRESS.hex(), "data": seconds}]) == "0x" + root.hex()
    number = "0x" + payload.number.to_bytes(32, "big").hex()
    answer = engine.rpc("eth_call", [{"to": "0x" + BLOCK_HASHES_ADDRESS.hex(), "data": number}, hex(child.number)])
    assert answer == "0x" + payload.block_hash.hex()


def test_code_sees_its_environment(chain: Chain, engine: PyEvmEngine):
    # TIMESTAMP, NUMBER, PREVRANDAO, COINBASE, BLOCKHASH(NUMBER-1), CHAINID, GASLIMIT into slots 0..6
    code = "425f55436001554460025541600355600143034060045546600555456006550000"
    size = len(code) // 2
    create = bytes.fromhex(f"60{size:02x}600a5f3960{size:02x}5ff3" + code)
    parent = chain.extend(signed(KEYS[0], 0, to=b"", data=create, gas=300_000, value=0))
    contract = _receipt(engine, 0)["contractAddress"]
    payload = chain.extend(signed(KEYS[0], 1, to=bytes.fromhex(contract[2:]), gas=300_000, value=0))
    slots = [int(engine.rpc("eth_getStorageAt", [contract, hex(slot)]), 16) for slot in range(7)]
    assert slots == [
        payload.timestamp_seconds,
        payload.number,
        int.from_bytes(payload.prev_randao, "big"),
        int.from_bytes(payload.fee_recipient, "big"),
        int.from_bytes(parent.block_hash, "big"),
        CHAIN_ID,
        payload.gas_limit,
    ]


def _receipt(engine: PyEvmEngine, index: int) -> Mapping[str, str]:
    digest = engine.rpc("eth_getBlockByNumber", ["latest"])["transactions"][index]
    return engine.rpc("eth_getTransactionReceipt", [digest])


def test_a_failing_transaction_is_included_and_pays(chain: Chain, engine: PyEvmEngine):
    # PUSH0 PUSH0 REVERT as init code
    payload = chain.extend(signed(KEYS[0], 0, to=b"", data=bytes.fromhex("5f5ffd"), gas=100_000, value=7))
    receipt = _receipt(engine, 0)
    assert (receipt["status"], receipt["contractAddress"]) == ("0x0", None)
    fee = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert engine.balance(payload.block_hash, ADDRESSES[0]) == 100 * ETHER - fee


def test_deep_nesting_is_no_crash():
    engine = PyEvmEngine(MemoryStore(), genesis(30_000_000))
    chain = Chain(engine)
    # The contract calls itself with all gas: CALL(GAS, ADDRESS, 0, 0, 0, 0, 0)
    code = "5f5f5f5f5f305af100"
    create = bytes.fromhex(f"68{code}5f5260096017f3")
    chain.extend(signed(KEYS[0], 0, to=b"", data=create, gas=200_000, value=0))
    contract = bytes.fromhex(_receipt(engine, 0)["contractAddress"][2:])
    chain.extend(signed(KEYS[0], 1, to=contract, gas=29_000_000, value=0))
    assert _receipt(engine, 0)["status"] == "0x1"


def test_a_set_code_transaction_delegates(chain: Chain, engine: PyEvmEngine):
    authorization = Account.sign_authorization(
        {"chainId": CHAIN_ID, "address": to_checksum_address(OTHER), "nonce": 0}, KEYS[1]
    )
    raw = signed(KEYS[0], 0, ADDRESSES[1], type=4, gas=200_000, authorizationList=[authorization])
    chain.extend(raw)
    assert engine.rpc("eth_getCode", ["0x" + ADDRESSES[1].hex()]) == "0xef0100" + OTHER.hex()
    assert engine.rpc("eth_getTransactionByHash", ["0x" + keccak(raw).hex()])["type"] == "0x4"


def test_reopening_continues_where_it_was(store: MemoryStore):
    first = PyEvmEngine(store, genesis())
    chain = Chain(first)
    chain.extend(signed(KEYS[0], 0, OTHER, value=5))
    rival = chain.accept(chain.build(parent=first.capabilities().genesis_hash, miner=b"\xbb" * 20))
    second = PyEvmEngine(store, genesis())
    assert second.capabilities() == first.capabilities()
    assert second.balance(chain.head, OTHER) == 5
    chain.door = second
    chain.extend(signed(KEYS[0], 1, OTHER, value=5))
    assert second.balance(chain.head, OTHER) == 10
    chain.choose(rival.block_hash)
    assert second.balance(second.capabilities().head, OTHER) == 0


def test_what_waits_outlives_a_restart_and_what_was_included_does_not_come_back(store: MemoryStore):
    first = PyEvmEngine(store, genesis())
    chain = Chain(first)
    later = signed(KEYS[1], 5)
    for raw in (signed(KEYS[0], 0), later):
        first.submit(raw)
    root = chain.head
    included = chain.extend()
    assert included.transactions == (signed(KEYS[0], 0),)
    second = PyEvmEngine(store, genesis())
    assert [each.raw for each in second.pool.transactions()] == [later]
    chain.door = second
    rival = chain.accept(chain.build(parent=root, miner=b"\xbb" * 20))
    chain.choose(rival.block_hash)
    third = PyEvmEngine(store, genesis())
    assert {each.raw for each in third.pool.transactions()} == {later, signed(KEYS[0], 0)}
    assert len(list(store.scan(b"execution/waiting/"))) == 2


def test_another_genesis_on_the_same_store_is_refused(store: MemoryStore):
    PyEvmEngine(store, genesis())
    with pytest.raises(Rejected) as caught:
        PyEvmEngine(store, genesis(7_000_000))
    assert caught.value.reason == RejectionReason.WRONG_CHAIN


class BreakingStore(MemoryStore):
    """Fail every write from a chosen one on, before anything of it is kept, as a killed process would."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.writes = writes

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        if self.writes == 0:
            raise OSError("killed")
        self.writes -= 1
        super().put_many(items)


@pytest.mark.parametrize("writes", range(1, 5))
def test_a_kill_between_writes_loses_nothing_committed(writes: int):
    store = BreakingStore(writes)
    chain = Chain(PyEvmEngine(store, genesis()))
    reached = [chain.head]
    try:
        for nonce in range(3):
            payload = chain.accept(chain.build((signed(KEYS[0], nonce),)))
            chain.choose(payload.block_hash)
            reached.append(payload.block_hash)
    except OSError:
        store.writes = 100
    again = PyEvmEngine(store, genesis())
    assert again.capabilities().head == reached[-1]
    revived = Chain(again)
    revived.seconds = dict(chain.seconds)
    for nonce in range(len(reached) - 1, 3):
        revived.extend(signed(KEYS[0], nonce))
    assert again.capabilities().head_number == 3


def test_a_reorganisation_returns_transactions_to_the_pool(chain: Chain, engine: PyEvmEngine):
    root = chain.head
    for nonce in range(3):
        engine.submit(signed(KEYS[0], nonce))
    first = chain.extend()
    assert len(engine.pool) == 0
    rival = chain.accept(chain.build((signed(KEYS[1], 0),), parent=root, miner=b"\xbb" * 20))
    assert len(rival.transactions) == 1
    chain.choose(rival.block_hash)
    assert len(engine.pool) == 3
    assert engine.rpc("eth_getTransactionCount", ["0x" + ADDRESSES[0].hex(), "pending"]) == "0x3"
    second = chain.extend()
    assert second.transactions == first.transactions
    chain.choose(first.block_hash)
    assert engine.pool.transactions()[0].raw == signed(KEYS[1], 0)
    assert len(engine.pool) == 1


def test_a_rival_is_built_from_the_pool_while_the_head_holds_the_same(chain: Chain, engine: PyEvmEngine):
    root = chain.head
    engine.submit(signed(KEYS[0], 0))
    chain.extend()
    engine.submit(signed(KEYS[0], 1))
    rival = chain.build((signed(KEYS[0], 0),), parent=root, miner=b"\xbb" * 20)
    assert rival.transactions == (signed(KEYS[0], 0), signed(KEYS[0], 1))
    assert chain.build().transactions == (signed(KEYS[0], 1),)


def test_a_payload_with_an_unaffordable_transaction_is_invalid(chain: Chain, engine: PyEvmEngine):
    payload = chain.build((signed(KEYS[0], 0),))
    for raw in (signed(KEYS[0], 1), signed(KEYS[0], 0, value=200 * ETHER), signed(KEYS[0], 0, chainId=5)):
        forged = seal_payload(replace(payload, transactions=(raw,)))
        assert engine.new_payload(forged, forged.beacon_root).status == PayloadStatusCode.INVALID


def test_a_wrong_withdrawal_changes_the_hash(chain: Chain, engine: PyEvmEngine):
    payload = chain.build(withdrawals=(reward(OTHER, 5),))
    forged = replace(payload, withdrawals=(reward(OTHER, 6),))
    assert block_hash(forged) != payload.block_hash
    resealed = seal_payload(forged)
    assert engine.new_payload(resealed, resealed.beacon_root).status == PayloadStatusCode.INVALID
    chain.accept(payload)


def test_a_payload_cannot_cost_more_work_than_its_gas(chain: Chain, engine: PyEvmEngine):
    flood = seal_payload(replace(chain.build(), transactions=(b"\x01",) * 286))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("learnchain.execution.pyevm.engine.block_hash", lambda _: pytest.fail("hashed too early"))
        assert engine.new_payload(flood, flood.beacon_root).status == PayloadStatusCode.INVALID


def test_extra_data_is_the_builders_own(chain: Chain, engine: PyEvmEngine):
    payload = seal_payload(replace(chain.build(), extra_data=b"made elsewhere"))
    assert engine.new_payload(payload, payload.beacon_root).status == PayloadStatusCode.VALID
    long = seal_payload(replace(payload, extra_data=b"x" * 32))
    broken = replace(long, extra_data=b"x" * 33)
    assert engine.new_payload(broken, broken.beacon_root).status == PayloadStatusCode.INVALID


def test_old_states_stay_readable(chain: Chain, engine: PyEvmEngine):
    heads = [chain.head]
    for nonce in range(4):
        chain.extend(signed(KEYS[0], nonce, OTHER, value=1))
        heads.append(chain.head)
    assert [engine.balance(head, OTHER) for head in heads] == [0, 1, 2, 3, 4]
    assert engine.rpc("eth_getBalance", ["0x" + OTHER.hex(), "0x2"]) == "0x2"


def test_set_head_needs_a_known_payload(chain: Chain, engine: PyEvmEngine):
    assert engine.set_head(b"\x01" * 32, NONE, NONE).status == PayloadStatusCode.SYNCING
    assert engine.capabilities().head == chain.head


def test_the_fast_hash_is_in_use():
    keccak(b"")
    assert type(keccak.hasher.__self__).__name__ == "PySha3Backend" or "sha3" in keccak.hasher.__module__


def test_a_bug_of_the_interpreter_refuses_one_transaction_and_stops_nothing(
    chain: Chain, engine: PyEvmEngine, monkeypatch: pytest.MonkeyPatch
):
    good, bad = signed(KEYS[1], 0), signed(KEYS[0], 0, b"\0" * 19 + b"\x04", gas=50_000, value=9)
    engine.submit(bad)
    engine.submit(good)
    poisoned = chain.build()
    assert set(poisoned.transactions) == {good, bad}

    def broken(computation: object) -> None:
        raise ZeroDivisionError("a bug")

    precompiles = dict(PragueComputation.get_precompiles())
    monkeypatch.setattr(PragueComputation, "_precompiles", precompiles | {b"\0" * 19 + b"\x04": broken})
    payload = chain.build()
    assert payload.transactions == (good,)
    assert [waiting.raw for waiting in engine.pool.transactions()] == [good]
    assert engine.new_payload(poisoned, poisoned.beacon_root).status == PayloadStatusCode.INVALID
    chain.accept(payload)
    assert engine.balance(payload.block_hash, ADDRESSES[0]) == 100 * ETHER


def test_a_store_of_an_earlier_version_is_read(store: MemoryStore):
    chain = Chain(PyEvmEngine(store, genesis()))
    payload = chain.extend(signed(KEYS[0], 0, OTHER, value=5))
    before = chain.door.rpc("eth_getBlockReceipts", ["latest"])
    for prefix in (b"execution/payload/", b"execution/receipts/"):
        store.put_many({key: zlib.decompress(value) for key, value in store.scan(prefix)})
    again = PyEvmEngine(store, genesis())
    assert again.rpc("eth_getBlockReceipts", ["latest"]) == before
    assert again.capabilities().head == payload.block_hash


def test_a_damaged_record_is_missing_and_fills_no_memory(store: MemoryStore):
    chain = Chain(PyEvmEngine(store, genesis()))
    payload = chain.extend()
    ((key, value),) = [pair for pair in store.scan(b"execution/receipts/") if pair[0].endswith(payload.block_hash)]
    for damaged in (value[:-3], value[:2] + b"\xff" + value[3:]):
        store.put_many({key: damaged})
        with pytest.raises(Unavailable):
            PyEvmEngine(store, genesis()).logs(payload.block_hash, OTHER)
