"""Write nouns as JSON that people can read, and read them back by their annotations; only for vectors and documents.

Consensus never uses this form. Bytes are hexadecimal, exact numbers are text, one of several nouns is named.

Write and run the vectors: small JSON files that say what an implementation must answer, one folder per engine.

A case is a call of a pure function, the canonical bytes of a noun, or a run of events through the spine. `fill`
writes all files anew, `run` recomputes a file from its inputs alone.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from learnchain.consensus import advance, audits, begin, validity
from learnchain.encoding.codec import decode, encode
from learnchain.encoding.hashing import message_hash
from learnchain.engines.contract import Rules
from learnchain.protocol import audit_messages, dispute_messages, events, messages, model_specification, selection
from learnchain.protocol.actions import OpenHeight
from learnchain.protocol.events import Event
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason
from learnchain_conformance import references
from learnchain_conformance.engine_scenarios import all_scenarios


def to_json(value: Any, annotation: Any) -> Any:
    """Return the JSON form of a value under its annotation."""
    kind, arguments = _unwrap_annotation(annotation)
    if value is None or isinstance(value, bool | int) or kind is str:
        return value
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, StrEnum | Decimal | Fraction):
        return str(value)
    if kind is Union:
        chosen = type(value)
        return {chosen.__name__: to_json(value, chosen)} if _is_name_needed(arguments) else to_json(value, chosen)
    if kind is tuple:
        return [to_json(each, inner) for each, inner in _pair_items(value, arguments)]
    if isinstance(value, Mapping):
        return [[to_json(key, arguments[0]), to_json(each, arguments[1])] for key, each in sorted(value.items())]
    if is_dataclass(value):
        hints = get_type_hints(type(value), include_extras=True)
        return {each.name: to_json(getattr(value, each.name), hints[each.name]) for each in fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_json(value: Any, annotation: Any) -> Any:
    """Return the value that `to_json` wrote; anything else is `MALFORMED`."""
    kind, arguments = _unwrap_annotation(annotation)
    try:
        return _read_value(value, kind, arguments)
    except (ValueError, KeyError, AttributeError, IndexError) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{value!r} is no {annotation}") from error


def _read_value(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    if kind is Union:
        return _read_union(value, arguments)
    if kind is bytes:
        return bytes.fromhex(value.removeprefix("0x"))
    if kind is tuple:
        return tuple(from_json(each, inner) for each, inner in _pair_items(value, arguments))
    if kind is dict:
        return {from_json(key, arguments[0]): from_json(each, arguments[1]) for key, each in value}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind, include_extras=True)
        return kind(**{each.name: from_json(value[each.name], hints[each.name]) for each in fields(kind)})
    if kind in (bool, int, str):
        return value
    return kind(value)


def _read_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    if value is None and NoneType in arguments:
        return None
    if not _is_name_needed(arguments):
        return from_json(value, next(each for each in arguments if each is not NoneType))
    name, content = next(iter(value.items()))
    return from_json(content, {each.__name__: each for each in arguments if each is not NoneType}[name])


def _unwrap_annotation(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return what an annotation is made of, without its bounds."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, UnionType) or origin is Union:
        return Union, tuple(each for each in arguments)
    return (origin or annotation), arguments


def _is_name_needed(arguments: tuple[Any, ...]) -> bool:
    """Return whether several nouns are possible, so that the chosen one must be named."""
    return len([each for each in arguments if each is not NoneType]) > 1


def _pair_items(values: Any, arguments: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Pair the items of a tuple with their annotations; `tuple[X, ...]` repeats one."""
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return [(each, arguments[0]) for each in values]
    return list(zip(values, arguments, strict=True))


_SHARED = (
    model_specification.model_bytes,
    model_specification.training_flops_per_sample,
    messages.work_id,
    messages.training_record_hash,
    messages.release_root,
    messages.commitment_digest,
    messages.attestation_digest,
    messages.empty_block_tie_breaker,
    messages.block_consensus_root,
    audits.audit_seed,
    audits.assign_segments,
    audit_messages.report_digest,
    selection.Schedule.deadline,
    validity.check_key_release,
    validity.check_release,
    validity.check_opening,
    references.derive_public_key,
    references.encrypt_sample,
    references.functional_key,
    references.open_product,
    references.watermark_rows,
    references.regularised_gradient,
)


_WITHOUT_PREFIX = frozenset({"dlbc", "pole", "proof_of_work"})
"""Engines whose vectors were written before a fourth engine made the names of functions ambiguous."""


CALLS: dict[str, Callable[..., Any]] = {each.__qualname__: each for each in _SHARED}


for _play in all_scenarios():
    _prefix = "" if _play.rules.name in _WITHOUT_PREFIX else f"{_play.rules.name}."
    CALLS.update({_prefix + each.__qualname__: each for each in _play.calls})


