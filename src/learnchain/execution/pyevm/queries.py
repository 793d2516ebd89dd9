"""Which logs a filter of eth_getLogs and of subscriptions matches.

Answer Ethereum's JSON-RPC from the records: what wallets, explorers and web3 libraries ask.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.cryptography import keccak256
from learnchain.execution.pyevm import json_values
from learnchain.execution.pyevm.json_values import fee_history
from learnchain.execution.pyevm.records import ExecutionHead, Records
from learnchain.execution.pyevm.simulation import Call, HeadView, call_trace, check_tracer
from learnchain.execution.pyevm.transactions import TransactionPool, decode_transaction, logs_bloom, next_base_fee_wei
from learnchain.protocol.payload import MAXIMUM_TRANSACTION_BYTES, ExecutionPayload, Log
from learnchain.rejection import Rejected, RejectionReason


def may_hold(payload: ExecutionPayload, addresses: tuple[Address, ...], topics: tuple[tuple[Hash32, ...], ...]) -> bool:
    """Say whether the block's bloom filter leaves a match possible."""
    bloom = int.from_bytes(payload.logs_bloom, "big")

    def possible(entry: bytes) -> bool:
        bits = int.from_bytes(logs_bloom([Log(entry, (), b"", b"", 0)]), "big")
        return bloom & bits == bits

    if addresses and not any(possible(address) for address in addresses):
        return False
    return all(not place or any(possible(topic) for topic in place) for place in topics)


def matches(log: Log, addresses: tuple[Address, ...], topics: tuple[tuple[Hash32, ...], ...]) -> bool:
    """Say whether a log is one of the addresses' and has the wanted topic, or one of them, in every place."""
    if addresses and log.address not in addresses:
        return False
    if len(log.topics) < len(topics):
        return False
    return all(not place or topic in place for place, topic in zip(topics, log.topics, strict=False))


MAXIMUM_LOG_RANGE = 2_000
MAXIMUM_LOGS = 10_000
_HASH_LENGTH = 66
_ZERO_ADDRESS: Address = b"\0" * 20


