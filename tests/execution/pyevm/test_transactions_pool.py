"""The pool is ordered, bounded and fair about replacements."""

import pytest

from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.execution.pyevm.transactions import MAXIMUM_FOR_SENDER, Transaction, TransactionPool, decode_transaction
from learnchain.rejection import Rejected, RejectionReason
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, KEYS, Chain, signed

GWEI = 10**9


def waiting(key: int, nonce: int, tip_gwei: int = 1, **changes: object) -> Transaction:
    raw = signed(KEYS[key], nonce, maxPriorityFeePerGas=tip_gwei * GWEI, **{"maxFeePerGas": 100 * GWEI} | changes)
    return decode_transaction(raw, CHAIN_ID)


def rich(_: bytes) -> tuple[int, int]:
    return 0, 100 * ETHER


def order(pool: TransactionPool, base_fee_wei: int = GWEI) -> list[Transaction]:
    return list(pool.best(base_fee_wei))


def test_tips_order_senders_and_nonces_order_a_sender():
    pool = TransactionPool()
    low, high, later = waiting(0, 0, 2), waiting(1, 0, 5), waiting(1, 1, 1)
    best_after_low = waiting(0, 1, 9)
    for transaction in (later, best_after_low, low, high):
        pool.add(transaction, rich)
    assert order(pool) == [high, low, best_after_low, later]
    assert len(pool) == 4
    assert pool.find(low.hash) == low


def test_a_failed_transaction_silences_its_sender_for_this_block():
    pool = TransactionPool()
    transactions = [waiting(0, 0, 5), waiting(0, 1, 5), waiting(1, 0, 1)]
    for transaction in transactions:
        pool.add(transaction, rich)
    best = pool.best(GWEI)
    assert next(best) == transactions[0]
    assert best.send(True) == transactions[2]


def test_those_below_the_base_fee_wait():
    pool = TransactionPool()
    cheap = waiting(0, 0, 1, maxFeePerGas=2 * GWEI)
    pool.add(cheap, rich)
    assert order(pool, 3 * GWEI) == []
    assert order(pool, 2 * GWEI) == [cheap]


def test_a_replacement_pays_a_tenth_more():
    pool = TransactionPool()
    first = waiting(0, 0, 10, maxFeePerGas=100 * GWEI)
    pool.add(first, rich)
    for tip, fee in ((10, 101), (11, 109), (10, 120)):
        with pytest.raises(Rejected) as caught:
            pool.add(waiting(0, 0, tip, maxFeePerGas=fee * GWEI), rich)
        assert caught.value.reason == RejectionReason.TRANSACTION_INVALID
    second = waiting(0, 0, 11, maxFeePerGas=110 * GWEI)
    pool.add(second, rich)
    assert order(pool) == [second]
    assert pool.size_bytes == len(second.raw)


def test_a_sender_pays_for_all_that_waits():
    pool = TransactionPool()
    cost = waiting(0, 0).cost_wei
    account = lambda _: (0, 2 * cost)  # noqa: E731
    pool.add(waiting(0, 0), account)
    pool.add(waiting(0, 1), account)
    with pytest.raises(Rejected) as caught:
        pool.add(waiting(0, 2), account)
    assert caught.value.reason == RejectionReason.TRANSACTION_INVALID


def test_passed_nonces_are_refused_and_dropped():
    pool = TransactionPool()
    with pytest.raises(Rejected) as caught:
        pool.add(waiting(0, 0), lambda _: (1, ETHER))
    assert caught.value.reason == RejectionReason.TRANSACTION_INVALID
    for nonce in range(3):
        pool.add(waiting(0, nonce), rich)
    pool.drop_below(ADDRESSES[0], 2)
    assert [transaction.nonce for transaction in order(pool)] == [2]
    assert pool.next_nonce(ADDRESSES[0], 2) == 3


def test_the_same_transaction_twice_is_one():
    pool = TransactionPool()
    pool.add(waiting(0, 0), rich)
    pool.add(waiting(0, 0), rich)
    assert len(pool) == 1


def test_a_full_pool_keeps_the_better_paid():
    pool = TransactionPool(maximum_count=2)
    pool.add(waiting(0, 0, 3), rich)
    pool.add(waiting(1, 0, 1), rich)
    with pytest.raises(Rejected) as caught:
        pool.add(waiting(2, 0, 1), rich)
    assert caught.value.reason == RejectionReason.RATE_LIMITED
    better = waiting(2, 0, 2)
    pool.add(better, rich)
    assert {transaction.sender for transaction in order(pool)} == {ADDRESSES[0], ADDRESSES[2]}


def test_the_bytes_of_the_pool_are_bounded():
    size = len(waiting(0, 0, 3, data=b"\x01" * 1_000, gas=100_000).raw)
    pool = TransactionPool(maximum_bytes=2 * size + 8)
    for key in range(3):
        pool.add(waiting(key, 0, 3 + key, data=b"\x01" * 1_000, gas=100_000), rich)
    assert len(pool) == 2
    assert pool.size_bytes <= 2 * size + 8


def test_one_sender_cannot_fill_the_pool():
    pool = TransactionPool()
    template = waiting(0, 0)
    from dataclasses import replace

    for nonce in range(MAXIMUM_FOR_SENDER):
        pool.add(replace(template, nonce=nonce, hash=nonce.to_bytes(32, "big")), rich)
    with pytest.raises(Rejected) as caught:
        pool.add(replace(template, nonce=MAXIMUM_FOR_SENDER, hash=b"\xff" * 32), rich)
    assert caught.value.reason == RejectionReason.RATE_LIMITED


@pytest.mark.parametrize(
    "changes",
    [{"chainId": 5}, {"gas": 6_000_001}, {"value": 101 * ETHER}, {"gas": 20_000}, {"data": b"\x01" * 200_000}],
)
def test_the_engine_admits_only_what_could_run(chain: Chain, engine: PyEvmEngine, changes: dict[str, object]):
    with pytest.raises(Rejected) as caught:
        engine.submit(signed(KEYS[0], 0, **changes))
    assert caught.value.reason == RejectionReason.TRANSACTION_INVALID
    assert len(engine.pool) == 0


def test_the_engine_refuses_what_other_chains_could_replay(engine: PyEvmEngine):
    unprotected = signed(
        KEYS[0], 0, type=None, chainId=None, maxFeePerGas=None, maxPriorityFeePerGas=None, gasPrice=10**10
    )
    assert decode_transaction(unprotected, CHAIN_ID).chain_id is None
    with pytest.raises(Rejected) as caught:
        engine.submit(unprotected)
    assert caught.value.reason == RejectionReason.TRANSACTION_INVALID


def test_nonces_with_a_gap_wait_for_the_missing_one(chain: Chain, engine: PyEvmEngine):
    engine.submit(signed(KEYS[0], 1))
    assert chain.build().transactions == ()
    engine.submit(signed(KEYS[0], 0))
    assert chain.extend().transactions == (signed(KEYS[0], 0), signed(KEYS[0], 1))
    assert len(engine.pool) == 0
