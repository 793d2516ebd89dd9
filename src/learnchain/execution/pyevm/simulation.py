"""Look at the state after one payload, and run calls on it that leave no trace.

Show what a transaction called: it is run again on its block's state, and the interpreter's call tree is read off.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from eth.exceptions import OutOfGas, Revert
from eth.vm.forks.prague.computation import PragueComputation
from eth.vm.forks.prague.state import PragueState
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth.vm.spoof import SpoofTransaction
from eth_abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_utils import ValidationError

from learnchain.encoding.codec import Address, Hash32
from learnchain.execution.engine import Reverted
from learnchain.execution.pyevm.execution import (
    BlockExecution,
    Computation,
    Overlay,
    State,
    environment_of,
    gas_used_by,
    open_state,
)
from learnchain.execution.pyevm.json_values import build_argument_error, read_object, write_bytes
from learnchain.execution.pyevm.records import Records
from learnchain.execution.pyevm.transactions import decode_transaction, floor_gas, invalid
from learnchain.protocol.payload import ExecutionPayload
from learnchain.rejection import Rejected, RejectionReason

_ERROR_SELECTOR = bytes.fromhex("08c379a0")
_PLAIN_TRANSFER_GAS = 21_000
_STIPEND_GAS = 2_300
_ESTIMATE_ERROR_PERCENT = 2


@dataclass(frozen=True, slots=True)
class Call:
    """Describe a call that is simulated; the sender needs no key, and gas is free."""

    sender: Address
    recipient: Address | None
    gas: int
    value_wei: int
    data: bytes
    access_list: tuple[tuple[Address, tuple[int, ...]], ...] = ()


class HeadView:
    """Read the accounts of one payload's state; nothing that happens here is ever written."""

    __slots__ = ("_chain_id", "_payload", "_records", "_state")

    def __init__(self, records: Records, chain_id: int, payload: ExecutionPayload) -> None:
        self._records = records
        self._chain_id = chain_id
        self._payload = payload
        self._state: State | None = None

    def account(self, address: Address) -> tuple[int, int]:
        """Return nonce and balance in wei of an address."""
        state = self._read()
        return int(state.get_nonce(address)), int(state.get_balance(address))

    def code(self, address: Address) -> bytes:
        """Return the code of an address."""
        return bytes(self._read().get_code(address))

    def storage(self, address: Address, slot: int) -> Hash32:
        """Return one storage word of a contract."""
        return int(self._read().get_storage(address, slot)).to_bytes(32, "big")

    def call(self, call: Call) -> bytes:
        """Return what a call gives; raise `Reverted` when the contract refuses."""
        return bytes(_check_computation(self._run(call)).output)

    def estimate(self, call: Call) -> int:
        """Return gas that suffices for a call, at most a few per cent above the least that does."""
        if call.recipient is not None and not call.data and not self.code(call.recipient):
            _check_computation(self._run(replace(call, gas=_PLAIN_TRANSFER_GAS)))
            return _PLAIN_TRANSFER_GAS
        computation = _check_computation(self._run(call))
        used = gas_used_by(call, computation)
        low, high = used - 1, call.gas
        likely = (used + int(computation.get_gas_refund()) + _STIPEND_GAS) * 64 // 63
        while high - low > max(high * _ESTIMATE_ERROR_PERCENT // 100, 1):
            middle = likely if low < likely < high else (low + high) // 2
            if self._suffices(replace(call, gas=middle)):
                high = middle
            else:
                low = middle
            likely = 0
        return max(high, floor_gas(call.data))

    def _suffices(self, call: Call) -> bool:
        try:
            return not self._run(call).is_error
        except Rejected:
            return False

    def _read(self) -> State:
        if self._state is None:
            self._state = self._open()
        return self._state

    def _open(self) -> State:
        self._records.check_state(self._payload)
        environment = replace(environment_of(self._payload), base_fee_wei=0)
        hashes = self._records.ancestors(self._payload.parent_hash)
        return open_state(Overlay(self._records), self._payload.state_root, self._chain_id, environment, hashes)

    def _run(self, call: Call) -> Computation:
        state = self._open()
        unsigned = cast("Any", PragueTransactionBuilder).new_unsigned_dynamic_fee_transaction(
            chain_id=self._chain_id,
            nonce=state.get_nonce(call.sender),
            max_priority_fee_per_gas=0,
            max_fee_per_gas=0,
            gas=call.gas,
            to=call.recipient or b"",
            value=call.value_wei,
            data=call.data,
            access_list=call.access_list,
        )
        try:
            return state.apply_transaction(cast("Any", SpoofTransaction)(unsigned, from_=call.sender))
        except ValidationError as error:
            raise invalid(f"the call cannot run: {error}") from error


def _check_computation(computation: Computation) -> Computation:
    if not computation.is_error:
        return computation
    if isinstance(computation.error, Revert):
        data = bytes(computation.output)
        reason = revert_reason(data)
        raise Reverted(data, f"execution reverted: {reason}" if reason else "execution reverted")
    detail = f"execution failed: {type(computation.error).__name__} {computation.error}"
    raise Rejected(RejectionReason.EXECUTION_REVERTED, detail)


def revert_reason(data: bytes) -> str:
    """Return the text of Solidity's `Error(string)`; nothing for other errors."""
    if not data.startswith(_ERROR_SELECTOR):
        return ""
    try:
        return str(abi_decode(("string",), data[4:])[0])
    except (DecodingError, UnicodeDecodeError, OverflowError):
        return ""


MAXIMUM_FRAMES = 10_000
_CALLS = {0xF0: "CREATE", 0xF1: "CALL", 0xF2: "CALLCODE", 0xF4: "DELEGATECALL", 0xF5: "CREATE2", 0xFA: "STATICCALL"}
_CODE_OF_ANOTHER = ("CALLCODE", "DELEGATECALL")


def check_tracer(options: Any) -> bool:
    """Return whether only the outermost call is wanted; refuse every tracer but `callTracer`."""
    fields = read_object(options or {}, "options")
    if fields.get("tracer") != "callTracer":
        raise build_argument_error('the one tracer here is {"tracer": "callTracer"}')
    configuration = read_object(fields.get("tracerConfig") or {}, "tracerConfig")
    return configuration.get("onlyTopCall") is True


def call_trace(
    records: Records, chain_id: int, payload: ExecutionPayload, index: int, only_top: bool
) -> dict[str, Any]:
    """Return the call tree of one transaction of a kept payload, as geth's callTracer writes it."""
    kinds: dict[int, str] = {}
    parent = records.load_payload(payload.parent_hash)
    execution = BlockExecution(records, parent, chain_id, environment_of(payload), _recording_state(kinds))
    for raw in payload.transactions[:index]:
        execution.apply(decode_transaction(raw, chain_id))
    kinds.clear()
    transaction = decode_transaction(payload.transactions[index], chain_id)
    computation, receipt = execution.run(transaction)
    tree = _Tree(kinds, only_top).frame(computation, "CALL" if transaction.recipient else "CREATE", transaction.sender)
    # What the whole transaction bought and used: the interpreter's own numbers lack the intrinsic gas.
    return tree | {"gas": hex(transaction.gas), "gasUsed": hex(receipt.gas_used)}


class _Tree:
    __slots__ = ("_count", "_kinds", "_only_top")

    def __init__(self, kinds: Mapping[int, str], only_top: bool) -> None:
        self._kinds = kinds
        self._only_top = only_top
        self._count = 0

    def frame(self, computation: Any, kind: str, caller: bytes) -> dict[str, Any]:
        """Return one call with the calls that it made."""
        self._count += 1
        if self._count > MAXIMUM_FRAMES:
            raise build_argument_error(f"the transaction makes more than {MAXIMUM_FRAMES} calls")
        message = computation.msg
        target = message.code_address if kind in _CODE_OF_ANOTHER else message.storage_address
        frame: dict[str, Any] = {
            "type": kind,
            "from": write_bytes(caller),
            "to": write_bytes(bytes(target)),
            "gas": hex(message.gas),
            "gasUsed": hex(message.gas - computation.get_gas_remaining()),
            "input": write_bytes(bytes(message.code if message.is_create else message.data)),
        }
        if kind != "STATICCALL":
            frame["value"] = hex(message.value)
        frame |= _ending(computation)
        if computation.children and not self._only_top:
            own = bytes(message.storage_address)
            frame["calls"] = [self.frame(each, self._kinds.get(id(each), "CALL"), own) for each in computation.children]
        return frame


def _ending(computation: Any) -> dict[str, str]:
    if not computation.is_error:
        return {"output": write_bytes(bytes(computation.output))} if computation.output else {}
    if isinstance(computation.error, Revert):
        data = bytes(computation.output)
        reason = revert_reason(data)
        answer = {"error": "execution reverted"}
        if data:
            answer["output"] = write_bytes(data)
        return answer | ({"revertReason": reason} if reason else {})
    if isinstance(computation.error, OutOfGas):
        return {"error": "out of gas"}
    return {"error": f"{type(computation.error).__name__}: {computation.error}"[:256]}


def _recording_state(kinds: dict[int, str]) -> Any:
    """Return a state class whose interpreter notes by which instruction each inner call was made."""
    opcodes = dict(cast("Any", PragueComputation).opcodes)
    for code, name in _CALLS.items():
        opcodes[code] = _recording(opcodes[code], name, kinds)
    interpreter = type("RecordingComputation", (PragueComputation,), {"opcodes": opcodes})
    return type("RecordingState", (PragueState,), {"computation_class": interpreter})


def _recording(opcode: Any, name: str, kinds: dict[int, str]) -> Callable[..., None]:
    def run(computation: Any) -> None:
        before = len(computation.children)
        opcode(computation=computation)
        for child in computation.children[before:]:
            kinds[id(child)] = name

    return run
