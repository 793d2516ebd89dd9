"""What tests and vectors need of an engine that has folders of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from learnchain.rules.contract import Rules
from learnchain.rules.reading import Reading
from learnchain.testing.bad_inputs import BadInput
from learnchain.testing.play import Observer


@dataclass(frozen=True)
class EnginePlay:
    """Join an engine whose every number is written out with what tests and vectors need of it.

    `calls` are the functions that its vectors call, `begun` starts a node, `bad_inputs` are what it must refuse.
    """

    rules: Rules
    readings: tuple[Reading, ...]
    calls: tuple[Callable[..., Any], ...]
    bad_inputs: tuple[BadInput, ...]
    begun: Callable[[], Observer]
