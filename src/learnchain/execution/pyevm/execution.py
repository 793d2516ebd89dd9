"""Run one block on a parent's state: system contracts, transactions, withdrawals, requests, new state root.

py-evm's state stands behind types of our own: over kept trie nodes, writing to memory, in one block's environment.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from eth.constants import SYSTEM_ADDRESS
from eth.db.atomic import AtomicDB
from eth.db.backends.base import BaseDB
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.cancun.constants import BEACON_ROOTS_ADDRESS, HISTORY_BUFFER_LENGTH
from eth.vm.forks.prague.constants import (
    CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
    HISTORY_SERVE_WINDOW,
    HISTORY_STORAGE_ADDRESS,
    WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
)
from eth.vm.forks.prague.state import PragueState
from eth.vm.interrupt import EVMMissingData
from eth.vm.message import Message
from eth_utils import ValidationError

from learnchain.encoding.codec import Address, Hash32
from learnchain.execution.pyevm.records import Receipt, Records
from learnchain.execution.pyevm.transactions import Transaction, check_against_state, invalid
from learnchain.protocol.payload import GWEI_WEI, ExecutionPayload, Log, PayloadAttributes, Withdrawal
from learnchain.rejection import Rejected, RejectionReason, Unavailable

SYSTEM_CALL_GAS = 30_000_000


class State(Protocol):
    """Name what we use of py-evm's state: accounts, storage, transactions, and the root they lead to."""

    state_root: Hash32
    get_nonce: Callable[[Address], int]
    get_balance: Callable[[Address], int]
    get_code: Callable[[Address], bytes]
    get_storage: Callable[[Address, int], int]
    set_storage: Callable[[Address, int, int], None]
    delta_balance: Callable[[Address, int], None]
    account_exists: Callable[[Address], bool]
    account_is_empty: Callable[[Address], bool]
    delete_account: Callable[[Address], None]
    lock_changes: Callable[[], None]
    snapshot: Callable[[], object]
    commit: Callable[[object], None]
    revert: Callable[[object], None]
    persist: Callable[[], object]
    apply_transaction: "Callable[[Any], Computation]"


class Computation(Protocol):
    """Name what we read of a finished execution."""

    msg: Any
    error: Exception
    is_error: bool
    output: bytes
    data_floor_gas: int
    get_gas_remaining: Callable[[], int]
    get_gas_refund: Callable[[], int]
    get_log_entries: Callable[[], tuple[tuple[bytes, tuple[int, ...], bytes], ...]]


class Overlay(BaseDB):
    """Let py-evm write into memory above the kept trie nodes; nothing reaches the store until a batch is put."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.written: dict[bytes, bytes] = {}

    def __getitem__(self, key: bytes) -> bytes:
        value = self.written.get(key)
        if value is None:
            value = self._records.node(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.written[key] = value

    def __delitem__(self, key: bytes) -> None:
        # Another root may share the node: what no kept state needs is collected (`collecting.py`).
        return

    def _exists(self, key: bytes) -> bool:
        return key in self.written or self._records.node(key) is not None


@dataclass(frozen=True, slots=True)
class Environment:
    """Hold what code sees of its block."""

    number: int
    timestamp_seconds: int
    fee_recipient: Address
    prev_randao: Hash32
    gas_limit: int
    base_fee_wei: int
    parent_hash: Hash32
    beacon_root: Hash32


def environment_of(payload: ExecutionPayload) -> Environment:
    """Return the environment that a payload was built in."""
    return Environment(
        payload.number,
        payload.timestamp_seconds,
        payload.fee_recipient,
        payload.prev_randao,
        payload.gas_limit,
        payload.base_fee_wei,
        payload.parent_hash,
        payload.beacon_root,
    )


def environment_on(parent: ExecutionPayload, attributes: PayloadAttributes, base_fee_wei: int) -> Environment:
    """Return the environment of the block that the attributes describe."""
    return Environment(
        parent.number + 1,
        attributes.timestamp_seconds,
        attributes.fee_recipient,
        attributes.prev_randao,
        parent.gas_limit,
        base_fee_wei,
        parent.block_hash,
        attributes.beacon_root,
    )


def open_state(
    overlay: Overlay,
    root: Hash32,
    chain_id: int,
    environment: Environment,
    hashes: Iterator[Hash32],
    state_class: Any = PragueState,
) -> State:
    """Return py-evm's state at a root; `hashes` are the ancestors that BLOCKHASH sees, read only when asked for."""
    context = cast("Any", ExecutionContext)(
        coinbase=environment.fee_recipient,
        timestamp=environment.timestamp_seconds,
        block_number=environment.number,
        difficulty=0,
        mix_hash=environment.prev_randao,
        gas_limit=environment.gas_limit,
        prev_hashes=hashes,
        chain_id=chain_id,
        base_fee_per_gas=environment.base_fee_wei,
        excess_blob_gas=0,
    )
    return cast("State", state_class(AtomicDB(overlay), context, root))


