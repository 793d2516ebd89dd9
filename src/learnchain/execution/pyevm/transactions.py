"""Raw transactions: from hostile bytes to one that Prague admits, and what must hold before it runs."""

from dataclasses import dataclass
from typing import Any

from eth.exceptions import UnrecognizedTransactionType
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth_keys.exceptions import BadSignature
from eth_keys.exceptions import ValidationError as KeyValidationError
from eth_utils import ValidationError
from rlp.exceptions import RLPException

from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.hashing import keccak256
from learnchain.primitives.payload import MAXIMUM_TRANSACTION_BYTES
from learnchain.primitives.rejection import Rejected, RejectionReason

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
