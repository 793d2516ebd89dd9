"""Storage relief: old models and traces go, the best of each task stays, the chain stays whole."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from learnchain.engines.podl import Podl, TwoPhases
from learnchain.engines.podl.multi_block_progress import StoppingRule
from learnchain.engines.podl.parts import baseline_count
from learnchain.learning.jobs import Evaluation, EvaluationJob
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Block
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain_conformance.instant_training import InstantTraining

WINDOW = 4
TEST_ROWS = 360
BRIEF = {"audit_window_blocks": 4, "response_blocks": 1, "proof_blocks": 1}
"""Nobody can be asked for steps for longer than the window."""


def test_models_outside_the_window_are_deleted_but_the_best(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=2, finality_depth=3, parameters=BRIEF), seed=2)
        nodes.make_training = lambda _index: InstantTraining(TEST_ROWS)
        nodes.make_judge = lambda _index: InstantTraining(TEST_ROWS)
        nodes.change = lambda settings: replace(settings, retain_blocks=WINDOW)
        await nodes.start()
        sizes: list[int] = []
        for height in (8, 11, 14):
            await nodes.wait_for_height(height, 300)
            sizes.append(nodes.node(1).ports.blobs.used_bytes())
        ports = nodes.node(1).ports
        states = ports.archive.branch(ports.chain.round.head.block, 0)
        blocks = [ports.archive.block(state.block_hash) for state in states]
        trained = [each for each in blocks if isinstance(each, Block)]
        assert len(trained) >= 12
        best = ports.archive.blobs.best_model(trained[0].reveal.task_id)
        assert best is not None
        here = {each.height for each in trained if ports.blobs.path(each.reveal.model_cid) is not None}
        head = states[-1].height
        assert {height for height in here if height <= head - WINDOW - 1} == {best.height}
        assert set(range(head - WINDOW + 2, head + 1)) <= here
        assert all(ports.blobs.path(each.payload_cid) is not None for each in blocks[:-1])
        # Only payloads, small and kept for late nodes, still add up.
        payloads = max(path.stat().st_size for each in blocks if (path := ports.blobs.path(each.payload_cid)))
        assert sizes[2] - sizes[1] <= 4 * 3 * payloads + 2 * InstantTraining.bytes_a_run()
        await nodes.close()

    run_simulated(scenario())


def test_a_miner_keeps_its_own_states_as_long_as_it_may_be_asked_for_their_steps(tmp_path: Path) -> None:
    async def scenario() -> None:
        asked = {"audit_window_blocks": 10, "response_blocks": 1, "proof_blocks": 1}
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=2, finality_depth=1, parameters=asked), seed=2)
        nodes.make_training = nodes.make_judge = lambda _index: InstantTraining(TEST_ROWS)
        nodes.change = lambda settings: replace(settings, retain_blocks=1)
        await nodes.start()
        await nodes.wait_for_height(14, 400)
        ports = nodes.node(1).ports
        head = ports.chain.round.head.height
        found = (ports.archive.block(each.block_hash) for each in ports.archive.branch(ports.chain.round.head.block, 0))
        trained = [each for each in found if isinstance(each, Block)]
        here = {each.height for each in trained if ports.blobs.path(each.reveal.training.trace_cid) is not None}
        own = {each.height for each in trained if each.reveal.miner == ports.wallet.address}
        # Height h may be asked about in blocks up to h + 7: answer, proof and decision fit into the window after it.
        assert {each for each in own if each > head - 7} <= here
        assert own & here >= {each for each in own if head - 7 < each < head - 2} != set()
        assert not {each for each in here if each < head - 8}
        assert not {each for each in here - own if each < head - 2}
        await nodes.close()

    run_simulated(scenario())


def test_a_task_over_several_blocks_keeps_its_champion_and_lets_the_others_go(tmp_path: Path) -> None:
    sets, rows = 8, 60
    right = iter(range(40, 60))

    class Improving(InstantTraining):
        """Count every newly seen model a little higher than all before it, the same on every node."""

        counts: ClassVar[dict[str, int]] = {}

        async def evaluate(self, job: EvaluationJob) -> Evaluation:
            name = Path(job.weights_path).read_bytes().hex()
            if name not in self.counts:
                self.counts[name] = min(rows, next(right))
            return Evaluation(self.counts[name], rows, b"", 0.0)

    async def scenario() -> None:
        phases = TwoPhases(6_500, 2_000, 1_500, 500, 1_300)
        plan = LocalPlan(tmp_path, "podl", miners=1, finality_depth=1, rules=Podl(phases), parameters=BRIEF)
        nodes = SimulatedNodes(tmp_path, plan, seed=2)
        nodes.make_training = lambda _index: Improving(rows)
        nodes.make_judge = lambda _index: Improving(rows)
        nodes.change = lambda settings: replace(settings, retain_blocks=2)
        await nodes.start()
        await nodes.wait_for_height(sets, 200)
        ports = nodes.node(1).ports
        states = ports.archive.branch(ports.chain.round.head.block, 0)
        blocks = [each for state in states if isinstance(each := ports.archive.block(state.block_hash), Block)]
        assert len(blocks) == sets
        assert [baseline_count(each.verdict)[0] for each in blocks[1:]] == [
            each.verdict.correct for each in blocks[:-1]
        ]
        best = ports.archive.blobs.best_model(blocks[0].reveal.task_id)
        assert best is not None
        here = [each.height for each in blocks if ports.blobs.path(each.reveal.model_cid) is not None]
        assert min(here) == best.height > 1
        assert here == list(range(best.height, sets + 1))
        await nodes.close()

    run_simulated(scenario())


def test_the_model_that_the_next_winner_is_compared_with_stays_though_it_is_old_and_not_the_best(
    tmp_path: Path,
) -> None:
    sets, rows = 8, 60
    falling = iter(range(50, 0, -1))

    class Worsening(InstantTraining):
        """Count every newly seen model a little lower than all before it: each course's first model is its champion."""

        counts: ClassVar[dict[str, int]] = {}

        async def evaluate(self, job: EvaluationJob) -> Evaluation:
            name = Path(job.weights_path).read_bytes().hex()
            if name not in self.counts:
                self.counts[name] = next(falling)
            return Evaluation(self.counts[name], rows, b"", 0.0)

    async def scenario() -> None:
        rules = Podl(TwoPhases(6_500, 2_000, 1_500, 500, 1_300), StoppingRule(stalled_blocks=20))
        plan = LocalPlan(tmp_path, "podl", miners=1, finality_depth=1, rules=rules, parameters=BRIEF)
        nodes = SimulatedNodes(tmp_path, plan, seed=2)
        nodes.make_training = nodes.make_judge = lambda _index: Worsening(rows)
        nodes.change = lambda settings: replace(settings, retain_blocks=1)
        await nodes.start()
        await nodes.wait_for_height(2 * sets, 300)
        publisher = nodes.node(0).ports
        states = publisher.archive.branch(publisher.chain.round.head.block, 0)
        blocks = [publisher.archive.block(state.block_hash) for state in states]
        trained = [each for each in blocks if isinstance(each, Block)]
        assert len(trained) == len(blocks) == 2 * sets
        first, second = trained[0].reveal.model_cid, trained[sets].reveal.model_cid
        assert {baseline_count(each.verdict)[0] for each in trained[sets + 1 :]} == {trained[sets].verdict.correct}
        assert trained[sets].verdict.correct < trained[0].verdict.correct
        # Once its course is over the second champion goes as any other model does; the task's best stays.
        await nodes.wait_for_height(2 * sets + 5, 100)
        assert publisher.blobs.path(first) is not None
        assert publisher.blobs.path(second) is None
        await nodes.close()

    run_simulated(scenario())
