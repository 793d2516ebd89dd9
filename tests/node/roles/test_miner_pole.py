"""PoLe on real nodes with real training: an ommer that is paid, a time limit, a foreign mapping, late verifiers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learnchain.encoding.codec import decode, encode
from learnchain.engines.pole import Pole
from learnchain.engines.pole.mapping import dense_vectors, mapping_layer
from learnchain.engines.pole.parts import is_waived, list_cited_losers, read_mapped_training, training_claim
from learnchain.engines.pole.rules import PoleDurations
from learnchain.engines.registry import find_engine
from learnchain.learning.jobs import Evaluation, EvaluationJob, TrainedFiles, TrainingJob, TrainingProgress
from learnchain.node.local_network import LOCAL_PHASES, LocalPlan
from learnchain.node.roles import publisher
from learnchain.protocol.messages import Block, CandidateOutcome, Deadline, EmptyBlock, Release, TrainedModel
from learnchain.protocol.payload import SettlementOutcome as Settled
from learnchain.protocol.state import ChainState
from learnchain.rejection import RejectionReason
from learnchain.simulation.simulated_network import SimulatedClock, run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from learnchain.storage.genesis import load_genesis
from learnchain.storage.lmdb_store import LmdbStore
from learnchain.tasks.task_file import BUILT_IN
from learnchain.verification.assurance import Level
from learnchain.verification.chain_verification import BlockCheck, Verifier

TIMES = PoleDurations(1_500, 1_000, 20_000, 1_500, 500, 800, 2_000, 2)
LATER_MILLISECONDS = 1_900_000_000_000
WIDTH = 64
MAPPED_DIGITS: dict[str, Any] = {
    **BUILT_IN["digits"],
    "required_accuracy": "0.7",
    "model": {"preset": "mlp", "input_shape": [WIDTH], "hidden": [32]},
}
"""A model behind 64 query vectors over the 8 x 8 pixels."""


def run(directory: Path, scenario: Callable[[SimulatedNodes], Awaitable[None]], miners: int, engine: Pole) -> None:
    async def main() -> None:
        plan = LocalPlan(directory, "pole", miners=miners, rules=engine)
        nodes = SimulatedNodes(directory, plan, seed=7)
        await scenario(nodes)
        await nodes.close()

    run_simulated(main())


def branch(nodes: SimulatedNodes) -> tuple[ChainState, ...]:
    ports = nodes.node(0).ports
    return ports.archive.branch(ports.chain.round.head.block, 0)


def blocks(nodes: SimulatedNodes) -> list[Block | EmptyBlock]:
    return [nodes.node(0).ports.archive.block(state.block_hash) for state in branch(nodes)]


def checks_of(place: Path) -> list[BlockCheck]:
    genesis, clock = load_genesis(place.parent / "genesis.json"), SimulatedClock(start_milliseconds=LATER_MILLISECONDS)

    async def walked() -> list[BlockCheck]:
        return [each async for each in Verifier(place, genesis, clock, Level.ACCURACY, InProcessTraining).run()]

    return asyncio.run(walked())


@pytest.mark.slow
def test_a_loser_is_cited_and_paid_and_a_late_node_agrees(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(3, 120)
        citing = [each for each in blocks(nodes) if isinstance(each, Block) and list_cited_losers(each)]
        assert citing
        ommer = list_cited_losers(citing[0])[0]
        paid = [each for each in branch(nodes)[citing[0].height - 1].reward.payouts if each.kind == "ommer reward"]
        assert [(each.recipient, each.amount_gwei > 0) for each in paid] == [(ommer.miner, True)]
        lost = blocks(nodes)[ommer.height - 1]
        assert isinstance(lost, Block)
        outcomes = {each.miner: each.outcome for each in lost.verdict.entries}
        assert outcomes[ommer.miner] is CandidateOutcome.LOWER_CLAIM
        assert all(training_claim(each.reveal).has_reached(9, 10) for each in citing)
        # A node that saw nothing of it joins now and measures every block again.
        late = nodes.places[3]
        await nodes.kill(3)
        late.store, late.execution = type(late.store)(), type(late.execution)()
        await nodes.start_node(3)
        reached = nodes.node(0).ports.chain.round.head.height + 1
        await nodes.wait_for_height(reached, 240)
        store = LmdbStore(tmp_path / "node-1" / "chain")
        store.put_many(dict(nodes.places[1].store.scan(b"")))
        store.close()

    run(tmp_path, scenario, 3, Pole(times=TIMES))
    checks = checks_of(tmp_path / "node-1")
    assert len(checks) >= 4
    assert all(each.is_valid for each in checks)
    assert all({"measured count", "measured training"} <= set(each.checks) for each in checks if each.is_trained)


def test_the_papers_own_mode_runs_and_shows_every_model_before_the_test_set(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(2, 120)
        for block in blocks(nodes):
            assert isinstance(block, Block)
            won = next(each for each in block.commitments if each.miner == block.proposer)
            assert [decode(TrainedModel, won.engine).model_cid] == [block.reveal.model_cid]
            assert read_mapped_training(block.reveal.training).mapping == block.parent

    engine = find_engine("pole-paper").build_local(LOCAL_PHASES, 2)
    assert isinstance(engine, Pole)
    run(tmp_path, scenario, 2, replace(engine, times=TIMES))


def test_a_height_ends_at_the_time_limit_and_the_task_is_refunded(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        # One epoch is not enough for what the task requires.
        nodes.make_training = lambda _index: InProcessTraining(maximum_epochs=1)
        await nodes.start()
        await nodes.publish({**MAPPED_DIGITS, "required_accuracy": "0.99"})
        await nodes.wait_until(lambda: any(state.reward.settlements for state in branch(nodes)), 240)
        state = next(each for each in branch(nodes) if each.reward.settlements)
        block = nodes.node(0).ports.archive.block(state.block_hash)
        assert isinstance(block, Block)
        assert is_waived(block.verdict)
        assert block.release.released_milliseconds - branch(nodes)[state.height - 2].end_milliseconds >= 20_000
        assert [each.outcome for each in state.reward.settlements] == [Settled.REFUNDED]
        assert sum(each.kind == "block reward" for each in state.reward.payouts) == 1
        # Losers of other heights may be cited, those of this one not.
        await nodes.wait_for_height(state.height + 1, 120)
        cited = [ommer.parent for each in blocks(nodes) for ommer in list_cited_losers(each)]
        assert block.parent not in cited

    run(tmp_path, scenario, 2, Pole(times=TIMES))


def test_a_data_node_that_dates_its_release_ahead_gets_no_model_and_loses_its_bond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying: set[bytes] = set()

    def dated_ahead(**fields: Any) -> Release:
        ahead = 10_000 if fields["task_id"] in lying else 0
        return Release(**{**fields, "released_milliseconds": fields["released_milliseconds"] + ahead})

    monkeypatch.setattr(publisher, "Release", dated_ahead)

    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.publish(MAPPED_DIGITS)
        await nodes.wait_until(lambda: not nodes.node(0).ports.chain.round.selection.task.is_standing, 120)
        task = nodes.node(0).ports.chain.round.selection.task
        lying.add(task.task_id)
        await nodes.wait_until(lambda: any(state.reward.settlements for state in branch(nodes)), 240)
        state = next(each for each in branch(nodes) if each.reward.settlements)
        block = nodes.node(0).ports.archive.block(state.block_hash)
        assert isinstance(block, EmptyBlock)
        assert (block.missed, len(block.commitments)) == (Deadline.RELEASE, 2)
        assert Settled.STRUCK in [each.outcome for each in state.reward.settlements]
        told = [
            each.step
            for place in (1, 2)
            for each in nodes.node(place).ports.decisions.recent
            if each.height == state.height
        ]
        assert "committed" in told and "revealed" not in told
        lying.clear()
        await nodes.wait_for_height(state.height + 1, 120)

    run(tmp_path, scenario, 2, Pole(times=TIMES))


class Reuser(InProcessTraining):
    """Train and count behind the vectors of another hash, and claim every row of the test set."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._foreign = directory / "foreign.mapping"
        self._foreign.write_bytes(encode(mapping_layer(dense_vectors(b"\x13" * 32, WIDTH, WIDTH))))

    def _changed(self, job: Any) -> Any:
        return replace(job, mapping_path=str(self._foreign)) if job.specification.input_shape == (WIDTH,) else job

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
        return await super().train(self._changed(job), on_progress)

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        changed = self._changed(job)
        found = await super().evaluate(changed)
        return replace(found, correct=found.total) if changed != job and job.test_path != job.training_path else found


def test_a_model_behind_another_blocks_vectors_is_rejected_with_its_own_reason(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        nodes.make_training = lambda index: Reuser(tmp_path) if index == 2 else InProcessTraining()
        nodes.make_judge = lambda index: Reuser(tmp_path) if index == 2 else InProcessTraining()
        await nodes.start()
        await nodes.publish(MAPPED_DIGITS)

        def settled() -> list[ChainState]:
            return [state for state in branch(nodes) if state.reward.settlements]

        await nodes.wait_until(lambda: bool(settled()), 240)
        block = nodes.node(0).ports.archive.block(settled()[0].block_hash)
        assert isinstance(block, Block)
        assert block.proposer == nodes.node(1).ports.wallet.address
        reasons = {each.miner: each.reason for each in block.verdict.entries}
        assert reasons[nodes.node(2).ports.wallet.address] == RejectionReason.MAPPING_FOREIGN.value
        assert [each.outcome for each in settled()[0].reward.settlements] == [Settled.PAID]

    run(tmp_path, scenario, 2, Pole(times=TIMES))
