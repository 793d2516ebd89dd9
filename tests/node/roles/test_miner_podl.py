"""PoDL on real nodes with real training: one task over several blocks, phases that overlap, a chain that verifies."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learnchain.consensus.audits import AuditFinding, FraudProof
from learnchain.encoding.codec import decode, encode
from learnchain.encoding.cryptography import list_root, message_hash
from learnchain.engines.podl import Podl, TwoPhases
from learnchain.engines.podl.multi_block_progress import StoppingRule
from learnchain.engines.podl.parts import baseline_count
from learnchain.learning.model import load_weights
from learnchain.learning.safe_tensors import read_header
from learnchain.learning.trace import CONTINUES_KEY
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.audit_messages import StateLeaf
from learnchain.protocol.messages import Block, Reveal
from learnchain.protocol.model_specification import count_committed_bytes, model_bytes
from learnchain.protocol.payload import SettlementOutcome as Settled
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.simulated_network import SimulatedClock, run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from learnchain.storage.genesis import load_genesis
from learnchain.storage.lmdb_store import LmdbStore
from learnchain.storage.slashing_protection import CommitmentOpening
from learnchain.tasks.task_file import BUILT_IN
from learnchain.verification.assurance import Level
from learnchain.verification.chain_verification import BlockCheck, Verifier
from learnchain.verification.replay import ReplayScope, TraceReplayer
from learnchain.verification.training_chain import fetch_index, find_own_end_state, find_start_digest

ENGINE = Podl(TwoPhases(6_500, 2_000, 1_500, 500, 1_300), StoppingRule(gain_ten_thousandths=0, stalled_blocks=2))
"""Any block that does not fall behind the champion goes on, so that the task's length follows from its test sets."""
LATER_MILLISECONDS = 1_900_000_000_000
MLP = {"preset": "mlp", "hidden": [32]}
TASK: dict[str, Any] = {**BUILT_IN["digits-in-blocks"], "required_accuracy": "0.5", "model": MLP}


def run(directory: Path, scenario: Callable[[SimulatedNodes], Awaitable[None]], engine: Podl = ENGINE) -> None:
    async def main() -> None:
        nodes = SimulatedNodes(directory, LocalPlan(directory, "podl", miners=2, rules=engine), seed=7)
        nodes.make_training = lambda _index: InProcessTraining(maximum_epochs=2)
        await scenario(nodes)
        await nodes.close()

    run_simulated(main())


def trained(nodes: SimulatedNodes, index: int = 0) -> list[Block]:
    ports = nodes.node(index).ports
    found = (ports.archive.block(each.block_hash) for each in ports.archive.branch(ports.chain.round.head.block, 0))
    return [each for each in found if isinstance(each, Block)]


def judge_of(nodes: SimulatedNodes) -> TraceReplayer:
    ports = nodes.node(0).ports
    return TraceReplayer(
        ports.blobs, ports.data, ports.evaluator, ports.chain.rules, ports.chain.parameters, ports.archive
    )


def checks_of(place: Path, level: Level = Level.ACCURACY) -> list[BlockCheck]:
    genesis, clock = load_genesis(place.parent / "genesis.json"), SimulatedClock(start_milliseconds=LATER_MILLISECONDS)

    async def walked() -> list[BlockCheck]:
        return [each async for each in Verifier(place, genesis, clock, level, InProcessTraining).run()]

    return asyncio.run(walked())