_NAMES = {function: name for name, function in CALLS.items()}
"""Every function that a vector may call, by its name."""


ENGINES: dict[str, type] = {type(play.rules).__name__: type(play.rules) for play in all_scenarios()}


Case = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Vector:
    """Join the cases that show one thing, with the reading that they belong to."""

    path: str
    about: str
    cases: tuple[Case, ...]
    interpretation: str = ""

    def text(self) -> str:
        """Return the content of the file."""
        content = {"about": self.about, "interpretation": self.interpretation, "cases": list(self.cases)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# --- writing -----------------------------------------------------------------------------------------------------


def build_call_case(function: Callable[..., Any], **arguments: Any) -> Case:
    """Return a case that calls a function and keeps its result or the reason for which it refuses."""
    hints = _resolve_hints(function)
    inputs = {name: to_json(value, hints[name]) for name, value in arguments.items()}
    return {"call": _NAMES[function], "input": inputs, "expected": _call_function(function, inputs)}


def build_message_case(value: Any) -> Case:
    """Return a case with the fields, the canonical bytes and the hash of a noun."""
    kind = type(value)
    fields = to_json(value, kind)
    return {"message": kind.__name__, "input": fields, "expected": _encode_canonical(kind, fields)}


def build_walk_case(
    rules: Rules, parameters: ChainParameters, genesis: ChainState, happened: tuple[Event, ...]
) -> Case:
    """Return a case that feeds events to the spine; the last one may be refused."""
    inputs = {
        "engine": {type(rules).__name__: to_json(rules, type(rules))},
        "parameters": "0x" + encode(parameters).hex(),
        "genesis": to_json(genesis, ChainState),
        "events": [to_json(each, Event) for each in happened],
    }
    return {"spine": "advance", "input": inputs, "expected": _walk_events(inputs)}


def write_vectors(directory: Path) -> tuple[Path, ...]:
    """Write all vectors below a directory; return the files in order."""
    from learnchain_conformance.vector_cases import all_vectors

    written: list[Path] = []
    for vector in all_vectors():
        path = directory / vector.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(vector.text())
        written.append(path)
    return tuple(sorted(written))


# --- running -----------------------------------------------------------------------------------------------------


def run_vector_file(path: Path) -> list[tuple[Any, Any]]:
    """Recompute every case of a file from its inputs; return what is expected with what came out."""
    content = json.loads(path.read_text())
    return [(case["expected"], _rerun(case)) for case in content["cases"]]


def _rerun(case: Case) -> Any:
    if "call" in case:
        return _call_function(CALLS[case["call"]], case["input"])
    if "message" in case:
        return _encode_canonical(_list_message_kinds()[case["message"]], case["input"])
    return _walk_events(case["input"])


def _call_function(function: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    hints = _resolve_hints(function)
    arguments = {name: from_json(value, hints[name]) for name, value in inputs.items()}
    try:
        answer = function(**arguments)
    except Rejected as error:
        return {"rejected": error.reason.value}
    return {"result": to_json(answer, hints["return"])}


def _resolve_hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    owner, _, method = function.__qualname__.partition(".")
    if method:
        hints["self"] = getattr(sys.modules[function.__module__], owner)
    return hints


def _encode_canonical(kind: type, fields: dict[str, Any]) -> dict[str, str]:
    value = from_json(fields, kind)
    data = encode(value)
    if decode(kind, data) != value:
        raise AssertionError(f"{kind.__name__} does not come back from its bytes")
    return {"bytes": "0x" + data.hex(), "hash": "0x" + message_hash(value).hex()}


def _list_message_kinds() -> dict[str, type]:
    named = {**vars(messages), **vars(audit_messages), **vars(dispute_messages), **vars(events)}
    return {name: each for name, each in named.items() if isinstance(each, type)}


def _walk_events(inputs: dict[str, Any]) -> dict[str, Any]:
    parameters = decode(ChainParameters, bytes.fromhex(inputs["parameters"][2:]))
    (name, fields), *_ = inputs["engine"].items()
    rules: Rules = from_json(fields, ENGINES[name])
    state, actions = begin(rules, parameters, from_json(inputs["genesis"], ChainState))
    steps: list[Any] = []
    for each in inputs["events"]:
        try:
            state, actions = advance(state, from_json(each, Event))
        except Rejected as error:
            steps.append({"rejected": error.reason.value})
        else:
            steps.append([_describe_action(action) for action in actions])
    head = state.head
    return {
        "actions": steps,
        "head": "0x" + head.block.hex(),
        "height": head.height,
        "weight": head.weight,
        "selected": "0x" + state.selection.task.task_id.hex(),
    }


def _describe_action(action: Any) -> str:
    """Return an action's name; of an opened height also which task was selected."""
    name = type(action).__name__
    if isinstance(action, OpenHeight):
        return f"{name} {action.selection.height} {action.selection.posted_task.specification.name}"
    return name
