"""Measurements beside their anchors, taken in one run: what `learnchain bench NAME` shows.

A benchmark is a function without arguments that returns `{name, figures: [{what, value, unit, ratio, against}]}`; its
module names it in a table `BENCHMARKS`.
"""

import time
from collections.abc import Callable
from typing import Any

Figures = dict[str, Any]


def figure(what: str, value: float, unit: str, ratio: float | None, against: str) -> Figures:
    """Return one figure beside its anchor; the ratio is None where the anchor is not here."""
    rounded = None if ratio is None else round(ratio, 4)
    return {"what": what, "value": round(value, 4), "unit": unit, "ratio": rounded, "against": against}


def measure_seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long some work takes by a clock."""
    started = clock()
    work()
    return clock() - started
