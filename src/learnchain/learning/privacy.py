"""Ask how much a model gives away about the rows it was trained on: the loss-threshold membership test."""

from dataclasses import dataclass

import numpy as np
import torch

from learnchain.learning.data import DataSet
from learnchain.learning.model import Weights, build_model, set_weights
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import to_float
from learnchain.primitives.model_specification import ModelSpecification
from learnchain.primitives.rejection import Rejected, RejectionReason


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
