"""Transactions and headers of Prague blocks.

From a payload's content to the tries, the bloom filter and the hash that names it; from hostile bytes to a transaction
that Prague admits; and those that wait for a block, ordered by nonce within a sender and by tip between senders.
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import Any, cast

import rlp
from eth.exceptions import UnrecognizedTransactionType
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth_keys.exceptions import BadSignature
from eth_keys.exceptions import ValidationError as KeyValidationError
from eth_utils import ValidationError
from rlp.exceptions import RLPException
from trie import HexaryTrie

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import keccak256
from learnchain.protocol.payload import MAXIMUM_TRANSACTION_BYTES, ExecutionPayload, Log, Withdrawal
from learnchain.rejection import Rejected, RejectionReason

RlpItem = bytes | Sequence[Any]

# The encodings of nothing and of the empty list.
EMPTY_TRIE_ROOT: Hash32 = keccak256(b"\x80")
EMPTY_OMMERS_HASH: Hash32 = keccak256(b"\xc0")
EMPTY_REQUESTS_HASH: Hash32 = hashlib.sha256(b"").digest()
_NONCE = b"\0" * 8
BASE_FEE_CHANGE_DENOMINATOR = 8
ELASTICITY = 2


def rlp_encode(item: RlpItem) -> bytes:
    """Return the RLP encoding of bytes or of a nested list of them."""
    return bytes(cast("bytes", rlp.encode(item)))


def integer_bytes(value: int) -> bytes:
    """Return an integer as RLP writes it: big-endian without leading zeros."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def compute_ordered_root(items: Sequence[bytes]) -> Hash32:
    """Return the root of the trie that maps each place to its item."""
    if not items:
        return EMPTY_TRIE_ROOT
    trie = HexaryTrie({}, EMPTY_TRIE_ROOT)
    with trie.squash_changes() as batch:
        for index, item in enumerate(items):
            batch[rlp_encode(integer_bytes(index))] = item
    return bytes(trie.root_hash)


def withdrawals_root(withdrawals: Sequence[Withdrawal]) -> Hash32:
    """Return the root over withdrawals (EIP-4895)."""
    return compute_ordered_root([_encode_withdrawal(withdrawal) for withdrawal in withdrawals])


def requests_hash(requests: Sequence[bytes]) -> Hash32:
    """Return the hash over the execution's requests (EIP-7685); requests without content do not count."""
    digest = hashlib.sha256()
    for request in requests:
        if len(request) > 1:
            digest.update(hashlib.sha256(request).digest())
    return digest.digest()


def block_hash(payload: ExecutionPayload) -> Hash32:
    """Return the hash that the payload's content gives, whatever its `block_hash` field claims."""
    return keccak256(rlp_encode(_header(payload)))


def block_rlp(payload: ExecutionPayload) -> bytes:
    """Return the block as Ethereum's own network encodes it: header, transactions, no ommers, withdrawals."""
    transactions = [raw if raw[0] < 0x80 else rlp.decode(raw) for raw in payload.transactions]
    withdrawals = [rlp.decode(_encode_withdrawal(each)) for each in payload.withdrawals]
    return rlp_encode([_header(payload), transactions, [], withdrawals])


def _header(payload: ExecutionPayload) -> list[RlpItem]:
    return [
        payload.parent_hash,
        EMPTY_OMMERS_HASH,
        payload.fee_recipient,
        payload.state_root,
        compute_ordered_root(payload.transactions),
        payload.receipts_root,
        payload.logs_bloom,
        b"",
        integer_bytes(payload.number),
        integer_bytes(payload.gas_limit),
        integer_bytes(payload.gas_used),
        integer_bytes(payload.timestamp_seconds),
        payload.extra_data,
        payload.prev_randao,
        _NONCE,
        integer_bytes(payload.base_fee_wei),
        withdrawals_root(payload.withdrawals),
        integer_bytes(payload.blob_gas_used),
        integer_bytes(payload.excess_blob_gas),
        payload.beacon_root,
        requests_hash(payload.execution_requests),
    ]


def seal_payload(payload: ExecutionPayload) -> ExecutionPayload:
    """Return the payload with the block hash that its content gives."""
    return replace(payload, block_hash=block_hash(payload))


def next_base_fee_wei(parent: ExecutionPayload) -> int:
    """Return the base fee that follows from the parent's use of gas (EIP-1559)."""
    target = parent.gas_limit // ELASTICITY
    if parent.gas_used == target:
        return parent.base_fee_wei
    if parent.gas_used > target:
        change = parent.base_fee_wei * (parent.gas_used - target) // target // BASE_FEE_CHANGE_DENOMINATOR
        return parent.base_fee_wei + max(change, 1)
    change = parent.base_fee_wei * (target - parent.gas_used) // target // BASE_FEE_CHANGE_DENOMINATOR
    return parent.base_fee_wei - change


