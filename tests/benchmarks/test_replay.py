"""The table of classes, on feigned processes: what each line counts."""

import numpy as np

from learnchain.benchmarks import replay
from learnchain.learning.disputes.machine_class import PORTABLE
from learnchain.learning.safe_tensors import write_tensors

FAMILIES = ("linear", "residual")


def test_the_table_of_classes_counts_equal_families_and_the_drift_of_the_others(monkeypatch):
    def elsewhere(environment, threads, states):
        """Feign that AVX2 moves the deep net alone, a second thread both, and hidden instructions nothing."""
        apart = {"linear": 0.5 * (threads == 2), "residual": 2.0 * (threads == 2 or "avx2" in environment.values())}
        for name in FAMILIES:
            write_tensors(states / f"{name}.safetensors", {"w": np.array([4.0 + apart[name]], dtype=np.float32)})
        seconds = 3.0 if environment.keys() >= PORTABLE.keys() else 2.0
        return {"families": {name: str(apart[name]) for name in FAMILIES}, "seconds": seconds}

    monkeypatch.setattr(replay, "class_elsewhere", elsewhere)
    monkeypatch.setattr(replay, "FAMILIES", dict.fromkeys(FAMILIES))
    figures = replay.class_drift()["figures"]
    lines = [[each["value"] for each in figures[start : start + 4]] for start in range(0, len(figures), 4)]
    assert lines == [
        [2, 0, 0, 2.0],
        [0, 125_000, 500_000, 2.0],
        [1, 0, 500_000, 2.0],
        [0, 125_000, 500_000, 2.0],
        [2, 0, 0, 2.0],
        [0, 125_000, 500_000, 2.0],
        [2, 0, 0, 3.0],
        [2, 0, 0, 3.0],
    ]
    assert [figures[-1]["ratio"], figures[-4]["against"]] == [1.5, "portable"]
