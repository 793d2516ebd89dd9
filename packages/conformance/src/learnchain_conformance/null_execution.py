"""`NullEngine`: a ledger of withdrawals behind the same door, for simulations of thousands of nodes; no contracts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import tagged_hash
from learnchain.execution.engine import EngineInfo
from learnchain.execution.genesis import genesis_balances, genesis_chain_id, genesis_start
from learnchain.protocol.payload import (
    GWEI_WEI,
    ExecutionPayload,
    Log,
    PayloadAttributes,
    PayloadStatus,
    PayloadStatusCode,
    Withdrawal,
    encode_payload,
)
from learnchain.rejection import Rejected, RejectionReason, Unavailable

ZERO_PAYLOAD_HASH: Hash32 = b"\0" * 32


_UINT64_LIMIT = 2**64


_EMPTY_BLOOM = b"\0" * 256


class NullEngine:
    """Keep who was paid what, by payload; each payload stores only the balances it changed."""

    __slots__ = ("_balances", "_chain_id", "_gas_limit", "_genesis_hash", "_head", "_payloads")

    def __init__(self, genesis: Mapping[str, Any]) -> None:
        self._chain_id = genesis_chain_id(genesis)
        self._gas_limit, seconds = genesis_start(genesis)
        self._balances: dict[Hash32, dict[Address, int]] = {}
        self._payloads: dict[Hash32, ExecutionPayload] = {}
        balances = dict(genesis_balances(genesis))
        first = PayloadAttributes(seconds, ZERO_PAYLOAD_HASH, b"\0" * 20, (), ZERO_PAYLOAD_HASH)
        payload = self._payload(ZERO_PAYLOAD_HASH, 0, first, _ledger_root(ZERO_PAYLOAD_HASH, balances))
        self._genesis_hash = payload.block_hash
        self._head = payload.block_hash
        self._keep(payload, balances)

    def capabilities(self) -> EngineInfo:
        """Return the engine's name, rules, chain and head."""
        head = self._payloads[self._head]
        return EngineInfo(
            "learnchain-null",
            "0.1.0",
            "none",
            self._chain_id,
            self._genesis_hash,
            head.block_hash,
            head.number,
            self._gas_limit,
        )

    def build(
        self, parent_hash: Hash32, attributes: PayloadAttributes, transactions: tuple[bytes, ...] = ()
    ) -> ExecutionPayload:
        """Build on any known payload; the ledger knows no transactions, so that all are left out."""
        parent = self._find_payload(parent_hash)
        if not parent.timestamp_seconds < attributes.timestamp_seconds < _UINT64_LIMIT:
            raise Rejected(RejectionReason.TIMESTAMP_WRONG, "the time does not follow the parent's")
        for withdrawal in attributes.withdrawals:
            if max(withdrawal.index, withdrawal.validator_index, withdrawal.amount_gwei) >= _UINT64_LIMIT:
                raise Rejected(RejectionReason.WITHDRAWALS_WRONG, "a number of a withdrawal exceeds 64 bits")
        changed = self._credit_withdrawals(parent_hash, attributes.withdrawals)
        return self._payload(parent_hash, parent.number + 1, attributes, _ledger_root(parent.state_root, changed))

    def new_payload(self, payload: ExecutionPayload, beacon_root: Hash32) -> PayloadStatus:
        """Judge a payload by building it again; a second time changes nothing."""
        parent = self._payloads.get(payload.parent_hash)
        latest = ZERO_PAYLOAD_HASH if parent is None else parent.block_hash
        if payload.beacon_root != beacon_root:
            return PayloadStatus(PayloadStatusCode.INVALID, latest, "the beacon root is another")
        try:
            if _hash(payload) != payload.block_hash:
                raise Rejected(RejectionReason.PAYLOAD_INVALID, "the content does not hash to the block hash")
            if payload.block_hash in self._payloads:
                return PayloadStatus(PayloadStatusCode.VALID, payload.block_hash)
            if parent is None:
                return PayloadStatus(PayloadStatusCode.SYNCING, ZERO_PAYLOAD_HASH, "the parent payload is unknown")
            if self.build(payload.parent_hash, _attributes_of(payload)) != payload:
                raise Rejected(RejectionReason.PAYLOAD_INVALID, "execution gives another payload")
        except Rejected as problem:
            return PayloadStatus(PayloadStatusCode.INVALID, latest, problem.detail[:512])
        self._keep(payload, self._credit_withdrawals(payload.parent_hash, payload.withdrawals))
        return PayloadStatus(PayloadStatusCode.VALID, payload.block_hash)

    def set_head(self, head: Hash32, safe: Hash32, finalized: Hash32) -> PayloadStatus:
        """Make a known payload the head, on whatever branch."""
        if head not in self._payloads:
            return PayloadStatus(PayloadStatusCode.SYNCING, self._head, "the head payload is unknown")
        for named in (safe, finalized):
            if named != ZERO_PAYLOAD_HASH and not self._is_ancestor(named, head):
                raise Rejected(RejectionReason.ARGUMENT_INVALID, "safe and finalized must be ancestors of the head")
        self._head = head
        return PayloadStatus(PayloadStatusCode.VALID, head)

    def logs(self, block_hash: Hash32, address: Address) -> tuple[Log, ...]:
        """Return nothing: there are no contracts; raise `Unavailable` for an unknown payload."""
        self._find_payload(block_hash)
        return ()

    def balance(self, block_hash: Hash32, address: Address) -> int:
        """Return a balance in wei after one known payload; raise `Unavailable` for an unknown one."""
        payload = self._find_payload(block_hash)
        while address not in self._balances[payload.block_hash]:
            if payload.number == 0:
                return 0
            payload = self._payloads[payload.parent_hash]
        return self._balances[payload.block_hash][address]

    def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Answer the three calls that need no accounts; refuse the others."""
        answers = {
            "eth_chainId": hex(self._chain_id),
            "eth_blockNumber": hex(self._payloads[self._head].number),
            "net_version": str(self._chain_id),
        }
        if method not in answers:
            raise Rejected(RejectionReason.METHOD_UNKNOWN, method[:64])
        if params:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{method} takes no arguments")
        return answers[method]

    def _find_payload(self, block_hash: Hash32) -> ExecutionPayload:
        payload = self._payloads.get(block_hash)
        if payload is None:
            raise Unavailable(f"execution payload 0x{block_hash.hex()}")
        return payload

    def _keep(self, payload: ExecutionPayload, changed: dict[Address, int]) -> None:
        self._payloads[payload.block_hash] = payload
        self._balances[payload.block_hash] = changed

    def _credit_withdrawals(self, parent_hash: Hash32, withdrawals: tuple[Withdrawal, ...]) -> dict[Address, int]:
        changed: dict[Address, int] = {}
        for withdrawal in withdrawals:
            before = changed.get(withdrawal.address)
            if before is None:
                before = self.balance(parent_hash, withdrawal.address)
            changed[withdrawal.address] = before + withdrawal.amount_gwei * GWEI_WEI
        return changed

    def _is_ancestor(self, block_hash: Hash32, head: Hash32) -> bool:
        ancestor, payload = self._find_payload(block_hash), self._payloads[head]
        while payload.number > ancestor.number:
            payload = self._payloads[payload.parent_hash]
        return payload.block_hash == block_hash

    def _payload(
        self, parent_hash: Hash32, number: int, attributes: PayloadAttributes, root: Hash32
    ) -> ExecutionPayload:
        payload = ExecutionPayload(
            parent_hash=parent_hash,
            fee_recipient=attributes.fee_recipient,
            state_root=root,
            receipts_root=ZERO_PAYLOAD_HASH,
            logs_bloom=_EMPTY_BLOOM,
            prev_randao=attributes.prev_randao,
            number=number,
            gas_limit=self._gas_limit,
            gas_used=0,
            timestamp_seconds=attributes.timestamp_seconds,
            extra_data=b"",
            base_fee_wei=0,
            block_hash=ZERO_PAYLOAD_HASH,
            transactions=(),
            withdrawals=attributes.withdrawals,
            blob_gas_used=0,
            excess_blob_gas=0,
            beacon_root=attributes.beacon_root,
            execution_requests=(),
        )
        return replace(payload, block_hash=_hash(payload))


def _hash(payload: ExecutionPayload) -> Hash32:
    return tagged_hash("NullEngine/payload", encode_payload(replace(payload, block_hash=ZERO_PAYLOAD_HASH)))


def _ledger_root(parent_root: Hash32, changed: Mapping[Address, int]) -> Hash32:
    entries = [address + balance_wei.to_bytes(32, "big") for address, balance_wei in sorted(changed.items())]
    return tagged_hash("NullEngine/ledger", parent_root, *entries)


def _attributes_of(payload: ExecutionPayload) -> PayloadAttributes:
    return PayloadAttributes(
        payload.timestamp_seconds,
        payload.prev_randao,
        payload.fee_recipient,
        payload.withdrawals,
        payload.beacon_root,
    )
