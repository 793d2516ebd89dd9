"""Headers, tries and bloom filters of Prague blocks: from a payload's content to the hash that names it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import rlp
from trie import HexaryTrie

from learnchain.encoding.codec import Hash32
from learnchain.encoding.hashing import keccak256
from learnchain.protocol.payload import ExecutionPayload, Log, Withdrawal

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
