"""Roots, fees and filters against values that the outside world fixed."""

import pytest
from eth.vm.forks.london.headers import calculate_expected_base_fee_per_gas
from eth_bloom import BloomFilter
from hypothesis import given
from hypothesis import strategies as st

from learnchain.execution.genesis import execution_genesis, genesis_payload
from learnchain.execution.pyevm.transactions import (
    EMPTY_OMMERS_HASH,
    EMPTY_REQUESTS_HASH,
    EMPTY_TRIE_ROOT,
    compute_ordered_root,
    logs_bloom,
    next_base_fee_wei,
    requests_hash,
)
from learnchain.protocol.payload import Log


def test_the_constants_of_ethereum():
    assert EMPTY_TRIE_ROOT.hex() == "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
    assert EMPTY_OMMERS_HASH.hex() == "1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"
    assert EMPTY_REQUESTS_HASH.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert requests_hash([b"\x01", b"\x02"]) == EMPTY_REQUESTS_HASH
    assert requests_hash([b"\x01\x01"]) != requests_hash([b"\x02\x01"]) != EMPTY_REQUESTS_HASH


def test_an_ordered_root_depends_on_the_order():
    assert compute_ordered_root([]) == EMPTY_TRIE_ROOT
    assert compute_ordered_root([b"a" * 40, b"b" * 40]) != compute_ordered_root([b"b" * 40, b"a" * 40])
    assert len({compute_ordered_root([b"x"] * count) for count in range(300)}) == 300


@given(
    st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.lists(st.binary(min_size=32, max_size=32), max_size=4)))
)
def test_the_filter_is_that_of_the_bloom_library(entries: list[tuple[bytes, list[bytes]]]):
    logs = [Log(address, tuple(topics), b"", b"\0" * 32, 0) for address, topics in entries]
    bloom = BloomFilter()
    for address, topics in entries:
        bloom.add(address)
        for topic in topics:
            bloom.add(topic)
    assert int.from_bytes(logs_bloom(logs), "big") == int(bloom)


class _Parent:
    def __init__(self, gas_limit: int, gas_used: int, base_fee: int) -> None:
        self.gas_limit, self.gas_used, self.base_fee_per_gas = gas_limit, gas_used, base_fee
        self.base_fee_wei = base_fee


@given(st.integers(5_000, 10**8), st.integers(0, 100), st.integers(0, 10**12))
def test_the_base_fee_is_that_of_the_specification(gas_limit: int, percent: int, base_fee: int):
    parent = _Parent(gas_limit, gas_limit * percent // 100, base_fee)
    assert next_base_fee_wei(parent) == calculate_expected_base_fee_per_gas(parent)


def test_a_payload_is_named_by_its_content():
    payload, _ = genesis_payload(execution_genesis(1, 0, 5_000, {}))
    assert len(payload.block_hash) == 32
    with pytest.raises(AttributeError):
        payload.block_hash = b""
