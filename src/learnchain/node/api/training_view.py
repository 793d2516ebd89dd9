"""Show what repeats a winner's training: parameters, seeds, data and states, as PoDL III-A wants them published.

With these numbers and the blobs that they name nobody needs this project to train a model again; `tests` do it with
torch, numpy and hashlib alone.
"""

from dataclasses import asdict
from typing import Any

from learnchain.node.continuing import seeds_of
from learnchain.primitives.content_id import cid_text
from learnchain.primitives.messages import Block
from learnchain.primitives.selection import Selection


def training_view(block: Block, selection: Selection) -> dict[str, Any]:
    """Return a trained block's parameters (PODL-R3, R8); states are named by the index that lies at `trace`."""
    training, specification = block.reveal.training, selection.posted.specification
    seeds, part = seeds_of(block.chain_id, selection, block.reveal.miner), specification.data.training
    return {
        "height": block.height,
        "task": selection.task.task_id.hex(),
        "miner": "0x" + block.reveal.miner.hex(),
        "mode": specification.training.mode.value,
        "optimiser": specification.training.optimiser.value,
        "hyper_parameters": asdict(training.hyperparameters),
        "seeds": {"initial": seeds.initial.hex(), "order": seeds.order.hex()},
        "turn": selection.course.turn,
        "checkpoint_interval_steps": specification.training.checkpoint_interval_steps,
        "data": {"cid": cid_text(part.cid), "key": block.key_release.key.hex(), "rows": part.rows},
        "trace": cid_text(training.trace_cid),
        "states": training.states,
        "model": cid_text(block.reveal.model_cid),
    }
