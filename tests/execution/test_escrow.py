"""The whole life of a task's money on the embedded engine: posted, claimed with a proof, paid once, or refunded."""

from dataclasses import replace

import pytest

from learnchain.encoding.cryptography import History, history_branch
from learnchain.execution.escrow import (
    BOND_DELAY_SECONDS,
    STATUS_OPEN,
    TIP_WEI,
    Claim,
    bond_calldata,
    decode_bond_change,
    decode_stake,
    decode_task,
    decode_task_posted,
    decode_task_settled,
    deposit_calldata,
    post_calldata,
    posting_value_wei,
    refund_calldata,
    release_calldata,
    settle_calldata,
    settlement_leaf,
    task_calldata,
    unbond_calldata,
    withdraw_calldata,
    withdrawable_calldata,
)
from learnchain.execution.genesis import ESCROW_ADDRESS
from learnchain.execution.pyevm.engine import PyEvmEngine
from learnchain.protocol.payload import Log, Settlement, SettlementOutcome, bond_pot, compute_consensus_root
from learnchain.protocol.state import BondChange, BondMove
from learnchain.rejection import Rejected, RejectionReason
from tests.execution.pyevm.chain import ADDRESSES, CHAIN_ID, ETHER, KEYS, Chain, signed

PUBLISHER, CLAIMER = ADDRESSES[0], ADDRESSES[1]
MINER = b"\x77" * 20
BURN = bytes.fromhex("000000000000000000000000000000000000dead")
REWARD, BOND = 2 * ETHER, ETHER // 2
DEADLINE = 10_000
BLOCK_HASH = b"\xb1" * 32


