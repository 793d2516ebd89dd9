"""Payloads and attributes as the Engine API writes them (Prague), and back from what a client answers."""

from collections.abc import Mapping
from typing import Any

from learnchain.primitives.codec import Hash32
from learnchain.primitives.payload import ExecutionPayload, Log, PayloadAttributes, Withdrawal
from learnchain.primitives.rejection import Unavailable

_QUANTITIES = {
    "number": "blockNumber",
    "gas_limit": "gasLimit",
    "gas_used": "gasUsed",
    "timestamp_seconds": "timestamp",
    "base_fee_wei": "baseFeePerGas",
    "blob_gas_used": "blobGasUsed",
    "excess_blob_gas": "excessBlobGas",
}
_BYTES = {
    "parent_hash": "parentHash",
    "fee_recipient": "feeRecipient",
    "state_root": "stateRoot",
    "receipts_root": "receiptsRoot",
    "logs_bloom": "logsBloom",
    "prev_randao": "prevRandao",
    "extra_data": "extraData",
    "block_hash": "blockHash",
}


def hexadecimal(data: bytes) -> str:
    """Return bytes as a 0x-string."""
    return "0x" + data.hex()


def payload_json(payload: ExecutionPayload) -> dict[str, Any]:
    """Return the V3 payload object that engine_newPayloadV4 takes."""
    content: dict[str, Any] = {theirs: hex(getattr(payload, ours)) for ours, theirs in _QUANTITIES.items()}
    content |= {theirs: hexadecimal(getattr(payload, ours)) for ours, theirs in _BYTES.items()}
    content["transactions"] = [hexadecimal(raw) for raw in payload.transactions]
    content["withdrawals"] = [_withdrawal_json(each) for each in payload.withdrawals]
    return content


def payload_of(content: Mapping[str, Any], beacon_root: Hash32, requests: list[str]) -> ExecutionPayload:
    """Return the payload that a client built; a client that answers nonsense is not usable."""
    try:
        fields: dict[str, Any] = {ours: int(content[theirs], 16) for ours, theirs in _QUANTITIES.items()}
        fields |= {ours: _bytes(content[theirs]) for ours, theirs in _BYTES.items()}
        return ExecutionPayload(
            **fields,
            transactions=tuple(_bytes(raw) for raw in content["transactions"]),
            withdrawals=tuple(_withdrawal(each) for each in content["withdrawals"]),
            beacon_root=beacon_root,
            execution_requests=tuple(_bytes(each) for each in requests),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unavailable(f"the execution client's payload cannot be read: {error!r}") from error


def attributes_json(attributes: PayloadAttributes) -> dict[str, Any]:
    """Return the V3 attributes that engine_forkchoiceUpdatedV3 takes."""
    return {
        "timestamp": hex(attributes.timestamp_seconds),
        "prevRandao": hexadecimal(attributes.prev_randao),
        "suggestedFeeRecipient": hexadecimal(attributes.fee_recipient),
        "withdrawals": [_withdrawal_json(each) for each in attributes.withdrawals],
        "parentBeaconBlockRoot": hexadecimal(attributes.beacon_root),
    }


def attributes_of(content: Mapping[str, Any]) -> PayloadAttributes:
    """Return the attributes that a V3 object holds."""
    return PayloadAttributes(
        timestamp_seconds=int(content["timestamp"], 16),
        prev_randao=_bytes(content["prevRandao"]),
        fee_recipient=_bytes(content["suggestedFeeRecipient"]),
        withdrawals=tuple(_withdrawal(each) for each in content["withdrawals"]),
        beacon_root=_bytes(content["parentBeaconBlockRoot"]),
    )


def logs_of(entries: list[Mapping[str, Any]]) -> tuple[Log, ...]:
    """Return what eth_getLogs answered, in the order of the block."""
    try:
        logs = [
            Log(
                _bytes(each["address"]),
                tuple(_bytes(topic) for topic in each["topics"]),
                _bytes(each["data"]),
                _bytes(each["transactionHash"]),
                int(each["logIndex"], 16),
            )
            for each in entries
        ]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unavailable(f"the execution client's logs cannot be read: {error!r}") from error
    return tuple(sorted(logs, key=lambda log: log.index))


def _withdrawal_json(withdrawal: Withdrawal) -> dict[str, str]:
    return {
        "index": hex(withdrawal.index),
        "validatorIndex": hex(withdrawal.validator_index),
        "address": hexadecimal(withdrawal.address),
        "amount": hex(withdrawal.amount_gwei),
    }


def _withdrawal(content: Mapping[str, str]) -> Withdrawal:
    return Withdrawal(
        int(content["index"], 16),
        int(content["validatorIndex"], 16),
        _bytes(content["address"]),
        int(content["amount"], 16),
    )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
