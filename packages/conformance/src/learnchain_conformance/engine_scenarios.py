"""Find what an engine is tried with: `scenario.py` and `cases.py` in its package, whoever ships the engine."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from learnchain.engines.contract import Rules
from learnchain.engines.registry import SHIPPED, find_engine, list_compared_engines
from learnchain.protocol.citations import Interpretation
from learnchain.simulation.scenario import ScenarioNode
from learnchain_conformance.bad_inputs import BadInput

if TYPE_CHECKING:
    from learnchain_conformance.vectors import Vector


@dataclass(frozen=True)
class EngineScenario:
    """Join an engine whose every number is written out with what tests and vectors need of it.

    `calls` are the functions that its vectors call, `start_node` starts a node, `bad_inputs` are what it must refuse.
    """

    rules: Rules
    interpretations: tuple[Interpretation, ...]
    calls: tuple[Callable[..., Any], ...]
    bad_inputs: tuple[BadInput, ...]
    start_node: Callable[[], ScenarioNode]


@cache
def find_scenario(name: str) -> EngineScenario:
    """Return the scenario of one engine, shipped or plug-in."""
    scenario: EngineScenario = import_module(f"{find_engine(name).package}.scenario").SCENARIO
    return scenario


def engine_vectors(name: str) -> "tuple[Vector, ...]":
    """Return the vectors that one engine's cases write."""
    vectors: tuple[Vector, ...] = import_module(f"{find_engine(name).package}.cases").build_vectors()
    return vectors


def all_scenarios() -> tuple[EngineScenario, ...]:
    """Return the scenario of every engine that is declared; a plug-in may have none."""
    packages = ((name, find_engine(name).package) for name in list_compared_engines())
    return tuple(find_scenario(name) for name, package in packages if find_spec(f"{package}.scenario"))


def shipped_engines() -> tuple[str, ...]:
    """Return the engines of the project itself: what its own vectors and documents tell of."""
    return tuple(name for name in list_compared_engines() if name in SHIPPED)
