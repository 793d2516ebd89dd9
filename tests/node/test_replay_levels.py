"""The assurance levels that train again: what they find in the stores of honest and of cheating miners."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnchain.learning.jobs import Progress, TrainedFiles, TrainingJob
from learnchain.learning.safe_tensors import read_header, read_tensor, write_tensors
from learnchain.learning.trace import INDEX_NAME, Trace, state_digest, state_path
from learnchain.node.assurance import Level, checked_at
from learnchain.node.verification import BlockCheck, quote
from learnchain.primitives.audit import StateLeaf, challenged_count, detection_probability
from learnchain.primitives.codec import decode, encode
from learnchain.primitives.rejection import RejectionReason
from tests.cli.samples import spoken
from tests.node.test_verification import Quick, built, verifier


class Cheat(Quick):
    """Publish a trace in which one thing was changed after training; the model itself is honest."""

    change: Callable[[Path, list[StateLeaf]], None]

    async def train(self, job: TrainingJob, on_progress: Callable[[Progress], None] | None = None) -> TrainedFiles:
        files = await super().train(job, on_progress)
        directory = Path(files.trace_directory)
        index = json.loads((directory / INDEX_NAME).read_text())
        leaves = [decode(StateLeaf, bytes.fromhex(line)) for line in index["leaves"]]
        type(self).change(directory, leaves)
        trace = Trace(tuple(leaves))
        index["leaves"] = [encode(leaf).hex() for leaf in leaves]
        (directory / INDEX_NAME).write_text(json.dumps({**index, "root": trace.root().hex()}))
        return replace(files, trace_root=trace.root())


def other_numbers(directory: Path, leaves: list[StateLeaf]) -> None:
    """Replace the second state by one that no training leads to."""
    path = state_path(directory, 1)
    entries = read_header(path, 1 << 26, RejectionReason.TRACE_MISMATCH)
    state = {name: read_tensor(path, entry) + np.float32(0.01) for name, entry in entries.items()}
    write_tensors(path, state)
    leaves[1] = replace(leaves[1], digest=state_digest(state))


def other_seed(_directory: Path, leaves: list[StateLeaf]) -> None:
    leaves[1] = replace(leaves[1], seed=b"\1" * 32)


class Inventor(Cheat):
    change = staticmethod(other_numbers)


class Stranger(Cheat):
    change = staticmethod(other_seed)


def checks_of(place: Path, level: Level, **changes: Any) -> list[BlockCheck]:
    checker = replace(verifier(place, level), **changes)

    async def walked() -> list[BlockCheck]:
        return [each async for each in checker.run()]

    return asyncio.run(walked())


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("honest"), Quick, blocks=3)


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("invented"), Inventor, blocks=3)


def test_an_honest_chain_is_reproduced_in_part_and_whole(honest: Path) -> None:
    for wanted in (0, 1, 2):
        for check in (each for each in checks_of(honest, Level.REPLAY, segments=wanted) if each.trained):
            drawn = wanted or challenged_count(check.segments, 50)
            assert (check.passed, check.level, check.replayed) == (True, "replay", drawn)
            assert check.detection == float(detection_probability(drawn, check.segments, 1))
    for check in (each for each in checks_of(honest, Level.FULL) if each.trained):
        assert (check.passed, check.level, check.detection) == (True, "full", 1.0)
        assert check.replayed == check.segments > 3


def test_an_invented_state_passes_for_accuracy_and_never_for_full_replay(invented: Path) -> None:
    assert all(each.passed and each.level == "accuracy" for each in checks_of(invented, Level.ACCURACY))
    trained = [each for each in checks_of(invented, Level.FULL) if each.trained]
    assert trained
    for check in trained:
        # Bits that differ may be another class's: the block stands, but is not called replayed.
        assert (check.passed, check.level, check.detection) == (True, "accuracy", 0.0)
        assert any("not settled" in each for each in check.checks)


def test_the_share_of_secrets_that_find_an_invented_state_is_as_quoted(invented: Path) -> None:
    """The state is the end of one segment and the start of another: two of N are forged."""
    found, total = 0, 0
    expected = 0.0
    for number in range(12):
        secret = number.to_bytes(32, "big")
        for check in (each for each in checks_of(invented, Level.REPLAY, segments=6, secret=secret) if each.trained):
            found, total = found + (check.level != "replay"), total + 1
            expected += float(detection_probability(6, check.segments, 2))
    assert found > 0
    assert abs(found - expected) <= 4 * (total**0.5) / 2


def test_a_fault_that_needs_no_arithmetic_refuses_the_block(tmp_path: Path) -> None:
    place = built(tmp_path, Stranger, blocks=3)
    assert all(each.passed for each in checks_of(place, Level.ACCURACY))
    for level in (Level.REPLAY, Level.FULL):
        checks = checks_of(place, level)
        assert checks[-1].reason == RejectionReason.TRACE_MISMATCH.value


def test_the_quote_names_the_probability(honest: Path) -> None:
    given = asyncio.run(quote(replace(verifier(honest, Level.REPLAY), segments=2)))
    assert given.proven == checked_at(Level.REPLAY)
    assert given.detection == float(detection_probability(2, given.segments, 1))


def test_the_command_line_replays(
    honest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learnchain.node.verification.Trainer", Quick)
    monkeypatch.setattr("learnchain.node.verification.Verifier.make_training", Quick, raising=False)
    (honest.parent / "network.json").write_text('{"rpc_ports": [1, 1]}')
    place = ("chain", "verify", "--data-dir", str(honest.parent), "--node", honest.name[-1])
    code, envelope = spoken(capsys, *place, "--level", "replay", "--segments", "2", "--quote")
    assert (code, envelope["data"]["level"]) == (0, "replay")
    assert 0 < envelope["data"]["detection"] < 1
