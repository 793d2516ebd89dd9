import json
import sys

import pytest
import typer

from learnchain.cli.output import ExitCode, run_verb, what_to_do
from learnchain.rejection import Rejected, RejectionReason, Unavailable


def _failing(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (Rejected(RejectionReason.TASK_UNKNOWN, "x"), 1, "task_unknown"),
        (Unavailable("x"), 3, "unavailable"),
        (ZeroDivisionError("x"), 4, "bug"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_each_family_has_its_code(error, code, reason, capsys):
    with pytest.raises(typer.Exit) as leaving:
        run_verb(True, _failing(error), print)
    envelope = json.loads(capsys.readouterr().out)
    assert (leaving.value.exit_code, envelope["error"]["reason"], envelope["success"]) == (code, reason, False)


def test_a_person_reads_reason_and_advice_on_standard_error(capsys):
    with pytest.raises(typer.Exit):
        run_verb(False, _failing(Rejected(RejectionReason.REWARD_TOO_LOW, "[1 ether]")), print)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "reward_too_low" in shown.err
    assert "[1 ether]" in shown.err
    assert what_to_do(ExitCode.REJECTED, "reward_too_low") in shown.err


def test_what_a_library_prints_does_not_spoil_the_envelope(capsys):
    def work():
        sys.stdout.write("chatter")
        return {"x": 1}

    run_verb(True, work, print)
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"success": True, "data": {"x": 1}, "error": None}
    assert "chatter" in shown.err


def test_every_reason_has_advice():
    assert all(what_to_do(ExitCode.REJECTED, each.value) for each in RejectionReason)
