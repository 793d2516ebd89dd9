"""Write and run the vectors: what an implementation must answer, by step, given and expected; see docs/vectors.md.

A case is a call of a pure function, the canonical bytes of a message, or a round of events through the spine.
`write_vectors` writes all files anew, `run_vector_file` recomputes a file from its inputs alone.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from learnchain.consensus import Round, advance, audits, begin, validity
from learnchain.encoding.codec import decode, encode
from learnchain.encoding.cryptography import message_hash
from learnchain.engines.contract import STEPS
from learnchain.protocol import audit_messages, events, messages, model_specification
from learnchain.protocol import state as chain_state
from learnchain.protocol.actions import OpenHeight
from learnchain.protocol.citations import Interpretation
from learnchain.protocol.events import Event
from learnchain.protocol.messages import Deadline
from learnchain.protocol.parameters import ChainParameters
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected
from learnchain.simulation.scenario import ScenarioNode
from learnchain_conformance import references
from learnchain_conformance.bad_inputs import prepare
from learnchain_conformance.engine_scenarios import EngineScenario
from learnchain_conformance.vector_json import Memory, from_json, to_json
from learnchain_conformance.vector_references import GivenValues, SharedValues, lay_out, lift_changes

Case = dict[str, Any]
"""A step, its arguments and what is expected, each whole, as JSON."""


GIVEN = "given.json"


SHARED_STEPS: tuple[Callable[..., Any], ...] = (
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
    chain_state.Schedule.deadline,
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
"""The functions that vectors of any folder may call, each by its own name."""


_DEFAULTS = ("engine", "parameters", "genesis")
"""Arguments that a case need not state: those of its folder."""


@dataclass(frozen=True, slots=True)
class Vector:
    """Join the cases that show one thing, with the interpretations that they belong to."""

    path: str
    about: str
    cases: tuple[Case, ...]
    interpretation: str = ""


# --- cases -------------------------------------------------------------------------------------------------------


def build_vector(path: str, about: str, *cases: Case) -> Vector:
    """Return a vector; the folder's writer adds the interpretations that name its path."""
    return Vector(path, about, cases)


def build_call_case(function: Callable[..., Any], **arguments: Any) -> Case:
    """Return a case that calls a function and keeps its result or the reason for which it refuses."""
    hints = _list_hints(function)
    named = {_name_parameter(function, name): to_json(value, hints[name]) for name, value in arguments.items()}
    return {"step": function.__name__, "arguments": named, "expected": _call_function(function, named)}


def build_message_case(value: Any) -> Case:
    """Return a case with the fields, the canonical bytes and the hash of a message."""
    kind = type(value)
    fields = to_json(value, kind)
    return {"step": "message", "arguments": {kind.__name__: fields}, "expected": _encode_canonical(kind, fields)}


def build_walk_case(node: ScenarioNode, *last: Event) -> Case:
    """Return a case that feeds what happened to a node to the spine; the last event may be refused."""
    rules, parameters, genesis = node.builder.rules, node.builder.parameters, node.builder.build_genesis()
    happened = (*node.events, *last)
    walk = _Walk(*begin(rules, parameters, genesis))
    expected: dict[str, Any] = {}
    steps: list[list[str]] = []
    for each in happened:
        walk = walk.follow(id(each), each)
        if walk.reason:
            if each is not happened[-1]:
                raise AssertionError(f"{type(each).__name__} is refused before the end: {walk.reason}")
            expected = {"reason": walk.reason}
        steps.append(walk.actions)
    arguments = {
        "engine": to_json(rules, type(rules)),
        "parameters": to_json(parameters, ChainParameters),
        "genesis": to_json(genesis, ChainState),
        "events": [to_json(each, Event) for each in happened],
    }
    if expected:
        arguments["event"] = arguments["events"].pop()
    return {"step": "round", "arguments": arguments, "expected": expected or walk.outcome(steps)}


# --- writing -----------------------------------------------------------------------------------------------------


