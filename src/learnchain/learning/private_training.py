"""Ask how much a model gives away about the rows it was trained on: the loss-threshold membership test.

Train so that no single row shows: differentially private SGD through Opacus, with the epsilon that was spent.

Each row's gradient is shortened to one length, noise is added to their sum, and batches are drawn by Poisson sampling,
as the accountant of the budget assumes. Nothing here is part of a consensus: a contributor runs it at home, and its
noise has to be secret, so it comes from entropy that the caller draws. Needs the extra `privacy`.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from learnchain.learning.data import DataSet
from learnchain.learning.model import Weights, build_model, check_finite, initial_weights, set_weights, weights_of
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import MILLION, to_float
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.training_terms import HyperParameters
from learnchain.rejection import Rejected, RejectionReason


@dataclass(frozen=True, slots=True)
class Membership:
    """Report an attacker who calls a row a member when its loss is low; for display, nothing is decided by it."""

    advantage: float
    """Largest true-positive rate less false-positive rate over all thresholds: 0 tells nothing apart, 1 everything."""
    area: float
    """Chance that a member's loss is below a stranger's, ties counted half: 0.5 tells nothing apart."""


def row_losses(specification: ModelSpecification, weights: Weights, data: DataSet) -> Array:
    """Return the cross-entropy of every row."""
    module = build_model(specification).eval()
    set_weights(module, weights)
    rows = torch.from_numpy(np.require(data.inputs, requirements=["C", "W"]))
    with torch.inference_mode():
        logits = torch.cat([module(to_float(batch)) for batch in rows.split(250)])
        wanted = torch.from_numpy(data.labels.astype(np.int64))
        return torch.nn.functional.cross_entropy(logits, wanted, reduction="none").numpy()


def membership(members: Array, strangers: Array) -> Membership:
    """Return how well losses tell training rows from rows of the same source that were kept back."""
    if not len(members) or not len(strangers):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "the test needs rows of both kinds")
    thresholds = np.unique(np.concatenate([members, strangers]))
    hits = np.searchsorted(np.sort(members), thresholds, side="right") / len(members)
    alarms = np.searchsorted(np.sort(strangers), thresholds, side="right") / len(strangers)
    below = np.searchsorted(np.sort(strangers), members, side="right")
    strictly = np.searchsorted(np.sort(strangers), members, side="left")
    greater = len(strangers) - below
    area = float((greater + (below - strictly) / 2).mean() / len(strangers))
    return Membership(max(0.0, float((hits - alarms).max())), area)


ENTROPY_BYTES = 32


@dataclass(frozen=True, slots=True)
class PrivacyTerms:
    """Fix the noise, in multiples of the length that each row's gradient is shortened to, and the delta."""

    noise: float
    gradient_norm: float = 1.0
    delta: float = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class PrivateResult:
    """Hold a model and how much it may tell about any one row: (epsilon, delta)-differential privacy."""

    weights: dict[str, Array]
    epsilon: float
    delta: float
    steps: int


def epsilon_spent(noise: float, sample_rate: float, steps: int, delta: float) -> float:
    """Return the epsilon of so many noisy steps, bounded by Renyi differential privacy."""
    accountant = _opacus("opacus.accountants").RDPAccountant()
    accountant.history = [(noise, sample_rate, steps)]
    with warnings.catch_warnings():
        # Which Renyi order was best says nothing to a user: any order gives a bound.
        warnings.simplefilter("ignore", UserWarning)
        return float(accountant.get_epsilon(delta))


def train_privately(
    specification: ModelSpecification, data: DataSet, chosen: HyperParameters, terms: PrivacyTerms, entropy: bytes
) -> PrivateResult:
    """Train with Adam on noisy gradients; `entropy` are 32 secret bytes and must never be used twice."""
    if len(entropy) != ENTROPY_BYTES or terms.noise <= 0 or terms.gradient_norm <= 0 or not 0 < terms.delta < 1:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"terms of privacy {terms} with {len(entropy)} secret bytes")
    rate = min(1.0, chosen.batch_size / len(data))
    steps = chosen.epochs * -(-len(data) // chosen.batch_size)
    generator = torch.Generator().manual_seed(int.from_bytes(entropy[:8], "big", signed=True))
    draw = np.random.Generator(np.random.PCG64(int.from_bytes(entropy[8:], "big")))  # secret, at home
    module = build_model(specification)
    set_weights(module, initial_weights(specification, entropy))
    noisy = _noisy(module.train(), chosen, terms, generator)
    rows, labels = torch.from_numpy(np.array(data.inputs)), torch.from_numpy(data.labels.astype(np.int64))
    with warnings.catch_warnings():
        # Inputs need no gradient, which torch's hooks remark on at every step.
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(steps):
            chosen_rows = torch.from_numpy(np.flatnonzero(draw.random(len(data)) < rate))
            noisy(to_float(rows[chosen_rows]), labels[chosen_rows])
    weights = weights_of(module, specification)
    check_finite(weights)
    return PrivateResult(weights, epsilon_spent(terms.noise, rate, steps, terms.delta), terms.delta, steps)


def _noisy(
    module: torch.nn.Module, chosen: HyperParameters, terms: PrivacyTerms, generator: torch.Generator
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Return one noisy step; a batch without rows is a step too, of noise alone."""
    wrap, optimisers = _opacus("opacus.grad_sample"), _opacus("opacus.optimizers")
    try:
        sampled = wrap.GradSampleModule(module, loss_reduction="sum")
    except NotImplementedError as error:
        detail = "the model has a layer that mixes rows or that Opacus does not know"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail) from error
    adam = torch.optim.Adam(module.parameters(), lr=chosen.learning_rate_millionths / MILLION)
    optimiser = optimisers.DPOptimizer(
        adam,
        noise_multiplier=terms.noise,
        max_grad_norm=terms.gradient_norm,
        expected_batch_size=chosen.batch_size,
        loss_reduction="mean",
        generator=generator,
    )

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> None:
        optimiser.zero_grad()
        if len(labels):
            functional.cross_entropy(sampled(inputs), labels, reduction="sum").backward()
        else:
            for parameter in module.parameters():
                parameter.grad_sample = torch.zeros((0, *parameter.shape))  # pyrefly: ignore[missing-attribute]
        optimiser.step()

    return step


def _opacus(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        detail = "differential privacy needs the extra `privacy`: pip install 'learnchain[privacy]'"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail) from error
