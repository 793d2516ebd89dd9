"""The genesis is geth's: its JSON, its system contracts, its hash."""

from collections.abc import Callable
from typing import Any

import pytest

from learnchain.encoding.cryptography import keccak256
from learnchain.encoding.files import MemoryStore
from learnchain.execution.genesis import (
    BEACON_ROOTS_ADDRESS,
    BLOCK_HASHES_ADDRESS,
    CONSOLIDATION_REQUESTS_ADDRESS,
    ESCROW_ADDRESS,
    WITHDRAWAL_REQUESTS_ADDRESS,
    execution_genesis,
    genesis_balances,
    genesis_block_hash,
    genesis_chain_id,
    genesis_payload,
)
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.rejection import Rejected, RejectionReason
from learnchain_conformance.null_execution import NullEngine


def test_the_hash_of_a_genesis_never_changes():
    """Pin the format; `test_vectors` holds a genesis whose hash an independent implementation computed."""
    plain = execution_genesis(1_337, 1_000, 6_000_000, {})
    del plain["alloc"]["0x" + ESCROW_ADDRESS.hex()]
    assert genesis_block_hash(plain).hex() == "a21c6c4bf556a2fc2278636c16c93780f850fbd1165336103c413d1215e94498"


def test_the_system_contracts_are_those_of_the_improvement_proposals():
    alloc = execution_genesis(1, 0, 5_000, {})["alloc"]
    sizes = {
        BEACON_ROOTS_ADDRESS: 97,
        BLOCK_HASHES_ADDRESS: 83,
        WITHDRAWAL_REQUESTS_ADDRESS: 504,
        CONSOLIDATION_REQUESTS_ADDRESS: 414,
    }
    digests = {}
    for address, size in sizes.items():
        code = bytes.fromhex(alloc["0x" + address.hex()]["code"][2:])
        assert len(code) == size
        digests[address] = keccak256(code).hex()[:16]
    assert digests == {
        BEACON_ROOTS_ADDRESS: "f57acd4025987260",
        BLOCK_HASHES_ADDRESS: "6e49e66782037c05",
        WITHDRAWAL_REQUESTS_ADDRESS: "0345a365d2f4c597",
        CONSOLIDATION_REQUESTS_ADDRESS: "78c6cb5202685228",
    }


def test_everything_in_the_genesis_matters():
    first = execution_genesis(1, 0, 5_000, {b"\x01" * 20: 7})
    hashes = {
        genesis_block_hash(first),
        genesis_block_hash(execution_genesis(1, 1, 5_000, {b"\x01" * 20: 7})),
        genesis_block_hash(execution_genesis(1, 0, 5_001, {b"\x01" * 20: 7})),
        genesis_block_hash(execution_genesis(1, 0, 5_000, {b"\x01" * 20: 8})),
        genesis_block_hash(execution_genesis(1, 0, 5_000, {b"\x02" * 20: 7})),
    }
    assert len(hashes) == 5
    assert genesis_chain_id(first) == 1
    assert (b"\x01" * 20, 7) in set(genesis_balances(first))


def test_storage_in_a_genesis_counts():
    plain, stored = execution_genesis(1, 0, 5_000, {}), execution_genesis(1, 0, 5_000, {})
    stored["alloc"]["0x" + ESCROW_ADDRESS.hex()]["storage"] = {"0x" + "00" * 32: "0x05"}
    assert genesis_block_hash(plain) != genesis_block_hash(stored)
    payload, nodes = genesis_payload(stored)
    assert payload.state_root in nodes


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 0, 5_000, {}),
        (1, -1, 5_000, {}),
        (1, 0, 4_999, {}),
        (1, 0, 5_000, {b"\x01" * 19: 1}),
        (1, 0, 5_000, {b"\x01" * 20: -1}),
        (1, 0, 5_000, {b"\x01" * 20: 2**128}),
        (1, 0, 5_000, {ESCROW_ADDRESS: 1}),
        (1, 0, 5_000, {BEACON_ROOTS_ADDRESS: 1}),
    ],
)
def test_impossible_numbers_are_refused(arguments: tuple[int, int, int, dict[bytes, int]]):
    with pytest.raises(Rejected) as caught:
        execution_genesis(*arguments)
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def _without(genesis: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in genesis.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        lambda genesis: _without(genesis, "alloc"),
        lambda genesis: _without(genesis, "config"),
        lambda genesis: _without(genesis, "gasLimit"),
        lambda genesis: genesis | {"gasLimit": "-5"},
        lambda genesis: genesis | {"gasLimit": []},
        lambda genesis: genesis | {"timestamp": "soon"},
        lambda genesis: genesis | {"alloc": {"0x12": {"balance": "0x1"}}},
        lambda genesis: genesis | {"alloc": {"0x" + "12" * 20: 7}},
        lambda genesis: genesis | {"alloc": []},
        lambda genesis: genesis | {"coinbase": "0x12"},
        lambda genesis: genesis | {"extraData": "0x" + "00" * 33},
    ],
)
def test_a_broken_genesis_is_refused(change: Callable[[dict[str, Any]], dict[str, Any]]):
    broken = change(execution_genesis(1, 0, 5_000, {}))
    with pytest.raises(Rejected) as caught:
        PyEvmEngine(MemoryStore(), broken)
    assert caught.value.reason in (RejectionReason.MALFORMED, RejectionReason.TOO_LARGE)


@pytest.mark.parametrize("name", ["alloc", "config", "gasLimit", "timestamp"])
def test_the_ledger_refuses_a_genesis_without_what_it_reads(name: str):
    with pytest.raises(Rejected) as caught:
        NullEngine(_without(execution_genesis(1, 0, 5_000, {}), name))
    assert caught.value.reason == RejectionReason.MALFORMED
