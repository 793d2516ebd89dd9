"""A network of real processes mines on encrypted digits; no miner has a plain training row in memory or on disk."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from learnchain.node.built_in_tasks import BUILT_IN
from learnchain.node.task_file import task_draft
from tests.node.encryption.plain_rows import found_in, traces_of

WITHIN_SECONDS = 280
ROWS = 4
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


def memory_of(process: int) -> Iterator[bytes]:
    """Yield what a process can have written or read: all but what it maps read-only from the installation."""
    try:
        with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
            for line in Path(f"/proc/{process}/maps").read_text().splitlines():
                bounds, permissions, _, _, _, *name = line.split(maxsplit=5)
                fixed = name and (
                    "w" not in permissions and name[0].startswith((sys.prefix, sys.base_prefix, "/usr", "/lib"))
                )
                if "r" not in permissions or fixed or (name and name[0].startswith("[v")):
                    continue
                start, end = (int(each, 16) for each in bounds.split("-"))
                for place in range(start, end, PIECE_BYTES):
                    memory.seek(place)
                    yield memory.read(min(PIECE_BYTES + OVERLAP_BYTES, end - place))
    except OSError:
        # The process, or this part of its memory, has gone meanwhile.
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
@pytest.mark.timeout(WITHIN_SECONDS + 120)
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
                time.sleep(2)
                seen = log.read_text()
                if "posted task" not in seen:
                    continue
                over = any("digits-encrypted" in line and "won by" in line for line in seen.splitlines())
                for process in miners_of(directory):
                    looks += 1
                    assert found_in(memory_of(process), secret) == 0, f"process {process} holds plain rows"
                    plain += found_in(memory_of(process), opened) if over else 0
                if over:
                    break
            else:
                raise AssertionError(f"no model was mined on encrypted rows:\n{seen}")
            assert found_in(files_of(directory), secret) == 0
        finally:
            network.send_signal(signal.SIGINT)
            network.wait(30)
    assert looks > 6
    assert plain > 0, "the search must find rows that miners do hold: those of the standing task"
