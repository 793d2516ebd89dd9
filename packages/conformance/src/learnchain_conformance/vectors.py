"""Write and run the vectors: small JSON files that say what an implementation must answer, one folder per engine.

A case is a call of a pure function, the canonical bytes of a noun, or a run of events through the spine. `fill`
writes all files anew, `run` recomputes a file from its inputs alone.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from learnchain.primitives import (
    audit_messages,
    audit_rules,
    block_checks,
    bonds,
    dispute_messages,
    events,
    messages,
    model_costs,
    selection,
)
from learnchain.primitives.actions import OpenHeight
from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.codec import decode, encode
from learnchain.primitives.events import Event
from learnchain.primitives.hashing import noun_hash
from learnchain.primitives.parameters import ChainParameters
from learnchain.primitives.rejection import Rejected
from learnchain.rules.contract import Rules
from learnchain.spine import advance, begin
from learnchain.testing import references
from learnchain.testing.engine_plays import PLAYS
from learnchain.testing.json_nouns import from_json, to_json

_SHARED = (
    model_costs.model_bytes,
    model_costs.training_flops_per_sample,
    messages.work_id,
    messages.trace_root,
    messages.release_root,
    messages.commitment_digest,
    messages.attestation_digest,
    messages.empty_block_ticket,
    messages.consensus_root,
    bonds.challenge_seed,
    audit_rules.assignment,
    audit_messages.report_digest,
    selection.Schedule.deadline,
    block_checks.check_key_release,
    block_checks.check_release,
    block_checks.check_opening,
    references.published_key,
    references.encrypted_sample,
    references.functional_key,
    references.opened_product,
    references.watermark_rows,
    references.regularised_gradient,
)
_WITHOUT_PREFIX = frozenset({"dlbc", "pole", "proof_of_work"})
"""Engines whose vectors were written before a fourth engine made the names of functions ambiguous."""
CALLS: dict[str, Callable[..., Any]] = {each.__qualname__: each for each in _SHARED}
for _play in PLAYS:
    _prefix = "" if _play.rules.name in _WITHOUT_PREFIX else f"{_play.rules.name}."
    CALLS.update({_prefix + each.__qualname__: each for each in _play.calls})
_NAMES = {function: name for name, function in CALLS.items()}
"""Every function that a vector may call, by its name."""
ENGINES: dict[str, type] = {type(play.rules).__name__: type(play.rules) for play in PLAYS}

Case = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Vector:
    """Join the cases that show one thing, with the reading that they belong to."""

    path: str
    about: str
    cases: tuple[Case, ...]
    reading: str = ""

    def text(self) -> str:
        """Return the content of the file."""
        content = {"about": self.about, "reading": self.reading, "cases": list(self.cases)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# --- writing -----------------------------------------------------------------------------------------------------


def call(function: Callable[..., Any], **arguments: Any) -> Case:
    """Return a case that calls a function and keeps its result or the reason for which it refuses."""
    hints = _hints(function)
    inputs = {name: to_json(value, hints[name]) for name, value in arguments.items()}
    return {"call": _NAMES[function], "input": inputs, "expected": _called(function, inputs)}


def noun(value: Any) -> Case:
    """Return a case with the fields, the canonical bytes and the hash of a noun."""
    kind = type(value)
    fields = to_json(value, kind)
    return {"noun": kind.__name__, "input": fields, "expected": _canonical(kind, fields)}


def walk(rules: Rules, parameters: ChainParameters, genesis: ChainState, happened: tuple[Event, ...]) -> Case:
    """Return a case that feeds events to the spine; the last one may be refused."""
    inputs = {
        "engine": {type(rules).__name__: to_json(rules, type(rules))},
        "parameters": "0x" + encode(parameters).hex(),
        "genesis": to_json(genesis, ChainState),
        "events": [to_json(each, Event) for each in happened],
    }
    return {"spine": "advance", "input": inputs, "expected": _walked(inputs)}


def fill(directory: Path) -> tuple[Path, ...]:
    """Write all vectors below a directory; return the files in order."""
    from learnchain.testing.vector_cases import all_vectors

    written: list[Path] = []
    for vector in all_vectors():
        path = directory / vector.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(vector.text())
        written.append(path)
    return tuple(sorted(written))


# --- running -----------------------------------------------------------------------------------------------------


def run(path: Path) -> list[tuple[Any, Any]]:
    """Recompute every case of a file from its inputs; return what is expected with what came out."""
    content = json.loads(path.read_text())
    return [(case["expected"], _rerun(case)) for case in content["cases"]]


def _rerun(case: Case) -> Any:
    if "call" in case:
        return _called(CALLS[case["call"]], case["input"])
    if "noun" in case:
        return _canonical(_noun_kinds()[case["noun"]], case["input"])
    return _walked(case["input"])


def _called(function: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    hints = _hints(function)
    arguments = {name: from_json(value, hints[name]) for name, value in inputs.items()}
    try:
        answer = function(**arguments)
    except Rejected as error:
        return {"rejected": error.reason.value}
    return {"result": to_json(answer, hints["return"])}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    owner, _, method = function.__qualname__.partition(".")
    if method:
        hints["self"] = getattr(sys.modules[function.__module__], owner)
    return hints


def _canonical(kind: type, fields: dict[str, Any]) -> dict[str, str]:
    value = from_json(fields, kind)
    data = encode(value)
    if decode(kind, data) != value:
        raise AssertionError(f"{kind.__name__} does not come back from its bytes")
    return {"bytes": "0x" + data.hex(), "hash": "0x" + noun_hash(value).hex()}


def _noun_kinds() -> dict[str, type]:
    named = {**vars(messages), **vars(audit_messages), **vars(dispute_messages), **vars(events)}
    return {name: each for name, each in named.items() if isinstance(each, type)}


def _walked(inputs: dict[str, Any]) -> dict[str, Any]:
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
            steps.append([_action(action) for action in actions])
    head = state.head
    return {
        "actions": steps,
        "head": "0x" + head.block.hex(),
        "height": head.height,
        "weight": head.weight,
        "selected": "0x" + state.selection.task.task_id.hex(),
    }


def _action(action: Any) -> str:
    """Return an action's name; of an opened height also which task was selected."""
    name = type(action).__name__
    if isinstance(action, OpenHeight):
        return f"{name} {action.selection.height} {action.selection.posted.specification.name}"
    return name