def system_call(state: State, address: Address, code: bytes) -> bytes:
    """Return what a system contract answers to the protocol itself; it runs outside every transaction."""
    evm = cast("Any", state)
    message = cast("Any", Message)(
        gas=SYSTEM_CALL_GAS,
        to=address,
        sender=SYSTEM_ADDRESS,
        value=0,
        data=b"",
        code=code,
        code_address=address,
    )
    context = evm.get_transaction_context_class()(gas_price=0, origin=SYSTEM_ADDRESS)
    return bytes(evm.computation_class.apply_computation(evm, message, context).output)


_REFUND_QUOTIENT = 5

_REQUEST_CONTRACTS = (
    (b"\x01", WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS),
    (b"\x02", CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS),
)


@dataclass(frozen=True, slots=True)
class ExecutionOutcome:
    """Hold what a block's execution gave."""

    state_root: Hash32
    receipts: tuple[Receipt, ...]
    requests: tuple[bytes, ...]
    nodes: dict[bytes, bytes]
    gas_used: int


class InterpreterFault(Rejected):
    """Say that py-evm failed on a transaction in a way that it does not foresee; such a one is never included."""

    def __init__(self, detail: str) -> None:
        super().__init__(RejectionReason.TRANSACTION_INVALID, detail)


class BlockExecution:
    """Execute one block step by step: construct, `apply` transactions, `finish` with the withdrawals."""

    __slots__ = ("_environment", "_log_count", "_overlay", "_receipts", "_state", "gas_used")

    def __init__(
        self,
        records: Records,
        parent: ExecutionPayload,
        chain_id: int,
        environment: Environment,
        state_class: Any = PragueState,
    ) -> None:
        records.check_state(parent)
        self._overlay = Overlay(records)
        self._environment = environment
        hashes = records.ancestors(parent.block_hash)
        self._state = open_state(self._overlay, parent.state_root, chain_id, environment, hashes, state_class)
        self._receipts: list[Receipt] = []
        self._log_count = 0
        self.gas_used = 0
        self._write_roots()

    def nonce(self, address: Address) -> int:
        """Return the sender's next nonce at this point of the block."""
        return int(self._state.get_nonce(address))

    def apply(self, transaction: Transaction) -> Receipt:
        """Run a transaction and return its receipt; refuse one that may not run here, leaving the block unchanged."""
        return self.run(transaction)[1]

    def run(self, transaction: Transaction) -> tuple[Computation, Receipt]:
        """Run a transaction as `apply` does, and return the finished computation beside the receipt."""
        if self.gas_used + transaction.gas > self._environment.gas_limit:
            raise invalid(f"{transaction.gas} gas do not fit into the block")
        state, sender = self._state, transaction.sender
        base_fee_wei = self._environment.base_fee_wei
        check_against_state(
            transaction, state.get_nonce(sender), state.get_balance(sender), state.get_code(sender), base_fee_wei
        )
        computation = self._run(transaction)
        return computation, self._receipt(transaction, computation)

    def finish(self, withdrawals: tuple[Withdrawal, ...]) -> ExecutionOutcome:
        """Credit the withdrawals, collect the requests and return the new state; the execution is spent afterwards."""
        state = self._state
        state.lock_changes()
        for withdrawal in withdrawals:
            state.delta_balance(withdrawal.address, withdrawal.amount_gwei * GWEI_WEI)
        for withdrawal in withdrawals:
            if state.account_exists(withdrawal.address) and state.account_is_empty(withdrawal.address):
                state.delete_account(withdrawal.address)
        requests = tuple(self._requests())
        state.persist()
        return ExecutionOutcome(
            bytes(state.state_root), tuple(self._receipts), requests, self._overlay.written, self.gas_used
        )

    def _write_roots(self) -> None:
        """Write the beacon root (EIP-4788) and the parent's hash (EIP-2935) where their contracts keep them."""
        state, environment = self._state, self._environment
        slot = environment.timestamp_seconds % HISTORY_BUFFER_LENGTH
        root = int.from_bytes(environment.beacon_root, "big")
        if state.get_code(BEACON_ROOTS_ADDRESS):
            state.set_storage(BEACON_ROOTS_ADDRESS, slot, environment.timestamp_seconds)
            state.set_storage(BEACON_ROOTS_ADDRESS, slot + HISTORY_BUFFER_LENGTH, root)
        if state.get_code(HISTORY_STORAGE_ADDRESS):
            slot = (environment.number - 1) % HISTORY_SERVE_WINDOW
            state.set_storage(HISTORY_STORAGE_ADDRESS, slot, int.from_bytes(environment.parent_hash, "big"))

    def _run(self, transaction: Transaction) -> Computation:
        """Run hostile code in an interpreter that may have bugs: one of them must not stop the chain.

        An error that py-evm does not foresee refuses the transaction, on every embedded node alike, and is undone.
        What is missing from the store or from memory is ours and passes through.
        """
        state = self._state
        state.lock_changes()
        checkpoint = state.snapshot()
        try:
            computation = state.apply_transaction(transaction.signed)
        except (Unavailable, EVMMissingData, MemoryError, OSError):
            raise
        except ValidationError as error:
            state.revert(checkpoint)
            raise invalid(f"py-evm refuses the transaction: {error}") from error
        except Exception as error:
            state.revert(checkpoint)
            raise InterpreterFault(f"{type(error).__name__} in py-evm: {error}") from error
        state.commit(checkpoint)
        return computation

    def _receipt(self, transaction: Transaction, computation: Computation) -> Receipt:
        gas_used = gas_used_by(transaction, computation)
        self.gas_used += gas_used
        receipt = Receipt(
            transaction_hash=transaction.hash,
            kind=transaction.kind,
            sender=transaction.sender,
            succeeded=not computation.is_error,
            gas_used=gas_used,
            cumulative_gas=self.gas_used,
            price_wei=transaction.price_wei(self._environment.base_fee_wei),
            contract=bytes(computation.msg.storage_address) if transaction.recipient is None else b"",
            logs=self._logs(transaction, computation),
        )
        self._receipts.append(receipt)
        self._log_count += len(receipt.logs)
        return receipt

    def _logs(self, transaction: Transaction, computation: Computation) -> tuple[Log, ...]:
        if computation.is_error:
            return ()
        return tuple(
            Log(
                bytes(address),
                tuple(int(topic).to_bytes(32, "big") for topic in topics),
                bytes(data),
                transaction.hash,
                self._log_count + offset,
            )
            for offset, (address, topics, data) in enumerate(computation.get_log_entries())
        )

    def _requests(self) -> Iterator[bytes]:
        """Call the two request contracts (EIP-7002, EIP-7251); the deposit contract exists on other chains only."""
        for kind, address in _REQUEST_CONTRACTS:
            code = self._state.get_code(address)
            if not code:
                continue
            self._state.lock_changes()
            output = system_call(self._state, address, code)
            if output:
                yield kind + output


def gas_used_by(transaction: Any, computation: Computation) -> int:
    """Return the gas that a transaction pays for: after refunds (EIP-3529), not below the data floor (EIP-7623).

    py-evm's own sum bounds the refund by another number than the fee it charged; this is the formula of the EIPs,
    and what the executor took from the sender.
    """
    consumed = int(transaction.gas) - int(computation.get_gas_remaining())
    refund = min(int(computation.get_gas_refund()), consumed // _REFUND_QUOTIENT)
    return consumed - refund + int(computation.data_floor_gas)
