"""py-evm's state behind types of our own: over kept trie nodes, writing to memory, in one block's environment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from eth.constants import SYSTEM_ADDRESS
from eth.db.atomic import AtomicDB
from eth.db.backends.base import BaseDB
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.prague.state import PragueState
from eth.vm.message import Message

from learnchain.encoding.codec import Address, Hash32
from learnchain.execution.pyevm.records import Records
from learnchain.protocol.payload import ExecutionPayload, PayloadAttributes

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
