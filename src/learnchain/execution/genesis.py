"""Build the execution genesis, in the JSON that geth reads, and its block: Prague rules from the first block on."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from trie import HexaryTrie

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import keccak256
from learnchain.execution.pyevm.transactions import EMPTY_TRIE_ROOT, integer_bytes, rlp_encode, seal_payload
from learnchain.protocol.payload import ExecutionPayload, encode_payload
from learnchain.rejection import Rejected, RejectionReason

ESCROW_ADDRESS: Address = bytes.fromhex("1ea6c4a1000000000000000000000000000e5c60")
"""Where `TaskEscrow` stands on every chain."""
DEFAULT_GAS_LIMIT = 6_000_000
"""Adversarial code runs at 0.5-1.2 Mgas/s in the embedded engine, so that a worst block takes seconds, not minutes."""
MINIMUM_GAS_LIMIT = 5_000
INITIAL_BASE_FEE_WEI = 10**9
BEACON_ROOTS_ADDRESS: Address = bytes.fromhex("000f3df6d732807ef1319fb7b8bb8522d0beac02")
BLOCK_HASHES_ADDRESS: Address = bytes.fromhex("0000f90827f1c53a10cb7a02335b175320002935")
WITHDRAWAL_REQUESTS_ADDRESS: Address = bytes.fromhex("00000961ef480eb55e80d19ad83579a64c007002")
CONSOLIDATION_REQUESTS_ADDRESS: Address = bytes.fromhex("0000bbddc7ce488642fb579f8b00f3a590007251")
_SYSTEM_CALLER = "3373fffffffffffffffffffffffffffffffffffffffe14"
_INHIBITOR = "f" * 64

_PREDEPLOYS = {
    BEACON_ROOTS_ADDRESS: _SYSTEM_CALLER
    + "604d57602036146024575f5ffd5b5f35801560495762001fff810690815414603c575f5ffd5b62001fff01545f5260205ff35b5f5ffd"
    + "5b62001fff42064281555f359062001fff015500",
    BLOCK_HASHES_ADDRESS: _SYSTEM_CALLER
    + "604657602036036042575f35600143038111604257611fff81430311604257611fff9006545f5260205ff35b5f5ffd5b5f35611fff60"
    + "014303065500",
    WITHDRAWAL_REQUESTS_ADDRESS: _SYSTEM_CALLER
    + "60cb5760115f54807f"
    + _INHIBITOR
    + "146101f457600182026001905f5b5f82111560685781019083028483029004916001019190604d565b9093900492505050366038146088"
    + "57366101f457346101f4575f5260205ff35b34106101f457600154600101600155600354806003026004013381556001015f3581556001"
    + "0160203590553360601b5f5260385f601437604c5fa0600101600355005b6003546002548082038060101160df575060105b5f5b818114"
    + "6101835782810160030260040181604c02815460601b8152601401816001015481526020019060020154807f"
    + "f" * 32
    + "0" * 32
    + "168252906010019060401c908160381c81600701538160301c81600601538160281c81600501538160201c81600401538160181c816003"
    + "01538160101c81600201538160081c81600101535360010160e1565b910180921461019557906002556101a0565b90505f6002555f6003"
    + "555b5f54807f"
    + _INHIBITOR
    + "14156101cd57505f5b6001546002828201116101e25750505f6101e8565b01600290035b5f555f600155604c025ff35b5f5ffd",
    CONSOLIDATION_REQUESTS_ADDRESS: _SYSTEM_CALLER
    + "60d35760115f54807f"
    + _INHIBITOR
    + "1461019a57600182026001905f5b5f82111560685781019083028483029004916001019190604d565b9093900492505050366060146088"
    + "573661019a573461019a575f5260205ff35b341061019a57600154600101600155600354806004026004013381556001015f3581556001"
    + "01602035815560010160403590553360601b5f5260605f60143760745fa0600101600355005b6003546002548082038060021160e75750"
    + "60025b5f5b8181146101295782810160040260040181607402815460601b81526014018160010154815260200181600201548152602001"
    + "9060030154905260010160e9565b910180921461013b5790600255610146565b90505f6002555f6003555b5f54807f"
    + _INHIBITOR
    + "141561017357505f5b6001546001828201116101885750505f61018e565b01600190035b5f555f6001556074025ff35b5f5ffd",
}
"""Runtime code of the four system contracts, from EIP-4788, 2935, 7002 and 7251."""


@cache
def escrow_artifact() -> dict[str, Any]:
    """Return what the pinned compiler made of `contracts/TaskEscrow.sol`."""
    path = files("learnchain.execution").joinpath("artifacts", "TaskEscrow.json")
    artifact: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return artifact


def execution_genesis(
    chain_id: int, timestamp_seconds: int, gas_limit: int, allocations: Mapping[Address, int]
) -> dict[str, Any]:
    """Return a geth-format genesis: predeploys, the escrow and the given balances in wei, difficulty zero."""
    if chain_id < 1 or timestamp_seconds < 0 or gas_limit < MINIMUM_GAS_LIMIT:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "chain id, time or gas limit of the genesis is out of range")
    alloc: dict[str, dict[str, str]] = {}
    for address, balance_wei in sorted(allocations.items()):
        if len(address) != 20 or not 0 <= balance_wei < 2**128 or address in (*_PREDEPLOYS, ESCROW_ADDRESS):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"no allocation for 0x{address.hex()} is possible")
        alloc[_hex(address)] = {"balance": hex(balance_wei)}
    for address, code in _PREDEPLOYS.items():
        alloc[_hex(address)] = {"balance": "0x0", "nonce": "0x1", "code": "0x" + code}
    alloc[_hex(ESCROW_ADDRESS)] = {"balance": "0x0", "nonce": "0x1", "code": escrow_artifact()["deployedBytecode"]}
    return {
        "config": _fork_configuration(chain_id),
        "nonce": "0x0",
        "timestamp": hex(timestamp_seconds),
        "extraData": "0x",
        "gasLimit": hex(gas_limit),
        "difficulty": "0x0",
        "mixHash": _hex(b"\0" * 32),
        "coinbase": _hex(b"\0" * 20),
        "number": "0x0",
        "gasUsed": "0x0",
        "parentHash": _hex(b"\0" * 32),
        "baseFeePerGas": hex(INITIAL_BASE_FEE_WEI),
        "excessBlobGas": "0x0",
        "blobGasUsed": "0x0",
        "alloc": alloc,
    }


def genesis_block_hash(genesis: Mapping[str, Any]) -> Hash32:
    """Return the hash of the genesis block; every stock client computes the same."""
    return genesis_payload(genesis)[0].block_hash


def genesis_chain_id(genesis: Mapping[str, Any]) -> int:
    """Return the chain id that a genesis names."""
    with _reading():
        return _number(genesis["config"]["chainId"])


def genesis_start(genesis: Mapping[str, Any]) -> tuple[int, int]:
    """Return the gas limit and the time in seconds that a chain starts with."""
    with _reading():
        return _number(genesis["gasLimit"]), _number(genesis["timestamp"])


def genesis_payload(genesis: Mapping[str, Any]) -> tuple[ExecutionPayload, dict[bytes, bytes]]:
    """Return the genesis block as a payload, and the trie nodes and codes of its state; refuse a malformed one."""
    with _reading():
        payload, nodes = _genesis_payload(genesis)
    encode_payload(payload)
    return payload, nodes


def _genesis_payload(genesis: Mapping[str, Any]) -> tuple[ExecutionPayload, dict[bytes, bytes]]:
    nodes: dict[bytes, bytes] = {}
    payload = ExecutionPayload(
        parent_hash=_bytes(genesis["parentHash"]),
        fee_recipient=_bytes(genesis["coinbase"]),
        state_root=_state_root(genesis["alloc"], nodes),
        receipts_root=EMPTY_TRIE_ROOT,
        logs_bloom=b"\0" * 256,
        prev_randao=_bytes(genesis["mixHash"]),
        number=0,
        gas_limit=_number(genesis["gasLimit"]),
        gas_used=0,
        timestamp_seconds=_number(genesis["timestamp"]),
        extra_data=_bytes(genesis["extraData"]),
        base_fee_wei=_number(genesis["baseFeePerGas"]),
        block_hash=b"\0" * 32,
        transactions=(),
        withdrawals=(),
        blob_gas_used=0,
        excess_blob_gas=0,
        beacon_root=b"\0" * 32,
        execution_requests=(),
    )
    return seal_payload(payload), nodes


def genesis_balances(genesis: Mapping[str, Any]) -> Iterator[tuple[Address, int]]:
    """Yield the balances in wei that a genesis allocates."""
    with _reading():
        balances = [(_address(name), _number(account.get("balance", 0))) for name, account in genesis["alloc"].items()]
    yield from balances


def _fork_configuration(chain_id: int) -> dict[str, Any]:
    blocks = [
        "homestead",
        "eip150",
        "eip155",
        "eip158",
        "byzantium",
        "constantinople",
        "petersburg",
        "istanbul",
        "berlin",
        "london",
        "mergeNetsplit",
    ]
    return {
        "chainId": chain_id,
        **{f"{name}Block": 0 for name in blocks},
        "terminalTotalDifficulty": 0,
        "terminalTotalDifficultyPassed": True,
        "shanghaiTime": 0,
        "cancunTime": 0,
        "pragueTime": 0,
        "depositContractAddress": "0x" + "00" * 20,
        "blobSchedule": {
            "cancun": {"target": 3, "max": 6, "baseFeeUpdateFraction": 3_338_477},
            "prague": {"target": 6, "max": 9, "baseFeeUpdateFraction": 5_007_716},
        },
    }


def _state_root(alloc: Mapping[str, Mapping[str, Any]], nodes: dict[bytes, bytes]) -> Hash32:
    trie = HexaryTrie(nodes, EMPTY_TRIE_ROOT)
    with trie.squash_changes() as batch:
        for name, account in alloc.items():
            code = _bytes(account.get("code", "0x"))
            if code:
                nodes[keccak256(code)] = code
            storage = HexaryTrie(nodes, EMPTY_TRIE_ROOT)
            for slot, value in account.get("storage", {}).items():
                if _number(value):
                    storage[keccak256(_bytes(slot).rjust(32, b"\0"))] = rlp_encode(integer_bytes(_number(value)))
            fields = [
                integer_bytes(_number(account.get("nonce", 0))),
                integer_bytes(_number(account.get("balance", 0))),
                bytes(storage.root_hash),
                keccak256(code),
            ]
            batch[keccak256(_address(name))] = rlp_encode(fields)
    return bytes(trie.root_hash)


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what a hostile genesis file makes of its reader into a refusal."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"the execution genesis cannot be read: {error!r}") from error


def _address(text: str) -> Address:
    address = _bytes(text)
    if len(address) != 20:
        raise ValueError(f"{text} is no address")
    return address


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _number(value: int | str) -> int:
    number = value if isinstance(value, int) else int(value, 0)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number
