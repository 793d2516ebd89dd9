"""What `chain verify` checks at each level, what it says that it will cost, and what it refuses."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.encoding.codec import encode
from learnchain.learning.jobs import Evaluation, EvaluationJob
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Block, block_bytes
from learnchain.rejection import RejectionReason
from learnchain.simulation.simulated_network import SimulatedClock, run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from learnchain.storage.archive import Archive
from learnchain.storage.genesis import load_genesis
from learnchain.storage.lmdb_store import LmdbStore
from learnchain.verification.assurance import TRUSTED_CLAIM, Level, NoTraining, list_checks_at
from learnchain.verification.chain_verification import BlockCheck, Quote, Verifier, quote
from tests.cli.samples import spoken

BLOCKS = 6
WINDOW = 3
BRIEF = {"audit_window_blocks": 4, "response_blocks": 1, "proof_blocks": 1}
"""Nobody keeps states for longer than the window because it may be asked for their steps."""
LATER_MILLISECONDS = 1_900_000_000_000


class Quick(InProcessTraining):
    """Train the hundred epochs that irises need in the time that a phase has."""

    def __init__(self) -> None:
        super().__init__(epoch_seconds=0.03, maximum_epochs=100)


class Miscounter(Quick):
    """Count one row more, or one less of a full count: a whole network of them makes a chain of false claims."""

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        found = await super().evaluate(job)
        return replace(found, correct=found.correct + (1 if found.correct < found.total else -1))


def built(
    directory: Path,
    judge: Callable[[], InProcessTraining],
    retain_blocks: int = 0,
    blocks: int = BLOCKS,
    consensus: str = "dlbc",
) -> Path:
    """Return the directory of a node that has stopped, laid out as a local network's."""

    async def scenario() -> Path:
        plan = LocalPlan(directory, consensus, miners=1, standing=("iris",), finality_depth=2, parameters=BRIEF)
        nodes = SimulatedNodes(directory, plan, seed=9)
        nodes.change = lambda settings: replace(settings, retain_blocks=retain_blocks)
        nodes.make_training = nodes.make_judge = lambda _index: judge()
        await nodes.start()
        await nodes.wait_for_height(blocks, 60.0 * blocks)
        await nodes.close()
        place = Path(nodes.places[1].settings.data_directory)
        store = LmdbStore(place / "chain")
        store.put_many(dict(nodes.places[1].store.scan(b"")))
        store.close()
        return place

    return run_simulated(scenario())


def verifier(place: Path, level: Level) -> Verifier:
    clock = SimulatedClock(start_milliseconds=LATER_MILLISECONDS)
    training = InProcessTraining if level.verifies_models else NoTraining
    return Verifier(place, load_genesis(place.parent / "genesis.json"), clock, level, training)


def checks_of(place: Path, level: Level) -> list[BlockCheck]:
    async def walked() -> list[BlockCheck]:
        return [each async for each in verifier(place, level).run()]

    return asyncio.run(walked())


def change(place: Path, work: Callable[[Archive, LmdbStore], None]) -> None:
    store = LmdbStore(place / "chain")
    work(Archive(store, load_genesis(place.parent / "genesis.json").state()), store)
    store.close()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("honest"), Quick)


@pytest.fixture(scope="module")
def false(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("false"), Miscounter, blocks=3)


def test_every_block_of_an_honest_chain_stands_at_every_level(honest: Path) -> None:
    for level in Level:
        checks = checks_of(honest, level)
        assert len(checks) >= BLOCKS
        assert all(each.is_valid and each.level == level.value for each in checks)
        trained = [each for each in checks if each.is_trained]
        assert trained
        assert all({"measured payload", "measured count"} <= set(each.checks) for each in trained)
        assert all(("trace root" in each.checks) == level.verifies_models for each in trained)


@pytest.mark.parametrize("level", [Level.HEADERS, Level.FULL])
def test_a_hash_is_not_called_training(tmp_path: Path, level: Level) -> None:
    place = built(tmp_path, lambda: InProcessTraining(hashes_per_second=1 << 20), blocks=2, consensus="proof_of_work")
    checks = checks_of(place, level)
    assert all(each.is_valid and not each.is_trained and not each.replayed for each in checks)
    assert "hashing" in {each.won_by for each in checks}


def test_a_false_claim_passes_for_header_level_only(false: Path) -> None:
    assert all(each.is_valid for each in checks_of(false, Level.HEADERS))
    checks = checks_of(false, Level.ACCURACY)
    assert checks[-1].reason == RejectionReason.CLAIM_NOT_EXACT.value
    assert [each.is_trained for each in checks] == [False] * (len(checks) - 1) + [True]


