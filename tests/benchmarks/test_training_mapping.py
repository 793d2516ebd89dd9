"""What a mapping layer costs an epoch, against the same network without one."""

import pytest

from learnchain.benchmarks import training
from learnchain.benchmarks.training import BENCHMARKS

LIMITS = (("128 query vectors", 0.60), ("as many vectors as pixels", 1.05), ("CSML", 1.05))


def test_the_benchmark_gives_figures_against_its_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TRAINING_ROWS", 128)
    monkeypatch.setattr(training, "_ROUNDS", 1)
    answer = BENCHMARKS["mapping"]()
    assert (answer["name"], answer["synthetic"], len(answer["figures"])) == ("mapping", True, 4)
    for figure in answer["figures"]:
        assert set(figure) == {"what", "value", "unit", "ratio", "against"}
        assert figure["value"] > 0


@pytest.mark.slow
def test_the_promised_ratios_hold() -> None:
    best: dict[str, float] = {}
    # A shared machine disturbs single runs: the best of three decides.
    for _ in range(3):
        for each in BENCHMARKS["mapping"]()["figures"]:
            best[each["what"]] = min(each["ratio"], best.get(each["what"], 99.0))
    for part, limit in LIMITS:
        (ratio,) = [ratio for what, ratio in best.items() if part in what]
        assert ratio <= limit, best
