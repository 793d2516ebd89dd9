"""What wallets and explorers are told, and what they may not ask."""

from typing import Any

import pytest

from learnchain.encoding.cryptography import keccak256
from learnchain.execution.engine import Reverted
from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.queries import ETHEREUM_METHODS, MAXIMUM_LOG_RANGE
from learnchain.rejection import Rejected, RejectionReason
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, KEYS, Chain, reward, signed

SENDER = "0x" + ADDRESSES[0].hex()
ESCROW = "0x" + ESCROW_ADDRESS.hex()


def _hash(raw: bytes) -> str:
    return "0x" + keccak256(raw).hex()


def _post(nonce: int) -> bytes:
    data = post_calldata(b"spec", ETHER, 0, 10_000)
    return signed(KEYS[0], nonce, ESCROW_ADDRESS, data=data, value=posting_value_wei(ETHER, 0), gas=300_000)


def test_the_methods_that_tools_need_are_there():
    needed = """eth_chainId eth_blockNumber eth_getBlockByNumber eth_getBlockByHash eth_getBalance
        eth_getTransactionCount eth_getCode eth_getStorageAt eth_call eth_estimateGas eth_gasPrice
        eth_maxPriorityFeePerGas eth_feeHistory eth_sendRawTransaction eth_getTransactionReceipt
        eth_getTransactionByHash eth_getLogs eth_syncing eth_accounts net_version web3_clientVersion"""
    assert set(needed.split()) <= set(ETHEREUM_METHODS)


def test_the_chain_is_described(engine: PyEvmEngine):
    assert engine.rpc("eth_chainId", []) == hex(CHAIN_ID)
    assert engine.rpc("net_version", []) == str(CHAIN_ID)
    assert engine.rpc("eth_syncing", []) is False
    assert engine.rpc("eth_accounts", []) == []
    assert "learnchain" in engine.rpc("web3_clientVersion", [])


def test_blocks_are_found_by_every_name(chain: Chain, engine: PyEvmEngine):
    raw = signed(KEYS[0], 0)
    payload = chain.extend(raw, withdrawals=(reward(ADDRESSES[1], 7),))
    digest = "0x" + payload.block_hash.hex()
    block = engine.rpc("eth_getBlockByHash", [digest])
    assert (block["hash"], block["number"], block["transactions"]) == (digest, "0x1", [_hash(raw)])
    assert block["withdrawals"][0]["amount"] == "0x7"
    assert block["parentBeaconBlockRoot"] == "0x" + payload.beacon_root.hex()
    for tag in ("latest", "pending", "0x1"):
        assert engine.rpc("eth_getBlockByNumber", [tag, False]) == block
    assert engine.rpc("eth_getBlockByNumber", ["earliest"])["number"] == "0x0"
    for tag in ("0x2", "0xffffffffffffffffffff", "safe", "finalized"):
        assert engine.rpc("eth_getBlockByNumber", [tag]) is None
    engine.set_head(payload.block_hash, payload.parent_hash, payload.parent_hash)
    assert engine.rpc("eth_getBlockByNumber", ["finalized"])["number"] == "0x0"
    assert engine.rpc("eth_getBlockByHash", ["0x" + "11" * 32]) is None
    full = engine.rpc("eth_getBlockByHash", [digest, True])["transactions"][0]
    assert (full["hash"], full["from"], full["transactionIndex"]) == (_hash(raw), SENDER, "0x0")


def test_state_is_read_at_any_block(chain: Chain, engine: PyEvmEngine):
    first = chain.extend(signed(KEYS[0], 0, value=5))
    chain.extend(signed(KEYS[0], 1, value=6))
    to = "0x" + "99" * 20
    assert engine.rpc("eth_getBalance", [to]) == "0xb"
    assert engine.rpc("eth_getBalance", [to, "0x1"]) == "0x5"
    assert engine.rpc("eth_getBalance", [to, {"blockHash": "0x" + first.block_hash.hex()}]) == "0x5"
    assert engine.rpc("eth_getBalance", [to, {"blockNumber": "0x2"}]) == "0xb"
    assert engine.rpc("eth_getTransactionCount", [SENDER, "0x1"]) == "0x1"
    engine.submit(signed(KEYS[0], 2))
    assert engine.rpc("eth_getTransactionCount", [SENDER]) == "0x2"
    assert engine.rpc("eth_getTransactionCount", [SENDER, "pending"]) == "0x3"
    assert len(engine.rpc("eth_getCode", [ESCROW])) > 1_000
    assert engine.rpc("eth_getCode", [to]) == "0x"
    assert int(engine.rpc("eth_getStorageAt", [ESCROW, "0x0"]), 16) == 0


