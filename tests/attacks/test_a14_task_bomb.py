"""A14: a task that every engine admits, that ranks as the easiest there is, and that nobody can train or judge.

A single layer may hold 2^28 numbers a sample; nothing bounds all layers together, time or memory, and upsampling costs
no FLOPs in the ranking. `killer.toml` stays 64 times below the bound: miners' one training process stays on its probe,
which nobody can cancel, while later heights with other tasks pass by.

Earns: the chain stops (heights 3 to 23 all empty until the network gave up) for 0.0016 coins in escrow, of which all
but the gas comes back. At the admitted maximum 18 GiB for one sample.
Kind: the chain stops at no cost; figures of admission and, slow, a network of real processes.
Wins today; to be turned around by the rule that stops it.
"""

import asyncio
import math
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from learnchain.cli.rpc import token_of
from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.protocol.model_specification import (
    Layer,
    ModelLimits,
    ModelSpecification,
    Setting,
    forward_flops,
    layer_shapes,
    parameter_count,
    validate,
)
from learnchain.tasks.task_file import BUILT_IN, task_draft
from learnchain_conformance.node_processes import LocalProcesses

KILLER: dict[str, Any] = tomllib.loads((Path(__file__).parent / "killer.toml").read_text())
FLOAT_BYTES = 4


@dataclass(frozen=True)
class TaskBomb:
    """What a chain sees of a task, and what a sample of it needs."""

    parameters: int
    flops_a_sample: int
    live_bytes_a_sample: int


@dataclass(frozen=True)
class StoppedChain:
    """How many heights a network ended with a model and without one after the task was posted."""

    trained: int
    empty: int


def settings(**values: int) -> tuple[Setting, ...]:
    """Return settings in the order in which a specification has them."""
    return tuple(Setting(name, value) for name, value in sorted(values.items()))


def largest_bomb(copies: int = 16) -> ModelSpecification:
    """Return a model of 778 parameters with this many layers of the largest size that is admitted."""
    names = tuple(f"sigmoid_{index}" for index in range(copies))
    return ModelSpecification(
        (1, 8, 8),
        (
            Layer("convolution", "Conv2d", (), settings(out_channels=64, kernel_size=1)),
            Layer("once", "Upsample", (), settings(scale_factor=16)),
            Layer("twice", "Upsample", (), settings(scale_factor=16)),
            *(Layer(name, "Sigmoid", ("twice",), ()) for name in names),
            Layer("sum", "Add", names, ()),
            Layer("pool", "AdaptiveAvgPool2d", ("sum",), settings(output_size=1)),
            Layer("flat", "Flatten", (), ()),
            Layer("output", "Linear", (), settings(out_features=10)),
        ),
    )


def attack(specification: ModelSpecification) -> TaskBomb:
    """Let the chain admit a model, and return what it ranks by and what it does not look at."""
    validate(specification, ModelLimits())
    live = sum(math.prod(shape) for shape in layer_shapes(specification).values())
    return TaskBomb(parameter_count(specification), forward_flops(specification), live * FLOAT_BYTES)


def attack_network(nodes: LocalProcesses, heights: int, within_seconds: float) -> StoppedChain:
    """Post the killer to a network of real processes and count how its heights end."""
    nodes.wait_until_ready(0, 60)
    nodes.call(0, "learn_publishTask", token_of(nodes.network.directory, 0), KILLER)

    def is_decided() -> bool:
        return nodes.call(0, "learn_round")["deciding"]["name"] == "killer"

    nodes.wait_until(is_decided, 120)
    first = int(nodes.call(0, "learn_round")["deciding"]["height"])
    nodes.wait_for_height(first + heights - 1, within_seconds)
    blocks = nodes.call(0, "learn_blocks", first, first + heights - 1)
    trained = sum(bool(block["trained"]) for block in blocks)
    return StoppedChain(trained, len(blocks) - trained)


def test_the_killer_looks_easier_than_the_easiest_task_and_needs_a_thousand_times_the_room() -> None:
    killer, honest = attack(task_draft(KILLER).model), attack(task_draft(BUILT_IN["digits"]).model)
    assert killer.parameters == 778
    assert killer.flops_a_sample < honest.flops_a_sample / 5
    assert killer.live_bytes_a_sample > 1_000 * honest.live_bytes_a_sample


def test_the_largest_bomb_is_admitted_and_needs_gigabytes_for_one_sample() -> None:
    bomb = attack(largest_bomb())
    assert bomb.parameters == 778
    assert bomb.live_bytes_a_sample > 17 << 30


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[LocalProcesses]:
    plan = LocalPlan(tmp_path, miners=2, rpc_port=0, first_block_milliseconds=12_000)
    network = LocalProcesses(asyncio.run(provision_network(plan, time.time_ns() // 1_000_000)))
    try:
        network.start()
        yield network
    finally:
        network.stop()


@pytest.mark.slow
@pytest.mark.network
def test_a_network_that_admits_the_killer_wins_no_height_any_more(nodes: LocalProcesses) -> None:
    result = attack_network(nodes, heights=4, within_seconds=150)
    assert result.trained == 0
    assert result.empty == 4
