"""The JSON of Ethereum's interface: read what callers send with suspicion, write blocks, transactions and logs."""

import re
from collections.abc import Mapping
from typing import Any

from learnchain.execution.pyevm.headers import (
    EMPTY_OMMERS_HASH,
    EMPTY_TRIE_ROOT,
    logs_bloom,
    ordered_root,
    requests_hash,
    withdrawals_root,
)
from learnchain.execution.pyevm.records import Receipt
from learnchain.execution.pyevm.transactions import ACCESS_LIST, LEGACY, SET_CODE, Transaction
from learnchain.primitives.codec import Address, Hash32
from learnchain.primitives.payload import ExecutionPayload, Log, encode_payload
from learnchain.primitives.rejection import Rejected, RejectionReason

_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*\Z")
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}\Z")
MAXIMUM_CALL_DATA_BYTES = 256 * 1024
MAXIMUM_ACCESS_ENTRIES = 1_024


def wrong_argument(detail: str) -> Rejected:
    """Return the refusal of an argument."""
    return Rejected(RejectionReason.ARGUMENT_INVALID, detail)


def read_bytes(value: Any, name: str, maximum_bytes: int = MAXIMUM_CALL_DATA_BYTES) -> bytes:
    """Return the bytes of a 0x-string."""
    if not isinstance(value, str) or len(value) > 2 + 2 * maximum_bytes or not _HEX.match(value):
        raise wrong_argument(f"{name} is not a 0x-string of at most {maximum_bytes} bytes")
    return bytes.fromhex(value[2:])


def read_fixed(value: Any, name: str, length: int) -> bytes:
    """Return the bytes of a 0x-string of one fixed length."""
    data = read_bytes(value, name, length)
    if len(data) != length:
        raise wrong_argument(f"{name} has {len(data)} bytes, not {length}")
    return data


def read_address(value: Any, name: str = "address") -> Address:
    """Return the 20 bytes of an address."""
    return read_fixed(value, name, 20)


def read_quantity(value: Any, name: str) -> int:
    """Return a number written as 0x-quantity."""
    if not isinstance(value, str) or not _QUANTITY.match(value):
        raise wrong_argument(f"{name} is not a 0x-quantity")
    return int(value, 16)


def read_object(value: Any, name: str) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise wrong_argument(f"{name} is not an object")
    return value


def write_bytes(data: bytes) -> str:
    """Return bytes as a 0x-string."""
    return "0x" + data.hex()


def write_log(log: Log, payload: ExecutionPayload, transaction_index: int) -> dict[str, Any]:
    """Return a log as eth_getLogs answers it."""
    return {
        "address": write_bytes(log.address),
        "topics": [write_bytes(topic) for topic in log.topics],
        "data": write_bytes(log.data),
        "blockNumber": hex(payload.number),
        "blockHash": write_bytes(payload.block_hash),
        "blockTimestamp": hex(payload.timestamp_seconds),
        "transactionHash": write_bytes(log.transaction_hash),
        "transactionIndex": hex(transaction_index),
        "logIndex": hex(log.index),
        "removed": False,
    }


def write_receipt(receipt: Receipt, payload: ExecutionPayload, index: int, recipient: Address | None) -> dict[str, Any]:
    """Return a receipt as eth_getTransactionReceipt answers it."""
    return {
        "transactionHash": write_bytes(receipt.transaction_hash),
        "transactionIndex": hex(index),
        "blockHash": write_bytes(payload.block_hash),
        "blockNumber": hex(payload.number),
        "from": write_bytes(receipt.sender),
        "to": None if recipient is None else write_bytes(recipient),
        "contractAddress": write_bytes(receipt.contract) if receipt.contract and receipt.succeeded else None,
        "cumulativeGasUsed": hex(receipt.cumulative_gas),
        "gasUsed": hex(receipt.gas_used),
        "effectiveGasPrice": hex(receipt.price_wei),
        "logs": [write_log(log, payload, index) for log in receipt.logs],
        "logsBloom": write_bytes(logs_bloom(receipt.logs)),
        "status": hex(int(receipt.succeeded)),
        "type": hex(receipt.kind),
    }


