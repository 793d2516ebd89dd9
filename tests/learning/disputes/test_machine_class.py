"""The class of a process is measured once for all processes like it, and never read from a spoiled file."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from learnchain.learning.disputes.machine_class import fingerprint, machine_class

ONE, OTHER = "11" * 32, "22" * 32


def counted(answer: str, calls: list[str], seconds: float = 0.0) -> Callable[[], str]:
    def probe() -> str:
        calls.append(answer)
        time.sleep(seconds)
        return answer

    return probe


def test_the_second_process_reads_what_the_first_measured(tmp_path: Path) -> None:
    calls: list[str] = []
    assert machine_class(tmp_path / "new", counted(ONE, calls)) == bytes.fromhex(ONE)
    assert machine_class(tmp_path / "new", counted(OTHER, calls)) == bytes.fromhex(ONE)
    assert calls == [ONE]


def test_of_those_that_start_together_one_probes(tmp_path: Path) -> None:
    calls: list[str] = []
    found: list[bytes] = []

    def run() -> None:
        found.append(machine_class(tmp_path, counted(ONE, calls, seconds=0.1)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (calls, found) == ([ONE], 4 * [bytes.fromhex(ONE)])


@pytest.mark.parametrize("spoiled", [b"", b"11" * 31, b"11" * 33, b"no digest at all", b"\xff\xfe" * 32])
def test_a_spoiled_file_is_measured_again(tmp_path: Path, spoiled: bytes) -> None:
    calls: list[str] = []
    machine_class(tmp_path, counted(ONE, calls))
    (tmp_path / fingerprint().hex()).write_bytes(spoiled)
    assert machine_class(tmp_path, counted(OTHER, calls)) == bytes.fromhex(OTHER)
    assert calls == [ONE, OTHER]


def test_another_choice_of_instructions_is_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    machine_class(tmp_path, counted(ONE, calls))
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert machine_class(tmp_path, counted(OTHER, calls)) == bytes.fromhex(OTHER)
    monkeypatch.delenv("MKL_CBWR")
    monkeypatch.setenv("EDITOR", "another")
    assert machine_class(tmp_path, counted(OTHER, calls)) == bytes.fromhex(ONE)


def test_a_place_that_cannot_be_written_costs_the_probe_only(tmp_path: Path) -> None:
    calls: list[str] = []
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        assert machine_class(tmp_path / "file" / "classes", counted(ONE, calls)) == bytes.fromhex(ONE)
    assert calls == [ONE, ONE]
