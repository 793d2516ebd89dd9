"""The execution payload a block wraps, byte for byte Ethereum's (Engine API, Prague), and what is said about one.

What consensus decided about a task's money, in the bytes that the contract recomputes (ROUND-13).

Speak the contract ABI: call data in, return values out; both of our contracts are spoken with through this.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from eth_abi import decode as abi_decode
from eth_abi import encode as abi_encode
from eth_abi.exceptions import DecodingError, EncodingError

from learnchain.encoding.codec import Address, Bound, Exact, Hash32, decode, encode
from learnchain.encoding.cryptography import keccak256
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_PAYLOAD_BYTES = 4 * 1024 * 1024
MAXIMUM_TRANSACTION_BYTES = 128 * 1024
MAXIMUM_TRANSACTIONS = 16_384
MAXIMUM_WITHDRAWALS = 1_024
MAXIMUM_LOG_BYTES = 1024 * 1024
GWEI_WEI = 10**9
RawTransaction = Annotated[bytes, Bound(MAXIMUM_TRANSACTION_BYTES)]


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Credit an address out of nothing (EIP-4895): the way every reward of the chain is paid."""

    index: int
    validator_index: int
    address: Address
    amount_gwei: int


Withdrawals = Annotated[tuple[Withdrawal, ...], Bound(MAXIMUM_WITHDRAWALS)]


@dataclass(frozen=True, slots=True)
class PayloadAttributes:
    """Fix everything about a payload that consensus decides and its builder may not choose."""

    timestamp_seconds: int
    prev_randao: Hash32
    fee_recipient: Address
    withdrawals: Withdrawals
    beacon_root: Hash32


@dataclass(frozen=True, slots=True)
class ExecutionPayload:
    """Hold one execution block: the fields of the Engine API's V3 payload, its beacon root and its requests beside."""

    parent_hash: Hash32
    fee_recipient: Address
    state_root: Hash32
    receipts_root: Hash32
    logs_bloom: Annotated[bytes, Exact(256)]
    prev_randao: Hash32
    number: int
    gas_limit: int
    gas_used: int
    timestamp_seconds: int
    extra_data: Annotated[bytes, Bound(32)]
    base_fee_wei: int
    block_hash: Hash32
    transactions: Annotated[tuple[RawTransaction, ...], Bound(MAXIMUM_TRANSACTIONS)]
    withdrawals: Withdrawals
    blob_gas_used: int
    excess_blob_gas: int
    beacon_root: Hash32
    execution_requests: Annotated[tuple[RawTransaction, ...], Bound(16)]


class PayloadStatusCode(StrEnum):
    """Say what the engine thinks of a payload; the words of the Engine API."""

    VALID = "valid"
    INVALID = "invalid"
    SYNCING = "syncing"


@dataclass(frozen=True, slots=True)
class PayloadStatus:
    """Answer for a payload: the verdict, its nearest valid ancestor (zero when unknown) and why, for people."""

    status: PayloadStatusCode
    latest_valid: Hash32
    detail: Annotated[str, Bound(1_024)] = ""


@dataclass(frozen=True, slots=True)
class Log:
    """Hold one event of a contract and where it stands: its transaction and its place among the block's logs."""

    address: Address
    topics: Annotated[tuple[Hash32, ...], Bound(4)]
    data: Annotated[bytes, Bound(MAXIMUM_LOG_BYTES)]
    transaction_hash: Hash32
    index: int


def encode_payload(payload: ExecutionPayload) -> bytes:
    """Return the canonical bytes of a payload; refuse one above the chain's bound."""
    data = encode(payload)
    _check_size(len(data))
    return data


def decode_payload(data: bytes) -> ExecutionPayload:
    """Return the payload; refuse bytes above the bound before they are read."""
    _check_size(len(data))
    return decode(ExecutionPayload, data)


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAXIMUM_PAYLOAD_BYTES:
        detail = f"a payload of {size_bytes} bytes, {MAXIMUM_PAYLOAD_BYTES} are allowed"
        raise Rejected(RejectionReason.TOO_LARGE, detail)


_WORD_BYTES = 32


class SettlementOutcome(StrEnum):
    """Say where the money goes; `code` is the number that the contract knows."""

    PAID = "paid"
    """The reward to the winner; the publisher's bond leaves, slashable until the contract's delay is over."""
    REFUNDED = "refunded"
    """The reward back to the publisher; the bond leaves as above."""
    STRUCK = "struck"
    """The reward back to the publisher, whose bond is lost: `amount_wei` of it to those whom leaves of their own name,
    the rest to the recipient; recipient zero burns it."""
    SLASHED = "slashed"
    """`amount_wei` out of a pot to the recipient; the pot is a struck task's, or belongs to an owner of a bond."""

    @property
    def code(self) -> int:
        """Return the outcome's number in `TaskEscrow`."""
        return _CODES[self]


_CODES = {
    SettlementOutcome.PAID: 1,
    SettlementOutcome.REFUNDED: 2,
    SettlementOutcome.STRUCK: 3,
    SettlementOutcome.SLASHED: 5,
}

OUTCOMES_BY_CODE = {code: outcome for outcome, code in _CODES.items()}


@dataclass(frozen=True, slots=True)
class Settlement:
    """Settle one task, or take from one bond, at one height: a leaf of the history that later block roots accumulate.

    `task_id` names the pot of a `SLASHED` settlement: `bond_pot(owner)`, or the task whose bond was struck.
    """

    task_id: Hash32
    height: int
    recipient: Address
    outcome: SettlementOutcome
    amount_wei: int = 0

    def leaf(self, chain_id: int, escrow: Address) -> Hash32:
        """Return the leaf: Keccak over seven ABI words, bound to one chain and contract: it claims nowhere else."""
        words = (
            chain_id.to_bytes(_WORD_BYTES, "big"),
            escrow.rjust(_WORD_BYTES, b"\0"),
            self.task_id,
            self.height.to_bytes(_WORD_BYTES, "big"),
            self.recipient.rjust(_WORD_BYTES, b"\0"),
            self.outcome.code.to_bytes(_WORD_BYTES, "big"),
            self.amount_wei.to_bytes(_WORD_BYTES, "big"),
        )
        return keccak256(b"".join(words))


def bond_pot(owner: Address) -> Hash32:
    """Return the name of an owner's bond in the contract; a task's pot has the task's identifier."""
    return owner.rjust(_WORD_BYTES, b"\0")


def compute_consensus_root(history_root: Hash32, block_hash: Hash32) -> Hash32:
    """Return the next payload's parent beacon block root, which the escrow checks claims against."""
    return keccak256(history_root + block_hash)


def selector(signature: str) -> bytes:
    """Return the four bytes that name a function or an error."""
    return keccak256(signature.encode())[:4]


def encode_call(signature: str, types: tuple[str, ...], values: tuple[Any, ...]) -> bytes:
    """Encode a call; refuse values that its types cannot hold (ARGUMENT_INVALID)."""
    try:
        return selector(signature) + abi_encode(types, values)
    except EncodingError as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{signature}: {error}") from error


def decode_values(types: tuple[str, ...], data: bytes) -> tuple[Any, ...]:
    """Decode what a contract returned or logged; refuse what is no such encoding (MALFORMED)."""
    try:
        return abi_decode(types, data)
    except (DecodingError, OverflowError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"not the ABI encoding of {', '.join(types)}") from error


def address_text(address: Address) -> str:
    """Return an address as the ABI takes it."""
    return "0x" + address.hex()


def address_bytes(text: str) -> Address:
    """Return the bytes of an address that the ABI gave."""
    return bytes.fromhex(text.removeprefix("0x"))
