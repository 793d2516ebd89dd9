"""What tests and vectors need of an engine that has folders of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from learnchain.engines.contract import Rules
from learnchain.protocol.citations import Interpretation
from learnchain.simulation.scenario import ScenarioNode
from learnchain_conformance.bad_inputs import BadInput


@dataclass(frozen=True)
class EngineScenario:
    """Join an engine whose every number is written out with what tests and vectors need of it.

    `calls` are the functions that its vectors call, `begun` starts a node, `bad_inputs` are what it must refuse.
    """

    rules: Rules
    interpretations: tuple[Interpretation, ...]
    calls: tuple[Callable[..., Any], ...]
    bad_inputs: tuple[BadInput, ...]
    start_node: Callable[[], ScenarioNode]
