"""Hostile bytes never become a transaction, and honest ones keep their meaning."""

import pytest
import rlp
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from learnchain.execution.pyevm.transactions import check_against_state, decode_transaction, floor_gas
from learnchain.rejection import Rejected, RejectionReason
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, KEYS, signed

GOOD = signed(KEYS[0], 3, value=5)


def _refused(raw: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        decode_transaction(raw, CHAIN_ID)
    assert caught.value.reason == RejectionReason.TRANSACTION_INVALID


def test_a_transaction_is_what_was_signed():
    transaction = decode_transaction(GOOD, CHAIN_ID)
    assert (transaction.sender, transaction.nonce, transaction.value_wei) == (ADDRESSES[0], 3, 5)
    assert (transaction.kind, transaction.chain_id, transaction.recipient) == (2, CHAIN_ID, b"\x99" * 20)
    assert transaction.cost_wei == 21_000 * 10 * 10**9 + 5
    assert (transaction.price_wei(10**9), transaction.tip_wei(10**9)) == (2 * 10**9, 10**9)
    assert (transaction.price_wei(20 * 10**9), transaction.tip_wei(20 * 10**9)) == (10 * 10**9, -10 * 10**9)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_older_types_are_read(kind: int):
    prices = {} if kind == 2 else {"gasPrice": 7 * 10**9, "maxFeePerGas": None, "maxPriorityFeePerGas": None}
    raw = signed(KEYS[0], 0, **prices, type=kind or None)
    transaction = decode_transaction(raw, CHAIN_ID)
    assert (transaction.kind, transaction.sender, transaction.raw) == (kind, ADDRESSES[0], raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        b"\x02",
        b"\x03" + GOOD[1:],
        b"\x05" + GOOD[1:],
        b"\x7f" + GOOD[1:],
        b"\xc0",
        GOOD[:-1],
        GOOD + b"\x00",
        b"\x02\xc1" + GOOD[2:],
        b"\xff" * 100,
        b"\x02" + b"\xc1" * 100_000,
        b"\x02" + b"\xf8\xff" * 60_000,
        b"\x02" + rlp.encode([[[[[[[b""]]]]]]]),
        b"\x01" * 200_000,
        b"\xb8\x00",
    ],
)
def test_broken_bytes_are_refused(raw: bytes):
    _refused(raw)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(raw: bytes):
    _refused(raw)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_every_changed_byte_changes_the_sender_or_is_refused(position: int, change: int):
    raw = bytearray(GOOD)
    raw[position] ^= change
    try:
        assert decode_transaction(bytes(raw), CHAIN_ID).sender != ADDRESSES[0]
    except Rejected as refusal:
        assert refusal.reason == RejectionReason.TRANSACTION_INVALID


def test_rules_that_need_no_state():
    _refused(signed(KEYS[0], 0, chainId=5))
    _refused(signed(KEYS[0], 0, gas=20_999))
    _refused(signed(KEYS[0], 0, maxPriorityFeePerGas=11 * 10**9))
    _refused(signed(KEYS[0], 2**64 - 1))
    _refused(signed(KEYS[0], 0, to=b"", data=b"\x00" * 49_153, gas=5_000_000))
    # 100 non-zero bytes: 21,000 + 1,600 intrinsic, but the floor is 21,000 + 4,000 (EIP-7623).
    assert floor_gas(b"\x01" * 100 + b"\0" * 10) == 21_000 + 4_000 + 100
    _refused(signed(KEYS[0], 0, data=b"\x01" * 100, gas=24_999))
    assert decode_transaction(signed(KEYS[0], 0, data=b"\x01" * 100, gas=25_000), CHAIN_ID).gas == 25_000


def test_a_malleable_signature_is_refused():
    fields = rlp.decode(GOOD[1:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    fields[-1] = (order - int.from_bytes(fields[-1], "big")).to_bytes(32, "big")
    fields[-3] = b"" if fields[-3] else b"\x01"
    _refused(b"\x02" + rlp.encode(fields))


def test_a_transaction_without_a_chain_is_read_but_names_none():
    fields = {"nonce": 0, "gasPrice": 7, "gas": 21_000, "to": b"\x99" * 20, "value": 0, "data": b""}
    raw = bytes(Account.sign_transaction(fields, KEYS[0]).raw_transaction)
    assert decode_transaction(raw, CHAIN_ID).chain_id is None


@pytest.mark.parametrize(
    ("nonce", "balance", "code", "base_fee"),
    [
        (2, ETHER, b"", 1),
        (4, ETHER, b"", 1),
        (3, 210000000000004, b"", 1),
        (3, ETHER, b"", 10**10 + 1),
        (3, ETHER, b"`", 1),
    ],
)
def test_rules_that_need_the_state(nonce: int, balance: int, code: bytes, base_fee: int):
    transaction = decode_transaction(GOOD, CHAIN_ID)
    with pytest.raises(Rejected) as caught:
        check_against_state(transaction, nonce, balance, code, base_fee)
    assert caught.value.reason == RejectionReason.TRANSACTION_INVALID


def test_the_exact_cost_suffices_and_a_delegated_account_may_send():
    transaction = decode_transaction(GOOD, CHAIN_ID)
    check_against_state(transaction, 3, 210_000_000_000_005, b"\xef\x01\x00" + b"\x01" * 20, 10**10)
