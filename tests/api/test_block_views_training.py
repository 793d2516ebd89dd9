"""Repeat a winner's run from what its block publishes, with torch, numpy and hashlib alone (PoDL III-A)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from learnchain.api.inspection import Inspection
from learnchain.encoding.content_id import cid_from_text
from learnchain.encoding.cryptography import decrypt_file
from learnchain.engines.podl import Podl, TwoPhases
from learnchain.learning.model import torch_source
from learnchain.node.local_network import LocalPlan
from learnchain.protocol.task_specification import decode_specification
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.simulated_network import run_simulated
from learnchain.simulation.simulated_nodes import InProcessTraining, SimulatedNodes

MILLION = 1_000_000


def stream(tag: str, seed: bytes, length: int) -> bytes:
    start = b"learnchain/1/" + tag.encode() + b"\0" + len(seed).to_bytes(8, "big")
    return hashlib.shake_256(start + seed).digest(length)


def repeated(model: Any, facts: dict[str, Any], rows: dict[str, torch.Tensor], first: dict[str, torch.Tensor]) -> Any:
    """Train as the block says: rows in the drawn order, gradients of at most length one, plain SGD with momentum."""
    chosen = {key: value / MILLION for key, value in facts["hyper_parameters"].items() if key.endswith("millionths")}
    named = {f"{name}.{key}": value for name, module, _ in model for key, value in module.named_parameters()}
    for name, parameter in named.items():
        parameter.data.copy_(first[name])
    optimiser = torch.optim.SGD(
        list(named.values()),
        lr=chosen["learning_rate_millionths"],
        momentum=chosen["momentum_millionths"],
        weight_decay=chosen["weight_decay_millionths"],
        fused=True,
    )
    for name, parameter in named.items():
        optimiser.state[parameter]["momentum_buffer"] = first[f"momentum_buffer/{name}"].clone()
    inputs, labels, size = rows["inputs"], rows["labels"].long(), facts["hyper_parameters"]["batch_size"]
    inputs = inputs if inputs.dtype == torch.float32 else inputs.float() / 256
    for epoch in range(facts["hyper_parameters"]["epochs"]):
        seed = bytes.fromhex(facts["seeds"]["batch_order"]) + epoch.to_bytes(8, "big")
        keys = np.frombuffer(stream("batch-order", seed, 8 * len(labels)), dtype="<u8")
        order = torch.from_numpy(np.argsort(keys, kind="stable"))
        for batch in order.split(size):
            if len(batch) == 1:
                continue
            outputs = inputs[batch]
            for _, module, _ in model:
                outputs = module(outputs)
            optimiser.zero_grad()
            nn.functional.cross_entropy(outputs, labels[batch]).backward()
            lengths = torch.stack([torch.linalg.vector_norm(each.grad) for each in named.values()])
            length = torch.linalg.vector_norm(lengths)
            optimiser.grad_scale = None if length <= 1 else length + 1e-6
            optimiser.step()
    return named


def test_anybody_repeats_a_winners_run_from_what_its_block_publishes(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = Podl(TwoPhases(6_500, 2_000, 1_500, 500, 1_300))
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, "podl", miners=1, rules=engine), seed=5)
        nodes.make_training = lambda _index: InProcessTraining(maximum_epochs=2)
        await nodes.start()
        await nodes.wait_for_height(2, 60)
        ports = nodes.node(0).ports
        inspection = Inspection(ports)

        async def blob(name: str) -> Path:
            return await ports.blobs.fetch(cid_from_text(name), max_bytes=1 << 28)

        for turn, height in enumerate((1, 2)):
            facts = await inspection.training(height)
            assert (facts["block_index"], facts["optimiser"], facts["mode"]) == (turn, "sgd", "declared")
            encrypted, plain = await blob(facts["data"]["cid"]), tmp_path / f"rows-{height}"
            decrypt_file(encrypted, plain, bytes.fromhex(facts["data"]["key"]), 1 << 28)
            states = json.loads((await blob(facts["trace"])).read_text())["states"]
            assert len(states) == facts["states"]
            first = load_file(await blob(states[0]))
            told = await inspection.task(facts["task"])
            program: dict[str, Any] = {"__name__": "program"}
            exec(torch_source(decode_specification(bytes.fromhex(told["specification"])).model, "", ""), program)
            if not turn:
                name = "a0.weight" if "a0.weight" in first else next(each for each in first if each.endswith("weight"))
                shape = first[name].shape
                drawn = np.frombuffer(
                    stream(f"initialise/{name}", bytes.fromhex(facts["seeds"]["initialisation"]), 4 * shape.numel()),
                    "<u4",
                )
                bound = np.sqrt(6.0 / shape[1:].numel())
                weights = ((2 * drawn.astype(np.float64) + (1 - 2.0**32)) * (bound / 2.0**32)).astype(np.float32)
                assert weights.tobytes() == first[name].numpy().tobytes()
            found = repeated(program["LAYERS"], facts, load_file(plain), first)
            model = load_file(await blob(facts["model"]))
            assert model.keys() == found.keys()
            for name, value in model.items():
                assert value.numpy().tobytes() == found[name].detach().numpy().tobytes()
        await nodes.close()

    run_simulated(scenario())


def test_an_empty_block_has_no_training_to_repeat(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = SimulatedNodes(tmp_path, LocalPlan(tmp_path, "podl", miners=1), seed=5)
        nodes.make_training = lambda _index: InProcessTraining(maximum_epochs=1)
        nodes.publishers = set()
        await nodes.start()
        await nodes.wait_for_height(1, 120)
        with pytest.raises(Rejected) as refusal:
            await Inspection(nodes.node(0).ports).training(1)
        assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID
        await nodes.close()

    run_simulated(scenario())
