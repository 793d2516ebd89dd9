"""The benchmarks run and measure what they name; their figures are not judged here, because machines differ."""

import pytest

from learnchain.benchmarks import execution


@pytest.mark.network
@pytest.mark.parametrize("name", execution.BENCHMARKS)
def test_every_benchmark_gives_positive_figures(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(execution, "BLOCKS", 2)
    monkeypatch.setattr(execution, "TRANSACTIONS_PER_BLOCK", 3)
    monkeypatch.setattr(execution, "LONG_BLOCKS", 16)
    monkeypatch.setattr(execution, "LONG_TRANSACTIONS", 2)
    monkeypatch.setattr(execution, "REQUESTS", 20)
    result = execution.BENCHMARKS[name]()
    assert result["name"] == name
    assert all(figure["value"] > 0 and figure["ratio"] > 0 for figure in result["figures"])
