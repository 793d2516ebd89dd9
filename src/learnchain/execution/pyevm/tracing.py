"""Show what a transaction called: it is run again on its block's state, and the interpreter's call tree is read off."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from eth.exceptions import OutOfGas, Revert
from eth.vm.forks.prague.computation import PragueComputation
from eth.vm.forks.prague.state import PragueState

from learnchain.execution.pyevm.execution import BlockExecution
from learnchain.execution.pyevm.json_values import read_object, write_bytes, wrong_argument
from learnchain.execution.pyevm.records import Receipt, Records
from learnchain.execution.pyevm.simulation import revert_reason
from learnchain.execution.pyevm.state import environment_of
from learnchain.execution.pyevm.transactions import decode_transaction
from learnchain.primitives.payload import ExecutionPayload

MAXIMUM_FRAMES = 10_000
_CALLS = {0xF0: "CREATE", 0xF1: "CALL", 0xF2: "CALLCODE", 0xF4: "DELEGATECALL", 0xF5: "CREATE2", 0xFA: "STATICCALL"}
_CODE_OF_ANOTHER = ("CALLCODE", "DELEGATECALL")


def check_tracer(options: Any) -> bool:
    """Return whether only the outermost call is wanted; refuse every tracer but `callTracer`."""
    fields = read_object(options or {}, "options")
    if fields.get("tracer") != "callTracer":
        raise wrong_argument('the one tracer here is {"tracer": "callTracer"}')
    configuration = read_object(fields.get("tracerConfig") or {}, "tracerConfig")
    return configuration.get("onlyTopCall") is True


def call_trace(
    records: Records, chain_id: int, payload: ExecutionPayload, index: int, only_top: bool
) -> dict[str, Any]:
    """Return the call tree of one transaction of a kept payload, as geth's callTracer writes it."""
    kinds: dict[int, str] = {}
    parent = records.known_payload(payload.parent_hash)
    execution = BlockExecution(records, parent, chain_id, environment_of(payload), _recording_state(kinds))
    for raw in payload.transactions[:index]:
        execution.apply(decode_transaction(raw, chain_id))
    kinds.clear()
    transaction = decode_transaction(payload.transactions[index], chain_id)
    computation, receipt = execution.run(transaction)
    tree = _Tree(kinds, only_top).frame(computation, "CALL" if transaction.recipient else "CREATE", transaction.sender)
    return tree | _outermost(receipt, transaction.gas)


def _outermost(receipt: Receipt, gas: int) -> dict[str, str]:
    """Return what the whole transaction bought and used: the interpreter's own numbers lack the intrinsic gas."""
    return {"gas": hex(gas), "gasUsed": hex(receipt.gas_used)}


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
            raise wrong_argument(f"the transaction makes more than {MAXIMUM_FRAMES} calls")
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
