"""Every engine that is played from its own folder of tests and vectors: one line an engine; `new engine` adds one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from learnchain.rules.contract import Rules
from learnchain.rules.reading import Reading
from learnchain.testing.bad_inputs import BadInput
from learnchain.testing.play import Observer
from learnchain.testing.podl_play import PODL, PODL_BAD_INPUTS, PODL_CALLS, PODL_READINGS, begun


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


PLAYS: tuple[EnginePlay, ...] = (
    EnginePlay(PODL, PODL_READINGS, PODL_CALLS, PODL_BAD_INPUTS, begun),
    # new engines above this line
)
