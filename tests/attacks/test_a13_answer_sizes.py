"""A13: one accusation makes every full node fetch all states of a segment before it may admit the answer.

The respondent has to publish the state after every step of the segment, and four accusations fit into a block. Who
cannot serve so much in time is punished as if it had forged.

Earns: 1.63 GB a full node for one accusation of the built-in task `mnist`, 6.5 GB a block, for 0 coins on a local
network and 0.001 elsewhere; with bonds, an honest winner is slashed by what it cannot upload in time.
Kind: the honest are slashed; figures that follow from the shapes of the built-in tasks.
Wins today; to be turned around by the rule that stops it.
"""

from dataclasses import dataclass
from typing import Any

import pytest

from learnchain.protocol.audit_messages import MAXIMUM_CHALLENGES
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.model_specification import ModelLimits, model_bytes
from learnchain.protocol.parameters import ChainParameters
from learnchain.tasks.task_file import BUILT_IN

MOMENTUM_COPIES, ADAM_COPIES = 2, 3
"""How many arrays of the model's size a state holds: the weights and the memories of the optimiser."""
BYTES_A_PARAMETER = 4


@dataclass(frozen=True)
class AnswerSize:
    """What an accusation costs the accuser and makes everybody fetch."""

    model_bytes: int
    answer_bytes: int
    block_bytes: int
    challenge_cost_gwei: int


def size_of(parameter_bytes: int, copies: int, interval_steps: int) -> AnswerSize:
    """Return the size of an answer: one state more than the segment has steps."""
    answer = parameter_bytes * copies * (interval_steps + 1)
    cost = ChainParameters.__dataclass_fields__["challenge_cost_gwei"].default
    return AnswerSize(parameter_bytes, answer, MAXIMUM_CHALLENGES * answer, cost)


def attack(task: str) -> AnswerSize:
    """Return what an accusation of a built-in MNIST task moves; its model is a plain one whose data are not needed."""
    table: dict[str, Any] = BUILT_IN[task]
    model = mlp((1, 28, 28), 10, tuple(table["model"]["hidden"]))
    return size_of(model_bytes(model), MOMENTUM_COPIES, table["training"]["checkpoint_interval_steps"])


@pytest.mark.parametrize("task", ["mnist", "fashion"])
def test_one_free_accusation_moves_more_than_a_gigabyte(task: str) -> None:
    result = attack(task)
    assert result.challenge_cost_gwei == 0
    assert result.model_bytes < 500_000
    assert result.answer_bytes > 1.6e9
    assert result.block_bytes > 6.4e9


def test_the_largest_admitted_model_asks_for_more_than_any_disk_can_serve_in_time() -> None:
    largest = size_of(ModelLimits().parameters * BYTES_A_PARAMETER, ADAM_COPIES, 200)
    assert largest.answer_bytes > 480e9
