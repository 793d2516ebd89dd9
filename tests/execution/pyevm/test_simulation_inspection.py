"""Proofs that verify against the header, and call trees that say what was called."""

from typing import Any

import pytest
import rlp
from eth_utils import keccak
from trie import HexaryTrie

from learnchain.execution.escrow import post_calldata, posting_value_wei
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.rejection import Rejected, RejectionReason
from tests.execution.pyevm.chain import ADDRESSES, ETHER, KEYS, Chain, signed

CALLER = bytes.fromhex(
    # CALL, STATICCALL and DELEGATECALL the first argument, then CREATE2 of empty code, then revert with 4 bytes.
    "5f5f5f5f60015f355af1505f5f5f5f5f355afa505f5f5f5f5f355af4505f5f5f5ff55063deadbeef5f526004601cfd"
)


def creation(code: bytes) -> bytes:
    return b"\x60" + bytes([len(code)]) + bytes.fromhex("600c60003960") + bytes([len(code)]) + b"\x60\x00\xf3" + code


def text(data: bytes) -> str:
    return "0x" + data.hex()


def prove(root: bytes, nodes: list[str], key: bytes) -> bytes:
    return bytes(HexaryTrie.get_from_proof(root, keccak(key), [rlp.decode(bytes.fromhex(node[2:])) for node in nodes]))


def test_accounts_and_storage_are_proven_against_the_header(chain: Chain, engine: PyEvmEngine):
    value = posting_value_wei(ETHER, 0)
    data = post_calldata(b"task", ETHER, 0, 10_000)
    payload = chain.extend(signed(KEYS[0], 0, to=ESCROW_ADDRESS, data=data, gas=300_000, value=value))
    counter = 4
    proof: Any = engine.rpc("eth_getProof", [text(ESCROW_ADDRESS), [hex(counter), f"0x{99:064x}"], "latest"])
    account = rlp.decode(prove(payload.state_root, proof["accountProof"], ESCROW_ADDRESS))
    assert int.from_bytes(account[1], "big") == int(proof["balance"], 16) == value
    assert text(account[2]) == proof["storageHash"]
    assert (
        text(account[3])
        == proof["codeHash"]
        == text(keccak(bytes.fromhex(engine.rpc("eth_getCode", [text(ESCROW_ADDRESS), "latest"])[2:])))
    )
    held, absent = proof["storageProof"]
    assert int(held["value"], 16) == 1
    assert rlp.decode(prove(account[2], held["proof"], counter.to_bytes(32, "big"))) == b"\1"
    assert absent["value"] == "0x0"
    assert prove(account[2], absent["proof"], (99).to_bytes(32, "big")) == b""


def test_the_absence_of_an_account_is_proven(chain: Chain, engine: PyEvmEngine):
    nobody = b"\x42" * 20
    proof: Any = engine.rpc("eth_getProof", [text(nobody), ["0x0"], "earliest"])
    root = engine.rpc("eth_getBlockByNumber", ["0x0", False])["stateRoot"]
    assert prove(bytes.fromhex(root[2:]), proof["accountProof"], nobody) == b""
    assert (proof["nonce"], proof["balance"]) == ("0x0", "0x0")
    assert proof["storageProof"][0]["proof"] == []
    assert chain.head == engine.capabilities().genesis_hash


@pytest.mark.parametrize("keys", ["0x0", ["zz"], ["0x0"] * 129, None, [1]])
def test_wrong_storage_keys_are_refused(engine: PyEvmEngine, keys: object):
    with pytest.raises(Rejected) as caught:
        engine.rpc("eth_getProof", [text(ESCROW_ADDRESS), keys, "latest"])
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def test_a_call_tree_names_every_kind_of_call(chain: Chain, engine: PyEvmEngine):
    first = signed(KEYS[0], 0, to=None, data=creation(CALLER), gas=300_000, value=0)
    block = chain.extend(first)
    receipt = engine.rpc("eth_getBlockReceipts", [text(block.block_hash)])[0]
    contract = bytes.fromhex(receipt["contractAddress"][2:])
    argument = b"\0" * 12 + ADDRESSES[3]
    raws = (
        signed(KEYS[1], 0, to=contract, data=argument, gas=400_000, value=5),
        signed(KEYS[2], 0, value=3),
    )
    payload = chain.extend(*raws)
    hashes = engine.rpc("eth_getBlockByHash", [text(payload.block_hash), False])["transactions"]
    options = {"tracer": "callTracer"}
    tree: Any = engine.rpc("debug_traceTransaction", [hashes[0], options])
    assert (tree["type"], tree["from"], tree["to"]) == ("CALL", text(ADDRESSES[1]), text(contract))
    assert (tree["value"], tree["gas"], tree["error"]) == ("0x5", hex(400_000), "execution reverted")
    assert tree["output"] == "0xdeadbeef"
    assert tree["gasUsed"] == engine.rpc("eth_getTransactionReceipt", [hashes[0]])["gasUsed"]
    assert [each["type"] for each in tree["calls"]] == ["CALL", "STATICCALL", "DELEGATECALL", "CREATE2"]
    assert {each["from"] for each in tree["calls"]} == {text(contract)}
    assert [each["to"] for each in tree["calls"][:3]] == [text(ADDRESSES[3])] * 3
    assert tree["calls"][0]["value"] == "0x1"
    assert "value" not in tree["calls"][1]
    top = engine.rpc("debug_traceTransaction", [hashes[0], {**options, "tracerConfig": {"onlyTopCall": True}}])
    assert "calls" not in top
    plain: Any = engine.rpc("debug_traceTransaction", [hashes[1], options])
    assert (plain["value"], plain["gasUsed"], "calls" in plain) == ("0x3", hex(21_000), False)
    made: Any = engine.rpc("debug_traceTransaction", [receipt["transactionHash"], options])
    assert (made["type"], made["to"], made["output"]) == ("CREATE", text(contract), text(CALLER))


def test_only_known_tracers_and_transactions_are_traced(engine: PyEvmEngine):
    for params in ([text(b"\1" * 32), {"tracer": "callTracer"}], [text(b"\1" * 32)], ["0x1", {"tracer": "callTracer"}]):
        with pytest.raises(Rejected) as caught:
            engine.rpc("debug_traceTransaction", params)
        assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def test_transactions_are_found_by_their_place(chain: Chain, engine: PyEvmEngine):
    payload = chain.extend(signed(KEYS[0], 0), signed(KEYS[1], 0))
    digest = text(payload.block_hash)
    assert engine.rpc("eth_getBlockTransactionCountByHash", [digest]) == "0x2"
    assert engine.rpc("eth_getBlockTransactionCountByNumber", ["latest"]) == "0x2"
    assert engine.rpc("eth_getBlockTransactionCountByNumber", ["0x9"]) is None
    second: Any = engine.rpc("eth_getTransactionByBlockHashAndIndex", [digest, "0x1"])
    assert second == engine.rpc("eth_getTransactionByBlockNumberAndIndex", ["0x1", "0x1"])
    assert second == engine.rpc("eth_getTransactionByHash", [second["hash"]])
    assert engine.rpc("eth_getTransactionByBlockHashAndIndex", [digest, "0x2"]) is None
    assert engine.rpc("eth_getUncleCountByBlockNumber", ["latest"]) == "0x0"
    assert engine.rpc("web3_sha3", ["0x68656c6c6f"]) == text(keccak(b"hello"))
