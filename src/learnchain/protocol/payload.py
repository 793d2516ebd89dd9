"""The execution payload a block wraps, byte for byte Ethereum's (Engine API, Prague), and what is said about one."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from learnchain.primitives.codec import Address, Bound, Exact, Hash32, decode, encode
from learnchain.primitives.rejection import Rejected, RejectionReason

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


class PayloadVerdict(StrEnum):
    """Say what the engine thinks of a payload; the words of the Engine API."""

    VALID = "valid"
    INVALID = "invalid"
    SYNCING = "syncing"


@dataclass(frozen=True, slots=True)
class PayloadStatus:
    """Answer for a payload: the verdict, its nearest valid ancestor (zero when unknown) and why, for people."""

    status: PayloadVerdict
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
