"""`lab compare`: one envelope, errors before minutes of work, and a process whose end is told."""

from pathlib import Path

import pytest

from learnchain.cli import lab
from learnchain.rejection import Unavailable
from tests.cli.samples import exit_code, spoken


@pytest.mark.parametrize(
    "wrong",
    [
        ("--blocks", "0"),
        ("--blocks", "1"),
        ("--miners", "0"),
        ("--miners", "17"),
        ("--seed", "-1"),
        ("--latency-seconds", "11"),
        ("--latency-seconds", "-1"),
    ],
)
def test_numbers_out_of_range_are_wrong_usage(wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, envelope = spoken(capsys, "lab", "compare", *wrong)
    assert (code, envelope["error"]["reason"]) == (2, "usage")
    assert wrong[0] in envelope["error"]["detail"]


@pytest.mark.parametrize(
    "wrong", [("--engine", "luck"), ("--real", "--latency-seconds", "1"), ("--real", "--plot", "x.svg")]
)
def test_what_cannot_be_compared_is_refused(wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, envelope = spoken(capsys, "lab", "compare", *wrong)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_a_drawing_that_cannot_be_written_is_told_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "_run_comparison", lambda *_asked: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    code, envelope = spoken(capsys, "lab", "compare", "--plot", str(tmp_path / "file" / "x.svg"))
    assert (code, envelope["error"]["reason"]) == (3, "unavailable")


def test_a_comparison_answers_with_one_envelope_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = tmp_path / "new" / "x.svg"
    chosen = ("--engine", "proof_of_work", "--blocks", "2", "--miners", "1", "--plot", str(drawing))
    code, envelope = spoken(capsys, "lab", "compare", *chosen)
    assert code == 0
    assert len(envelope["data"]["digest"]) == 64
    assert drawing.read_text().startswith("<svg")
    assert exit_code("lab", "compare", *chosen) == 0
    told = capsys.readouterr()
    assert envelope["data"]["digest"] in told.out
    assert "proof_of_work" in told.err


def test_a_process_that_fails_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"engines": ["luck"], "seed": 7, "blocks": 2, "miners": 1, "latency_milliseconds": 0}
    with pytest.raises(Unavailable):
        lab._run_comparison(asked, False)
    assert "luck" in capsys.readouterr().err