def test_training_for_the_next_block_begins_before_this_one_is_decided(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(4, 60)
        ports = nodes.node(1).ports
        blocks = {each.height: each for each in trained(nodes)}
        begun = {
            each.height: each.at_milliseconds
            for each in ports.decisions.recent
            if each.step == "training begins" and each.facts.get("ahead")
        }
        overlapping = [height for height in begun if height - 1 in blocks and height in blocks]
        assert overlapping
        for height in overlapping:
            assert begun[height] < blocks[height - 1].end_milliseconds
        by_task = [each.end_milliseconds for each in blocks.values()]
        assert by_task[1] - by_task[0] == ENGINE.phases.training_milliseconds

    run(tmp_path, scenario)


def test_the_first_block_of_a_task_is_trained_for_as_soon_as_the_key_is_there(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(1, 60)
        ports = nodes.node(1).ports
        selection = ports.chain.rules.select_task(nodes.genesis.state(), ports.chain.parameters)
        begun = [each for each in ports.decisions.recent if each.step == "training begins" and each.height == 1]
        assert [each.facts["goes_on"] for each in begun] == [0]
        # Phase 1 trains (III-B): no part of it belongs to the key, whose deadline is a bound for the requester.
        assert begun[0].at_milliseconds < selection.schedule.key_milliseconds

    run(tmp_path, scenario)


def test_a_commissioned_task_spans_blocks_and_pays_once_through_the_contract(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.publish({**TASK, "data": {**TASK["data"], "test_sets": 3}})
        await nodes.wait_for_height(8, 200)
        ports = nodes.node(0).ports
        states = ports.archive.branch(ports.chain.round.head.block, 0)
        settlements = [each for state in states for each in state.reward.settlements]
        assert [each.outcome for each in settlements] == [Settled.PAID]
        spanned = [each for each in trained(nodes) if each.release.task_id == settlements[0].task_id]
        assert 2 <= len(spanned) <= 3
        assert len({each.release.key for each in spanned}) == len(spanned)
        assert all(baseline_count(each.verdict)[1] for each in spanned[1:])
        assert settlements[0].recipient in {each.reveal.miner for each in spanned}
        assert states[-1].ledger.locked_wei == 0

    run(tmp_path, scenario)


def test_a_run_goes_on_from_the_miners_own_committed_state_and_the_audit_follows_it(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(3, 60)
        ports, judge = nodes.node(0).ports, judge_of(nodes)
        continued = 0
        for block in trained(nodes):
            parent_state = ports.archive.state(block.parent)
            selection = ports.chain.rules.select_task(parent_state, ports.chain.parameters)
            lines = await judge.audit(block, selection, ReplayScope((0,)))
            assert {each.finding for each in lines} == {AuditFinding.REPRODUCED}
            if not selection.position.block_index:
                continue
            continued += 1
            parent = ports.archive.block(block.parent)
            origin = await find_start_digest(ports.blobs, parent, block, ports.chain.parameters.chain_id)
            miner = next(each for each in (1, 2) if nodes.node(each).ports.wallet.address == block.proposer)
            own = nodes.node(miner).ports
            earlier = own.archive.slashing_protection.load_candidate(parent.parent)
            assert earlier is not None
            last = (await fetch_index(own.blobs, earlier.training)).trace().leaves[-1]
            assert origin == last.digest
            start = await find_own_end_state(own.archive, own.blobs, selection)
            assert start is not None
            assert start.digest == origin
            grandparent = ports.archive.block(parent.parent) if parent.height > 1 else block
            with pytest.raises(Rejected) as refusal:
                await find_start_digest(ports.blobs, grandparent, block, ports.chain.parameters.chain_id)
            assert refusal.value.reason is RejectionReason.TRACE_MISMATCH
        assert continued

    run(tmp_path, scenario)


def test_runs_that_lost_are_kept_and_repeated_where_a_winners_run_goes_on_from_them(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        judge, found = judge_of(nodes), dict[int, list[Reveal]]()

        async def resting_on_a_loser() -> bool:
            for block in trained(nodes):
                found[block.height] = [each.block.reveal for each in await judge.earlier_runs(block)]
            return any(found.values())

        for height in range(2, 14):
            await nodes.wait_for_height(height, 60)
            if await resting_on_a_loser():
                break
        assert any(found.values()), "no winner had lost before: choose another seed"
        ports = nodes.node(0).ports
        lost = [each for reveals in found.values() for each in reveals]

        def here() -> bool:
            return all(ports.blobs.path(cid) for each in lost for cid in (each.model_cid, each.training.trace_cid))

        await nodes.wait_until(here, 20)
        # The publisher trained nothing: what it holds is what any full node holds once the miners are gone.
        store = LmdbStore(Path(nodes.places[0].settings.data_directory) / "chain")
        store.put_many({bytes(key): bytes(value) for key, value in nodes.places[0].store.scan(b"")})
        store.close()
        highest.append(max(height for height, each in found.items() if each))

    highest: list[int] = []
    run(tmp_path, scenario)
    checks = {each.height: each for each in checks_of(tmp_path / "node-0", Level.FULL)}
    assert all(each.level == "full" and each.is_valid for height, each in checks.items() if height <= highest[0])
    assert "earlier runs" in checks[highest[0]].checks[-1]


def test_what_a_winners_index_says_wrongly_is_a_fault_that_every_machine_sees(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(3, 60)
        ports, judge = nodes.node(0).ports, judge_of(nodes)
        block = next(each for each in trained(nodes) if baseline_count(each.verdict)[1])
        selection = ports.chain.rules.select_task(ports.archive.state(block.parent), ports.chain.parameters)
        index = json.loads(await ports.blobs.read(block.reveal.training.trace_cid, 1 << 20))
        stranger = encode(
            replace(decode(CommitmentOpening, bytes.fromhex(index[CONTINUES_KEY])), salt=b"\7" * 32)
        ).hex()
        second = replace(decode(StateLeaf, bytes.fromhex(index["leaves"][1])), seed=b"\7" * 32)
        reseeded = [index["leaves"][0], encode(second).hex(), *index["leaves"][2:]]
        for wrong, finding in (
            ({**index, "leaves": reseeded}, AuditFinding.FAULT_SEED),
            ({**index, CONTINUES_KEY: stranger}, AuditFinding.FAULT_FIRST_STATE),
            ({**index, CONTINUES_KEY: "00"}, AuditFinding.FAULT_FIRST_STATE),
            ({**index, "states": index["states"][:1]}, AuditFinding.FAULT_END_POINTS),
            ({**index, "states": ["nowhere"] * len(index["states"])}, AuditFinding.FAULT_MERKLE_PATH),
        ):
            cid = await ports.blobs.add_bytes(json.dumps(wrong).encode())
            training = replace(block.reveal.training, trace_cid=cid)
            if finding is AuditFinding.FAULT_SEED:
                root = list_root(tuple(bytes.fromhex(each) for each in wrong["leaves"]))
                training = replace(training, state_root=root)
            forged = replace(block, reveal=replace(block.reveal, training=training))
            lines = await judge.audit(forged, selection, ReplayScope((), replay=False))
            assert [each.finding for each in lines] == [finding]
            proof = FraudProof(1337, message_hash(block), finding, (), (), (), block.proposer, b"")
            # What an auditor finds it can also prove: no fault of the run as a whole needs an opening.
            proof.check_form(training)
            assert await judge.is_fault_proven(proof, forged, selection)
            assert not await judge.is_fault_proven(proof, block, selection)

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_miner_whose_block_gives_way_to_a_better_one_goes_on_from_its_own_state_on_the_other(tmp_path: Path) -> None:
    """Phase 2 of block 2 is cut in two, so that each side names its own winner; Phase 1 of block 3 runs meanwhile."""

    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(1, 60)
        rounds = [nodes.node(index).ports.chain for index in (1, 2)]
        await nodes.wait_until(lambda: all(len(each.round.commitments) == 2 for each in rounds), 20)
        await nodes.wait_until(lambda: all(each.round.announcement is not None for each in rounds), 20)
        identities = [place.transport.peer_id for place in nodes.places]
        nodes.network.partition({identities[1]}, {identities[0], identities[2]})
        await nodes.wait_until(lambda: all(each.round.head.height == 2 for each in rounds), 20)
        sides = [each.round.head.block for each in rounds]
        assert sides[0] != sides[1]
        nodes.network.heal()
        await nodes.wait_until(lambda: len(nodes.heads()) == 1, 20)
        better = rounds[0].round.head.block
        assert better in sides
        assert rounds[0].round.head.height == 2
        loser = nodes.node(1 if better == sides[1] else 2).ports
        await nodes.wait_for_height(3, 60)
        third = loser.archive.block(loser.archive.on_branch(loser.chain.round.head, 3).block_hash)
        assert isinstance(third, Block)
        assert third.parent == better
        # Nothing that it had committed to is lost: its next run goes on from there, and was made once for both sides.
        assert loser.wallet.address in {each.miner for each in third.commitments}
        own = loser.archive.slashing_protection.load_candidate(better)
        other = loser.archive.slashing_protection.load_candidate(next(each for each in sides if each != better))
        assert own is not None
        assert CONTINUES_KEY in json.loads(await loser.blobs.read(own.training.trace_cid, 1 << 20))
        assert other is None or other.model_cid == own.model_cid

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_miner_that_was_killed_goes_on_from_what_it_committed_to(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        own = nodes.node(1).ports
        await nodes.wait_until(
            lambda: own.archive.slashing_protection.load_candidate(own.chain.round.selection.parent) is not None, 60
        )
        committed = own.chain.round.selection
        await nodes.kill(1)
        await nodes.start_node(1)
        await nodes.wait_for_height(committed.height + 2, 90)
        again = nodes.node(1).ports
        begun = [each for each in again.decisions.recent if each.step == "training begins"]
        assert any(each.facts["goes_on"] for each in begun)

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_late_node_agrees_and_the_chain_verifies_with_every_champion_counted_again(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.kill(2)
        await nodes.wait_until(lambda: nodes.node(0).ports.chain.round.head.height >= 3, 60)
        place = nodes.places[2]
        for stored in (place.store, place.execution):
            for key, _ in list(stored.scan(b"")):
                stored.put_many({key: None})
        await nodes.start_node(2)
        await nodes.wait_for_height(4, 90)
        node = nodes.node(0).ports
        store = LmdbStore(Path(nodes.places[0].settings.data_directory) / "chain")
        store.put_many({bytes(key): bytes(value) for key, value in nodes.places[0].store.scan(b"")})
        store.close()
        assert node.chain.round.head.height >= 4

    run(tmp_path, scenario)
    checks = checks_of(tmp_path / "node-0")
    assert len(checks) >= 4
    assert all(each.is_valid for each in checks)
    assert sum("measured baseline" in each.checks for each in checks) >= 2


def test_models_of_eight_bits_are_a_quarter_as_large_and_win_blocks(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(2, 60)
        ports = nodes.node(0).ports
        for block in trained(nodes):
            state = ports.archive.state(block.parent)
            selection = ports.chain.rules.select_task(state, ports.chain.parameters)
            model = selection.posted_task.specification.model
            path = await ports.blobs.fetch(block.reveal.model_cid, max_bytes=1 << 22)
            kinds = {entry.dtype for entry in read_header(path, 1 << 22, RejectionReason.WEIGHTS_MALFORMED).values()}
            assert "I8" in kinds
            assert count_committed_bytes(model, 8) < 0.3 * model_bytes(model)
            assert load_weights(path, model)
            assert block.verdict.correct * 2 > block.verdict.total
            lines = await judge_of(nodes).audit(block, selection, ReplayScope((0,)))
            assert {each.finding for each in lines} == {AuditFinding.REPRODUCED}

    run(tmp_path, scenario, replace(ENGINE, model_bits=8))
