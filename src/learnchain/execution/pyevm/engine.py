"""`PyEvmEngine`: the embedded execution engine behind the door, persistent over any key-value store."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from learnchain.encoding.codec import Address, Hash32
from learnchain.encoding.files import KeyValueStore
from learnchain.execution.engine import EngineInfo
from learnchain.execution.genesis import genesis_chain_id, genesis_payload
from learnchain.execution.pyevm import records
from learnchain.execution.pyevm.execution import (
    BlockExecution,
    Environment,
    ExecutionOutcome,
    InterpreterFault,
    environment_of,
    environment_on,
)
from learnchain.execution.pyevm.pruning import PruningPolicy, StatePruner
from learnchain.execution.pyevm.queries import Queries
from learnchain.execution.pyevm.simulation import HeadView
from learnchain.execution.pyevm.transactions import (
    Transaction,
    TransactionPool,
    block_hash,
    compute_ordered_root,
    decode_transaction,
    encode_receipt,
    logs_bloom,
    next_base_fee_wei,
    seal_payload,
)
from learnchain.protocol.payload import (
    MAXIMUM_PAYLOAD_BYTES,
    MAXIMUM_TRANSACTIONS,
    ExecutionPayload,
    Log,
    PayloadAttributes,
    PayloadStatus,
    PayloadStatusCode,
    Withdrawal,
    encode_payload,
)
from learnchain.rejection import Rejected, RejectionReason

ENGINE_NAME = "learnchain-pyevm"
ENGINE_VERSION = "0.1.0"
ZERO_PAYLOAD_HASH: Hash32 = b"\0" * 32
_TRANSACTIONS_BYTES = MAXIMUM_PAYLOAD_BYTES - 256 * 1024
"""What transactions may fill of a payload; the rest is for withdrawals and the header."""
_LEAST_GAS = 21_000
_LISTING_MARGIN = 1_024
_UINT64_LIMIT = 2**64


class PyEvmEngine:
    """Execute Prague blocks with py-evm; every `new_payload` and `set_head` is one atomic write.

    All states are kept unless `keeping` says otherwise.
    """

    def __init__(self, store: KeyValueStore, genesis: Mapping[str, Any], keeping: PruningPolicy | None = None) -> None:
        self._records = records.Records(store)
        self._collector = StatePruner(self._records, keeping or PruningPolicy())
        self._chain_id = genesis_chain_id(genesis)
        self._pool = TransactionPool()
        self._head = self._open(genesis)
        self._gas_limit = self._records.load_payload(self._head.head).gas_limit
        self._view = HeadView(self._records, self._chain_id, self._records.load_payload(self._head.head))
        self._waiting = self._records.read_pool_transactions()
        for raw in self._waiting.values():
            self._return(raw)

    @property
    def pool(self) -> TransactionPool:
        """Return the waiting transactions."""
        return self._pool

    def capabilities(self) -> EngineInfo:
        """Return the engine's name, rules, chain and head."""
        head = self._records.load_payload(self._head.head)
        genesis_hash = self._records.canonical(0) or ZERO_PAYLOAD_HASH
        return EngineInfo(
            ENGINE_NAME,
            ENGINE_VERSION,
            "prague",
            self._chain_id,
            genesis_hash,
            head.block_hash,
            head.number,
            head.gas_limit,
        )

    def build(
        self, parent_hash: Hash32, attributes: PayloadAttributes, transactions: tuple[bytes, ...] = ()
    ) -> ExecutionPayload:
        """Build on any known payload: the given transactions first, then the pool's; what cannot run is left out."""
        parent = self._records.load_payload(parent_hash)
        _check_withdrawals(attributes.withdrawals)
        if not parent.timestamp_seconds < attributes.timestamp_seconds < _UINT64_LIMIT:
            detail = f"{attributes.timestamp_seconds} s does not follow the parent's {parent.timestamp_seconds} s"
            raise Rejected(RejectionReason.TIMESTAMP_WRONG, detail)
        environment = environment_on(parent, attributes, next_base_fee_wei(parent))
        execution = BlockExecution(self._records, parent, self._chain_id, environment)
        filler = _Filler(execution, parent.gas_limit)
        filler.add_given(transactions, self._chain_id)
        filler.add_pool(self._pool, environment.base_fee_wei)
        outcome = execution.finish(attributes.withdrawals)
        return _assemble(environment, tuple(filler.raw), attributes.withdrawals, outcome)

    def new_payload(self, payload: ExecutionPayload, beacon_root: Hash32) -> PayloadStatus:
        """Execute a payload in full and keep it when it is valid; a second time changes nothing."""
        parent = self._records.payload(payload.parent_hash)
        try:
            self._check_content(payload, beacon_root)
            if self._records.payload(payload.block_hash) is not None:
                return PayloadStatus(PayloadStatusCode.VALID, payload.block_hash)
            if parent is None:
                return PayloadStatus(PayloadStatusCode.SYNCING, ZERO_PAYLOAD_HASH, "the parent payload is unknown")
            _check_header(payload, parent)
            if not self._records.has_state(parent):
                return PayloadStatus(
                    PayloadStatusCode.SYNCING, ZERO_PAYLOAD_HASH, "the state of the parent payload is not kept"
                )
            outcome = self._execute(payload, parent)
        except Rejected as problem:
            latest = ZERO_PAYLOAD_HASH if parent is None else parent.block_hash
            return PayloadStatus(PayloadStatusCode.INVALID, latest, problem.detail[:512])
        self._records.put(self._records.build_execution_batch(payload, outcome.receipts, outcome.nodes))
        return PayloadStatus(PayloadStatusCode.VALID, payload.block_hash)

    def set_head(self, head: Hash32, safe: Hash32, finalized: Hash32) -> PayloadStatus:
        """Make a known payload the head, on whatever branch; transactions of left blocks return to the pool."""
        payload = self._records.payload(head)
        if payload is None:
            return PayloadStatus(PayloadStatusCode.SYNCING, self._head.head, "the head payload is unknown")
        removed, added = self._paths(payload)
        self._check_on_branch(added, payload, (safe, finalized))
        batch: records.Batch = {}
        for old in removed:
            batch |= records.removal_batch(old, self._hashes(old))
        for new in reversed(added):
            batch |= records.canonical_batch(new, self._hashes(new))
        chosen = records.ExecutionHead(head, safe, finalized)
        self._records.put(batch | records.head_batch(chosen))
        self._head = chosen
        self._view = HeadView(self._records, self._chain_id, payload)
        self._refresh_pool(removed, added)
        self._keep_pool()
        self._collector.step(chosen)
        return PayloadStatus(PayloadStatusCode.VALID, head)

    def logs(self, block_hash: Hash32, address: Address) -> tuple[Log, ...]:
        """Return the events of one contract in one known payload; raise `Unavailable` for an unknown one."""
        receipts = self._records.receipts(block_hash)
        return tuple(log for receipt in receipts for log in receipt.logs if log.address == address)

    def balance(self, block_hash: Hash32, address: Address) -> int:
        """Return a balance in wei after one known payload; raise `Unavailable` for an unknown one."""
        payload = self._records.load_payload(block_hash)
        return HeadView(self._records, self._chain_id, payload).account(address)[1]

    def submit(self, raw: bytes) -> Hash32:
        """Admit a raw transaction to the pool and return its hash; refuse one that could never run."""
        transaction = decode_transaction(raw, self._chain_id)
        if transaction.chain_id is None:
            raise Rejected(RejectionReason.TRANSACTION_INVALID, "transactions without a chain id can be replayed")
        head = self._records.load_payload(self._head.head)
        if transaction.gas > head.gas_limit:
            raise Rejected(RejectionReason.TRANSACTION_INVALID, f"{transaction.gas} gas are more than a block holds")
        self._pool.add(transaction, self._view.account)
        return transaction.hash

    def rpc(self, method: str, params: Sequence[Any]) -> Any:
        """Answer one `eth_*`, `net_*` or `web3_*` call with JSON values; raise `Rejected` for a wrong one."""
        queries = Queries(self._records, self._pool, self._chain_id, self._head, self.submit)
        return queries.answer(method, params)

    def _open(self, genesis: Mapping[str, Any]) -> records.ExecutionHead:
        payload, nodes = genesis_payload(genesis)
        head = self._records.head()
        if head is None:
            head = records.ExecutionHead(payload.block_hash, ZERO_PAYLOAD_HASH, ZERO_PAYLOAD_HASH)
            batch = (
                self._records.build_execution_batch(payload, (), nodes)
                | records.canonical_batch(payload, ())
                | records.head_batch(head)
            )
            self._records.put(batch | records.listing_batch(0))
        elif self._records.canonical(0) != payload.block_hash:
            raise Rejected(RejectionReason.WRONG_CHAIN, "the store belongs to another genesis; use an empty one")
        elif self._records.first_listed_number() is None:
            # A store of an earlier version: what lies on no chosen branch is listed nowhere until it is long past.
            self._records.put(records.listing_batch(self._records.load_payload(head.head).number + _LISTING_MARGIN))
        return head

    def _check_content(self, payload: ExecutionPayload, beacon_root: Hash32) -> None:
        """Refuse a payload whose bytes are out of bounds or do not hash to the name it bears, cheapest checks first."""
        encode_payload(payload)
        if payload.beacon_root != beacon_root:
            raise Rejected(RejectionReason.PAYLOAD_INVALID, "the beacon root is another")
        if payload.gas_limit != self._gas_limit or len(payload.transactions) * _LEAST_GAS > self._gas_limit:
            raise Rejected(RejectionReason.PAYLOAD_INVALID, "the gas limit is not the chain's, or too much is in it")
        if block_hash(payload) != payload.block_hash:
            raise Rejected(RejectionReason.PAYLOAD_INVALID, "the content does not hash to the block hash")

    def _execute(self, payload: ExecutionPayload, parent: ExecutionPayload) -> ExecutionOutcome:
        """Re-execute a payload; refuse it unless every result is exactly what the payload claims."""
        environment = environment_of(payload)
        transactions = [decode_transaction(raw, self._chain_id) for raw in payload.transactions]
        execution = BlockExecution(self._records, parent, self._chain_id, environment)
        for transaction in transactions:
            execution.apply(transaction)
        outcome = execution.finish(payload.withdrawals)
        computed = _assemble(environment, payload.transactions, payload.withdrawals, outcome)
        computed = seal_payload(replace(computed, extra_data=payload.extra_data))
        if computed != payload:
            names = [name for name in payload.__slots__ if getattr(payload, name) != getattr(computed, name)]
            raise Rejected(RejectionReason.PAYLOAD_INVALID, f"execution gives another {', '.join(names)}")
        return outcome

    def _paths(self, head: ExecutionPayload) -> tuple[list[ExecutionPayload], list[ExecutionPayload]]:
        """Return the payloads that leave and that join the chosen chain, both from the tip downwards."""
        old, new = self._records.load_payload(self._head.head), head
        removed: list[ExecutionPayload] = []
        added: list[ExecutionPayload] = []
        while old.block_hash != new.block_hash:
            if old.number >= new.number:
                removed.append(old)
                old = self._records.load_payload(old.parent_hash)
            else:
                added.append(new)
                new = self._records.load_payload(new.parent_hash)
        return removed, added

    def _check_on_branch(
        self, added: list[ExecutionPayload], head: ExecutionPayload, hashes: tuple[Hash32, Hash32]
    ) -> None:
        numbers = {payload.number: payload.block_hash for payload in added}
        fork = min(numbers, default=head.number + 1)
        for named in hashes:
            if named == ZERO_PAYLOAD_HASH:
                continue
            payload = self._records.load_payload(named)
            chosen = numbers.get(payload.number) if payload.number >= fork else self._records.canonical(payload.number)
            if payload.number > head.number or chosen != named:
                raise Rejected(RejectionReason.ARGUMENT_INVALID, "safe and finalized must be ancestors of the head")

    def _hashes(self, payload: ExecutionPayload) -> tuple[Hash32, ...]:
        return tuple(receipt.transaction_hash for receipt in self._records.receipts(payload.block_hash))

    def _refresh_pool(self, removed: list[ExecutionPayload], added: list[ExecutionPayload]) -> None:
        """Return what left the chain to the pool and drop what joined it."""
        receipts: list[records.Receipt] = []
        for payload in (*removed, *added):
            receipts.extend(self._records.receipts(payload.block_hash))
        for sender in {receipt.sender for receipt in receipts}:
            self._pool.drop_below(sender, self._view.account(sender)[0])
        for payload in reversed(removed):
            for raw in payload.transactions:
                self._return(raw)

    def _keep_pool(self) -> None:
        """Write what has waited since the last move: a node that restarts need not ask for it again."""
        now = {transaction.hash: transaction.raw for transaction in self._pool.transactions()}
        batch = records.build_pool_batch(self._waiting, now)
        if batch:
            self._records.put(batch)
        self._waiting = now

    def _return(self, raw: bytes) -> None:
        try:
            self._pool.add(decode_transaction(raw, self._chain_id), self._view.account)
        except Rejected:
            # Included on the new branch too, or no longer payable there: it has no claim to wait.
            return