def logs_bloom(logs: Sequence[Log]) -> bytes:
    """Return the 2048-bit filter over addresses and topics (Yellow Paper 4.3.1)."""
    bits = 0
    for log in logs:
        for entry in (log.address, *log.topics):
            digest = keccak256(entry)
            for start in (0, 2, 4):
                bits |= 1 << (int.from_bytes(digest[start : start + 2], "big") & 2047)
    return bits.to_bytes(256, "big")


def encode_receipt(kind: int, succeeded: bool, cumulative_gas: int, logs: Sequence[Log]) -> bytes:
    """Return a receipt as the receipt trie holds it; typed ones are prefixed with their type (EIP-2718)."""
    entries = [[log.address, list(log.topics), log.data] for log in logs]
    body = rlp_encode([integer_bytes(int(succeeded)), integer_bytes(cumulative_gas), logs_bloom(logs), entries])
    return bytes([kind]) + body if kind else body


def _encode_withdrawal(withdrawal: Withdrawal) -> bytes:
    return rlp_encode(
        [
            integer_bytes(withdrawal.index),
            integer_bytes(withdrawal.validator_index),
            withdrawal.address,
            integer_bytes(withdrawal.amount_gwei),
        ]
    )


LEGACY, ACCESS_LIST, DYNAMIC_FEE, BLOB, SET_CODE = range(5)
_ALLOWED_TYPES = (ACCESS_LIST, DYNAMIC_FEE, SET_CODE)
_MAXIMUM_DEPTH = 5
"""Transaction, access list, entry, slots: no transaction type nests deeper."""
MAXIMUM_INITCODE_BYTES = 49_152
MAXIMUM_NONCE = 2**64 - 2
_WORD_LIMIT = 2**256
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_FLOOR_GAS = 21_000
_FLOOR_GAS_FOR_TOKEN = 10
_TOKENS_FOR_NONZERO_BYTE = 4
DELEGATION_PREFIX = b"\xef\x01\x00"

_DECODING_ERRORS = (
    RLPException,
    ValidationError,
    KeyValidationError,
    BadSignature,
    UnrecognizedTransactionType,
    ValueError,
    TypeError,
)


@dataclass(frozen=True, slots=True)
class Transaction:
    """Hold a decoded transaction beside its bytes; `signed` is py-evm's own object, which its executor wants."""

    raw: bytes
    signed: Any
    hash: Hash32
    kind: int
    sender: Address
    recipient: Address | None
    nonce: int
    gas: int
    value_wei: int
    data: bytes
    max_fee_wei: int
    max_priority_fee_wei: int
    chain_id: int | None

    @property
    def cost_wei(self) -> int:
        """Return the most that the sender can lose."""
        return self.gas * self.max_fee_wei + self.value_wei

    def price_wei(self, base_fee_wei: int) -> int:
        """Return what the sender pays for a unit of gas."""
        return min(self.max_fee_wei, base_fee_wei + self.max_priority_fee_wei)

    def tip_wei(self, base_fee_wei: int) -> int:
        """Return what the fee recipient earns for a unit of gas; negative when the base fee is not met."""
        return min(self.max_fee_wei - base_fee_wei, self.max_priority_fee_wei)


def invalid(detail: str) -> Rejected:
    """Return the refusal of a transaction."""
    return Rejected(RejectionReason.TRANSACTION_INVALID, detail)


def decode_transaction(raw: bytes, chain_id: int) -> Transaction:
    """Return the transaction that the bytes encode canonically; check all that needs no state."""
    if not 0 < len(raw) <= MAXIMUM_TRANSACTION_BYTES:
        raise invalid(f"a transaction of {len(raw)} bytes, 1 to {MAXIMUM_TRANSACTION_BYTES} are allowed")
    kind = raw[0] if raw[0] < 0x80 else LEGACY
    if raw[0] < 0x80 and kind not in _ALLOWED_TYPES:
        raise invalid(f"transactions of type {kind} are not allowed")
    _check_depth(raw[1:] if kind else raw)
    try:
        signed = PragueTransactionBuilder.decode(raw)
        if signed.encode() != raw:
            raise invalid("the bytes are not the canonical encoding")
        signed.validate()
        sender = bytes(signed.sender)
    except _DECODING_ERRORS as error:
        raise invalid(f"the transaction cannot be decoded: {error}") from error
    transaction = _transaction(raw, kind, signed, sender)
    _check_content(transaction, chain_id)
    return transaction


