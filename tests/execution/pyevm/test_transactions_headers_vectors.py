"""Blocks that an independent implementation, the executable specification of Ethereum, executed to the same roots."""

import json
from pathlib import Path
from typing import Any

import pytest

from learnchain.encoding.files import MemoryStore
from learnchain.execution.genesis import genesis_block_hash
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.protocol.payload import ExecutionPayload, PayloadStatusCode, decode_payload
from tests.execution.pyevm.chain import NONE

VECTOR = Path(__file__).parents[3] / "src/learnchain/execution/vectors/prague.json"


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    return json.loads(VECTOR.read_text(encoding="utf-8"))


def _payloads(vector: dict[str, Any]) -> list[ExecutionPayload]:
    return [decode_payload(bytes.fromhex(entry["payload"])) for entry in vector["payloads"]]


def test_the_genesis_of_the_vector_has_its_hash(vector: dict[str, Any]):
    assert genesis_block_hash(vector["genesis"]).hex() == vector["genesis_hash"]


def test_the_vector_executes_to_the_same_hashes_and_root(vector: dict[str, Any]):
    engine = PyEvmEngine(MemoryStore(), vector["genesis"])
    payloads = _payloads(vector)
    for entry, payload in zip(vector["payloads"], payloads, strict=True):
        status = engine.new_payload(payload, payload.beacon_root)
        assert status.status == PayloadStatusCode.VALID, status.detail
        assert payload.block_hash.hex() == entry["block_hash"]
        assert engine.set_head(payload.block_hash, NONE, NONE).status == PayloadStatusCode.VALID
    assert payloads[-1].state_root.hex() == vector["state_root"]


def test_the_vector_covers_what_can_differ(vector: dict[str, Any]):
    payloads = _payloads(vector)
    kinds = {raw[0] if raw[0] < 0x80 else 0 for payload in payloads for raw in payload.transactions}
    assert kinds == {0, 1, 2, 4}
    assert any(payload.withdrawals for payload in payloads)
    assert any(payload.logs_bloom != bytes(256) for payload in payloads)
