"""Run one block on a parent's state: system contracts, transactions, withdrawals, requests, and the new state root."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eth.vm.forks.cancun.constants import BEACON_ROOTS_ADDRESS, HISTORY_BUFFER_LENGTH
from eth.vm.forks.prague.constants import (
    CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
    HISTORY_SERVE_WINDOW,
    HISTORY_STORAGE_ADDRESS,
    WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
)
from eth.vm.forks.prague.state import PragueState
from eth.vm.interrupt import EVMMissingData
from eth_utils import ValidationError

from learnchain.encoding.codec import Address, Hash32
from learnchain.execution.pyevm.records import Receipt, Records
from learnchain.execution.pyevm.state import Computation, Environment, Overlay, open_state, system_call
from learnchain.execution.pyevm.transactions import Transaction, check_against_state, invalid
from learnchain.protocol.payload import GWEI_WEI, ExecutionPayload, Log, Withdrawal
from learnchain.rejection import Rejected, RejectionReason, Unavailable

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
