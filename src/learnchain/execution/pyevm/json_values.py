"""The JSON of Ethereum's interface: read what callers send with suspicion, write blocks, transactions and logs.

Merkle proofs of accounts and storage (EIP-1186): what a light wallet needs to check an answer against a header.

Fees that wallets ask about: what to offer next, and what was paid lately.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import rlp
from trie import HexaryTrie

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import keccak256
from learnchain.execution.pyevm.execution import Overlay
from learnchain.execution.pyevm.records import Receipt, Records
from learnchain.execution.pyevm.transactions import (
    ACCESS_LIST,
    EMPTY_OMMERS_HASH,
    EMPTY_TRIE_ROOT,
    LEGACY,
    SET_CODE,
    Transaction,
    compute_ordered_root,
    logs_bloom,
    next_base_fee_wei,
    requests_hash,
    rlp_encode,
    withdrawals_root,
)
from learnchain.protocol.payload import ExecutionPayload, Log, encode_payload
from learnchain.rejection import Rejected, RejectionReason

_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*\Z")
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}\Z")
MAXIMUM_CALL_DATA_BYTES = 256 * 1024
MAXIMUM_ACCESS_ENTRIES = 1_024


def build_argument_error(detail: str) -> Rejected:
    """Return the refusal of an argument."""
    return Rejected(RejectionReason.ARGUMENT_INVALID, detail)


def read_bytes(value: Any, name: str, maximum_bytes: int = MAXIMUM_CALL_DATA_BYTES) -> bytes:
    """Return the bytes of a 0x-string."""
    if not isinstance(value, str) or len(value) > 2 + 2 * maximum_bytes or not _HEX.match(value):
        raise build_argument_error(f"{name} is not a 0x-string of at most {maximum_bytes} bytes")
    return bytes.fromhex(value[2:])


def read_fixed(value: Any, name: str, length: int) -> bytes:
    """Return the bytes of a 0x-string of one fixed length."""
    data = read_bytes(value, name, length)
    if len(data) != length:
        raise build_argument_error(f"{name} has {len(data)} bytes, not {length}")
    return data


def read_address(value: Any, name: str = "address") -> Address:
    """Return the 20 bytes of an address."""
    return read_fixed(value, name, 20)


def read_quantity(value: Any, name: str) -> int:
    """Return a number written as 0x-quantity."""
    if not isinstance(value, str) or not _QUANTITY.match(value):
        raise build_argument_error(f"{name} is not a 0x-quantity")
    return int(value, 16)


def read_object(value: Any, name: str) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise build_argument_error(f"{name} is not an object")
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
        "transactionsRoot": write_bytes(compute_ordered_root(payload.transactions)),
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
        raise build_argument_error("topics are a list of at most four")
    places: list[tuple[Hash32, ...]] = []
    for place in value:
        options = place if isinstance(place, list) else [] if place is None else [place]
        if len(options) > 64:
            raise build_argument_error("too many topics for one place")
        places.append(tuple(read_fixed(option, "topic", 32) for option in options))
    return tuple(places)


def read_addresses(value: Any) -> tuple[Address, ...]:
    """Return the addresses of a log filter; an empty tuple matches every address."""
    if value is None:
        return ()
    addresses = value if isinstance(value, list) else [value]
    if len(addresses) > 256:
        raise build_argument_error("too many addresses")
    return tuple(read_address(address) for address in addresses)


def read_access_list(value: Any) -> tuple[tuple[Address, tuple[int, ...]], ...]:
    """Return an access list (EIP-2930); a missing one is empty."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAXIMUM_ACCESS_ENTRIES:
        raise build_argument_error("the access list is no list or too long")
    entries: list[tuple[Address, tuple[int, ...]]] = []
    for entry in value:
        fields = read_object(entry, "access list entry")
        keys = fields.get("storageKeys", [])
        if not isinstance(keys, list) or len(keys) > MAXIMUM_ACCESS_ENTRIES:
            raise build_argument_error("the storage keys are no list or too many")
        slots = tuple(int.from_bytes(read_fixed(key, "storage key", 32), "big") for key in keys)
        entries.append((read_address(fields.get("address")), slots))
    return tuple(entries)


MAXIMUM_PROOF_KEYS = 128
_EMPTY_CODE_HASH: Hash32 = keccak256(b"")


