"""DLBC: a deep-learning-based consensus for deep learning services (Li et al. 2020).

A block interval has three fixed phases (IV-B, Figure 5). In Phase 1 the publisher of the selected task opens the
training data and every miner probes one epoch. In Phase 2 miners train, embed their watermark (IV-C) and commit. In
Phase 3 the publisher opens the test set, miners reveal and claim, full nodes judge from the highest claim downwards and
the first honest one wins. Tasks queue up in a list that every block records; Equation 4 ranks it.

Read `rules.py` for the ten answers, `equations.py` for Equations 1-6, and the readings below for where the paper
contradicts itself.
"""

from learnchain.engines.contract import Engine, LocalDurations
from learnchain.engines.dlbc.interpretations import INTERPRETATIONS
from learnchain.engines.dlbc.rules import Dlbc, build_local_phases

__all__ = ["ENGINE", "INTERPRETATIONS", "Dlbc"]


def build_local_engine(times: LocalDurations, _miners: int) -> Dlbc:
    """Return the engine for several nodes on one machine."""
    return Dlbc(build_local_phases(times))


ENGINE = Engine(Dlbc, build_local_engine)
