"""Payloads have one encoding and a bound."""

import pytest

from learnchain.encoding.codec import decode, encode
from learnchain.protocol.payload import (
    MAXIMUM_PAYLOAD_BYTES,
    MAXIMUM_TRANSACTION_BYTES,
    ExecutionPayload,
    Log,
    PayloadAttributes,
    PayloadStatus,
    PayloadStatusCode,
    Withdrawal,
    decode_payload,
    encode_payload,
)
from learnchain.rejection import Rejected, RejectionReason

HASH = b"\x01" * 32


def payload(*transactions: bytes) -> ExecutionPayload:
    return ExecutionPayload(
        parent_hash=HASH,
        fee_recipient=b"\x02" * 20,
        state_root=HASH,
        receipts_root=HASH,
        logs_bloom=b"\0" * 256,
        prev_randao=HASH,
        number=1,
        gas_limit=2,
        gas_used=3,
        timestamp_seconds=4,
        extra_data=b"",
        base_fee_wei=5,
        block_hash=HASH,
        transactions=transactions,
        withdrawals=(Withdrawal(0, 0, b"\x02" * 20, 9),),
        blob_gas_used=0,
        excess_blob_gas=0,
        beacon_root=HASH,
        execution_requests=(),
    )


def test_nouns_survive_their_encoding():
    attributes = PayloadAttributes(4, HASH, b"\x02" * 20, (Withdrawal(1, 2, b"\x03" * 20, 4),), HASH)
    status = PayloadStatus(PayloadStatusCode.SYNCING, HASH, "words")
    log = Log(b"\x02" * 20, (HASH, HASH), b"data", HASH, 7)
    for noun in (attributes, status, log, payload(b"one", b"two")):
        assert decode(type(noun), encode(noun)) == noun
    assert decode_payload(encode_payload(payload(b"one"))) == payload(b"one")


def test_sizes_are_bounded_both_ways():
    many = (b"\x01" * MAXIMUM_TRANSACTION_BYTES,) * (MAXIMUM_PAYLOAD_BYTES // MAXIMUM_TRANSACTION_BYTES)
    for attempt in (
        lambda: encode_payload(payload(*many)),
        lambda: encode_payload(payload(b"\x01" * (MAXIMUM_TRANSACTION_BYTES + 1))),
        lambda: decode_payload(b"\0" * (MAXIMUM_PAYLOAD_BYTES + 1)),
    ):
        with pytest.raises(Rejected) as caught:
            attempt()
        assert caught.value.reason == RejectionReason.TOO_LARGE
    assert len(encode_payload(payload(*many[1:]))) <= MAXIMUM_PAYLOAD_BYTES
