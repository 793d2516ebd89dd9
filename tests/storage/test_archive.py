"""Branches of the archive: what is sent of one costs the same wherever its tip is."""

from collections.abc import Mapping
from dataclasses import fields

import pytest

from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import message_hash
from learnchain.encoding.files import MemoryStore
from learnchain.engines.dlbc import Dlbc
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.state import ChainState
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.chain_builder import ChainBuilder
from learnchain.simulation.dispute_cases import build_audit_commitment, build_audit_report, run_until_seeded
from learnchain.simulation.scenario import ScenarioNode, run_height, start_from_genesis
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.storage.archive import Archive, BlockPosition
from learnchain_conformance.evidence_cases import build_double_commitment
from learnchain_conformance.instant_training import InstantTraining

HEIGHT = 24


class Counting(Archive):
    """Count the states that are read."""

    read = 0

    def state(self, block_hash: Hash32) -> ChainState:
        Counting.read += 1
        return super().state(block_hash)

    def standing(self, block_hash: Hash32) -> BlockPosition:
        Counting.read += 1
        return super().standing(block_hash)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryStore, ChainState]:
    directory = tmp_path_factory.mktemp("chain")

    async def scenario() -> tuple[MemoryStore, ChainState]:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=1), seed=3)
        nodes.make_training = nodes.make_judge = lambda _index: InstantTraining(360)
        await nodes.start()
        await nodes.wait_for_height(HEIGHT, 60.0 * HEIGHT)
        genesis = nodes.genesis.state()
        await nodes.close()
        return nodes.places[0].store, genesis

    return run_simulated(scenario())


def test_a_range_is_the_branch_from_just_above_a_height(chain: tuple[MemoryStore, ChainState]) -> None:
    archive = Archive(*chain)
    tip = archive.head().block
    whole = tuple(each.block_hash for each in archive.branch(tip, 0))
    for above in (0, 1, 7, len(whole) - 1):
        for limit in (1, 5, 1_000):
            assert archive.hashes_above(tip, above, limit) == whole[above : above + limit]
    middle = whole[9]
    assert archive.hashes_above(middle, 4, 1_000) == whole[4:10]
    assert archive.hashes_above(tip, len(whole), 5) == ()


def test_where_a_block_stands_is_what_its_state_says(chain: tuple[MemoryStore, ChainState]) -> None:
    archive = Archive(*chain)
    for state in archive.branch(archive.head().block, 0):
        here = archive.standing(state.block_hash)
        assert all(getattr(here, each.name) == getattr(state, each.name) for each in fields(BlockPosition))
    names = [each.name for each in fields(ChainState)]
    assert [each.name for each in fields(BlockPosition)] == names[: len(fields(BlockPosition))]
    with pytest.raises(Unavailable):
        archive.standing(bytes(32))


def test_a_rival_at_a_height_does_not_lead_the_walk_astray(chain: tuple[MemoryStore, ChainState]) -> None:
    store, genesis = chain
    copy = MemoryStore()
    copy.put_many(dict(store.scan(b"")))
    archive = Archive(copy, genesis)
    tip = archive.head().block
    whole = tuple(each.block_hash for each in archive.branch(tip, 0))
    # Rivals at every height from 6 to 9, of which nothing but the name is known.
    copy.put_many({b"height/" + height.to_bytes(8, "big") + bytes([height]) * 32: b"" for height in range(6, 10)})
    assert archive.hashes_above(tip, 3, 4) == whole[3:7]
    with pytest.raises(Unavailable):
        archive.hashes_above(bytes([7]) * 32, 3, 4)


def test_an_answer_reads_no_more_of_a_long_chain_than_of_a_short_one(chain: tuple[MemoryStore, ChainState]) -> None:
    archive = Counting(*chain)
    tip = archive.head().block
    Counting.read = 0
    archive.hashes_above(tip, 2, 4)
    assert 4 <= Counting.read <= 4 + 4


@pytest.mark.parametrize(
    ("key", "value"), [(b"format", b"3"), (b"format_version", b"1"), (b"format_version", b"x" * 99)]
)
def test_another_format_is_refused_before_anything_is_written(
    chain: tuple[MemoryStore, ChainState], key: bytes, value: bytes
) -> None:
    store = MemoryStore()
    store.put_many({key: value})
    with pytest.raises(Rejected, match=r"has format .{1,20}, this program reads 2: start anew") as refused:
        Archive(store, chain[1])
    assert refused.value.reason is RejectionReason.FORMAT_UNSUPPORTED
    assert dict(store.scan(b"")) == {key: value}


def test_a_height_of_the_heads_branch_is_found_without_walking_the_chain(chain: tuple[MemoryStore, ChainState]) -> None:
    store, genesis = chain
    copy = MemoryStore()
    copy.put_many(dict(store.scan(b"")))
    archive = Counting(copy, genesis)
    head = archive.head()
    whole = tuple(each.block_hash for each in archive.branch(head.block, 0))
    Counting.read = 0
    assert archive.on_branch(head, 2).block_hash == whole[1]
    assert Counting.read == 1
    copy.put_many({b"height/" + height.to_bytes(8, "big") + bytes([height]) * 32: b"" for height in range(6, 10)})
    found = [archive.on_branch(head, height).block_hash for height in range(1, head.height + 1)]
    assert tuple(found) == whole
    assert archive.on_branch(head, 0) == genesis


class Written(MemoryStore):
    """Count the writes."""

    writes = 0

    def put_many(self, items: Mapping[bytes, bytes | None]) -> None:
        self.writes += 1
        super().put_many(items)


def test_a_blob_that_is_noted_already_costs_no_write(chain: tuple[MemoryStore, ChainState]) -> None:
    store = Written()
    archive = Archive(store, chain[1])
    one, two = b"\1" * 36, b"\2" * 36
    archive.blobs.note(3, (one,))
    before = store.writes
    archive.blobs.note(3, (one,))
    assert store.writes == before
    archive.blobs.note(3, (one, two))
    archive.blobs.note(4, (one,))
    assert store.writes == before + 2
    assert archive.blobs.below(4) == {3: (two,)}


def test_what_waits_for_a_block_waits_through_a_kill() -> None:
    node = start_from_genesis(ChainBuilder(Dlbc()))
    evidence = build_double_commitment(played(node))
    report = build_audit_report(run_until_seeded(node))
    waiting = (evidence, build_audit_commitment(report), report)
    store, genesis = MemoryStore(), node.builder.build_genesis()
    archive = Archive(store, genesis)
    for each in waiting:
        archive.store_pending_message(each)
    assert set(Archive(store, genesis).load_pending_messages()) == set(waiting)
    archive.forget_pending_messages({message_hash(report)})
    assert Archive(store, genesis).load_pending_messages() == (report,)


def test_reports_of_ones_own_are_kept_until_nobody_can_ask_about_them() -> None:
    node = run_until_seeded(start_from_genesis(ChainBuilder(Dlbc())))
    first, later = build_audit_report(node), build_audit_report(node, height=300)
    store, genesis = MemoryStore(), node.builder.build_genesis()
    archive = Archive(store, genesis)
    for each in (later, first):
        archive.slashing_protection.store_report(each)
    assert Archive(store, genesis).slashing_protection.load_reports() == (first, later)
    archive.slashing_protection.forget_reports(300)
    assert Archive(store, genesis).slashing_protection.load_reports() == (later,)


def played(node: ScenarioNode) -> ScenarioNode:
    run_height(node)
    return node