def write_transaction(
    transaction: Transaction, payload: ExecutionPayload | None = None, index: int | None = None
) -> dict[str, Any]:
    """Return a transaction as eth_getTransactionByHash answers it; without a payload it is a waiting one."""
    base_fee_wei = 0 if payload is None else payload.base_fee_wei
    price_wei = transaction.max_fee_wei if payload is None else transaction.price_wei(base_fee_wei)
    signed = transaction.signed
    result: dict[str, Any] = {
        "hash": write_bytes(transaction.hash),
        "blockHash": None if payload is None else write_bytes(payload.block_hash),
        "blockNumber": None if payload is None else hex(payload.number),
        "transactionIndex": None if index is None else hex(index),
        "from": write_bytes(transaction.sender),
        "to": None if transaction.recipient is None else write_bytes(transaction.recipient),
        "nonce": hex(transaction.nonce),
        "gas": hex(transaction.gas),
        "gasPrice": hex(price_wei),
        "value": hex(transaction.value_wei),
        "input": write_bytes(transaction.data),
        "type": hex(transaction.kind),
        "chainId": None if transaction.chain_id is None else hex(transaction.chain_id),
        "r": hex(signed.r),
        "s": hex(signed.s),
        "v": hex(signed.v if transaction.kind == LEGACY else signed.y_parity),
    }
    if transaction.kind != LEGACY:
        result["yParity"] = hex(signed.y_parity)
        result["accessList"] = [
            {"address": write_bytes(address), "storageKeys": [f"0x{slot:064x}" for slot in slots]}
            for address, slots in signed.access_list
        ]
    if transaction.kind not in (LEGACY, ACCESS_LIST):
        result["maxFeePerGas"] = hex(transaction.max_fee_wei)
        result["maxPriorityFeePerGas"] = hex(transaction.max_priority_fee_wei)
    if transaction.kind == SET_CODE:
        result["authorizationList"] = _authorizations(transaction)
    return result


def _authorizations(transaction: Transaction) -> list[dict[str, str]]:
    return [
        {
            "chainId": hex(entry.chain_id),
            "address": write_bytes(entry.address),
            "nonce": hex(entry.nonce),
            "yParity": hex(entry.y_parity),
            "r": hex(entry.r),
            "s": hex(entry.s),
        }
        for entry in transaction.signed.authorization_list
    ]


def write_block(payload: ExecutionPayload, transactions: list[Any]) -> dict[str, Any]:
    """Return a block as eth_getBlockByHash answers it."""
    return {
        "hash": write_bytes(payload.block_hash),
        "parentHash": write_bytes(payload.parent_hash),
        "sha3Uncles": write_bytes(EMPTY_OMMERS_HASH),
        "miner": write_bytes(payload.fee_recipient),
        "stateRoot": write_bytes(payload.state_root),
        "transactionsRoot": write_bytes(ordered_root(payload.transactions)),
        "receiptsRoot": write_bytes(payload.receipts_root),
        "logsBloom": write_bytes(payload.logs_bloom),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "number": hex(payload.number),
        "gasLimit": hex(payload.gas_limit),
        "gasUsed": hex(payload.gas_used),
        "timestamp": hex(payload.timestamp_seconds),
        "extraData": write_bytes(payload.extra_data),
        "mixHash": write_bytes(payload.prev_randao),
        "nonce": "0x0000000000000000",
        "baseFeePerGas": hex(payload.base_fee_wei),
        "withdrawalsRoot": write_bytes(
            withdrawals_root(payload.withdrawals) if payload.withdrawals else EMPTY_TRIE_ROOT
        ),
        "withdrawals": _withdrawals(payload),
        "blobGasUsed": hex(payload.blob_gas_used),
        "excessBlobGas": hex(payload.excess_blob_gas),
        "parentBeaconBlockRoot": write_bytes(payload.beacon_root),
        "requestsHash": write_bytes(requests_hash(payload.execution_requests)),
        "size": hex(len(encode_payload(payload))),
        "uncles": [],
        "transactions": transactions,
    }


def _withdrawals(payload: ExecutionPayload) -> list[dict[str, str]]:
    return [
        {
            "index": hex(withdrawal.index),
            "validatorIndex": hex(withdrawal.validator_index),
            "address": write_bytes(withdrawal.address),
            "amount": hex(withdrawal.amount_gwei),
        }
        for withdrawal in payload.withdrawals
    ]


def read_topics(value: Any) -> tuple[tuple[Hash32, ...], ...]:
    """Return, for each place, the topics that match; an empty tuple matches everything."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 4:
        raise wrong_argument("topics are a list of at most four")
    places: list[tuple[Hash32, ...]] = []
    for place in value:
        options = place if isinstance(place, list) else [] if place is None else [place]
        if len(options) > 64:
            raise wrong_argument("too many topics for one place")
        places.append(tuple(read_fixed(option, "topic", 32) for option in options))
    return tuple(places)


def read_addresses(value: Any) -> tuple[Address, ...]:
    """Return the addresses of a log filter; an empty tuple matches every address."""
    if value is None:
        return ()
    addresses = value if isinstance(value, list) else [value]
    if len(addresses) > 256:
        raise wrong_argument("too many addresses")
    return tuple(read_address(address) for address in addresses)


def read_access_list(value: Any) -> tuple[tuple[Address, tuple[int, ...]], ...]:
    """Return an access list (EIP-2930); a missing one is empty."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAXIMUM_ACCESS_ENTRIES:
        raise wrong_argument("the access list is no list or too long")
    entries: list[tuple[Address, tuple[int, ...]]] = []
    for entry in value:
        fields = read_object(entry, "access list entry")
        keys = fields.get("storageKeys", [])
        if not isinstance(keys, list) or len(keys) > MAXIMUM_ACCESS_ENTRIES:
            raise wrong_argument("the storage keys are no list or too many")
        slots = tuple(int.from_bytes(read_fixed(key, "storage key", 32), "big") for key in keys)
        entries.append((read_address(fields.get("address")), slots))
    return tuple(entries)