def check_against_state(transaction: Transaction, nonce: int, balance_wei: int, code: bytes, base_fee_wei: int) -> None:
    """Refuse a transaction whose sender cannot run it now: nonce, funds, fee, or a contract as sender (EIP-3607)."""
    if transaction.nonce != nonce:
        raise invalid(f"the nonce is {transaction.nonce}, the sender's next is {nonce}")
    if transaction.max_fee_wei < base_fee_wei:
        raise invalid(f"the maximum fee is {transaction.max_fee_wei} wei, the base fee {base_fee_wei}")
    if balance_wei < transaction.cost_wei:
        raise invalid(f"the sender owns {balance_wei} wei and may spend {transaction.cost_wei}")
    if code and not code.startswith(DELEGATION_PREFIX):
        raise invalid("the sender is a contract")


def floor_gas(data: bytes) -> int:
    """Return the least gas that call data cost (EIP-7623)."""
    zeros = data.count(0)
    tokens = zeros + (len(data) - zeros) * _TOKENS_FOR_NONZERO_BYTE
    return _FLOOR_GAS + _FLOOR_GAS_FOR_TOKEN * tokens


def _transaction(raw: bytes, kind: int, signed: Any, sender: bytes) -> Transaction:
    return Transaction(
        raw=raw,
        signed=signed,
        hash=keccak256(raw),
        kind=kind,
        sender=sender,
        recipient=bytes(signed.to) or None,
        nonce=int(signed.nonce),
        gas=int(signed.gas),
        value_wei=int(signed.value),
        data=bytes(signed.data),
        max_fee_wei=int(signed.max_fee_per_gas),
        max_priority_fee_wei=int(signed.max_priority_fee_per_gas),
        chain_id=None if signed.chain_id is None else int(signed.chain_id),
    )


def _check_content(transaction: Transaction, chain_id: int) -> None:
    if transaction.chain_id not in (None, chain_id):
        raise invalid(f"the transaction belongs to chain {transaction.chain_id}, this is {chain_id}")
    if not 0 < int(transaction.signed.s) <= _HALF_ORDER:
        # py-evm checks this for old transactions only (EIP-2).
        raise invalid("the signature is malleable")
    if transaction.nonce > MAXIMUM_NONCE:
        raise invalid("the nonce is too large")
    if transaction.max_priority_fee_wei > transaction.max_fee_wei:
        raise invalid("the priority fee is above the maximum fee")
    if max(transaction.value_wei, transaction.max_fee_wei) >= _WORD_LIMIT or transaction.gas >= 2**64:
        raise invalid("a number is too large")
    if transaction.recipient is None and len(transaction.data) > MAXIMUM_INITCODE_BYTES:
        raise invalid(f"initialisation code of {len(transaction.data)} bytes")
    if transaction.gas < max(int(transaction.signed.intrinsic_gas), floor_gas(transaction.data)):
        raise invalid(f"{transaction.gas} gas does not pay for the transaction's own bytes")


def _check_depth(data: bytes) -> None:
    """Refuse RLP that nests deeper than any transaction does, before a recursive decoder sees it."""
    ends: list[int] = []
    position = 0
    while position < len(data):
        while ends and position >= ends[-1]:
            ends.pop()
        first = data[position]
        if first < 0x80:
            position += 1
            continue
        is_list = first >= 0xC0
        short = first - (0xC0 if is_list else 0x80)
        size = max(short - 55, 0)
        length = int.from_bytes(data[position + 1 : position + 1 + size], "big") if size else short
        position += 1 + size
        if not is_list:
            position += length
            continue
        ends.append(position + length)
        if len(ends) > _MAXIMUM_DEPTH:
            raise invalid("the transaction nests too deeply")


MAXIMUM_COUNT = 8_192
MAXIMUM_BYTES = 16 * 1024 * 1024
MAXIMUM_FOR_SENDER = 256
REPLACEMENT_PERCENT = 10
AccountReader = Callable[[Address], tuple[int, int]]
"""Return nonce and balance in wei of an address at the head."""