def test_a_transaction_is_followed_from_pool_to_block_and_back(chain: Chain, engine: PyEvmEngine):
    root, raw = chain.head, signed(KEYS[0], 0)
    assert engine.rpc("eth_getTransactionByHash", [_hash(raw)]) is None
    assert engine.rpc("eth_sendRawTransaction", ["0x" + raw.hex()]) == _hash(raw)
    assert engine.rpc("eth_getTransactionByHash", [_hash(raw)])["blockHash"] is None
    assert engine.rpc("eth_getTransactionReceipt", [_hash(raw)]) is None
    payload = chain.extend()
    assert engine.rpc("eth_getTransactionByHash", [_hash(raw)])["blockHash"] == "0x" + payload.block_hash.hex()
    receipt = engine.rpc("eth_getTransactionReceipt", [_hash(raw)])
    assert (receipt["status"], receipt["from"], receipt["gasUsed"]) == ("0x1", SENDER, hex(21_000))
    assert engine.rpc("eth_getBlockReceipts", ["latest"]) == [receipt]
    rival = chain.accept(chain.build(parent=root, miner=b"\xbb" * 20))
    chain.choose(rival.block_hash)
    assert engine.rpc("eth_getTransactionReceipt", [_hash(raw)]) is None
    assert engine.rpc("eth_getTransactionByHash", [_hash(raw)])["blockHash"] is None


def test_logs_are_filtered(chain: Chain, engine: PyEvmEngine):
    for nonce in range(3):
        chain.extend(_post(nonce))
    chain.extend()
    everything = engine.rpc("eth_getLogs", [{"fromBlock": "earliest", "toBlock": "latest"}])
    assert [log["blockNumber"] for log in everything] == ["0x1", "0x2", "0x3"]
    topics = everything[1]["topics"]
    base = {"fromBlock": "0x0"}
    cases: list[tuple[dict[str, Any], int]] = [
        ({"address": ESCROW}, 3),
        ({"address": [SENDER, ESCROW]}, 3),
        ({"address": SENDER}, 0),
        ({"topics": [topics[0]]}, 3),
        ({"topics": [None, topics[1]]}, 1),
        ({"topics": [[topics[0], topics[1]], topics[1]]}, 1),
        ({"topics": [topics[1]]}, 0),
        ({"topics": [None, None, None, None]}, 0),
        ({"fromBlock": "0x2", "toBlock": "0x2"}, 1),
        ({"toBlock": "0xff"}, 3),
        ({"blockHash": everything[0]["blockHash"], "fromBlock": None}, 1),
    ]
    for criteria, count in cases:
        assert len(engine.rpc("eth_getLogs", [base | criteria])) == count, criteria
    assert engine.rpc("eth_getLogs", [{}]) == []
    assert [log["logIndex"] for log in everything] == ["0x0"] * 3


