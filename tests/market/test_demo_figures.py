"""The figures of the fusion, on data that are small enough to train on here."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from learnchain.learning.data import digits, select_rows
from learnchain.learning.train import configure_torch
from learnchain.market.contributors import LocalTrainingTerms
from learnchain.market.demo_cast import Split
from learnchain.market.demo_figures import PAPER, VARIANTS, FusionExperiment, fusion_figures

SMALLER = Split((350, 80, 200), (90, 20, 20))
"""What is left of the digits when test rows are kept aside."""


@pytest.mark.slow
def test_curves_have_a_point_for_every_number_of_models(tmp_path: Path):
    configure_torch()
    ticks = itertools.count()
    rows, test = select_rows(digits(), np.arange(1_500)), select_rows(digits(), np.arange(1_500, 1_797))
    wanted = FusionExperiment(1, 3, LocalTrainingTerms(6, 1_000, 16), True, SMALLER)
    found = fusion_figures(rows, test, wanted, tmp_path, lambda: float(next(ticks)))
    assert set(found["curves"]) == set(VARIANTS)
    for curve in found["curves"].values():
        assert len(curve) == 5
        assert curve[-1]["verification"] > curve[0]["verification"]
        assert abs(curve[-1]["verification"] - curve[-1]["test"]) < 0.1
    assert found["central"]["all_rows"]["rows"] == 350 + 5 * 90
    assert found["central"]["all_rows"]["test"] > 0.8
    assert found["paper"] == PAPER
