"""A04: a miner trains on the public test rows of a standing task and publishes a trace of it that no rule looks at.

On the default local network nothing is kept back, so a conviction takes nothing. Where bonds, accusations and audits
are on, the cheat declares no machine class (no auditor compares what it cannot repeat), or a trace of one state (no
segments, so that no class is asked for and nobody can accuse).

Earns: 10 of 12 blocks as shipped, convicted six times for a loss of 0; 11 of 12 with no class, 12 of 12 with one state,
without a single piece of evidence.
Kind: training is not enforced; real nodes with real training in virtual time, one of them an auditor.
Wins today; to be turned around by the rule that stops it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from learnchain.encoding.codec import Hash32
from learnchain.learning.data import DataSet
from learnchain.learning.jobs import TRACE_NAME, WEIGHTS_NAME, TrainedFiles, TrainingJob, TrainingProgress
from learnchain.learning.model import save_weights
from learnchain.learning.train import Watcher, plan_of, train
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.audit_messages import UNDECLARED_CLASS
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SIMULATED_CLASS, InProcessTraining, SimulatedNodes
from learnchain.tasks.task_file import BUILT_IN, task_draft
from tests.attacks.leaked_rows import join_rows
from tests.attacks.simulated_chain import address_of_node, balance_wei, trained_blocks

CHEAT, HONEST, AUDITOR = 1, 2, 3
BONDS: Mapping[str, Any] = {"minimum_commitment_bond_wei": 2 * 10**18, "challenge_cost_gwei": 10**6}


class Disguise(Enum):
    """How the cheat keeps its training from being looked at."""

    NONE = "none"
    NO_CLASS = "no class"
    ONE_STATE = "one state"


@dataclass(frozen=True)
class TrainedOnTest:
    """What the cheat won and lost, and what was said against it."""

    blocks: int
    won_by_cheat: int
    reports: int
    evidence: int
    accusations: int
    gained_wei: int
    forfeited_gwei: int


class KnowsTestRows(InProcessTraining):
    """Train on the test rows too, and wait as long as the honest do."""

    def __init__(self, disguise: Disguise, rows: DataSet, epochs: int) -> None:
        super().__init__()
        self._disguise, self._rows, self._epochs = disguise, rows, epochs

    async def machine_class(self) -> Hash32:
        return UNDECLARED_CLASS if self._disguise is Disguise.NO_CLASS else await super().machine_class()

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
        self._finished = False
        while not self._finished:
            await asyncio.sleep(0.1)
        job = replace(job, hyper_parameters=replace(job.hyper_parameters, epochs=self._epochs))
        directory = Path(job.directory)
        watcher = Watcher(asyncio.get_running_loop().time)
        result = train(plan_of(job), self._rows, watcher, directory / TRACE_NAME, None)
        save_weights(directory / WEIGHTS_NAME, result.weights, job.terms.weight_bits)
        if self._disguise is Disguise.ONE_STATE:
            for path in sorted((directory / TRACE_NAME).glob("state-*"))[1:]:
                path.unlink()
        return TrainedFiles(
            weights_path=str(directory / WEIGHTS_NAME),
            trace_directory=str(directory / TRACE_NAME),
            trace_root=result.trace.root(),
            epochs=self._epochs,
            steps=result.steps,
            loss=result.loss,
            accuracy=result.accuracy,
            training_seconds=1.0,
            trace_seconds=0.0,
            process_seconds=1.0,
        )


async def play(directory: Path, disguise: Disguise, blocks: int, parameters: Mapping[str, Any]) -> TrainedOnTest:
    """Let the cheat, an honest miner and an auditor live through some blocks."""
    nodes = SimulatedNodes(directory, LocalPlan(directory, miners=3, parameters=parameters), seed=7)
    nodes.auditors = {AUDITOR}
    nodes.change = lambda settings: replace(settings, is_miner=settings.is_miner and not settings.is_auditor)
    draft = task_draft(BUILT_IN["digits"])
    rows = join_rows(draft.training_data, draft.test_data, *(later for later in draft.later_tests))
    nodes.make_training = lambda index: (
        KnowsTestRows(disguise, rows, epochs=12) if index == CHEAT else InProcessTraining(0.4, 4)
    )
    await nodes.start()
    before = await balance_wei(nodes, CHEAT)
    await nodes.wait_for_height(blocks, 3_000)
    chain = nodes.node(0).ports.chain.round.parent
    won, cheat = trained_blocks(nodes), address_of_node(nodes, CHEAT)
    result = TrainedOnTest(
        blocks=len(won),
        won_by_cheat=sum(block.proposer == cheat for block in won),
        reports=sum(len(block.audit_reports) for block in won),
        evidence=sum(proof.offender == cheat for block in won for proof in block.evidence),
        accusations=sum(len(block.challenges) for block in won),
        gained_wei=await balance_wei(nodes, CHEAT) - before,
        forfeited_gwei=chain.ledger.forfeited_gwei,
    )
    await nodes.close()
    return result


def attack(
    directory: Path, disguise: Disguise = Disguise.NONE, blocks: int = 2, parameters: Mapping[str, Any] | None = None
) -> TrainedOnTest:
    """Run the attack in virtual time."""
    return run_simulated(play(directory, disguise, blocks, parameters or {}))


def test_a_miner_that_knows_the_test_rows_wins_and_is_paid(tmp_path: Path) -> None:
    result = attack(tmp_path)
    assert result.won_by_cheat == result.blocks == 2
    assert result.gained_wei > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_as_shipped_a_conviction_takes_nothing(tmp_path: Path) -> None:
    result = attack(tmp_path, blocks=10)
    assert result.won_by_cheat > result.blocks // 2
    assert result.evidence > 0
    assert result.forfeited_gwei == 0
    assert result.gained_wei > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("disguise", [Disguise.NO_CLASS, Disguise.ONE_STATE])
def test_with_bonds_and_auditors_a_disguised_run_is_never_accused(tmp_path: Path, disguise: Disguise) -> None:
    demanded = BONDS if disguise is Disguise.NO_CLASS else {**BONDS, "accepted_classes": (SIMULATED_CLASS,)}
    result = attack(tmp_path, disguise, blocks=10, parameters=demanded)
    assert result.won_by_cheat > result.blocks // 2
    assert (result.evidence, result.accusations, result.forfeited_gwei) == (0, 0, 0)