class TransactionPool:
    """Keep waiting transactions, at most so many and so many bytes; a fuller pool asks for a higher fee."""

    __slots__ = ("_by_hash", "_by_sender", "_maximum_bytes", "_maximum_count", "_size_bytes")

    def __init__(self, maximum_count: int = MAXIMUM_COUNT, maximum_bytes: int = MAXIMUM_BYTES) -> None:
        self._by_sender: dict[Address, dict[int, Transaction]] = {}
        self._by_hash: dict[Hash32, Transaction] = {}
        self._maximum_count = maximum_count
        self._maximum_bytes = maximum_bytes
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._by_hash)

    @property
    def size_bytes(self) -> int:
        """Return the bytes of all waiting transactions."""
        return self._size_bytes

    def find(self, transaction_hash: Hash32) -> Transaction | None:
        """Return a waiting transaction by its hash."""
        return self._by_hash.get(transaction_hash)

    def add(self, transaction: Transaction, account: AccountReader) -> None:
        """Admit a transaction that the sender can pay for beside its other waiting ones; refuse it otherwise."""
        if transaction.hash in self._by_hash:
            return
        nonce, balance_wei = account(transaction.sender)
        waiting = self._by_sender.get(transaction.sender, {})
        replaced = waiting.get(transaction.nonce)
        if transaction.nonce < nonce:
            raise invalid(f"the nonce is {transaction.nonce}, the sender's next is {nonce}")
        if replaced is None and len(waiting) >= MAXIMUM_FOR_SENDER:
            raise Rejected(RejectionReason.RATE_LIMITED, f"the sender has {len(waiting)} transactions waiting")
        if replaced is not None:
            _check_replacement(replaced, transaction)
        others_wei = sum(other.cost_wei for other in waiting.values() if other is not replaced)
        if balance_wei < others_wei + transaction.cost_wei:
            needed_wei = others_wei + transaction.cost_wei
            raise invalid(f"the sender owns {balance_wei} wei and its waiting transactions may spend {needed_wei}")
        self._make_room(transaction, replaced)
        if replaced is not None:
            self.remove(replaced)
        self._by_sender.setdefault(transaction.sender, {})[transaction.nonce] = transaction
        self._by_hash[transaction.hash] = transaction
        self._size_bytes += len(transaction.raw)

    def remove(self, transaction: Transaction) -> None:
        """Forget a transaction; one that does not wait is ignored."""
        if self._by_hash.pop(transaction.hash, None) is None:
            return
        self._size_bytes -= len(transaction.raw)
        waiting = self._by_sender[transaction.sender]
        del waiting[transaction.nonce]
        if not waiting:
            del self._by_sender[transaction.sender]

    def drop_below(self, sender: Address, nonce: int) -> None:
        """Forget what a sender's account has passed."""
        for transaction in list(self._by_sender.get(sender, {}).values()):
            if transaction.nonce < nonce:
                self.remove(transaction)

    def next_nonce(self, sender: Address, nonce: int) -> int:
        """Return the first nonce from `nonce` on that no waiting transaction of the sender uses."""
        waiting = self._by_sender.get(sender, {})
        while nonce in waiting:
            nonce += 1
        return nonce

    def best(self, base_fee_wei: int) -> Generator[Transaction, bool | None, None]:
        """Yield those that pay the base fee, highest tip first, each sender's in the order of nonces.

        Send True back after a transaction that could not run: its sender's later ones are then left out.
        """
        queues = {
            sender: sorted(waiting.values(), key=lambda transaction: transaction.nonce, reverse=True)
            for sender, waiting in self._by_sender.items()
        }
        heap = [(-queue[-1].tip_wei(base_fee_wei), sender) for sender, queue in queues.items()]
        heapify(heap)
        while heap:
            negative_tip_wei, sender = heappop(heap)
            if negative_tip_wei > 0 or not queues[sender]:
                continue
            transaction = queues[sender].pop()
            failed = yield transaction
            if not failed and queues[sender]:
                heappush(heap, (-queues[sender][-1].tip_wei(base_fee_wei), sender))

    def transactions(self) -> tuple[Transaction, ...]:
        """Return all waiting transactions, in no particular order."""
        return tuple(self._by_hash.values())

    def _make_room(self, transaction: Transaction, replaced: Transaction | None) -> None:
        """Drop the worst-paid last transactions of senders for one that pays more, or refuse it."""
        freed_count, freed_bytes = (1, len(replaced.raw)) if replaced else (0, 0)
        while (
            len(self) - freed_count >= self._maximum_count
            or self._size_bytes - freed_bytes + len(transaction.raw) > self._maximum_bytes
        ):
            tails = [
                waiting[max(waiting)] for sender, waiting in self._by_sender.items() if sender != transaction.sender
            ]
            worst = min(tails, key=_offer, default=None)
            if worst is None or _offer(worst) >= _offer(transaction):
                raise Rejected(RejectionReason.RATE_LIMITED, "the pool is full of better-paid transactions")
            self.remove(worst)


def _offer(transaction: Transaction) -> tuple[int, int]:
    return transaction.max_priority_fee_wei, transaction.max_fee_wei


def _check_replacement(old: Transaction, new: Transaction) -> None:
    for before, after in (
        (old.max_fee_wei, new.max_fee_wei),
        (old.max_priority_fee_wei, new.max_priority_fee_wei),
    ):
        if after * 100 < before * (100 + REPLACEMENT_PERCENT) or after <= before:
            raise invalid(f"a replacement pays at least {REPLACEMENT_PERCENT} % more than {before} wei")