def account_proof(records: Records, state_root: Hash32, address: Address, keys: Sequence[Any]) -> dict[str, Any]:
    """Return an account with the trie nodes that prove it and the asked storage words, absent ones too."""
    if not isinstance(keys, list) or len(keys) > MAXIMUM_PROOF_KEYS:
        raise build_argument_error(f"storage keys are a list of at most {MAXIMUM_PROOF_KEYS}")
    accounts = HexaryTrie(Overlay(records), state_root)
    nonce, balance_wei, storage_root, code_hash = _account(accounts, keccak256(address))
    storage = HexaryTrie(Overlay(records), storage_root)
    return {
        "address": write_bytes(address),
        "accountProof": _nodes(accounts, keccak256(address)),
        "balance": hex(balance_wei),
        "codeHash": write_bytes(code_hash),
        "nonce": hex(nonce),
        "storageHash": write_bytes(storage_root),
        "storageProof": [_storage_proof(storage, key) for key in keys],
    }


def _account(accounts: HexaryTrie, key: Hash32) -> tuple[int, int, Hash32, Hash32]:
    data = bytes(accounts[key])
    if not data:
        return 0, 0, EMPTY_TRIE_ROOT, _EMPTY_CODE_HASH
    nonce, balance, storage_root, code_hash = rlp.decode(data)
    return int.from_bytes(nonce, "big"), int.from_bytes(balance, "big"), bytes(storage_root), bytes(code_hash)


def _storage_proof(storage: HexaryTrie, key: Any) -> dict[str, Any]:
    """Return the proof of one storage key, which callers write as a number or as padded bytes."""
    if isinstance(key, str) and len(key) == 66:
        slot = read_bytes(key, "storage key", 32)
    else:
        slot = read_quantity(key, "storage key").to_bytes(32, "big")
    data = bytes(storage[keccak256(slot)])
    value = int.from_bytes(bytes(cast("bytes", rlp.decode(data))), "big") if data else 0
    return {"key": key, "value": hex(value), "proof": _nodes(storage, keccak256(slot))}


def _nodes(trie: HexaryTrie, key: Hash32) -> list[str]:
    """Return the nodes from the root down; the last one is where the key lies or where its absence shows."""
    return [write_bytes(rlp_encode(node)) for node in trie.get_proof(key) if node]


SUGGESTED_TIP_WEI = 10**9
MAXIMUM_HISTORY = 256
MAXIMUM_PERCENTILES = 32


def fee_history(records: Records, newest: ExecutionPayload, count: int, percentiles: Any) -> dict[str, Any]:
    """Return base fees, fullness and tips of the last blocks up to `newest`, as eth_feeHistory defines them."""
    wanted = _percentiles(percentiles)
    payloads: list[ExecutionPayload] = []
    payload: ExecutionPayload | None = newest
    while payload is not None and len(payloads) < min(count, MAXIMUM_HISTORY):
        payloads.append(payload)
        payload = records.payload(payload.parent_hash) if payload.number else None
    payloads.reverse()
    base_fees_wei = [entry.base_fee_wei for entry in payloads] + [next_base_fee_wei(newest)]
    history: dict[str, Any] = {
        "oldestBlock": hex(payloads[0].number if payloads else newest.number),
        "baseFeePerGas": [hex(fee_wei) for fee_wei in base_fees_wei],
        "gasUsedRatio": [entry.gas_used / entry.gas_limit for entry in payloads],
        "baseFeePerBlobGas": ["0x1"] * len(base_fees_wei),
        "blobGasUsedRatio": [0.0] * len(payloads),
    }
    if wanted is not None:
        history["reward"] = [_tips(records, entry, wanted) for entry in payloads]
    return history


def _percentiles(value: Any) -> list[float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAXIMUM_PERCENTILES:
        raise build_argument_error(f"percentiles are a list of at most {MAXIMUM_PERCENTILES}")
    if any(isinstance(entry, bool) or not isinstance(entry, int | float) or not 0 <= entry <= 100 for entry in value):
        raise build_argument_error("percentiles lie between 0 and 100")
    return [float(entry) for entry in value]


def _tips(records: Records, payload: ExecutionPayload, percentiles: list[float]) -> list[str]:
    """Return, for each percentile of the block's gas, the tip that was paid there."""
    paid = sorted(
        (receipt.price_wei - payload.base_fee_wei, receipt.gas_used) for receipt in records.receipts(payload.block_hash)
    )
    return [hex(_tip_at(paid, payload.gas_used * percentile / 100)) for percentile in percentiles]


def _tip_at(paid: list[tuple[int, int]], gas: float) -> int:
    reached = 0
    for tip_wei, gas_used in paid:
        reached += gas_used
        if reached >= gas:
            return tip_wei
    return paid[-1][0] if paid else 0