def test_what_storage_relief_deleted_counts_at_header_level_and_the_rest_again(tmp_path: Path) -> None:
    place = built(tmp_path, Quick, retain_blocks=WINDOW, blocks=10)
    here: dict[int, bool] = {}

    def look(archive: Archive, _store: LmdbStore) -> None:
        from learnchain.storage.blobs.peer_blobs import PeerBlobs

        blobs = PeerBlobs(place / "blobs")
        for state in archive.branch(archive.head().block, 0):
            block = archive.block(state.block_hash)
            if isinstance(block, Block):
                here[block.height] = blobs.path(block.reveal.model_cid) is not None

    change(place, look)
    checks = checks_of(place, Level.ACCURACY)
    assert all(each.is_valid for each in checks)
    levels = {each.height: each.level for each in checks if each.is_trained}
    assert set(levels.values()) == {Level.HEADERS.value, Level.ACCURACY.value}
    assert levels == {at: (Level.ACCURACY if kept else Level.HEADERS).value for at, kept in here.items()}


def test_a_stored_state_that_was_changed_is_found_at_header_level(false: Path, tmp_path: Path) -> None:
    place = copied(false, tmp_path)

    def rob(archive: Archive, store: LmdbStore) -> None:
        state = archive.branch(archive.head().block, 0)[-1]
        richer = replace(state, ledger=replace(state.ledger, minted_gwei=state.ledger.minted_gwei + 1))
        store.put_many({b"state/" + state.block_hash: encode(richer)})

    change(place, rob)
    assert checks_of(place, Level.HEADERS)[-1].reason == RejectionReason.RESULT_ROOT_WRONG.value


def test_a_stored_block_that_was_changed_is_found_at_header_level(false: Path, tmp_path: Path) -> None:
    place = copied(false, tmp_path)

    def rob(archive: Archive, store: LmdbStore) -> None:
        state = archive.branch(archive.head().block, 0)[0]
        block = archive.block(state.block_hash)
        signature = bytes([block.signature[0] ^ 1]) + block.signature[1:]
        store.put_many({b"block/" + state.block_hash: block_bytes(replace(block, signature=signature))})

    change(place, rob)
    checks = checks_of(place, Level.HEADERS)
    assert [each.reason for each in checks] == [RejectionReason.WRONG_SIGNATURE.value]


def copied(place: Path, directory: Path) -> Path:
    import shutil

    shutil.copytree(place.parent, directory / "network")
    return directory / "network" / place.name


class Ticking(SimulatedClock):
    """Let a second pass whenever somebody looks."""

    def monotonic_seconds(self) -> float:
        self.looked = getattr(self, "looked", 0) + 1
        return float(self.looked)


@pytest.mark.parametrize("level", Level)
def test_a_quote_says_cost_and_proof_without_walking_to_the_end(honest: Path, level: Level) -> None:
    before = {path: path.stat().st_size for path in (honest / "blobs").rglob("*")}
    checker = replace(verifier(honest, level), clock=Ticking(start_milliseconds=LATER_MILLISECONDS))
    given: Quote = asyncio.run(quote(checker))
    assert (given.level, given.blocks) == (level.value, checker.height())
    assert given.proven == list_checks_at(level)
    assert given.believed == (() if level.verifies_models else (TRUSTED_CLAIM,))
    # Seconds are looks here: a whole walk takes more of them than the walk of the quote did.
    assert given.seconds > checker.clock.monotonic_seconds() - 4
    both = [asyncio.run(quote(verifier(honest, each))).bytes_read for each in (Level.HEADERS, Level.ACCURACY)]
    assert 0 < both[0] < both[1]
    assert {path: path.stat().st_size for path in (honest / "blobs").rglob("*")} == before


def test_a_quote_stops_early(honest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[int] = []
    original = Verifier._admit_stored_block

    async def counted(self: Verifier, *arguments: object) -> object:
        walked.append(1)
        return await original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Verifier, "_admit_stored_block", counted)
    asyncio.run(quote(verifier(honest, Level.HEADERS)))
    assert 0 < len(walked) < BLOCKS


def spoken_verify(capsys: pytest.CaptureFixture[str], place: Path, *options: str) -> tuple[int, dict[str, object]]:
    return spoken(capsys, "chain", "verify", "--data-dir", str(place.parent), "--node", place.name[-1], *options)


def test_the_command_line_verifies_quotes_and_refuses(
    false: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learnchain.verification.chain_verification.Trainer", InProcessTraining)
    (false.parent / "network.json").write_text('{"rpc_ports": [1, 1]}')
    code, envelope = spoken_verify(capsys, false, "--level", "headers")
    data = envelope["data"]
    assert (code, data["verified"], {each["level"] for each in data["blocks"]}) == (0, True, {"headers"})
    assert data["quote"]["blocks"] == data["height"]
    code, envelope = spoken_verify(capsys, false, "--level", "headers", "--quote")
    assert (code, envelope["data"]["believed"]) == (0, [TRUSTED_CLAIM])
    code, envelope = spoken_verify(capsys, false, "--level", "everything")
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_the_command_line_says_what_people_need(honest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.cli.samples import exit_code

    (honest.parent / "network.json").write_text('{"rpc_ports": [1, 1]}')
    place = ("chain", "verify", "--data-dir", str(honest.parent), "--node", honest.name[-1], "--level", "headers")
    assert exit_code(*place, "--quote") == 0
    said = capsys.readouterr().out
    assert all(each in said for each in (*list_checks_at(Level.HEADERS), TRUSTED_CLAIM))
    assert exit_code(*place) == 0
    assert "counted again" not in capsys.readouterr().out