class _Filler:
    """Fill a block: what fits and runs stays, everything else is left out."""

    __slots__ = ("_execution", "_gas_limit", "_size_bytes", "raw")

    def __init__(self, execution: BlockExecution, gas_limit: int) -> None:
        self._execution = execution
        self._gas_limit = gas_limit
        self._size_bytes = 0
        self.raw: list[bytes] = []

    def add_given(self, transactions: Iterable[bytes], chain_id: int) -> None:
        """Add the producer's own transactions."""
        for raw in transactions:
            try:
                self._add(decode_transaction(raw, chain_id))
            except Rejected:
                continue

    def add_pool(self, pool: TransactionPool, base_fee_wei: int) -> None:
        """Add waiting transactions, best paid first, while gas is left."""
        waiting = pool.best(base_fee_wei)
        failed: bool | None = None
        while self._gas_limit - self._execution.gas_used >= _LEAST_GAS:
            try:
                transaction = waiting.send(failed)
            except StopIteration:
                return
            try:
                failed = not self._try(transaction)
            except InterpreterFault:
                # It pays nothing, so it may not cost this time again in the next block.
                pool.remove(transaction)
                failed = True

    def _try(self, transaction: Transaction) -> bool:
        """Add a waiting transaction; one that this branch holds already is no obstacle to the sender's next."""
        if transaction.nonce < self._execution.nonce(transaction.sender):
            return True
        try:
            self._add(transaction)
        except InterpreterFault:
            raise
        except Rejected:
            return False
        return True

    def _add(self, transaction: Transaction) -> None:
        size_bytes = self._size_bytes + len(transaction.raw)
        if size_bytes > _TRANSACTIONS_BYTES or len(self.raw) >= MAXIMUM_TRANSACTIONS:
            raise Rejected(RejectionReason.TOO_LARGE, "the payload is full")
        self._execution.apply(transaction)
        self._size_bytes = size_bytes
        self.raw.append(transaction.raw)