class Queries:
    """Answer one method at a time; `latest` is the head that consensus chose, whatever its number."""

    def __init__(
        self,
        records: Records,
        pool: TransactionPool,
        chain_id: int,
        head: ExecutionHead,
        submit: Callable[[bytes], Hash32],
    ) -> None:
        self._records = records
        self._pool = pool
        self._chain_id = chain_id
        self._head = head
        self._submit = submit

    def answer(self, method: str, params: Sequence[Any]) -> Any:
        """Return the JSON answer of a method; refuse unknown methods and wrong arguments."""
        handler = _METHODS.get(method)
        if handler is None:
            raise Rejected(RejectionReason.METHOD_UNKNOWN, method[:64])
        function, least, most = handler
        if not least <= len(params) <= most:
            raise json_values.build_argument_error(f"{method} takes {least} to {most} arguments")
        return function(self, *params)

    # --- the chain ---------------------------------------------------------------------------------------------

    def chain_id(self) -> str:
        """Return the chain id."""
        return hex(self._chain_id)

    def network(self) -> str:
        """Return the chain id in decimal."""
        return str(self._chain_id)

    def block_number(self) -> str:
        """Return the head's number."""
        return hex(self._latest().number)

    def block_by_number(self, tag: Any, full: Any = False) -> Any:
        """Return a block by number or tag; null when there is none."""
        payload = self._find_tag(tag)
        return None if payload is None else self._block(payload, full)

    def block_by_hash(self, block_hash: Any, full: Any = False) -> Any:
        """Return a block of any branch by its hash; null when it is unknown."""
        payload = self._records.payload(json_values.read_fixed(block_hash, "block hash", 32))
        return None if payload is None else self._block(payload, full)

    def block_receipts(self, tag: Any) -> Any:
        """Return all receipts of a block; null when it is unknown."""
        payload = self._find_tag(tag)
        if payload is None:
            return None
        receipts = self._records.receipts(payload.block_hash)
        recipients = [decode_transaction(raw, self._chain_id).recipient for raw in payload.transactions]
        return [
            json_values.write_receipt(receipt, payload, index, recipients[index])
            for index, receipt in enumerate(receipts)
        ]

    def transaction_count_by_number(self, tag: Any) -> Any:
        """Return how many transactions a block holds; null when it is unknown."""
        payload = self._find_tag(tag)
        return None if payload is None else hex(len(payload.transactions))

    def transactions_in(self, block_hash: Any) -> Any:
        """Return how many transactions a block holds, by its hash; null when it is unknown."""
        return self.transaction_count_by_number({"blockHash": block_hash})

    def transaction_by_number_and_index(self, tag: Any, index: Any) -> Any:
        """Return a transaction by its place in a block; null when there is none."""
        payload, place = self._find_tag(tag), json_values.read_quantity(index, "index")
        if payload is None or place >= len(payload.transactions):
            return None
        return json_values.write_transaction(
            decode_transaction(payload.transactions[place], self._chain_id), payload, place
        )

    def transaction_in(self, block_hash: Any, index: Any) -> Any:
        """Return a transaction by its place in a block that is named by its hash."""
        return self.transaction_by_number_and_index({"blockHash": block_hash}, index)

    def gas_price(self) -> str:
        """Return a price that the next block accepts."""
        return hex(next_base_fee_wei(self._latest()) + json_values.SUGGESTED_TIP_WEI)

    def tip(self) -> str:
        """Return a tip that producers accept."""
        return hex(json_values.SUGGESTED_TIP_WEI)

    def fee_history(self, count: Any, newest: Any, percentiles: Any = None) -> Any:
        """Return base fees, fullness and tips of recent blocks."""
        number = count if isinstance(count, int) and count >= 0 else json_values.read_quantity(count, "block count")
        return fee_history(self._records, self._payload_of_tag(newest), number, percentiles)

    # --- accounts ----------------------------------------------------------------------------------------------

    def balance(self, address: Any, tag: Any = "latest") -> str:
        """Return a balance in wei."""
        return hex(self._view(tag).account(json_values.read_address(address))[1])

    def transaction_count(self, address: Any, tag: Any = "latest") -> str:
        """Return a sender's next nonce; `pending` counts waiting transactions."""
        sender = json_values.read_address(address)
        nonce = self._view(tag).account(sender)[0]
        return hex(self._pool.next_nonce(sender, nonce) if tag == "pending" else nonce)

    def code(self, address: Any, tag: Any = "latest") -> str:
        """Return the code of an address."""
        return json_values.write_bytes(self._view(tag).code(json_values.read_address(address)))

    def storage(self, address: Any, slot: Any, tag: Any = "latest") -> str:
        """Return one storage word."""
        return json_values.write_bytes(
            self._view(tag).storage(json_values.read_address(address), json_values.read_quantity(slot, "slot"))
        )

    def proof(self, address: Any, keys: Any, tag: Any = "latest") -> Any:
        """Return an account, storage words and the trie nodes that prove them."""
        payload = self._payload_of_tag(tag)
        self._records.check_state(payload)
        return json_values.account_proof(self._records, payload.state_root, json_values.read_address(address), keys)

    # --- calls and transactions --------------------------------------------------------------------------------

    def call(self, call: Any, tag: Any = "latest") -> str:
        """Run a call without a trace and return its output."""
        return json_values.write_bytes(self._view(tag).call(self._read_call(call)))

    def estimate(self, call: Any, tag: Any = "latest") -> str:
        """Return gas that suffices for a call."""
        return hex(self._view(tag).estimate(self._read_call(call)))

    def send(self, raw: Any) -> str:
        """Admit a signed transaction and return its hash."""
        return json_values.write_bytes(
            self._submit(json_values.read_bytes(raw, "transaction", MAXIMUM_TRANSACTION_BYTES))
        )

    def transaction(self, transaction_hash: Any) -> Any:
        """Return a transaction by hash, also a waiting one."""
        digest = json_values.read_fixed(transaction_hash, "transaction hash", 32)
        location = self._records.location(digest)
        if location is None:
            waiting = self._pool.find(digest)
            return None if waiting is None else json_values.write_transaction(waiting)
        payload = self._records.load_payload(location.block_hash)
        decoded = decode_transaction(payload.transactions[location.index], self._chain_id)
        return json_values.write_transaction(decoded, payload, location.index)

    def receipt(self, transaction_hash: Any) -> Any:
        """Return the receipt of a transaction on the chosen chain."""
        location = self._records.location(json_values.read_fixed(transaction_hash, "transaction hash", 32))
        if location is None:
            return None
        payload = self._records.load_payload(location.block_hash)
        receipt = self._records.receipts(location.block_hash)[location.index]
        decoded = decode_transaction(payload.transactions[location.index], self._chain_id)
        return json_values.write_receipt(receipt, payload, location.index, decoded.recipient)

    def trace(self, transaction_hash: Any, options: Any = None) -> Any:
        """Return the call tree of a transaction on the chosen chain."""
        only_top = check_tracer(options)
        location = self._records.location(json_values.read_fixed(transaction_hash, "transaction hash", 32))
        if location is None:
            raise json_values.build_argument_error("the transaction is not on the chain")
        payload = self._records.load_payload(location.block_hash)
        return call_trace(self._records, self._chain_id, payload, location.index, only_top)

    def digest(self, data: Any) -> str:
        """Return the Keccak-256 of bytes."""
        return json_values.write_bytes(keccak256(json_values.read_bytes(data, "data")))

    def logs(self, criteria: Any) -> Any:
        """Return the events that match a filter."""
        wanted = json_values.read_object(criteria, "filter")
        addresses, topics = (
            json_values.read_addresses(wanted.get("address")),
            json_values.read_topics(wanted.get("topics")),
        )
        found: list[dict[str, Any]] = []
        for payload in self._range(wanted):
            if not may_hold(payload, addresses, topics):
                continue
            for index, receipt in enumerate(self._records.receipts(payload.block_hash)):
                matching = [log for log in receipt.logs if matches(log, addresses, topics)]
                found.extend(json_values.write_log(log, payload, index) for log in matching)
            if len(found) > MAXIMUM_LOGS:
                raise json_values.build_argument_error(f"more than {MAXIMUM_LOGS} logs; ask for fewer blocks")
        return found

    # --- reading arguments -------------------------------------------------------------------------------------

    def _latest(self) -> ExecutionPayload:
        return self._records.load_payload(self._head.head)

    def _view(self, tag: Any) -> HeadView:
        return HeadView(self._records, self._chain_id, self._payload_of_tag(tag))

    def _payload_of_tag(self, tag: Any) -> ExecutionPayload:
        payload = self._find_tag(tag)
        if payload is None:
            raise json_values.build_argument_error("the block is not known")
        return payload

    def _find_tag(self, tag: Any) -> ExecutionPayload | None:
        """Return the payload that a tag, a number, a hash or an EIP-1898 object names."""
        if isinstance(tag, dict):
            if "blockHash" in tag:
                return self._records.payload(json_values.read_fixed(tag["blockHash"], "block hash", 32))
            tag = tag.get("blockNumber")
        if isinstance(tag, str) and len(tag) == _HASH_LENGTH:
            return self._records.payload(json_values.read_fixed(tag, "block hash", 32))
        named = {
            "latest": self._head.head,
            "pending": self._head.head,
            "safe": self._head.safe,
            "finalized": self._head.finalized,
        }
        if isinstance(tag, str) and tag in named:
            block_hash: Hash32 | None = named[tag]
        else:
            number = 0 if tag == "earliest" else json_values.read_quantity(tag, "block")
            block_hash = self._records.canonical(number) if number < 2**64 else None
        return None if block_hash is None else self._records.payload(block_hash)

    def _read_call(self, call: Any) -> Call:
        fields = json_values.read_object(call, "call")
        gas_limit = self._latest().gas_limit
        gas = json_values.read_quantity(fields["gas"], "gas") if fields.get("gas") else gas_limit
        recipient = fields.get("to")
        data = fields.get("input", fields.get("data")) or "0x"
        return Call(
            sender=json_values.read_address(fields.get("from") or json_values.write_bytes(_ZERO_ADDRESS)),
            recipient=json_values.read_address(recipient) if recipient else None,
            gas=min(gas, gas_limit),
            value_wei=json_values.read_quantity(fields.get("value") or "0x0", "value"),
            data=json_values.read_bytes(data, "data"),
            access_list=json_values.read_access_list(fields.get("accessList")),
        )

    def _block(self, payload: ExecutionPayload, full: Any) -> dict[str, Any]:
        if full is not True:
            hashes = [receipt.transaction_hash for receipt in self._records.receipts(payload.block_hash)]
            return json_values.write_block(payload, [json_values.write_bytes(digest) for digest in hashes])
        transactions = [
            json_values.write_transaction(decode_transaction(raw, self._chain_id), payload, index)
            for index, raw in enumerate(payload.transactions)
        ]
        return json_values.write_block(payload, transactions)

    def _range(self, wanted: Any) -> Iterator[ExecutionPayload]:
        if wanted.get("blockHash") is not None:
            yield self._payload_of_tag({"blockHash": wanted["blockHash"]})
            return
        first = self._payload_of_tag(wanted.get("fromBlock") or "latest").number
        last_tag = wanted.get("toBlock") or "latest"
        last_payload = self._find_tag(last_tag)
        last = self._latest().number if last_payload is None else last_payload.number
        if last - first >= MAXIMUM_LOG_RANGE:
            raise json_values.build_argument_error(f"the range holds more than {MAXIMUM_LOG_RANGE} blocks")
        for number in range(first, last + 1):
            yield self._payload_of_tag(hex(number))