def test_a_range_of_logs_is_bounded(chain: Chain, engine: PyEvmEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("learnchain.execution.pyevm.queries.MAXIMUM_LOG_RANGE", 2)
    assert MAXIMUM_LOG_RANGE == 2_000
    for _ in range(3):
        chain.extend()
    assert engine.rpc("eth_getLogs", [{"fromBlock": "0x2"}]) == []
    with pytest.raises(Rejected) as caught:
        engine.rpc("eth_getLogs", [{"fromBlock": "0x1"}])
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def test_log_indices_run_through_a_block(chain: Chain, engine: PyEvmEngine):
    chain.extend(_post(0), _post(1))
    logs = engine.rpc("eth_getLogs", [{}])
    assert [(log["transactionIndex"], log["logIndex"]) for log in logs] == [("0x0", "0x0"), ("0x1", "0x1")]


def test_a_call_changes_nothing_and_a_refusal_says_why(chain: Chain, engine: PyEvmEngine):
    data = "0x" + post_calldata(b"spec", ETHER, 0, 10_000).hex()
    call = {"from": SENDER, "to": ESCROW, "data": data, "value": hex(posting_value_wei(ETHER, 0))}
    assert len(engine.rpc("eth_call", [call])) == 66
    assert engine.rpc("eth_getBalance", [ESCROW]) == "0x0"
    with pytest.raises(Reverted) as caught:
        engine.rpc("eth_call", [call | {"value": "0x1"}])
    assert caught.value.reason == RejectionReason.EXECUTION_REVERTED
    assert caught.value.data[:4] == keccak256(b"ValueMismatch(uint256,uint256)")[:4]
    with pytest.raises(Rejected) as poor:
        engine.rpc("eth_call", [call | {"from": "0x" + "12" * 20}])
    assert poor.value.reason == RejectionReason.TRANSACTION_INVALID


def test_an_endless_call_ends(engine: PyEvmEngine):
    # JUMPDEST PUSH0 JUMP as init code of a call that creates
    with pytest.raises(Rejected) as caught:
        engine.rpc("eth_call", [{"data": "0x5b5f56", "gas": "0xfffffffffffffff"}])
    assert caught.value.reason == RejectionReason.EXECUTION_REVERTED


def test_the_reason_string_of_a_contract_is_shown(engine: PyEvmEngine):
    text = b"not today".ljust(32, b"\0")
    data = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (9).to_bytes(32, "big") + text
    # CODECOPY the data behind these 12 bytes and revert with it.
    size = len(data).to_bytes(1, "big")
    code = b"\x60" + size + bytes.fromhex("600a5f3960") + size + bytes.fromhex("5ffd") + data
    with pytest.raises(Reverted) as caught:
        engine.rpc("eth_call", [{"data": "0x" + code.hex()}])
    assert caught.value.data == data
    assert caught.value.detail.endswith("not today")


def test_an_estimate_suffices_and_is_close(chain: Chain, engine: PyEvmEngine):
    raw = _post(0)
    data = "0x" + post_calldata(b"spec", ETHER, 0, 10_000).hex()
    call = {"from": SENDER, "to": ESCROW, "data": data, "value": hex(posting_value_wei(ETHER, 0))}
    estimate = int(engine.rpc("eth_estimateGas", [call]), 16)
    chain.extend(raw)
    used = int(engine.rpc("eth_getTransactionReceipt", [_hash(raw)])["gasUsed"], 16)
    assert used <= estimate <= used * 1.1
    assert engine.rpc("eth_estimateGas", [{"from": SENDER, "to": "0x" + "99" * 20, "value": "0x1"}]) == hex(21_000)
    with pytest.raises(Reverted):
        engine.rpc("eth_estimateGas", [call | {"value": "0x1"}])


def test_fee_history_follows_the_blocks(chain: Chain, engine: PyEvmEngine):
    chain.extend(signed(KEYS[0], 0, maxPriorityFeePerGas=10**9), signed(KEYS[1], 0, maxPriorityFeePerGas=3 * 10**9))
    history = engine.rpc("eth_feeHistory", ["0x2", "latest", [0, 50, 100]])
    assert history["oldestBlock"] == "0x0"
    assert history["gasUsedRatio"] == [0.0, 42_000 / 6_000_000]
    assert history["reward"][1] == [hex(10**9), hex(10**9), hex(3 * 10**9)]
    assert len(history["baseFeePerGas"]) == 3
    assert int(engine.rpc("eth_gasPrice", []), 16) == int(history["baseFeePerGas"][-1], 16) + 10**9
    assert len(engine.rpc("eth_feeHistory", [10_000, "latest"])["gasUsedRatio"]) == 2


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getBalance", ["0x12"]),
        ("eth_getBalance", [SENDER, "soon"]),
        ("eth_getBalance", [SENDER, "0x99"]),
        ("eth_getBalance", [SENDER, []]),
        ("eth_getBalance", [None]),
        ("eth_getBlockByHash", ["0x12"]),
        ("eth_getBlockByNumber", [{}]),
        ("eth_getStorageAt", [SENDER, "zero"]),
        ("eth_call", ["0x"]),
        ("eth_call", [{"to": ESCROW, "gas": 5}]),
        ("eth_call", [{"to": ESCROW, "data": "0x123"}]),
        ("eth_call", [{"to": ESCROW, "value": "0x" + "f" * 65}]),
        ("eth_call", [{"to": ESCROW, "data": "0x" + "00" * 300_000}]),
        ("eth_call", [{"to": ESCROW, "accessList": [{"address": SENDER, "storageKeys": ["0x1"]}]}]),
        ("eth_getLogs", [[]]),
        ("eth_getLogs", [{"topics": [None] * 5}]),
        ("eth_getLogs", [{"topics": ["0x12"]}]),
        ("eth_getLogs", [{"address": ["0x12"]}]),
        ("eth_getLogs", [{"fromBlock": "0x99"}]),
        ("eth_feeHistory", ["0x1", "latest", [101]]),
        ("eth_feeHistory", ["0x1", "latest", [True]]),
        ("eth_feeHistory", [-1, "latest"]),
        ("eth_sendRawTransaction", ["02"]),
    ],
)
def test_wrong_arguments_are_refused(engine: PyEvmEngine, method: str, params: list[Any]):
    with pytest.raises(Rejected) as caught:
        engine.rpc(method, params)
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def test_an_access_list_makes_a_call_cheaper_to_know(engine: PyEvmEngine):
    entry = {"address": ESCROW, "storageKeys": ["0x" + "00" * 32]}
    call = {"to": ESCROW, "data": "0x61bc221a"}
    plain = int(engine.rpc("eth_estimateGas", [call]), 16)
    listed = int(engine.rpc("eth_estimateGas", [call | {"accessList": [entry]}]), 16)
    assert listed > plain
