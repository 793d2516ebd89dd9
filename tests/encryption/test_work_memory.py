"""A network of real processes mines on encrypted digits; no miner has a plain training row in memory or on disk."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from learnchain.tasks.task_file import BUILT_IN, task_draft
from tests.encryption.plain_rows import found_in, traces_of

WITHIN_SECONDS = 420
PAUSE_SECONDS = 10
"""Between two looks: searching takes processor time from those that train."""
ROWS = 2
PIECE_BYTES = 1 << 24
OVERLAP_BYTES = 1 << 12


def children_of(process: int) -> list[int]:
    """Return a process and everything it started."""
    listed = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            listed[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [process]
    for each in found:
        found += [child for child, parent in listed.items() if parent == each]
    return found


def miners_of(directory: Path) -> list[int]:
    """Return the processes of the mining nodes: all but node 0, which holds the data."""
    roots = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(f"{directory}/node-{each}/".encode()) for word in words for each in (1, 2)):
            roots.append(int(place.parent.name))
    return sorted({each for root in roots for each in children_of(root)})


def regions_of(process: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a process's memory that hold anything and are no files: those are read from the disk."""
    start = end = 0
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(each, 16) for each in words[0].split("-"))
            name = words[5] if len(words) > 5 else ""
            if "r" not in words[1] or (name.startswith("/") and not name.startswith(("/dev/shm", "/memfd"))):
                end = start
        elif words[0] == "Rss:" and int(words[1]) and end > start:
            yield start, end


def memory_of(process: int) -> Iterator[bytes]:
    """Yield what a process holds in memory."""
    try:
        with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
            for start, end in list(regions_of(process)):
                for place in range(start, end, PIECE_BYTES):
                    # Kernel pages refuse to be read, and a process may end meanwhile.
                    with suppress(OSError):
                        memory.seek(place)
                        yield memory.read(min(PIECE_BYTES + OVERLAP_BYTES, end - place))
    except OSError:
        return


def files_of(directory: Path) -> Iterator[bytes]:
    for each in (1, 2):
        for path in (directory / f"node-{each}").rglob("*"):
            try:
                if path.is_file():
                    yield path.read_bytes()
            except OSError:
                continue


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="memory is read through /proc")
@pytest.mark.timeout(WITHIN_SECONDS + 300)
def test_miners_of_an_encrypted_task_never_hold_plain_rows(tmp_path: Path) -> None:
    secret = traces_of(task_draft(BUILT_IN["digits-encrypted"]).training_data, ROWS)
    opened = traces_of(task_draft(BUILT_IN["iris"]).training_data, ROWS)
    directory, log = tmp_path / "network", tmp_path / "log"
    command = [
        str(Path(sys.executable).with_name("learnchain")),
        "up",
        "--consensus",
        "pole",
        "--task",
        "digits-encrypted",
    ]
    command += ["--miners", "2", "--blocks", "30", "--rpc-port", "0", "--data-dir", str(directory)]
    seen, looks, plain = "", 0, 0
    with log.open("w") as output:
        network = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            ending = time.monotonic() + WITHIN_SECONDS
            while time.monotonic() < ending and network.poll() is None:
                time.sleep(PAUSE_SECONDS)
                seen = log.read_text()
                if "posted task" not in seen:
                    continue
                over = any("digits-encrypted" in line and "won by" in line for line in seen.splitlines())
                for process in miners_of(directory):
                    looks += 1
                    found = found_in(memory_of(process), [*secret, *opened])
                    assert not found & set(secret), f"process {process} holds plain rows"
                    plain += len(found)
                if over:
                    break
            else:
                raise AssertionError(f"no model was mined on encrypted rows:\n{seen}")
            assert not found_in(files_of(directory), secret)
        finally:
            network.send_signal(signal.SIGINT)
            network.wait(90)
    assert looks > 6
    assert plain > 0, "the search must find rows that miners do hold: those of the standing task"