def write_vectors(package: Path) -> tuple[Path, ...]:
    """Write the vectors of all engines and of the messages into a source tree of `learnchain`; return the files."""
    from learnchain_conformance.vector_cases import all_folders

    written: list[Path] = []
    for folder in all_folders():
        written += folder.write(package / folder.path)
    return tuple(sorted(written))


def write_engine_vectors(scenario: EngineScenario, vectors: Iterable[Vector], folder: Path) -> tuple[Path, ...]:
    """Write the vectors of one engine, with every bad input that it must refuse, into a folder of its own."""
    return engine_folder(scenario, vectors).write(folder)


def engine_folder(scenario: EngineScenario, vectors: Iterable[Vector], path: str = "") -> "VectorFolder":
    """Return what the folder of an engine's vectors holds."""
    bad_inputs = [_build_bad_input(scenario, each.name) for each in scenario.bad_inputs]
    named = [_name_interpretations(each, scenario.interpretations) for each in (*vectors, *bad_inputs)]
    engine = {"engine": to_json(scenario.rules, type(scenario.rules))}
    return VectorFolder(path, tuple(named), {"consensus": scenario.rules.name}, engine, scenario.start_node)


def _build_bad_input(scenario: EngineScenario, name: str) -> Vector:
    wrong = next(each for each in scenario.bad_inputs if each.name == name)
    node = scenario.start_node()
    event = wrong.make(node, prepare(node, wrong.stage))
    about = f"{name.replace('_', ' ').capitalize()}: refused."
    return Vector(f"bad_input/{name}.json", about, (build_walk_case(node, event),))


def _name_interpretations(vector: Vector, interpretations: tuple[Interpretation, ...]) -> Vector:
    named = [each.identifier for each in interpretations if each.vector == vector.path]
    return Vector(vector.path, vector.about, vector.cases, ", ".join(named) or vector.interpretation)


