"""The promises of a network, on real nodes with real training: what is paid, what is refunded, what survives."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learnchain.execution.escrow import decode_task, task_calldata
from learnchain.learning.jobs import Evaluation, EvaluationJob
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Block, CandidateOutcome, Deadline, EmptyBlock
from learnchain.protocol.payload import SettlementOutcome as Settled
from learnchain.protocol.state import ChainState
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from learnchain.tasks.task_file import BUILT_IN

DIGITS: dict[str, Any] = {**BUILT_IN["digits"], "required_accuracy": "0.5", "model": {"preset": "mlp", "hidden": [32]}}


def run(directory: Path, scenario: Callable[[SimulatedNodes], Awaitable[None]], miners: int = 3) -> None:
    async def main() -> None:
        nodes = SimulatedNodes(directory, LocalPlan(directory, miners=miners), seed=7)
        nodes.publishers = {0, 1}
        await scenario(nodes)
        await nodes.close()

    run_simulated(main())


def branch(nodes: SimulatedNodes, index: int = 0) -> tuple[ChainState, ...]:
    ports = nodes.node(index).ports
    return ports.archive.branch(ports.chain.round.head.block, 0)


def blocks(nodes: SimulatedNodes, index: int = 0) -> list[Block | EmptyBlock]:
    return [nodes.node(index).ports.archive.block(state.block_hash) for state in branch(nodes, index)]


async def contract_status(nodes: SimulatedNodes, task_id: bytes) -> int:
    node = nodes.node(0)
    call = {"to": "0x" + node.genesis.parameters.escrow.hex(), "data": "0x" + task_calldata(task_id).hex()}
    answer = await node.engine.rpc("eth_call", [call, "latest"])
    return decode_task(bytes.fromhex(answer[2:])).status


async def balance(nodes: SimulatedNodes, address: bytes) -> int:
    return int(await nodes.node(0).engine.rpc("eth_getBalance", ["0x" + address.hex(), "latest"]), 16)


def test_the_winner_is_paid_by_the_contract_exactly_once(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.publish(DIGITS)
        await nodes.wait_for_height(6, 120)
        settled = [(state, each) for state in branch(nodes) for each in state.reward.settlements]
        assert [each.outcome for _, each in settled] == [Settled.PAID]
        state, settlement = settled[0]
        block = nodes.node(0).ports.archive.block(state.block_hash)
        assert isinstance(block, Block)
        assert block.verdict.correct * 2 >= block.verdict.total
        assert settlement.recipient == block.reveal.miner
        assert await contract_status(nodes, settlement.task_id) == settlement.outcome.code
        head = branch(nodes)[-1]
        assert head.ledger.paid_wei == 2 * 10**18
        assert head.ledger.locked_wei == 0
        assert len({state.payload_timestamp_seconds for state in branch(nodes)}) == len(branch(nodes))

    run(tmp_path, scenario)


def test_rewards_come_one_block_late_as_withdrawals(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(3, 60)
        states = branch(nodes)
        minted = sum(payout.amount_gwei for state in states[:-1] for payout in state.reward.payouts)
        total = 0
        for place in nodes.places:
            total += await balance(nodes, nodes.node(int(place.settings.name[-1])).ports.wallet.address)
        assert total == 4 * 10_000 * 10**18 + minted * 10**9
        assert all(sum(payout.amount_gwei for payout in state.reward.payouts) == 2_000_000_000 for state in states)

    run(tmp_path, scenario)


def test_a_publisher_that_dies_in_phase_two_ends_in_an_empty_block_and_a_refund(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.publish(DIGITS, index=1)

        def training_its_task() -> bool:
            state = nodes.node(0).ports.chain.round
            now = nodes.clock.now_milliseconds()
            in_phase_two = state.selection.schedule.key_milliseconds < now
            return not state.selection.task.is_standing and state.key_release is not None and in_phase_two

        await nodes.wait_until(training_its_task, 60)
        height = nodes.node(0).ports.chain.round.selection.height
        await nodes.kill(1)
        await nodes.wait_for_height(height + 3, 120)
        ended = blocks(nodes)[height - 1]
        assert isinstance(ended, EmptyBlock)
        assert ended.missed is Deadline.RELEASE
        settled = branch(nodes)[height - 1].reward.settlements
        assert [each.outcome for each in settled] == [Settled.STRUCK, *(Settled.SLASHED for _ in ended.commitments)]
        assert {each.recipient for each in settled[1:]} == {each.miner for each in ended.commitments}
        assert len(ended.commitments) == 2, "one of three miners is the publisher that died"
        assert all(isinstance(each, Block) for each in blocks(nodes)[height:])
        ledger = branch(nodes)[-1].ledger
        assert (ledger.refunded_wei, ledger.paid_wei) == (2 * 10**18, 0)
        assert (ledger.burned_wei, ledger.compensated_wei) == (10**17 // 2, 10**17 // 2)
        settlement = branch(nodes)[height - 1].reward.settlements[0]
        assert await contract_status(nodes, settlement.task_id) == Settled.STRUCK.code

    run(tmp_path, scenario)


def test_a_fork_heals_to_the_heavier_branch_and_the_escrow_pays_once(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.publish(DIGITS)
        await nodes.wait_for_height(1, 60)
        identities = [place.transport.peer_id for place in nodes.places]
        nodes.network.partition({identities[0], identities[1]}, {identities[2], identities[3]})
        await nodes.wait_until(lambda: nodes.node(0).ports.chain.round.head.height >= 4, 120)
        lonely = nodes.node(2).ports.chain.round.head
        assert len(nodes.heads()) > 1
        assert lonely.weight < nodes.node(0).ports.chain.round.head.weight
        nodes.network.heal()
        await nodes.wait_for_height(nodes.node(0).ports.chain.round.head.height + 2, 240)
        assert lonely.block not in {state.block_hash for state in branch(nodes)}
        settled = [each for state in branch(nodes) for each in state.reward.settlements]
        assert [each.outcome for each in settled] == [Settled.PAID]
        assert branch(nodes, 2)[-1].ledger == branch(nodes, 0)[-1].ledger
        assert await contract_status(nodes, settled[0].task_id) == Settled.PAID.code

    run(tmp_path, scenario)


@pytest.mark.parametrize("seconds", [0.7, 2.3, 5.4, 6.2])
def test_killing_everything_at_once_loses_nothing_committed(tmp_path: Path, seconds: float) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(2, 60)
        begun = nodes.node(0).ports.chain.round.selection.schedule.start_milliseconds
        await nodes.clock.sleep_until(begun + int(1000 * seconds))
        before = [state.block_hash for state in branch(nodes)]
        for index in range(4):
            await nodes.kill(index)
        for index in range(4):
            await nodes.start_node(index)
        await nodes.wait_for_height(len(before) + 2, 240)
        assert [state.block_hash for state in branch(nodes)][: len(before)] == before
        assert any(isinstance(each, Block) for each in blocks(nodes)[len(before) :])

    run(tmp_path, scenario)


def test_a_late_node_syncs_and_agrees(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.kill(3)
        place = nodes.places[3]
        place.store, place.execution = type(place.store)(), type(place.execution)()
        await nodes.wait_for_height(4, 120)
        await nodes.start_node(3)
        await nodes.wait_for_height(6, 120)
        assert branch(nodes, 3) == branch(nodes, 0)

    run(tmp_path, scenario)


def test_three_tasks_are_trained_in_the_order_of_equation_four(tmp_path: Path) -> None:
    small = {**DIGITS, "name": "small", "reward_ether": "1"}
    rich = {**DIGITS, "name": "rich", "reward_ether": "4", "model": {"preset": "mlp", "hidden": [64]}}
    heavy = {**DIGITS, "name": "heavy", "reward_ether": "1", "model": {"preset": "strided_cnn", "channels": [16, 32]}}

    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.start()
        await nodes.wait_for_height(1, 60)
        for table in (heavy, small, rich):
            await nodes.publish(table)
        await nodes.wait_until(lambda: len(nodes.node(0).ports.chain.round.selection.ranking) == 3, 60)
        state = nodes.node(0).ports.chain.round
        names = {each.task.task_id: each.specification.name for each in state.parent.queued_tasks}
        promised = [names[task_id] for _, task_id in state.selection.ranking]
        scores = [float(score) for score, _ in state.selection.ranking]
        assert promised == ["rich", "small", "heavy"]
        assert scores == sorted(scores)
        first = state.selection.height
        await nodes.wait_for_height(first + 3, 120)
        trained = [names.get(each.reveal.task_id) for each in blocks(nodes) if isinstance(each, Block)]
        assert [name for name in trained if name is not None] == promised

    run(tmp_path, scenario)


class Liar(InProcessTraining):
    """Claim more than the model reaches."""

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        found = await super().evaluate(job)
        return replace(found, correct=found.total)


def test_a_false_claim_is_rejected_and_the_next_honest_one_wins(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        nodes.make_judge = lambda index: Liar() if index == 3 else InProcessTraining()
        await nodes.start()
        liar = nodes.node(3).ports.wallet.address

        def honest_agree() -> bool:
            heads = [nodes.node(index).ports.chain.round.head for index in (0, 1, 2)]
            return heads[0].height >= 3 and len({head.block for head in heads}) == 1

        await nodes.wait_until(honest_agree, 120)
        for block in blocks(nodes):
            assert isinstance(block, Block)
            assert block.proposer != liar
        # From its second block on the liar sits on a branch of its own and competes no more.
        entries = [each for each in blocks(nodes)[0].verdict.entries if each.miner == liar]
        assert [(each.outcome, each.reason) for each in entries] == [(CandidateOutcome.REJECTED, "claim_not_exact")]

    run(tmp_path, scenario)
