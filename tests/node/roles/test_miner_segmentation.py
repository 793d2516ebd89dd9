"""Segmentation on a whole network: U-Nets mined for three blocks each, Dice as exact counts end to end."""

from pathlib import Path
from typing import Any

import pytest

from learnchain.learning.data import load_data
from learnchain.learning.fixed_point import dice_counts, predict
from learnchain.learning.sources import synthetic
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.messages import Block
from learnchain.protocol.payload import SettlementOutcome as Settled
from learnchain.protocol.task_specification import Metric
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes
from learnchain.tasks.task_file import BUILT_IN

EPOCHS = 12
CASES = {
    "glas-synthetic": {"width": 4, "steps": 2},
    "mmwhs-synthetic": {"width": 4, "steps": 2},
}
SMALL = {
    "glas-synthetic": lambda: synthetic.glas_synthetic(40, 16, 24),
    "mmwhs-synthetic": lambda: synthetic.mmwhs_synthetic(24, (8, 8, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_three_blocks_of_a_unet_with_dice_as_exact_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("learnchain.tasks.task_file.SYNTHETIC_SOURCES", SMALL)
    table: dict[str, Any] = {
        **BUILT_IN[name],
        "required_accuracy": "0.05",
        "data": {"source": name, "test_rows": 8},
        "model": {**BUILT_IN[name]["model"], **CASES[name]},
        # Few rows: larger steps, so that both the task and the mark are learned in a second.
        "training": {**BUILT_IN[name]["training"], "learning_rate": ["0.01", "0.02"], "batch_size": [4, 8]},
    }
    monkeypatch.setitem(BUILT_IN, name, table)  # type: ignore[arg-type]

    async def main() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, miners=2, standing=(name,)), seed=5)
        training = [InProcessTraining(epoch_seconds=0.1, maximum_epochs=EPOCHS) for _ in range(3)]
        nodes.make_training = lambda index: training[index]
        await nodes.start()
        await nodes.publish(table)
        await nodes.wait_for_height(3, 120)
        ports = nodes.node(0).ports
        branch = ports.archive.branch(ports.chain.round.head.block, 0)
        blocks = [ports.archive.block(state.block_hash) for state in branch]
        for block in blocks[:3]:
            assert isinstance(block, Block)
            await check_dice(nodes, block)
        assert Settled.PAID in {each.outcome for state in branch for each in state.reward.settlements}
        await nodes.close()

    run_simulated(main())


async def check_dice(nodes: SimulatedNodes, block: Block) -> None:
    """Count Dice of the winning model again, place by place and without the network's code paths."""
    import numpy as np

    from learnchain.learning.fixed_point import compile_model
    from learnchain.learning.model import load_weights

    ports = nodes.node(0).ports
    parameters = ports.chain.parameters
    specification = next(posted for task, posted in parameters.standing_tasks() if posted.name in CASES)
    assert specification.metric is Metric.DICE
    assert specification.data.synthetic
    model = await ports.blobs.fetch(block.reveal.model_cid, max_bytes=1 << 24)
    data = [
        load_data(path) for path in sorted(Path(nodes.places[0].settings.data_directory, "data").glob("*.safetensors"))
    ]
    test = next(each for each in data if len(each) == 8)
    training = next(each for each in data if len(each) != 8)
    weights = load_weights(model, specification.model)
    predicted = predict(compile_model(specification.model, weights, training.inputs).logits(test.inputs))
    both = sum(
        int(np.logical_and(predicted == number, test.labels == number).sum())
        for number in range(1, specification.data.classes)
    )
    sizes = int((predicted > 0).sum()) + int((test.labels > 0).sum())
    assert dice_counts(predicted, test.labels) == (both, sizes)
    assert (block.verdict.correct, block.verdict.total) == (2 * both, sizes)
    assert 0 < block.verdict.correct < block.verdict.total
    assert block.verdict.total != len(test)
