"""A18: a contributor sells one model several times to a market task, each time encrypted anew under another name.

With fitness 0 and the reading `gain`, as shipped, every copy that fusion does not make worse is paid; another
encryption is another CID, so that nobody sees that they are the same weights.

Earns: 4 of 5 copies paid, 8 coins for one model; with a fitness of 0.5 % still 3.
Kind: market contract; shipped roles, honest verifiers, real training and fusion.
Wins today; to be turned around by the rule that stops it.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from learnchain.learning.data import SOURCES
from learnchain.market.contributors import LocalTrainingTerms
from learnchain.market.demo import MarketRun, MarketScenario
from learnchain.market.demo_cast import SMALL, recommended_model, train_private
from learnchain.market.demo_stage import open_local_chain

pytestmark = pytest.mark.slow
COPIES, CONTRIBUTOR = 5, 3


@dataclass(frozen=True)
class SoldCopies:
    """How many copies of one model were offered and paid."""

    offered: int
    paid: int


class CopyingMarket(MarketRun):
    """Offer the model of one contributor under every name."""

    def _train(self) -> None:
        shape = self._sample.training.sample_shape
        own = self._private[CONTRIBUTOR]
        model = recommended_model(2, 0, shape)
        home = train_private(model, own, self._script.home, self._directory / "one", time.monotonic)
        self._homes = [home] * COPIES
        self._private = tuple([own] * COPIES)
        self._offers = [(f"copy {index + 1}", home.model) for index in range(COPIES)]

    def _measure_curves(self) -> dict[str, Any]:
        return {}


async def play(directory: Path, fitness: int) -> SoldCopies:
    """Play a market in which one contributor stands under five names."""
    stage, _ = open_local_chain(12)
    script = MarketScenario(
        scenario=2, split=SMALL, home=LocalTrainingTerms(), fusion_epochs=12, threshold=0, fitness=fitness
    )
    report = await CopyingMarket(script, stage, SOURCES["digits"](), directory).run()
    models = report["models"]
    return SoldCopies(len(models), sum(model["status"] == "accepted" for model in models))


def attack(directory: Path, fitness: int = 0) -> SoldCopies:
    """Sell copies to a task with this fitness, in hundredths of a per cent."""
    return asyncio.run(play(directory, fitness))


@pytest.mark.parametrize(("fitness", "at_least"), [(0, 3), (50, 2)])
def test_copies_of_one_model_are_paid_again(tmp_path: Path, fitness: int, at_least: int) -> None:
    result = attack(tmp_path, fitness)
    assert result.offered == COPIES
    assert result.paid >= at_least
