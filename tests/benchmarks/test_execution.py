"""The benchmarks run and measure what they name; their figures are not judged here, because machines differ."""

import pytest

from learnchain.node.execution import benchmarks


@pytest.mark.network
@pytest.mark.parametrize("name", benchmarks.BENCHMARKS)
def test_every_benchmark_gives_positive_figures(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benchmarks, "BLOCKS", 2)
    monkeypatch.setattr(benchmarks, "TRANSACTIONS_PER_BLOCK", 3)
    monkeypatch.setattr(benchmarks, "LONG_BLOCKS", 16)
    monkeypatch.setattr(benchmarks, "LONG_TRANSACTIONS", 2)
    monkeypatch.setattr(benchmarks, "REQUESTS", 20)
    result = benchmarks.BENCHMARKS[name]()
    assert result["name"] == name
    assert all(figure["value"] > 0 and figure["ratio"] > 0 for figure in result["figures"])
