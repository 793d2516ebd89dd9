"""The assurance levels that train again: what they find in the stores of honest and of cheating miners."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnchain.consensus.audits import detection_probability, sample_size
from learnchain.encoding.codec import decode, encode
from learnchain.learning.jobs import TrainedFiles, TrainingJob, TrainingProgress
from learnchain.learning.safe_tensors import read_header, read_tensor, write_tensors
from learnchain.learning.trace import INDEX_NAME, Trace, state_digest, state_path
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.rejection import RejectionReason
from learnchain.tasks.task_file import BUILT_IN
from learnchain.verification.assurance import Level, list_checks_at
from learnchain.verification.chain_verification import BlockCheck, quote
from tests.cli.samples import spoken
from tests.verification.test_chain_verification import Quick, built, verifier


class Cheat(Quick):
    """Publish a trace in which one thing was changed after training; the model itself is honest."""

    change: Callable[[Path, list[StateLeaf]], None]

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
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


def made(directory: Path, miner: type[Quick]) -> Path:
    """Return the store of a node whose task keeps a state every hundred steps: eight segments and more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILT_IN["iris"]["training"], "checkpoint_interval_steps", 100)
        return built(directory, miner, blocks=2)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("honest"), Quick)


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("invented"), Inventor)


def test_an_honest_chain_is_reproduced_in_part_and_whole(honest: Path) -> None:
    for wanted in (0, 2):
        trained = [each for each in checks_of(honest, Level.REPLAY, segments=wanted) if each.is_trained]
        assert trained
        for check in trained:
            drawn = wanted or sample_size(check.segments, 50)
            assert (check.is_valid, check.level, check.replayed) == (True, "replay", drawn)
            assert check.detection == float(detection_probability(drawn, check.segments, 1))
    whole = [each for each in checks_of(honest, Level.FULL) if each.is_trained]
    assert whole
    for check in whole:
        assert (check.is_valid, check.level, check.detection) == (True, "full", 1.0)
        assert check.replayed == check.segments > 3


def test_an_invented_state_passes_for_accuracy_and_never_for_full_replay(invented: Path) -> None:
    assert all(each.is_valid and each.level == "accuracy" for each in checks_of(invented, Level.ACCURACY))
    trained = [each for each in checks_of(invented, Level.FULL) if each.is_trained]
    assert trained
    for check in trained:
        # Bits that differ may be another class's: the block stands, but is not called replayed.
        assert (check.is_valid, check.level, check.detection) == (True, "accuracy", 0.0)
        assert any("not settled" in each for each in check.checks)


def test_a_block_is_called_replayed_only_where_no_forged_segment_was_drawn(invented: Path) -> None:
    """The state is the end of the first segment and the start of the second: two of N are forged."""
    found = set()
    for number in range(4):
        secret = number.to_bytes(32, "big")
        trained = [each for each in checks_of(invented, Level.REPLAY, segments=2, secret=secret) if each.is_trained]
        for check in trained:
            assert check.is_valid
            is_found = any("segment 0 differs" in each or "segment 1 differs" in each for each in check.checks)
            assert (check.level == "accuracy") is is_found
            found.add(is_found)
    assert found == {False, True}


def test_a_fault_that_needs_no_arithmetic_refuses_the_block(tmp_path: Path) -> None:
    place = made(tmp_path, Stranger)
    assert all(each.is_valid for each in checks_of(place, Level.ACCURACY))
    for level in (Level.REPLAY, Level.FULL):
        checks = checks_of(place, level)
        assert checks[-1].reason == RejectionReason.TRACE_MISMATCH.value


def test_the_quote_names_the_probability(honest: Path) -> None:
    given = asyncio.run(quote(replace(verifier(honest, Level.REPLAY), segments=2)))
    assert given.proven == list_checks_at(Level.REPLAY)
    assert given.detection == float(detection_probability(2, given.segments, 1))


def test_the_command_line_replays(
    honest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from learnchain.verification.chain_verification import Verifier

    monkeypatch.setattr("learnchain.verification.chain_verification.Verifier", partial(Verifier, make_training=Quick))
    (honest.parent / "network.json").write_text('{"rpc_ports": [1, 1]}')
    place = ("chain", "verify", "--data-dir", str(honest.parent), "--node", honest.name[-1])
    code, envelope = spoken(capsys, *place, "--level", "replay", "--segments", "2", "--quote")
    assert (code, envelope["data"]["level"]) == (0, "replay")
    assert 0 < envelope["data"]["detection"] < 1
