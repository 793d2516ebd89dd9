"""Disputes on real nodes with real training: who forged or guessed pays, who trained shows its steps and is paid."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learnchain.consensus.audits import AuditFinding, decode_fraud_proof
from learnchain.encoding.codec import encode
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.execution.escrow import deposit_calldata
from learnchain.learning.data import DataSet, save_data
from learnchain.learning.job_data import training_rows
from learnchain.learning.jobs import TrainedFiles, TrainingJob, TrainingProgress
from learnchain.learning.trace import INDEX_NAME, Trace, read_trace
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.audit_messages import Challenge
from learnchain.protocol.messages import Evidence, Fault, Payout
from learnchain.protocol.payload import SettlementOutcome
from learnchain.protocol.state import BondRegistry, ChainState, Dispute, DisputeOutcome
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from learnchain.verification.replay import TraceReplayer

pytestmark = pytest.mark.slow
FRIEND, MINER, AUDITOR, OTHER = 0, 1, 2, 3
BOND_WEI, COST_GWEI = 10**16, 10**6
PARAMETERS = {
    "minimum_commitment_bond_wei": BOND_WEI,
    "challenge_cost_gwei": COST_GWEI,
    "response_blocks": 4,
    "proof_blocks": 4,
}


class OtherRows(InProcessTraining):
    """Train on other rows than the task's and commit to the right ones: only replaying shows it."""

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
        honest = await super().train(job, on_progress)
        named = read_trace(Path(honest.trace_directory), honest.trace_root).leaves
        rows = training_rows(job)
        inputs = rows.inputs.copy()
        inputs[:100] = inputs[:100, ..., ::-1]
        shown = Path(job.training_path).with_suffix(".shown")
        save_data(shown, DataSet(inputs, rows.labels))
        chosen = replace(job.hyper_parameters, epochs=honest.epochs)
        cheat = InProcessTraining(epoch_seconds=0.0)
        files = await cheat.train(replace(job, training_path=str(shown), hyper_parameters=chosen))
        forged = read_trace(Path(files.trace_directory), files.trace_root).leaves
        trace = Trace(tuple(replace(b, order=a.order, points=a.points) for a, b in zip(named, forged, strict=True)))
        index = {"root": trace.root().hex(), "leaves": [encode(leaf).hex() for leaf in trace.leaves]}
        (Path(files.trace_directory) / INDEX_NAME).write_text(json.dumps(index))
        return replace(files, trace_root=trace.root())


def run(
    directory: Path,
    scenario: Callable[[SimulatedNodes], Awaitable[None]],
    cheat: type[InProcessTraining] = InProcessTraining,
    classes: Callable[[int], bytes] = lambda _index: b"\x01" * 32,
    auditors: frozenset[int] = frozenset({AUDITOR}),
) -> None:
    async def main() -> None:
        plan = LocalPlan(directory, miners=max({AUDITOR, *auditors}), parameters=PARAMETERS)
        nodes = SimulatedNodes(directory, plan, seed=7)
        nodes.auditors = set(auditors)
        nodes.change = lambda settings: replace(settings, is_miner=settings.name == f"node-{MINER}")
        nodes.make_training = lambda index: cheat(named_class=classes(index))
        nodes.make_judge = lambda index: InProcessTraining(named_class=classes(index))
        await scenario(nodes)
        await nodes.close()

    run_simulated(main())


def book(nodes: SimulatedNodes) -> BondRegistry:
    return nodes.node(0).ports.chain.round.parent.bonds


def address(nodes: SimulatedNodes, index: int) -> bytes:
    return nodes.node(index).ports.wallet.address


def branch(nodes: SimulatedNodes) -> tuple[ChainState, ...]:
    ports = nodes.node(0).ports
    return ports.archive.branch(ports.chain.round.head.block, 0)


def listed(nodes: SimulatedNodes) -> list[Evidence]:
    archive = nodes.node(0).ports.archive
    return [each for state in branch(nodes) for each in archive.block(state.block_hash).evidence]


def disputes(nodes: SimulatedNodes, outcome: DisputeOutcome) -> list[Dispute]:
    return [each for each in book(nodes).disputes if each.outcome is outcome]


def slashed_gwei(nodes: SimulatedNodes) -> list[Payout]:
    return [each for state in branch(nodes) for each in state.reward.payouts if each.kind == "slashed bond"]


