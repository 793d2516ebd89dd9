"""What a comparison on real processes reports of the networks it ran."""

from typing import Any

import pytest

from learnchain.cli import real_comparison


def block(height: int, winner: str | None, seconds: float) -> dict[str, Any]:
    trained = winner is not None
    share = 0.9 if trained else None
    return {
        "height": height,
        "trained": trained,
        "winner": winner,
        "interval_seconds": seconds,
        "training_share": share,
    }


def test_figures_follow_from_the_blocks_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []

    def run(name: str, blocks: int, miners: int) -> dict[str, Any]:
        asked.append((name, blocks, miners))
        found = [block(1, "0xa", 99.0), block(2, "0xa", 8.0), block(3, None, 12.0), block(4, "0xb", 10.0)]
        return {"blocks": found, "agree": True, "supply": {"conserved": True}}

    monkeypatch.setattr(real_comparison, "_run", run)
    result = real_comparison.compared_for_real(["podl", "dlbc"], 3, 3)
    assert asked == [("podl", 3, 3), ("dlbc", 3, 3)]
    report = result["reports"][0]
    assert (report["blocks"], report["empty_blocks"]) == (4, 1)
    assert report["intervals"]["mean_seconds"] == 10.0
    assert report["intervals"]["variation"] == pytest.approx(0.163299, abs=1e-6)
    assert report["won_blocks"] == {"0xa": 2, "0xb": 1}
    assert report["reward_gini"] == pytest.approx(4 / 9, abs=1e-6)
    assert report["training_share"] == pytest.approx(0.9)
    assert "digest" not in result
