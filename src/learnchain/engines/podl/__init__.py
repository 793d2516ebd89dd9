"""PoDL: an energy-recycling blockchain with proof of deep learning (Chenli et al. 2019).

A block has two phases (III-A, III-B). In Phase 1 miners train and submit headers that hold the hash of their model. In
Phase 2 the model requester releases a test set, miners validate and submit, and full nodes accept the first model, in
decreasing order of the claimed accuracy, whose claim is true. One task spans many blocks, each with a fresh test set,
until its accuracy no longer increases significantly, and Phase 2 of a block runs while Phase 1 of the next one trains.

Read `rules.py` for the ten answers, `course.py` for a task over many blocks, `schedule.py` for the phases that
overlap, and the readings for what the paper leaves open.
"""

from dataclasses import replace

from learnchain.engines.contract import Engine, LocalDurations
from learnchain.engines.podl.interpretations import INTERPRETATIONS
from learnchain.engines.podl.rules import Podl, TwoPhases, build_local_phases
from learnchain.protocol.training_terms import QUANTISED_BITS

__all__ = ["ENGINE", "INTERPRETATIONS", "QUANTISED_ENGINE", "Podl", "TwoPhases"]


def build_local_engine(times: LocalDurations, _miners: int) -> Podl:
    """Return the engine for several nodes on one machine."""
    return Podl(build_local_phases(times))


def build_quantised_engine(times: LocalDurations, miners: int) -> Podl:
    """Return PoDL whose miners commit to weights of eight bits: models of a quarter of the size (III-C, PODL-R9)."""
    return replace(build_local_engine(times, miners), model_bits=QUANTISED_BITS)


ENGINE = Engine(Podl, build_local_engine, ("digits-in-blocks",))
QUANTISED_ENGINE = Engine(Podl, build_quantised_engine, ("digits-in-blocks",), is_variant=True)
