"""What every engine must do behind the door, asked of each of them."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnchain.encoding.files import MemoryStore
from learnchain.execution.engine import BlockingEngine
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.protocol.payload import PayloadStatusCode, decode_payload, encode_payload
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain_conformance.null_execution import NullEngine
from tests.execution.doors import client_over_embedded_engine
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, NONE, Chain, genesis, reward

LOOP = asyncio.new_event_loop()
NAMES = ["pyevm", "null", "engine-api"]


def _engines() -> dict[str, BlockingEngine]:
    return {
        "pyevm": PyEvmEngine(MemoryStore(), genesis()),
        "null": NullEngine(genesis()),
        "engine-api": client_over_embedded_engine(LOOP),
    }


@pytest.fixture(params=NAMES)
def door(request: pytest.FixtureRequest) -> BlockingEngine:
    return _engines()[request.param]


@pytest.fixture
def chain(door: BlockingEngine) -> Chain:
    return Chain(door)


def test_capabilities_name_the_chain_and_the_head(chain: Chain):
    info = chain.door.capabilities()
    assert (info.chain_id, info.head, info.head_number) == (CHAIN_ID, info.genesis_hash, 0)
    payload = chain.extend()
    assert (chain.door.capabilities().head, chain.door.capabilities().head_number) == (payload.block_hash, 1)
    assert chain.door.capabilities().genesis_hash == info.genesis_hash


def test_the_genesis_balances_are_there(chain: Chain):
    assert chain.door.balance(chain.head, ADDRESSES[0]) == 100 * ETHER
    assert chain.door.balance(chain.head, b"\x55" * 20) == 0


def test_a_withdrawal_pays_exactly_its_gwei(chain: Chain):
    before = chain.head
    payload = chain.extend(
        withdrawals=(reward(b"\x55" * 20, 3), reward(b"\x55" * 20, 4, 1), reward(ADDRESSES[0], 1, 2))
    )
    assert chain.door.balance(payload.block_hash, b"\x55" * 20) == 7 * 10**9
    assert chain.door.balance(payload.block_hash, ADDRESSES[0]) == 100 * ETHER + 10**9
    assert chain.door.balance(before, b"\x55" * 20) == 0


def test_balances_last_over_many_blocks(chain: Chain):
    for index in range(5):
        chain.extend(withdrawals=(reward(b"\x55" * 20, 1, index),))
    chain.extend()
    assert chain.door.balance(chain.head, b"\x55" * 20) == 5 * 10**9


def test_a_build_carries_what_consensus_decided(chain: Chain):
    payload = chain.build(withdrawals=(reward(b"\x55" * 20, 3),), randao=b"\x01" * 32, beacon_root=b"\x02" * 32)
    assert payload.prev_randao == b"\x01" * 32
    assert payload.beacon_root == b"\x02" * 32
    assert payload.withdrawals == (reward(b"\x55" * 20, 3),)
    assert (payload.parent_hash, payload.number) == (chain.head, 1)


def test_building_twice_gives_the_same_payload_and_changes_nothing(chain: Chain):
    assert chain.build() == chain.build()
    assert chain.door.capabilities().head_number == 0
    with pytest.raises(Unavailable):
        chain.door.balance(chain.build().block_hash, ADDRESSES[0])


def test_a_payload_survives_its_encoding(chain: Chain):
    payload = chain.build(withdrawals=(reward(b"\x55" * 20, 3),))
    assert decode_payload(encode_payload(payload)) == payload


def test_a_payload_is_judged_alike_twice(chain: Chain):
    payload = chain.build(withdrawals=(reward(b"\x55" * 20, 3),))
    first = chain.door.new_payload(payload, payload.beacon_root)
    assert first.status == PayloadStatusCode.VALID
    assert chain.door.new_payload(payload, payload.beacon_root) == first
    assert chain.door.balance(payload.block_hash, b"\x55" * 20) == 3 * 10**9


def test_a_known_hash_with_other_content_is_invalid(chain: Chain):
    payload = chain.extend()
    forged = replace(payload, withdrawals=(reward(b"\x55" * 20, 3),))
    assert chain.door.new_payload(forged, forged.beacon_root).status == PayloadStatusCode.INVALID


def test_another_beacon_root_is_invalid(chain: Chain):
    payload = chain.build()
    assert chain.door.new_payload(payload, b"\x0c" * 32).status == PayloadStatusCode.INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"state_root": b"\x01" * 32},
        {"receipts_root": b"\x01" * 32},
        {"logs_bloom": b"\x01" * 256},
        {"number": 2},
        {"gas_limit": 6_000_001},
        {"gas_used": 1},
        {"timestamp_seconds": 1_000},
        {"base_fee_wei": 7},
        {"blob_gas_used": 131_072},
        {"excess_blob_gas": 1},
        {"withdrawals": (reward(b"\x55" * 20, 4),)},
        {"withdrawals": ()},
        {"withdrawals": (reward(b"\x55" * 20, 2**64),)},
        {"execution_requests": (b"\x01\x02",)},
        {"transactions": (b"\x02\x01",)},
        {"fee_recipient": b"\x01" * 20},
        {"prev_randao": b"\x01" * 32},
        {"number": 2**70},
        {"timestamp_seconds": 2**64},
    ],
)
def test_a_tampered_payload_is_invalid_even_with_a_fitting_hash(door: BlockingEngine, change: dict[str, object]):
    chain = Chain(door)
    payload = chain.build(withdrawals=(reward(b"\x55" * 20, 3),))
    tampered = replace(payload, **change)
    status = door.new_payload(tampered, tampered.beacon_root)
    assert (status.status, status.latest_valid) == (PayloadStatusCode.INVALID, chain.head)
    rehashed = replace(tampered, block_hash=_rehash(door, tampered))
    free_choice = set(change) <= {"fee_recipient", "prev_randao"}
    expected = PayloadStatusCode.VALID if free_choice else PayloadStatusCode.INVALID
    assert door.new_payload(rehashed, rehashed.beacon_root).status == expected


def _rehash(door: BlockingEngine, payload: object) -> bytes:
    from learnchain.execution.pyevm import transactions
    from learnchain_conformance import null_execution

    return null_execution._hash(payload) if isinstance(door, NullEngine) else transactions.block_hash(payload)


def test_a_payload_without_its_parent_waits(chain: Chain):
    first = chain.build()
    other = Chain(_engines()["null" if isinstance(chain.door, NullEngine) else "pyevm"])
    other.extend()
    second = other.build()
    assert chain.door.new_payload(second, second.beacon_root).status == PayloadStatusCode.SYNCING
    assert chain.door.set_head(second.block_hash, NONE, NONE).status == PayloadStatusCode.SYNCING
    chain.accept(first)
    assert chain.door.new_payload(second, second.beacon_root).status == PayloadStatusCode.VALID


def test_nothing_is_known_of_an_unknown_payload(chain: Chain):
    for ask in (
        lambda: chain.door.balance(b"\x01" * 32, ADDRESSES[0]),
        lambda: chain.door.logs(b"\x01" * 32, ADDRESSES[0]),
        lambda: chain.door.build(b"\x01" * 32, None),
    ):
        with pytest.raises(Unavailable):
            ask()


def test_time_must_rise(chain: Chain):
    with pytest.raises(Rejected) as caught:
        chain.build(step_seconds=0)
    assert caught.value.reason == RejectionReason.TIMESTAMP_WRONG


def test_a_withdrawal_above_64_bits_is_refused(chain: Chain):
    with pytest.raises(Rejected) as caught:
        chain.build(withdrawals=(reward(b"\x55" * 20, 2**64),))
    assert caught.value.reason == RejectionReason.WITHDRAWALS_WRONG


def test_a_reorganisation_goes_both_ways(chain: Chain):
    root = chain.head
    left = chain.accept(chain.build(withdrawals=(reward(b"\x55" * 20, 1),)))
    right = chain.accept(chain.build(withdrawals=(reward(b"\x55" * 20, 2),), miner=b"\xbb" * 20))
    chain.choose(left.block_hash)
    longer = chain.extend(withdrawals=(reward(b"\x55" * 20, 10, 1),))
    assert chain.door.balance(longer.block_hash, b"\x55" * 20) == 11 * 10**9
    chain.choose(right.block_hash)
    assert chain.door.capabilities().head_number == 1
    grown = chain.extend(withdrawals=(reward(b"\x55" * 20, 5, 1),))
    assert chain.door.balance(grown.block_hash, b"\x55" * 20) == 7 * 10**9
    chain.choose(longer.block_hash)
    assert chain.door.balance(chain.door.capabilities().head, b"\x55" * 20) == 11 * 10**9
    chain.choose(root)
    assert chain.door.capabilities().head_number == 0


def test_safe_and_finalized_are_ancestors(chain: Chain):
    first = chain.extend()
    rival = chain.accept(chain.build(parent=first.parent_hash, miner=b"\xbb" * 20))
    second = chain.accept(chain.build())
    status = chain.door.set_head(second.block_hash, first.block_hash, first.parent_hash)
    assert status.status == PayloadStatusCode.VALID
    with pytest.raises(Rejected) as caught:
        chain.door.set_head(second.block_hash, rival.block_hash, NONE)
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID
    with pytest.raises(Rejected):
        chain.door.set_head(first.block_hash, second.block_hash, NONE)


def test_the_calls_that_every_engine_answers(chain: Chain):
    chain.extend()
    assert chain.door.rpc("eth_chainId", []) == hex(CHAIN_ID)
    assert chain.door.rpc("eth_blockNumber", []) == "0x1"
    with pytest.raises(Rejected) as caught:
        chain.door.rpc("eth_mine", [])
    assert caught.value.reason == RejectionReason.METHOD_UNKNOWN
    with pytest.raises(Rejected) as caught:
        chain.door.rpc("eth_chainId", ["0x1"])
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


STEPS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=12)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_any_tree_of_payloads_keeps_its_books(name: str, steps: list[tuple[int, int, int, bool]]):
    """Grow a random tree with random rewards and heads; every state equals what its own branch was paid."""
    chain = Chain(_engines()[name])
    known = {chain.head: dict.fromkeys(range(4), 0)}
    for pick, who, amount_gwei, choose in steps:
        parent = list(known)[pick % len(known)]
        address = bytes([0x50 + who]) * 20
        step_seconds = 1 + pick + 31 * len(known)
        payload = chain.build(parent=parent, withdrawals=(reward(address, amount_gwei),), step_seconds=step_seconds)
        chain.accept(payload)
        known[payload.block_hash] = known[parent] | {who: known[parent][who] + amount_gwei}
        if choose:
            chain.choose(payload.block_hash)
            assert chain.door.capabilities().head == payload.block_hash
    for block_hash, paid in known.items():
        for who, amount_gwei in paid.items():
            assert chain.door.balance(block_hash, bytes([0x50 + who]) * 20) == amount_gwei * 10**9
