"""What a comparison on real processes reports of the networks it ran."""

from typing import Any

import pytest

from learnchain.cli import real_comparison


def block(height: int, winner: str | None, seconds: float) -> dict[str, Any]:
    trained = winner is not None
    share = 0.9 if trained else None
    return {
        "height": height,
        "hash": f"block {height}",
        "empty": not trained,
        "trained": trained,
        "winner": winner,
        "interval_seconds": seconds,
        "training_share": share,
    }


def decided(height: int, step: str, **facts: Any) -> dict[str, Any]:
    return {"at": 0, "height": height, "step": step, "about": "", **facts}


DECIDED = {
    "miners": ["0x0", "0xa", "0xb"],
    "decisions": [
        [decided(1, "block", hash="block 1"), decided(1, "measured count"), decided(2, "measured payload")],
        [decided(1, "trained", training_seconds=4.0), decided(4, "trained", training_seconds=2.0)],
        [
            decided(1, "trained", training_seconds=1.0),
            decided(4, "puzzle solved", attempts=3),
            decided(2, "block", hash="another block 2"),
            decided(2, "measured count"),
        ],
    ],
}


def test_figures_follow_from_the_blocks_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []

    def run(name: str, blocks: int, miners: int) -> dict[str, Any]:
        asked.append((name, blocks, miners))
        found = [block(1, "0xa", 99.0), block(2, "0xa", 8.0), block(3, None, 12.0), block(4, "0xb", 10.0)]
        return {"blocks": found, "agree": True, "supply": {"conserved": True}, **DECIDED}

    monkeypatch.setattr(real_comparison, "_run", run)
    result = real_comparison.compare_for_real(["podl", "dlbc"], 3, 3)
    assert asked == [("podl", 3, 3), ("dlbc", 3, 3)]
    report = result["reports"][0]
    assert (report["blocks"], report["empty_blocks"]) == (4, 1)
    assert report["intervals"]["mean_seconds"] == 10.0
    assert report["intervals"]["variation"] == pytest.approx(0.163299, abs=1e-6)
    assert report["won_blocks"] == {"0xa": 2, "0xb": 1}
    assert report["reward_gini"] == pytest.approx(4 / 9, abs=1e-6)
    assert report["training_share"] == pytest.approx(0.9)
    assert "digest" not in result
    # Of 4 + 2 + 1 + 3 the winners of 1 and 4 did 4 and 3.
    assert report["stale_share"] == pytest.approx(0.3)
    assert report["forks"] == 1
    assert (report["evaluations_per_block"], report["measurements_per_block"]) == (0.5, 0.75)