class Escrow:
    """Post and settle on a chain whose consensus this test plays."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.leaves: list[bytes] = []
        self.nonces = dict.fromkeys(KEYS, 0)

    def send(self, key: bytes, data: bytes, value: int = 0, gas: int = 900_000) -> bool:
        raw = signed(key, self.nonces[key], ESCROW_ADDRESS, data=data, value=value, gas=gas)
        self.nonces[key] += 1
        payload = self.chain.extend(raw, beacon_root=self.root())
        assert payload.transactions == (raw,)
        digest = self.chain.door.rpc("eth_getBlockByHash", ["0x" + payload.block_hash.hex()])["transactions"][0]
        return self.chain.door.rpc("eth_getTransactionReceipt", [digest])["status"] == "0x1"

    def post(self, specification: bytes = b"spec", deadline: int = DEADLINE) -> bytes:
        data = post_calldata(specification, REWARD, BOND, deadline)
        assert self.send(KEYS[0], data, posting_value_wei(REWARD, BOND))
        posted = decode_task_posted(self.logs()[0])
        assert posted is not None
        return posted.task_id

    def logs(self) -> tuple[Log, ...]:
        return self.chain.door.logs(self.chain.head, ESCROW_ADDRESS)

    def history(self) -> History:
        history = History()
        for leaf in self.leaves:
            history = history.append(leaf)
        return history

    def root(self) -> bytes:
        return compute_consensus_root(self.history().root(), BLOCK_HASH)

    def decide(self, settlement: Settlement) -> int:
        self.leaves.append(settlement.leaf(CHAIN_ID, ESCROW_ADDRESS))
        return len(self.leaves) - 1

    def claim(self, settlement: Settlement, index: int) -> Claim:
        """Prove against the root of the newest payload, which is carried by an empty block here."""
        self.chain.extend(beacon_root=self.root())
        seconds = self.chain.seconds[self.chain.head]
        return Claim(settlement, index, history_branch(tuple(self.leaves), index), BLOCK_HASH, seconds)

    def settle(self, claim: Claim) -> bool:
        return self.send(KEYS[1], settle_calldata(claim))

    def balance(self, address: bytes) -> int:
        return self.chain.door.balance(self.chain.head, address)

    def stake(self, source: bytes) -> tuple[int, int, int]:
        call = {"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x" + bond_calldata(source).hex()}
        found = decode_stake(bytes.fromhex(self.chain.door.rpc("eth_call", [call])[2:]))
        return found.active_wei, found.leaving_wei, found.leaves_seconds

    def status(self, task_id: bytes) -> int:
        call = {"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x" + task_calldata(task_id).hex()}
        return decode_task(bytes.fromhex(self.chain.door.rpc("eth_call", [call])[2:])).status


@pytest.fixture
def escrow(chain: Chain) -> Escrow:
    return Escrow(chain)


def test_a_posting_is_logged_and_held(escrow: Escrow):
    task_id = escrow.post(b"x" * 1_000)
    posted = decode_task_posted(escrow.logs()[0])
    assert posted is not None
    assert (posted.publisher, posted.reward_wei, posted.bond_wei) == (PUBLISHER, REWARD, BOND)
    assert (posted.deadline_seconds, posted.specification) == (DEADLINE, b"x" * 1_000)
    assert escrow.balance(ESCROW_ADDRESS) == REWARD + BOND + TIP_WEI
    assert escrow.status(task_id) == STATUS_OPEN
    assert escrow.post() != task_id


@pytest.mark.parametrize(
    ("reward", "bond", "deadline", "extra_value"),
    [(REWARD, BOND, DEADLINE, 1), (REWARD, BOND, DEADLINE, -1), (0, BOND, DEADLINE, 0), (REWARD, BOND, 1_000, 0)],
)
def test_a_wrong_posting_reverts(escrow: Escrow, reward: int, bond: int, deadline: int, extra_value: int):
    data = post_calldata(b"spec", reward, bond, deadline)
    assert not escrow.send(KEYS[0], data, posting_value_wei(reward, bond) + extra_value)
    assert escrow.balance(ESCROW_ADDRESS) == 0


def test_sizes_of_specifications(escrow: Escrow):
    largest = post_calldata(b"\xff" * 16_384, REWARD, BOND, DEADLINE)
    assert escrow.send(KEYS[0], largest, posting_value_wei(REWARD, BOND), 2_000_000)
    for size in (0, 16_385):
        with pytest.raises(Rejected) as caught:
            post_calldata(b"\xff" * size, REWARD, BOND, DEADLINE)
        assert caught.value.reason == RejectionReason.TOO_LARGE
    # The contract refuses what the binding would not send: the length word is patched.
    data = bytearray(post_calldata(b"\xff" * 16_384, REWARD, BOND, DEADLINE) + b"\xff" * 32)
    data[4 + 4 * 32 : 4 + 5 * 32] = (16_385).to_bytes(32, "big")
    assert not escrow.send(KEYS[0], bytes(data), posting_value_wei(REWARD, BOND), 2_000_000)


def test_a_winner_is_paid_exactly_once(escrow: Escrow):
    task_id = escrow.post()
    settlement = Settlement(task_id, 7, MINER, SettlementOutcome.PAID)
    claim = escrow.claim(settlement, escrow.decide(settlement))
    before = escrow.balance(PUBLISHER)
    assert escrow.settle(claim)
    settled = decode_task_settled(escrow.logs()[0])
    assert settled is not None
    assert (settled.task_id, settled.outcome, settled.recipient, settled.amount_wei) == (
        task_id,
        SettlementOutcome.PAID,
        MINER,
        REWARD,
    )
    assert escrow.balance(MINER) == REWARD
    assert escrow.balance(PUBLISHER) == before
    assert escrow.balance(ESCROW_ADDRESS) == BOND
    assert escrow.stake(bond_pot(PUBLISHER))[:2] == (0, BOND)
    assert escrow.status(task_id) == SettlementOutcome.PAID.code
    assert not escrow.settle(claim)
    assert escrow.balance(MINER) == REWARD


def test_the_claimer_earns_the_tip(escrow: Escrow):
    task_id = escrow.post()
    settlement = Settlement(task_id, 7, MINER, SettlementOutcome.PAID)
    claim = escrow.claim(settlement, escrow.decide(settlement))
    before = escrow.balance(CLAIMER)
    assert escrow.settle(claim)
    digest = escrow.chain.door.rpc("eth_getBlockByNumber", ["latest"])["transactions"][0]
    receipt = escrow.chain.door.rpc("eth_getTransactionReceipt", [digest])
    fee = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert escrow.balance(CLAIMER) == before + TIP_WEI - fee


@pytest.mark.parametrize("outcome", [SettlementOutcome.REFUNDED, SettlementOutcome.STRUCK])
def test_the_other_outcomes_conserve_value(escrow: Escrow, outcome: SettlementOutcome):
    task_id = escrow.post()
    settlement = Settlement(task_id, 7, MINER, outcome)
    claim = escrow.claim(settlement, escrow.decide(settlement))
    before = escrow.balance(PUBLISHER)
    assert escrow.settle(claim)
    assert escrow.balance(PUBLISHER) == before + REWARD
    assert escrow.balance(MINER) == (BOND if outcome is SettlementOutcome.STRUCK else 0)
    assert escrow.balance(ESCROW_ADDRESS) == (0 if outcome is SettlementOutcome.STRUCK else BOND)


def test_a_struck_bond_without_recipient_burns(escrow: Escrow):
    settlement = Settlement(escrow.post(), 7, b"\0" * 20, SettlementOutcome.STRUCK)
    assert escrow.settle(escrow.claim(settlement, escrow.decide(settlement)))
    assert escrow.balance(BURN) == BOND


@pytest.mark.parametrize(
    "forgery", ["recipient", "outcome", "height", "amount", "index", "branch", "block", "time", "high_index"]
)
def test_a_forged_claim_reverts(escrow: Escrow, forgery: str):
    settlement = Settlement(escrow.post(), 7, MINER, SettlementOutcome.PAID)
    claim = escrow.claim(settlement, escrow.decide(settlement))
    forged = {
        "recipient": replace(claim, settlement=replace(settlement, recipient=CLAIMER)),
        "outcome": replace(claim, settlement=replace(settlement, outcome=SettlementOutcome.STRUCK)),
        "height": replace(claim, settlement=replace(settlement, height=8)),
        "amount": replace(claim, settlement=replace(settlement, amount_wei=1)),
        "index": replace(claim, index=1),
        "branch": replace(claim, branch=(b"\x01" * 32, *claim.branch[1:])),
        "block": replace(claim, block_hash=b"\x01" * 32),
        "time": replace(claim, timestamp_seconds=claim.timestamp_seconds + 1),
        "high_index": replace(claim, index=1 << 32),
    }[forgery]
    assert not escrow.settle(forged)
    assert escrow.balance(ESCROW_ADDRESS) == REWARD + BOND + TIP_WEI
    assert escrow.settle(claim)


def test_an_old_settlement_is_claimed_against_a_newer_root(escrow: Escrow):
    first, second = escrow.post(), escrow.post()
    old = Settlement(first, 7, MINER, SettlementOutcome.PAID)
    index = escrow.decide(old)
    for height in range(8, 13):
        escrow.decide(
            Settlement(second if height == 9 else bytes([height]) * 32, height, MINER, SettlementOutcome.REFUNDED)
        )
    assert escrow.settle(escrow.claim(old, index))
    assert escrow.balance(MINER) == REWARD
    newer = Settlement(second, 9, MINER, SettlementOutcome.REFUNDED)
    assert escrow.settle(escrow.claim(newer, 2))
    assert escrow.balance(ESCROW_ADDRESS) == 2 * BOND


def slashed(escrow: Escrow, source: bytes, recipient: bytes, amount: int) -> Claim:
    settlement = Settlement(source, 9, recipient, SettlementOutcome.SLASHED, amount)
    return escrow.claim(settlement, escrow.decide(settlement))


def test_a_deposit_waits_a_delay_before_it_leaves_and_is_logged(escrow: Escrow):
    assert not escrow.send(KEYS[0], deposit_calldata())
    assert escrow.send(KEYS[0], deposit_calldata(), 10 * ETHER)
    assert [decode_bond_change(each) for each in escrow.logs()] == [
        BondChange(PUBLISHER, BondMove.DEPOSITED, 10 * ETHER)
    ]
    assert not escrow.send(KEYS[0], unbond_calldata(11 * ETHER))
    assert escrow.send(KEYS[0], unbond_calldata(4 * ETHER))
    assert decode_bond_change(escrow.logs()[0]) == BondChange(PUBLISHER, BondMove.LEAVING, 4 * ETHER)
    assert not escrow.send(KEYS[2], release_calldata(PUBLISHER))
    assert escrow.stake(bond_pot(PUBLISHER))[:2] == (6 * ETHER, 4 * ETHER)
    escrow.chain.extend(step_seconds=BOND_DELAY_SECONDS)
    before = escrow.balance(PUBLISHER)
    assert escrow.send(KEYS[2], release_calldata(PUBLISHER))
    assert decode_bond_change(escrow.logs()[0]) == BondChange(PUBLISHER, BondMove.WITHDRAWN, 4 * ETHER)
    assert escrow.balance(PUBLISHER) == before + 4 * ETHER
    assert escrow.balance(ESCROW_ADDRESS) == 6 * ETHER
    assert not escrow.send(KEYS[2], release_calldata(PUBLISHER))


def test_consensus_slashes_what_is_active_and_what_is_leaving_each_decision_once(escrow: Escrow):
    assert escrow.send(KEYS[0], deposit_calldata(), 10 * ETHER)
    assert escrow.send(KEYS[0], unbond_calldata(4 * ETHER))
    reporter = b"\x66" * 20
    claim = slashed(escrow, bond_pot(PUBLISHER), reporter, 7 * ETHER)
    assert escrow.settle(claim)
    assert decode_bond_change(escrow.logs()[0]) is None
    assert escrow.balance(reporter) == 7 * ETHER - TIP_WEI
    assert escrow.stake(bond_pot(PUBLISHER))[:2] == (0, 3 * ETHER)
    assert not escrow.settle(claim)
    # The same words at another place of the history are another decision, and more than what is left.
    assert not escrow.settle(slashed(escrow, bond_pot(PUBLISHER), reporter, 7 * ETHER))
    assert escrow.settle(slashed(escrow, bond_pot(PUBLISHER), b"\0" * 20, 3 * ETHER))
    assert escrow.balance(BURN) == 3 * ETHER - TIP_WEI
    assert escrow.balance(ESCROW_ADDRESS) == 0


def test_a_struck_bond_is_shared_out_after_its_task_is_closed(escrow: Escrow):
    task_id = escrow.post()
    struck = Settlement(task_id, 9, b"\0" * 20, SettlementOutcome.STRUCK, BOND // 2)
    index = escrow.decide(struck)
    share = slashed(escrow, task_id, MINER, BOND // 2)
    assert not escrow.settle(share)
    assert escrow.settle(escrow.claim(struck, index))
    assert escrow.balance(BURN) == BOND - BOND // 2
    assert escrow.settle(escrow.claim(share.settlement, share.index))
    assert escrow.balance(MINER) == BOND // 2 - TIP_WEI
    assert escrow.balance(ESCROW_ADDRESS) == 0


def test_nobody_strikes_more_than_the_bond(escrow: Escrow):
    settlement = Settlement(escrow.post(), 9, b"\0" * 20, SettlementOutcome.STRUCK, BOND + 1)
    assert not escrow.settle(escrow.claim(settlement, escrow.decide(settlement)))


def test_a_refund_waits_for_the_deadline(escrow: Escrow):
    deadline = escrow.chain.seconds[escrow.chain.head] + 40
    task_id = escrow.post(deadline=deadline)
    assert not escrow.send(KEYS[2], refund_calldata(task_id))
    escrow.chain.extend(step_seconds=100)
    before = escrow.balance(PUBLISHER)
    assert escrow.send(KEYS[2], refund_calldata(task_id))
    assert escrow.balance(PUBLISHER) == before + REWARD + BOND + TIP_WEI
    assert escrow.balance(ESCROW_ADDRESS) == 0
    assert not escrow.send(KEYS[2], refund_calldata(task_id))
    settlement = Settlement(task_id, 7, MINER, SettlementOutcome.PAID)
    assert not escrow.settle(escrow.claim(settlement, escrow.decide(settlement)))


def test_an_unknown_task_is_neither_settled_nor_refunded(escrow: Escrow):
    settlement = Settlement(b"\x05" * 32, 7, MINER, SettlementOutcome.PAID)
    assert not escrow.settle(escrow.claim(settlement, escrow.decide(settlement)))
    escrow.chain.extend(step_seconds=100_000)
    assert not escrow.send(KEYS[2], refund_calldata(b"\x05" * 32))


def test_a_payee_that_refuses_is_credited_and_withdraws(escrow: Escrow):
    payee = _deploy(escrow, _picky_payee())
    settlement = Settlement(escrow.post(), 7, payee, SettlementOutcome.PAID)
    assert escrow.settle(escrow.claim(settlement, escrow.decide(settlement)))
    assert escrow.balance(payee) == 0
    call = {"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x" + withdrawable_calldata(payee).hex()}
    assert int(escrow.chain.door.rpc("eth_call", [call]), 16) == REWARD
    assert escrow.balance(ESCROW_ADDRESS) == REWARD + BOND
    raw = signed(KEYS[3], 1, payee, gas=200_000, value=0, data=b"\x01")
    escrow.chain.extend(raw)
    assert escrow.balance(payee) == REWARD
    assert escrow.balance(ESCROW_ADDRESS) == BOND
    assert not escrow.send(KEYS[2], withdraw_calldata())


def _picky_payee() -> bytes:
    """Return code that pulls its credit when called with data, and takes money only while doing so."""
    selector = withdraw_calldata()
    # Without data: STOP when the transient flag is set, else revert. With data: set the flag, call withdraw().
    accept = bytes.fromhex("36600e575f5c600c575f5ffd5b00")
    pull = bytes.fromhex("5b60015f5d63") + selector + bytes.fromhex("60e01b5f525f5f60045f5f73") + ESCROW_ADDRESS
    return accept + pull + bytes.fromhex("5af100")


def _deploy(escrow: Escrow, runtime: bytes) -> bytes:
    size = len(runtime).to_bytes(1, "big")
    start = b"\x60" + size + bytes.fromhex("600a5f3960") + size + bytes.fromhex("5ff3")
    assert len(start) == 10
    raw = signed(KEYS[3], 0, to=b"", data=start + runtime, gas=300_000, value=0)
    escrow.chain.extend(raw)
    digest = escrow.chain.door.rpc("eth_getBlockByNumber", ["latest"])["transactions"][0]
    receipt = escrow.chain.door.rpc("eth_getTransactionReceipt", [digest])
    assert receipt["status"] == "0x1"
    address = bytes.fromhex(receipt["contractAddress"][2:])
    assert escrow.chain.door.rpc("eth_getCode", [receipt["contractAddress"]]) == "0x" + runtime.hex()
    return address


def test_the_leaf_is_the_one_of_the_abi_library():
    for outcome in SettlementOutcome:
        settlement = Settlement(b"\x05" * 32, 2**64 - 1, MINER, outcome)
        assert settlement.leaf(CHAIN_ID, ESCROW_ADDRESS) == settlement_leaf(CHAIN_ID, ESCROW_ADDRESS, settlement)


def test_claims_are_bound_to_chain_and_contract():
    settlement = Settlement(b"\x05" * 32, 7, MINER, SettlementOutcome.PAID)
    leaves = {settlement.leaf(chain, address) for chain in (1, 2) for address in (ESCROW_ADDRESS, MINER)}
    assert len(leaves) == 4


def test_foreign_logs_are_no_events(escrow: Escrow):
    escrow.post()
    log = escrow.logs()[0]
    assert decode_task_posted(replace(log, address=MINER)) is None
    assert decode_task_settled(log) is None
    with pytest.raises(Rejected) as caught:
        decode_task_posted(replace(log, data=log.data[:64]))
    assert caught.value.reason == RejectionReason.MALFORMED


def test_numbers_out_of_range_are_refused():
    with pytest.raises(Rejected) as caught:
        post_calldata(b"spec", -1, BOND, DEADLINE)
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID
    with pytest.raises(Rejected):
        post_calldata(b"spec", REWARD, BOND, 2**64)


def test_the_gas_of_the_cycle_stays_small(escrow: Escrow, engine: PyEvmEngine):
    settlement = Settlement(escrow.post(), 7, MINER, SettlementOutcome.PAID)
    assert escrow.settle(escrow.claim(settlement, escrow.decide(settlement)))
    used = int(engine.rpc("eth_getBlockByNumber", ["latest"])["gasUsed"], 16)
    assert used < 160_000