@dataclass(frozen=True, slots=True)
class VectorFolder:
    """Hold the vectors of one folder, and what starts the node whose honest height gives names to values."""

    path: str
    vectors: tuple[Vector, ...]
    heading: dict[str, str]
    named: dict[str, Any]
    start_node: Callable[[], ScenarioNode]

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write every file anew and delete those that are no more; return the files."""
        contents = self.contents()
        for old in folder.rglob("*.json"):
            if str(old.relative_to(folder)) not in contents:
                old.unlink()
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(lay_out(content) + "\n")
        return tuple(folder / name for name in sorted(contents))

    def contents(self) -> dict[str, Any]:
        """Return what each file holds, by its path in the folder."""
        shared = SharedValues()
        named, honest_height = self._name_honest_height()
        for name, tree in named.items():
            shared.name_value(name, tree)
        cases = {
            f"{vector.path.removesuffix('.json').replace('/', '_')}_{number}": case
            for vector in self.vectors
            for number, case in enumerate(vector.cases, start=1)
        }
        walks = {name: case["arguments"]["events"] for name, case in cases.items() if case["step"] == "round"}
        shared.add_walks({"honest_height": honest_height}, walks)
        for case in cases.values():
            for name, tree in case["arguments"].items():
                if named.get(name) != tree and (name != "events" or case["step"] != "round"):
                    shared.add(tree)
            shared.add(case["expected"])
        given = shared.given()
        first = {name: given[name] for name in (*named, "honest_height")}
        files = {each.path: _write_vector(each, shared, named) for each in self.vectors}
        return {GIVEN: self.heading | first | given, **files}

    def _name_honest_height(self) -> tuple[dict[str, Any], list[Any]]:
        """Play a height with two miners; return its values by name, and its events."""
        node = self.start_node()
        builder, parent, chosen = node.builder, node.parent, node.round.selection
        found = prepare(node, "revealed")
        block = builder.build_block(parent, found)
        node.receive(block)
        values = {
            "parameters": builder.parameters,
            "genesis": parent,
            "selection": chosen,
            "key_release": builder.build_key_release(parent),
            "commitment_1": found[0].commitment,
            "commitment_2": found[1].commitment,
            "announcement": builder.build_announcement(parent, found),
            "reveal_1": builder.build_reveal(parent, found[0]),
            "reveal_2": builder.build_reveal(parent, found[1]),
            "block": block,
            "empty_block": builder.build_empty_block(parent, Deadline.KEY),
        }
        trees = {name: to_json(value, type(value)) for name, value in values.items()}
        return {**self.named, **trees}, [to_json(each, Event) for each in node.events]


def _write_vector(vector: Vector, shared: SharedValues, named: Mapping[str, Any]) -> dict[str, Any]:
    cases: list[Any] = []
    for case in vector.cases:
        given: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        for name, tree in case["arguments"].items():
            if name in _DEFAULTS and named.get(name) == tree:
                continue
            is_walk = name == "events" and case["step"] == "round"
            written = shared.write_events(tree) if is_walk else shared.write(tree)
            given[name] = lift_changes(written, name, changes)
        expected = {"expected": shared.write(case["expected"])}
        cases.append({"step": case["step"], "given": given, **({"changes": changes} if changes else {}), **expected})
    return {"about": vector.about, "interpretation": vector.interpretation, "cases": cases}


# --- running -----------------------------------------------------------------------------------------------------


def run_vector_file(path: Path, scenario: EngineScenario | None = None) -> list[tuple[Any, Any]]:
    """Recompute every case of a file from its inputs; return what is expected with what came out."""
    return [(case["expected"], _runner_of(_find_root(path), scenario).run(case)) for case in read_vector(path)]


def read_vector(path: Path) -> list[Case]:
    """Return the cases of a file, with every value put together."""
    runner = _runner_of(_find_root(path), None)
    return [runner.expand(case) for case in json.loads(path.read_text())["cases"]]


def _find_root(path: Path) -> Path:
    return next(each for each in path.parents if (each / GIVEN).is_file())


@cache
def _values_of(folder: Path) -> GivenValues:
    return GivenValues(json.loads((folder / GIVEN).read_text()))


@cache
def _runner_of(folder: Path, scenario: EngineScenario | None) -> "VectorRunner":
    return VectorRunner(_values_of(folder), scenario)


@dataclass(slots=True)
class _Walk:
    """Hold where a run of events has come to, and how it went on: `advance` is pure, so nothing is run twice."""

    state: Round
    actions: Any
    reason: str = ""
    following: dict[int, "_Walk"] = field(default_factory=dict)

    def follow(self, key: int, event: Event) -> "_Walk":
        """Return the walk after an event; a refused one leaves the state as it was."""
        if key not in self.following:
            try:
                state, actions = advance(self.state, event)
                self.following[key] = _Walk(state, [_describe_action(each) for each in actions])
            except Rejected as error:
                self.following[key] = _Walk(self.state, [], error.reason.value)
        return self.following[key]

    def outcome(self, steps: list[Any]) -> dict[str, Any]:
        """Return what the events asked for, the head, and the task that is selected now."""
        head = self.state.head
        return {
            "actions": steps,
            "head": "0x" + head.block.hex(),
            "height": head.height,
            "weight": head.weight,
            "selected": "0x" + self.state.selection.task.task_id.hex(),
        }


@dataclass
class VectorRunner:
    """Run the cases of one folder; an engine's folder needs its scenario."""

    values: GivenValues
    scenario: EngineScenario | None
    memory: Memory = field(default_factory=dict)
    walks: dict[tuple[int, ...], _Walk] = field(default_factory=dict)

    def expand(self, case: Mapping[str, Any]) -> Case:
        """Return a case with its arguments put together, those of the folder among them."""
        arguments = {name: self.values.expand(each) for name, each in case["given"].items()}
        arguments = self.values.change(arguments, case.get("changes", {}))
        return {"step": case["step"], "arguments": arguments, "expected": self.values.expand(case["expected"])}

    def run(self, case: Case) -> Any:
        """Return what comes out of a case."""
        step, arguments = case["step"], dict(case["arguments"])
        if step == "message":
            ((name, content),) = arguments.items()
            return _encode_canonical(_list_message_kinds()[name], content)
        if step == "round":
            return self._walk(self._add_defaults(arguments, _DEFAULTS))
        function = list_steps(self.scenario)[step]
        return _call_function(function, self._add_defaults(arguments, list_parameters(function)), self.memory)

    def _add_defaults(self, arguments: dict[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
        missing = [each for each in wanted if each in _DEFAULTS and each not in arguments and each in self.values]
        return {**{name: self.values.value(name) for name in missing}, **arguments}

    def _walk(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self.scenario is None:
            raise ValueError("a round needs the scenario of its engine")
        kinds = {"engine": type(self.scenario.rules), "parameters": ChainParameters, "genesis": ChainState}
        start = [from_json(arguments[name], kind, self.memory) for name, kind in kinds.items()]
        key = tuple(id(arguments[name]) for name in kinds)
        if key not in self.walks:
            self.walks[key] = _Walk(*begin(*start))
        walk = self.walks[key]
        steps: list[list[str]] = []
        last = [arguments["event"]] if "event" in arguments else []
        for each in (*arguments["events"], *last):
            if walk.reason:
                return {"reason": walk.reason, "events": len(steps)}
            walk = walk.follow(id(each), from_json(each, Event, self.memory))
            steps.append(walk.actions)
        return {"reason": walk.reason} if walk.reason else walk.outcome(steps)


def list_steps(scenario: EngineScenario | None) -> dict[str, Callable[..., Any]]:
    """Return every function that a vector may call, by its name: shared ones, an engine's own, the ten steps."""
    own = (*scenario.calls, *(getattr(type(scenario.rules), step) for step in STEPS)) if scenario else ()
    return {each.__name__: each for each in (*SHARED_STEPS, *own)}


def list_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type of each argument and of the answer, by the names that vectors use."""
    return {_name_parameter(function, name): hint for name, hint in _list_hints(function).items()}


def _call_function(function: Callable[..., Any], arguments: Mapping[str, Any], memory: Memory | None = None) -> Any:
    hints = _list_hints(function)
    named = {_name_parameter(function, name): name for name in hints}
    values = {named[name]: from_json(each, hints[named[name]], memory) for name, each in arguments.items()}
    try:
        answer = function(**values)
    except Rejected as error:
        return {"reason": error.reason.value}
    return {"result": to_json(answer, hints["return"])}


@cache
def _list_hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    owner, _, method = function.__qualname__.partition(".")
    owned = {"self": getattr(sys.modules[function.__module__], owner)} if method else {}
    return {**owned, **hints}


def _name_parameter(function: Callable[..., Any], name: str) -> str:
    """Return how vectors name a parameter: what a method belongs to is the engine, or named by its type."""
    if name != "self":
        return name
    owner = function.__qualname__.partition(".")[0]
    return "engine" if function.__name__ in STEPS else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", owner).lower()


def _encode_canonical(kind: type, content: dict[str, Any]) -> dict[str, str]:
    value = from_json(content, kind)
    data = encode(value)
    if decode(kind, data) != value:
        raise AssertionError(f"{kind.__name__} does not come back from its bytes")
    return {"bytes": "0x" + data.hex(), "hash": "0x" + message_hash(value).hex()}


@cache
def _list_message_kinds() -> dict[str, type]:
    named = {**vars(messages), **vars(audit_messages), **vars(events)}
    return {name: each for name, each in named.items() if isinstance(each, type)}


def _describe_action(action: Any) -> str:
    """Return an action's name; of an opened height also which task was selected."""
    name = type(action).__name__
    if isinstance(action, OpenHeight):
        return f"{name} {action.selection.height} {action.selection.posted_task.specification.name}"
    return name