def _assemble(
    environment: Environment,
    transactions: tuple[bytes, ...],
    withdrawals: tuple[Withdrawal, ...],
    outcome: ExecutionOutcome,
) -> ExecutionPayload:
    encoded = [
        encode_receipt(receipt.kind, receipt.succeeded, receipt.cumulative_gas, receipt.logs)
        for receipt in outcome.receipts
    ]
    payload = ExecutionPayload(
        parent_hash=environment.parent_hash,
        fee_recipient=environment.fee_recipient,
        state_root=outcome.state_root,
        receipts_root=compute_ordered_root(encoded),
        logs_bloom=logs_bloom([log for receipt in outcome.receipts for log in receipt.logs]),
        prev_randao=environment.prev_randao,
        number=environment.number,
        gas_limit=environment.gas_limit,
        gas_used=outcome.gas_used,
        timestamp_seconds=environment.timestamp_seconds,
        extra_data=b"",
        base_fee_wei=environment.base_fee_wei,
        block_hash=ZERO_PAYLOAD_HASH,
        transactions=transactions,
        withdrawals=withdrawals,
        blob_gas_used=0,
        excess_blob_gas=0,
        beacon_root=environment.beacon_root,
        execution_requests=outcome.requests,
    )
    return seal_payload(payload)


def _check_header(payload: ExecutionPayload, parent: ExecutionPayload) -> None:
    _check_withdrawals(payload.withdrawals)
    rules = (
        (payload.number == parent.number + 1, "the number does not follow the parent's"),
        (parent.timestamp_seconds < payload.timestamp_seconds < _UINT64_LIMIT, "the time does not follow the parent's"),
        (payload.base_fee_wei == next_base_fee_wei(parent), "the base fee does not follow from the parent"),
        (payload.blob_gas_used == 0 and payload.excess_blob_gas == 0, "blobs are not allowed"),
    )
    for holds, problem in rules:
        if not holds:
            raise Rejected(RejectionReason.PAYLOAD_INVALID, problem)


def _check_withdrawals(withdrawals: tuple[Withdrawal, ...]) -> None:
    for withdrawal in withdrawals:
        if max(withdrawal.index, withdrawal.validator_index, withdrawal.amount_gwei) >= _UINT64_LIMIT:
            raise Rejected(RejectionReason.WITHDRAWALS_WRONG, "a number of a withdrawal exceeds 64 bits")
