"""`learnchain data`: one envelope a verb, refusals with their reason, and `synthetic` wherever data are shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from learnchain.cli.application import run
from learnchain.learning.sources.synthetic import WRITERS, generator


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as caught:
        run([*arguments, "--json"])
    envelope = json.loads(capsys.readouterr().out)
    return int(str(caught.value.code)), envelope


def test_data_are_made_up_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--data-dir", str(tmp_path))
    code, envelope = call(capsys, "data", "generate", "idx", "--name", "strokes", "--rows", "20", *place)
    assert (code, envelope["data"]["synthetic"], envelope["data"]["training_rows"]) == (0, True, 20)
    code, envelope = call(capsys, "data", "list", *place)
    assert [each["name"] for each in envelope["data"]["data"]] == ["strokes"]
    assert "digits" in envelope["data"]["installed"]
    code, envelope = call(capsys, "data", "show", "strokes", *place)
    assert sum(envelope["data"]["label_counts"]) == 20


def test_pages_say_synthetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["generate", "idx", "--name", "s", "--rows", "20"], ["show", "s"], ["list"]):
        with pytest.raises(SystemExit):
            run(["data", *arguments, "--data-dir", str(tmp_path)])
        assert "synthetic" in capsys.readouterr().out.lower()


def test_an_import_checks_named_digests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "files"
    source.mkdir()
    WRITERS["idx"](source, 20, generator("idx", 1))
    place = ("--data-dir", str(tmp_path / "data"))
    wrong = f"train-images-idx3-ubyte={'0' * 64}"
    code, envelope = call(capsys, "data", "import", "idx", str(source), "--name", "x", "--sha256", wrong, *place)
    assert (code, envelope["error"]["reason"]) == (1, "wrong_hash")
    code, envelope = call(capsys, "data", "import", "mnist", str(source), "--name", "x", *place)
    assert (code, envelope["error"]["reason"]) == (1, "wrong_hash")
    code, envelope = call(capsys, "data", "import", "idx", str(source), "--name", "x", "--private", *place)
    assert (code, envelope["data"]["public"], envelope["data"]["synthetic"]) == (0, False, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "idx", "/nowhere", "--name", "x"),
        ("import", "idx", "/nowhere", "--name", "x", "--shape", "3xx"),
        ("import", "idx", "/nowhere", "--name", "x", "--sha256", "abc"),
        ("generate", "nothing", "--name", "x"),
        ("show", "x"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, envelope = call(capsys, "data", *arguments, "--data-dir", str(tmp_path))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_a_task_on_data_that_are_not_here_names_the_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARNCHAIN_DATA", str(tmp_path / "data"))
    code, envelope = call(capsys, "task", "publish", "mnist", "--dry-run", "--data-dir", str(tmp_path))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
    assert "learnchain data import mnist PATH --name mnist" in envelope["error"]["detail"]