async def deposit(nodes: SimulatedNodes, index: int, amount_wei: int = 10**18) -> None:
    """Stake coins behind what a node says; from the next block on they count."""
    node = nodes.node(index)
    transaction = {"chainId": node.genesis.parameters.chain_id, "to": node.genesis.parameters.escrow, "nonce": 0}
    fees = {"gas": 200_000, "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9, "data": deposit_calldata()}
    await node.submit_transaction(node.ports.wallet.sign_transaction({**transaction, **fees, "value": amount_wei}))
    await nodes.wait_until(lambda: book(nodes).deposit(address(nodes, index)).active_wei > 0, 120)


async def accuse(nodes: SimulatedNodes, by: int, segment: int = 0) -> None:
    """Let a node accuse the winner of the head."""
    ports = nodes.node(by).ports
    fact = next(each for each in reversed(ports.chain.round.parent.bonds.height_records) if each.training_records)
    place = (ports.chain.parameters.chain_id, fact.height, fact.parent, fact.winner, segment)
    await ports.announce(sign(Challenge(*place, ports.wallet.address, UNSIGNED), ports.wallet.private_key))


def test_a_miner_that_trained_on_other_rows_is_asked_for_its_steps_and_slashed_by_them(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await deposit(nodes, AUDITOR)
        await nodes.wait_until(lambda: bool(listed(nodes)), 900)
        found = listed(nodes)[0]
        assert (found.fault, found.offender) == (Fault.TRACE_FORGED, address(nodes, MINER))
        assert found.reporter == address(nodes, AUDITOR)
        assert decode_fraud_proof(found.statements[0]).finding is AuditFinding.FAULT_OUT_OF_BOUNDS
        assert disputes(nodes, DisputeOutcome.FRAUD_PROVEN)
        assert slashed_gwei(nodes)[0].recipient == address(nodes, AUDITOR)
        assert len(nodes.heads()) == 1

    run(tmp_path, scenario, cheat=OtherRows)


def test_what_the_accuser_does_not_prove_an_auditor_without_coins_proves(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await deposit(nodes, FRIEND)
        await accuse(nodes, by=FRIEND)
        await nodes.wait_until(lambda: bool(listed(nodes)), 600)
        found = listed(nodes)[0]
        assert (found.fault, found.offender) == (Fault.TRACE_FORGED, address(nodes, MINER))
        assert found.reporter == address(nodes, AUDITOR)
        assert [each.challenger for each in disputes(nodes, DisputeOutcome.FRAUD_PROVEN)] == [address(nodes, FRIEND)]

    run(tmp_path, scenario, cheat=OtherRows)


def test_a_miner_that_keeps_silent_pays_by_the_clock_of_heights(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()

        async def silent(_dispute: Dispute) -> None:
            return None

        nodes.node(MINER).roles.respondent._answer = silent  # type: ignore[union-attr, method-assign]
        await deposit(nodes, AUDITOR)
        await nodes.wait_until(lambda: bool(disputes(nodes, DisputeOutcome.TIMED_OUT)), 900)
        assert listed(nodes) == [], "nobody has to measure silence"
        assert slashed_gwei(nodes)[0].recipient == address(nodes, AUDITOR)
        await nodes.wait_until(lambda: len(nodes.heads()) == 1, 60)

    run(tmp_path, scenario, cheat=OtherRows)


def test_an_honest_miner_answers_a_false_accusation_through_a_kill_and_the_accuser_pays(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await deposit(nodes, AUDITOR)
        before = book(nodes).deposit(address(nodes, AUDITOR)).active_wei
        await accuse(nodes, by=AUDITOR)
        await nodes.wait_until(lambda: bool(disputes(nodes, DisputeOutcome.CHALLENGED)), 120)
        await nodes.kill(MINER)
        await nodes.start_node(MINER)
        await nodes.wait_until(lambda: bool(disputes(nodes, DisputeOutcome.RESPONDED)), 300)
        await nodes.wait_until(lambda: bool(disputes(nodes, DisputeOutcome.DEFENDED)), 300)
        assert (listed(nodes), slashed_gwei(nodes), book(nodes).penalties) == ([], [], ())
        assert book(nodes).deposit(address(nodes, AUDITOR)).active_wei == before - COST_GWEI * 10**9
        paid = [each for state in branch(nodes) for each in state.reward.settlements]
        to_miner = [
            each
            for each in paid
            if each.outcome is SettlementOutcome.SLASHED and each.recipient == address(nodes, MINER)
        ]
        assert sum(each.amount_wei for each in to_miner) == COST_GWEI * 10**9 * 3 // 4
        await nodes.wait_until(lambda: len(nodes.heads()) == 1, 60)

    run(tmp_path, scenario, auditors=frozenset())


def test_an_auditor_of_another_class_is_matched_with_nobody_and_accuses_nobody(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await deposit(nodes, AUDITOR)
        await nodes.wait_for_height(12, 900)
        assert (book(nodes).audits, book(nodes).disputes, book(nodes).penalties) == ((), (), ())

    run(tmp_path, scenario, classes=lambda index: bytes([1 + (index == AUDITOR)]) * 32)


def test_an_auditor_that_guesses_cannot_show_the_steps_of_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        lazy: TraceReplayer = nodes.node(OTHER).roles.auditor._judge  # type: ignore[union-attr]
        replayed = TraceReplayer.replay_segments

        async def guessed(judge: TraceReplayer, *arguments: Any) -> Any:
            lines = await replayed(judge, *arguments)
            return tuple(replace(each, witness=b"\x07" * 32) for each in lines) if judge is lazy else lines

        monkeypatch.setattr(TraceReplayer, "replay_segments", guessed)
        await deposit(nodes, AUDITOR)
        await nodes.wait_until(lambda: bool(listed(nodes)), 900)
        found = listed(nodes)[0]
        assert (found.fault, found.offender) == (Fault.AUDIT_FALSE, address(nodes, OTHER))
        assert decode_fraud_proof(found.statements[1]).finding is AuditFinding.FAULT_STEP_CHAIN
        assert {each.offender for each in listed(nodes)} == {address(nodes, OTHER)}

    run(tmp_path, scenario, auditors=frozenset({AUDITOR, OTHER}))
