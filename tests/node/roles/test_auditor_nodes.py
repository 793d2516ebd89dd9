"""Auditors on real nodes with real training: they replay what they are given, are paid, and expose what is forged."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.learning.jobs import TrainedFiles, TrainingJob, TrainingProgress
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.audit_messages import AuditReport, report_digest
from learnchain.protocol.messages import Block, Evidence, Fault
from learnchain.protocol.state import ChainState
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes

pytestmark = pytest.mark.slow
AUDITOR = 3
"""Neither publisher, who may not audit its own tasks, nor miner."""


class FasterTraining(InProcessTraining):
    """Claim one epoch more than was trained: the trace ends too early for what the reveal says."""

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
        files = await super().train(job, on_progress)
        return replace(files, epochs=files.epochs + 1)


def run(directory: Path, scenario: Callable[[SimulatedNodes], Awaitable[None]], cheat: int | None = None) -> None:
    async def main() -> None:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=3), seed=7)
        nodes.auditors = {AUDITOR}
        nodes.change = lambda settings: replace(settings, is_miner=settings.is_miner and not settings.is_auditor)
        nodes.make_training = lambda index: FasterTraining() if index == cheat else InProcessTraining()
        await scenario(nodes)
        await nodes.close()

    run_simulated(main())


def branch(nodes: SimulatedNodes) -> tuple[ChainState, ...]:
    ports = nodes.node(1).ports
    return ports.archive.branch(ports.chain.round.head.block, 0)


def blocks(nodes: SimulatedNodes) -> list[Block]:
    archive = nodes.node(1).ports.archive
    found = [archive.block(state.block_hash) for state in branch(nodes)]
    return [each for each in found if isinstance(each, Block)]


def reports(nodes: SimulatedNodes) -> list[AuditReport]:
    return [each for block in blocks(nodes) for each in block.audit_reports]


def evidence(nodes: SimulatedNodes) -> list[Evidence]:
    return [each for block in blocks(nodes) for each in block.evidence]


def test_an_auditor_replays_what_honest_miners_trained_and_is_paid(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_until(lambda: len(reports(nodes)) >= 2, 600)
        auditor = nodes.node(AUDITOR).ports.wallet.address
        assert {each.auditor for each in reports(nodes)} == {auditor}
        held = [each for each in branch(nodes)[-1].bonds.withheld if each.miner == auditor]
        fee = nodes.genesis.parameters.audit_reward_gwei
        assert [each.amount_gwei for each in held] == [fee] * len(reports(nodes))
        assert evidence(nodes) == [], "nobody forged anything"
        assert any(line.reproduced for each in reports(nodes) for line in each.segments)
        for each in reports(nodes):
            assert all(line.middle_state_hash != b"\0" * 32 for line in each.segments)

    run(tmp_path, scenario)


def test_a_trace_that_ends_too_early_is_found_by_the_auditor_and_punished(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_until(lambda: bool(evidence(nodes)), 900)
        found = evidence(nodes)[0]
        assert found.fault is Fault.TRACE_FORGED
        assert found.offender == nodes.node(1).ports.wallet.address
        assert found.reporter == nodes.node(AUDITOR).ports.wallet.address
        honest = nodes.node(2).ports.wallet.address
        assert honest not in {each.offender for each in evidence(nodes)}

    run(tmp_path, scenario, cheat=1)


def test_an_auditor_that_is_killed_between_commitment_and_opening_opens_its_report(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()

        def bound() -> set[bytes]:
            entries = nodes.node(1).ports.chain.round.parent.bonds.audits
            return {each.digest for each in entries if not each.opened_height}

        await nodes.wait_until(lambda: bool(bound()), 600)
        waiting = bound()
        await nodes.kill(AUDITOR)
        await nodes.start_node(AUDITOR)
        await nodes.wait_until(lambda: waiting <= {report_digest(each) for each in reports(nodes)}, 300)

    run(tmp_path, scenario)
