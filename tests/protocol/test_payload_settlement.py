"""The leaf that the contract recomputes, fixed by value."""

import pytest

from learnchain.encoding.cryptography import keccak256
from learnchain.protocol.payload import OUTCOMES_BY_CODE, Settlement, SettlementOutcome, compute_consensus_root


def test_the_leaf_is_seven_padded_words():
    settlement = Settlement(b"\x05" * 32, 7, b"\x06" * 20, SettlementOutcome.STRUCK, 9)
    words = [
        "539".rjust(64, "0"),
        "11" * 20,
        "05" * 32,
        "7".rjust(64, "0"),
        "06" * 20,
        "3".rjust(64, "0"),
        "9".rjust(64, "0"),
    ]
    expected = keccak256(bytes.fromhex("".join(word.rjust(64, "0") for word in words)))
    assert settlement.leaf(0x539, b"\x11" * 20) == expected


@pytest.mark.parametrize("outcome", SettlementOutcome)
def test_outcomes_have_the_numbers_of_the_contract(outcome: SettlementOutcome):
    assert OUTCOMES_BY_CODE[outcome.code] is outcome
    assert {
        SettlementOutcome.PAID: 1,
        SettlementOutcome.REFUNDED: 2,
        SettlementOutcome.STRUCK: 3,
        SettlementOutcome.SLASHED: 5,
    }[outcome] == outcome.code


def test_every_field_counts():
    leaves = {
        Settlement(task, height, recipient, outcome, amount).leaf(chain, b"\x11" * 20)
        for task in (b"\1" * 32, b"\2" * 32)
        for height in (1, 2)
        for recipient in (b"\3" * 20, b"\4" * 20)
        for outcome in SettlementOutcome
        for amount in (0, 1)
        for chain in (1, 2)
    }
    assert len(leaves) == 2 * 2 * 2 * len(SettlementOutcome) * 2 * 2


def test_the_consensus_root_orders_its_halves():
    assert compute_consensus_root(b"\1" * 32, b"\2" * 32) == keccak256(b"\1" * 32 + b"\2" * 32)
    assert compute_consensus_root(b"\1" * 32, b"\2" * 32) != compute_consensus_root(b"\2" * 32, b"\1" * 32)
