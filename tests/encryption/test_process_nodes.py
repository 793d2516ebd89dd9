"""Encrypted rows on a whole network: features are trained on, nobody but the data node ever holds a row."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from learnchain.encryption.functional import decode_key, encode_key
from learnchain.engines.pole.parts import functional_key, read_mapped_training
from learnchain.node.local_network import LocalPlan
from learnchain.node.roles import publisher
from learnchain.protocol.messages import Block, CandidateOutcome, Deadline, EmptyBlock, Fault
from learnchain.protocol.payload import SettlementOutcome as Settled
from learnchain.protocol.task_specification import Encryption
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import SimulatedNodes
from learnchain.tasks.publishing import issued_key
from learnchain.tasks.task_file import BUILT_IN, task_draft
from tests.encryption.plain_rows import found_in, traces_of

ENCRYPTED: dict[str, Any] = {**BUILT_IN["digits-encrypted"], "required_accuracy": "0.5"}


def run(directory: Path, scenario: Callable[[SimulatedNodes], Awaitable[None]]) -> None:
    async def main() -> None:
        plan = LocalPlan(directory, consensus="pole", miners=2, standing=("iris",))
        nodes = SimulatedNodes(directory, plan, seed=7)
        await nodes.start()
        await nodes.publish(ENCRYPTED)
        await scenario(nodes)
        await nodes.close()

    run_simulated(main())


def heights_of(nodes: SimulatedNodes, index: int) -> list[tuple[Block | EmptyBlock, Encryption, tuple[Settled, ...]]]:
    """Return each block with the encryption of its task, and what it settled."""
    ports = nodes.node(index).ports
    found = []
    for state in ports.archive.branch(ports.chain.round.head.block, 0):
        selection = ports.chain.rules.select_task(ports.archive.state(state.parent), ports.chain.parameters)
        settled = tuple(each.outcome for each in state.reward.settlements)
        found.append((ports.archive.block(state.block_hash), selection.posted_task.specification.encryption, settled))
    return found


def encrypted_height(nodes: SimulatedNodes, index: int = 0) -> tuple[Block | EmptyBlock, tuple[Settled, ...]] | None:
    chosen = [each for each in heights_of(nodes, index) if each[1] is Encryption.INNER_PRODUCT]
    return (chosen[0][0], chosen[0][2]) if chosen else None


def faults(nodes: SimulatedNodes) -> list[tuple[Fault, bytes]]:
    return [(each.fault, each.offender) for block, _, _ in heights_of(nodes, 0) for each in block.evidence]


def stored(nodes: SimulatedNodes, index: int) -> list[bytes]:
    """Return everything that a node holds: its files, and the stores that a simulation keeps in memory."""
    place = nodes.places[index]
    files = [path.read_bytes() for path in Path(place.settings.data_directory).rglob("*") if path.is_file()]
    stores = [b"".join(value for _, value in store.scan(b"")) for store in (place.store, place.execution)]
    return files + stores


def test_a_model_is_trained_and_paid_and_no_row_leaves_the_data_node(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.wait_until(lambda: all(encrypted_height(nodes, each) for each in range(3)), 200)
        found = encrypted_height(nodes)
        assert found is not None
        block, settled = found
        assert isinstance(block, Block) and settled == (Settled.PAID,)
        assert functional_key(block.key_release)
        counted = read_mapped_training(block.reveal.training)
        assert 2 * counted.correct >= counted.total == 1_437
        assert {each.outcome for each in block.verdict.entries} <= {
            CandidateOutcome.WINNER,
            CandidateOutcome.LOWER_CLAIM,
        }
        secret, open_rows = (
            traces_of(task_draft(ENCRYPTED).training_data, 40),
            traces_of(task_draft(BUILT_IN["iris"]).training_data, 40),
        )
        for miner in (1, 2):
            held = stored(nodes, miner)
            assert not found_in(held, secret)
            assert found_in(held, open_rows), "the search must find rows that are opened"

    run(tmp_path, scenario)


@pytest.mark.parametrize("fault", ["wrong number", "cut short"])
def test_a_wrong_functional_key_ends_the_height_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    async def tampered(*arguments: Any) -> bytes:
        data = await issued_key(*arguments)
        if fault == "cut short":
            return data[:-32]
        key = decode_key(data, len(data) // 32 - 2)
        return encode_key(type(key)(key.master, key.queries, (key.etas[0] + 1, *key.etas[1:])))

    monkeypatch.setattr(publisher, "issued_key", tampered)

    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.wait_until(lambda: encrypted_height(nodes) is not None, 200)
        found = encrypted_height(nodes)
        assert found is not None
        block, settled = found
        assert isinstance(block, EmptyBlock)
        assert block.missed is Deadline.COMMITMENT
        assert Settled.PAID not in settled
        assert len(settled) == 1
        # Everybody can verify the key, so everybody can prove that it was wrong.
        await nodes.wait_until(lambda: bool(faults(nodes)), 200)
        assert faults(nodes) == [(Fault.DATA_CHANGED, nodes.node(0).ports.wallet.address)]

    run(tmp_path, scenario)


def test_the_data_node_stays_within_its_budget_across_restarts(tmp_path: Path) -> None:
    async def scenario(nodes: SimulatedNodes) -> None:
        await nodes.wait_until(lambda: encrypted_height(nodes) is not None, 200)
        ports = nodes.node(0).ports
        part = next(
            posted.specification.data.training
            for state in ports.archive.branch(ports.chain.round.head.block, 0)
            for posted in (
                ports.chain.rules.select_task(ports.archive.state(state.parent), ports.chain.parameters).posted_task,
            )
            if posted.specification.encryption is Encryption.INNER_PRODUCT
        )
        (released,) = ports.vault.list_released(part.plaintext_root)
        again = await issued_key(ports.vault, ports.encryption, part, released)
        assert again == await issued_key(ports.vault, ports.encryption, part, released)
        other = type(released)(tuple(row[::-1] for row in released.rows), 0)
        with pytest.raises(Rejected) as caught:
            await issued_key(ports.vault, ports.encryption, part, other)
        assert caught.value.reason is RejectionReason.LEAK_BUDGET_SPENT

    run(tmp_path, scenario)
