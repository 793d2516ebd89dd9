"""PoLe: proof of learning (Lan et al. 2020).

A data node posts a task with its reward (3.1); the task with the highest reward per unit of time is trained (3.2).
Nothing is due at a fixed time: a miner that reaches the required training accuracy commits, the data node waits for a
number of solutions or for the time limit and opens the test set, and that ends the height. The best verified model wins
(Algorithms 1, 2); the best loser may be cited by a later block and is paid for it (Equation 2). What a network sees of
the data goes through a mapping layer that follows from the previous block hash (3.4, Algorithm 3), so that no model
trained before, or for another block, fits.

Read `rules.py` for the ten answers, `judging.py` for Algorithms 1 and 2, `mapping.py` for Algorithm 3, `layer.py` for
a height's layer, `ommers.py` and `equations.py` for the losers, and the readings for what the paper leaves open.
"""

from learnchain.engines.contract import Engine, LocalDurations
from learnchain.engines.pole.interpretations import INTERPRETATIONS
from learnchain.engines.pole.judging import OmmerFormula, OmmerFunding, OmmerRules
from learnchain.engines.pole.mapping import MappingLayer, MappingMode
from learnchain.engines.pole.rules import Pole, build_local_durations

__all__ = ["ENGINE", "INTERPRETATIONS", "PRINTED_ENGINE", "Pole"]


def build_local_engine(times: LocalDurations, miners: int) -> Pole:
    """Return the engine for several nodes on one machine."""
    return Pole(build_local_durations(times, miners))


def build_printed_engine(times: LocalDurations, miners: int) -> Pole:
    """Return PoLe as its paper prints it: Algorithm 3, models shown at once, Equation 2 in new coins (POLE-R3, R7)."""
    ommers = OmmerRules(OmmerFormula.LITERAL, OmmerFunding.MINTED)
    return Pole(build_local_durations(times, miners), MappingLayer(MappingMode.PAPER), ommers, open_broadcast=True)


ENGINE = Engine(Pole, build_local_engine)
PRINTED_ENGINE = Engine(Pole, build_printed_engine, is_variant=True)