def _constant(value: Any) -> Callable[..., Any]:
    def answer(_queries: Queries, *_arguments: Any) -> Any:
        return value

    return answer


_METHODS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "eth_chainId": (Queries.chain_id, 0, 0),
    "eth_blockNumber": (Queries.block_number, 0, 0),
    "eth_getBlockByNumber": (Queries.block_by_number, 1, 2),
    "eth_getBlockByHash": (Queries.block_by_hash, 1, 2),
    "eth_getBlockReceipts": (Queries.block_receipts, 1, 1),
    "eth_getBlockTransactionCountByHash": (Queries.transactions_in, 1, 1),
    "eth_getBlockTransactionCountByNumber": (Queries.transaction_count_by_number, 1, 1),
    "eth_getTransactionByBlockHashAndIndex": (Queries.transaction_in, 2, 2),
    "eth_getTransactionByBlockNumberAndIndex": (Queries.transaction_by_number_and_index, 2, 2),
    "eth_getUncleCountByBlockHash": (_constant("0x0"), 1, 1),
    "eth_getUncleCountByBlockNumber": (_constant("0x0"), 1, 1),
    "eth_getProof": (Queries.proof, 2, 3),
    "eth_blobBaseFee": (_constant("0x1"), 0, 0),
    "debug_traceTransaction": (Queries.trace, 1, 2),
    "web3_sha3": (Queries.digest, 1, 1),
    "eth_getBalance": (Queries.balance, 1, 2),
    "eth_getTransactionCount": (Queries.transaction_count, 1, 2),
    "eth_getCode": (Queries.code, 1, 2),
    "eth_getStorageAt": (Queries.storage, 2, 3),
    "eth_call": (Queries.call, 1, 2),
    "eth_estimateGas": (Queries.estimate, 1, 2),
    "eth_gasPrice": (Queries.gas_price, 0, 0),
    "eth_maxPriorityFeePerGas": (Queries.tip, 0, 0),
    "eth_feeHistory": (Queries.fee_history, 2, 3),
    "eth_sendRawTransaction": (Queries.send, 1, 1),
    "eth_getTransactionReceipt": (Queries.receipt, 1, 1),
    "eth_getTransactionByHash": (Queries.transaction, 1, 1),
    "eth_getLogs": (Queries.logs, 1, 1),
    "eth_syncing": (_constant(False), 0, 0),
    "eth_accounts": (_constant([]), 0, 0),
    "net_version": (Queries.network, 0, 0),
    "net_listening": (_constant(True), 0, 0),
    "web3_clientVersion": (_constant("learnchain-pyevm/0.1.0"), 0, 0),
}

ETHEREUM_METHODS = tuple(_METHODS)
