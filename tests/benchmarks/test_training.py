import time

import pytest

from learnchain.benchmarks import training
from learnchain.benchmarks.training import BENCHMARKS

LIMITS = {"training": (0.95, 99.0), "watermark": (0.0, 1.05), "trace": (0.0, 1.03), "evaluation": (0.0, 3.0)}


@pytest.mark.parametrize("name", LIMITS)
def test_every_benchmark_gives_figures_against_its_anchor(name, monkeypatch):
    monkeypatch.setattr(training, "TRAINING_ROWS", 256)
    monkeypatch.setattr(training, "_EVALUATION_ROWS", 512)
    monkeypatch.setattr(training, "_ROUNDS", 1)
    answer = BENCHMARKS[name]()
    assert (answer["name"], answer["synthetic"]) == (name, True)
    for figure in answer["figures"]:
        assert set(figure) == {"what", "value", "unit", "ratio", "against"}
        assert figure["value"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_the_promised_ratios_hold(name):
    minimum, maximum = LIMITS[name]
    # A shared machine disturbs single runs: the best of three decides.
    ratios = []
    for _ in range(3):
        ratios.append([each["ratio"] for each in BENCHMARKS[name]()["figures"]])
        if all(minimum <= ratio <= maximum for ratio in ratios[-1]):
            return
        time.sleep(1)
    pytest.fail(f"{name}: {ratios}, promised {minimum} to {maximum}")
