"""Funded keys, a genesis and a builder of payloads, shared by the tests of the execution room."""

from dataclasses import dataclass, field
from typing import Any

from eth_account import Account

from learnchain.encoding.cryptography import address_of
from learnchain.execution.engine import BlockingEngine
from learnchain.execution.genesis import execution_genesis
from learnchain.protocol.payload import ExecutionPayload, PayloadAttributes, PayloadStatusCode, Withdrawal

CHAIN_ID = 1_337
GENESIS_SECONDS = 1_000
KEYS = tuple(bytes([index]) * 32 for index in range(1, 6))
ADDRESSES = tuple(address_of(key) for key in KEYS)
ETHER = 10**18
NONE = b"\0" * 32


def genesis(gas_limit: int = 6_000_000) -> dict[str, Any]:
    return execution_genesis(CHAIN_ID, GENESIS_SECONDS, gas_limit, dict.fromkeys(ADDRESSES, 100 * ETHER))


def signed(key: bytes, nonce: int, to: bytes = b"\x99" * 20, **changes: Any) -> bytes:
    fields = {
        "type": 2,
        "chainId": CHAIN_ID,
        "nonce": nonce,
        "maxFeePerGas": 10 * 10**9,
        "maxPriorityFeePerGas": 10**9,
        "gas": 21_000,
        "to": to,
        "value": 1,
        "data": b"",
    } | changes
    return bytes(Account.sign_transaction({name: value for name, value in fields.items() if value is not None}, key)[0])


@dataclass
class Chain:
    """Drive an engine as consensus does: build, judge, choose."""

    door: BlockingEngine
    head: bytes = b""
    seconds: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.head = self.door.capabilities().head
        self.seconds[self.head] = GENESIS_SECONDS

    def build(self, transactions: tuple[bytes, ...] = (), **changes: Any) -> ExecutionPayload:
        parent = changes.pop("parent", self.head)
        attributes = PayloadAttributes(
            timestamp_seconds=self.seconds[parent] + changes.pop("step_seconds", 12),
            prev_randao=changes.pop("randao", b"\x07" * 32),
            fee_recipient=changes.pop("miner", b"\xaa" * 20),
            withdrawals=changes.pop("withdrawals", ()),
            beacon_root=changes.pop("beacon_root", b"\x0b" * 32),
        )
        assert not changes
        payload = self.door.build(parent, attributes, transactions)
        self.seconds[payload.block_hash] = attributes.timestamp_seconds
        return payload

    def accept(self, payload: ExecutionPayload) -> ExecutionPayload:
        status = self.door.new_payload(payload, payload.beacon_root)
        assert status.status == PayloadStatusCode.VALID, status.detail
        return payload

    def choose(self, payload_hash: bytes) -> None:
        assert self.door.set_head(payload_hash, NONE, NONE).status == PayloadStatusCode.VALID
        self.head = payload_hash

    def extend(self, *transactions: bytes, **changes: Any) -> ExecutionPayload:
        payload = self.accept(self.build(transactions, **changes))
        self.choose(payload.block_hash)
        return payload


def reward(address: bytes, amount_gwei: int, index: int = 0) -> Withdrawal:
    return Withdrawal(index, 0, address, amount_gwei)
