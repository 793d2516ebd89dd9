"""Fuse contributors' models into one (BaaS III-B): frozen features, a hidden layer, an output layer; Eq. 1 to 6.

Only the two weight matrices are learned; what contributors trained stays as it is, so that models can be added one
at a time and left out again. Every draw comes from SHAKE-256 of a seed, so that honest verifiers who fuse the same
models on the same kind of machine find the same counts.

The matrices are learned in coordinates in which each model's features have equal moments in all directions, and A is
handed back in the features' own: the paper's Eq. 1 as it stands, reached by steps that a common offset of a thousand
rectified features does not throw about. Without that, five Table I CNNs on MNIST lost 1.5 points (docs/market.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, sqrt

import numpy as np
import torch

from learnchain.encoding.cryptography import shake256
from learnchain.learning.data import permutation
from learnchain.learning.safe_tensors import Array
from learnchain.protocol.citations import equation
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_FEATURES = 2_048
"""A model's widest vector of features: its moments are inverted, which takes the cube of this."""

_RIDGE = 1e-2
"""What is added to each moment, as a share of their mean: directions without features stay without weight."""

_FIRST_WEIGHTS = 0.3
_TINY = 1e-30


class FusionStrategy(StrEnum):
    """Name the two ways of the paper to learn the fusion's weights."""

    FREE = "strategy_1"
    GRADUAL = "strategy_2"


class Outputs(StrEnum):
    """Name the two readings of |l_i| and Eq. 4 (BAAS-R2): `LITERAL` has n identities, `BY_LABEL` only known labels."""

    LITERAL = "literal"
    BY_LABEL = "by_label"


@dataclass(frozen=True, slots=True)
class FusionTerms:
    """Fix how a fusion is learned; verifiers who share them and the seed find the same result."""

    classes: int
    strategy: FusionStrategy = FusionStrategy.GRADUAL
    outputs: Outputs = Outputs.LITERAL
    epochs: int = 24
    first_stage_epochs: int = 8
    learning_rate: float = 0.00015
    batch_size: int = 64


@dataclass(frozen=True, slots=True, eq=False)
class FusionModel:
    """Hold what fusion needs of one contributor's model: its features on training and test rows, and its labels.

    `equal` is `equalising(training)`, for those who fuse a model more than once.
    """

    training: Array
    test: Array
    labels: tuple[int, ...]
    equal: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FusionLabels:
    """Hold the true labels of the rows that features were computed on."""

    training: Array
    test: Array


@dataclass(frozen=True, slots=True, eq=False)
class FusionWeights:
    """Hold the learned matrices A (features x hidden) and B (hidden x classes), and the count on the test rows."""

    hidden: Array
    output: Array
    test_correct: int


@equation("baas", 1, "h_j = sum_i A_ij fc_i")
def hidden_layer(features: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the hidden layer: a weighted sum of the concatenated features, without constraint."""
    return features @ hidden


@equation("baas", 2, "y_j = exp(sum_i B_ij h_i) / sum_k exp(sum_i B_ik h_i)")
def log_probabilities(hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return ln y_j: the logarithm keeps small probabilities that the quotient of exponentials would lose."""
    return torch.log_softmax(hidden @ output, dim=1)


@equation("baas", 3, "A_init = diag(W_1, ..., W_n), W_i of |f_i| x |l_i|")
def draw_initial_hidden(widths: Sequence[int], label_counts: Sequence[int], seed: bytes) -> Array:
    """Return A of Strategy II before training: one dense random block a model on the diagonal (BAAS-R1)."""
    matrix = np.zeros((sum(widths), sum(label_counts)), dtype=np.float32)
    row, column = 0, 0
    for index, (width, count) in enumerate(zip(widths, label_counts, strict=True)):
        block = _draw_uniform(f"fusion/block/{index}", seed, (width, count), sqrt(1.0 / width))
        matrix[row : row + width, column : column + count] = block
        row, column = row + width, column + count
    return matrix


@equation("baas", 4, "B_init = (I_d, ..., I_d) stacked n times")
def initial_output(labels: Sequence[Sequence[int]], classes: int) -> Array:
    """Return B of Strategy II before training: row (i, l) votes for class l alone (BAAS-R2).

    The literal reading hands every model all d labels, which stacks n identities of size d; by label a model has
    rows for the labels of its own data only.
    """
    rows = [label for own in labels for label in own]
    matrix = np.zeros((len(rows), classes), dtype=np.float32)
    matrix[np.arange(len(rows)), rows] = 1.0
    return matrix


@equation("baas", 5, "h_j = sum_{A_ij in W} A_ij fc_i + gamma sum_{A_ij not in W} A_ij fc_i")
def staged_hidden_layer(features: torch.Tensor, hidden: torch.Tensor, inside: torch.Tensor, gamma: int) -> torch.Tensor:
    """Return the hidden layer of Strategy II: within the blocks, and across them once gamma is one (BAAS-R1)."""
    own = features @ (hidden * inside)
    return own + gamma * (features @ (hidden * (1 - inside))) if gamma else own


@equation("baas", 6, "y_j = softmax_j(sum_{B_ij = w_jpp} B_ij h_i + gamma sum_{B_ij != w_jpp} B_ij h_i)")
def staged_log_probabilities(
    hidden: torch.Tensor, output: torch.Tensor, inside: torch.Tensor, gamma: int
) -> torch.Tensor:
    """Return ln y_j of Strategy II: each hidden unit speaks for its own label until gamma is one."""
    own = hidden @ (output * inside)
    return torch.log_softmax(own + gamma * (hidden @ (output * (1 - inside))) if gamma else own, dim=1)


def hidden_labels(models: Sequence[FusionModel], terms: FusionTerms) -> tuple[tuple[int, ...], ...]:
    """Return the labels for which each model has hidden units; their number is the size of the hidden layer."""
    everything = tuple(range(terms.classes))
    chosen = tuple(everything if terms.outputs is Outputs.LITERAL else model.labels for model in models)
    for labels in chosen:
        if not labels or list(labels) != sorted(set(labels)) or not set(labels) <= set(everything):
            raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, f"labels {labels} of {terms.classes} classes")
    return chosen


def compute_equalisation(features: Array) -> Array:
    """Return the symmetric P for which the second moments of `features @ P` are nearly the identity."""
    if features.shape[1] > MAXIMUM_FEATURES:
        raise Rejected(RejectionReason.MODEL_TOO_LARGE, f"{features.shape[1]} features of {MAXIMUM_FEATURES}")
    wide = torch.from_numpy(features.astype(np.float64))
    moments, directions = torch.linalg.eigh(wide.T @ wide / len(wide))
    raised = moments.clamp(min=0) + _RIDGE * max(float(moments.mean()), _TINY)
    return ((directions / raised.sqrt()) @ directions.T).numpy()


def fuse(models: Sequence[FusionModel], truth: FusionLabels, terms: FusionTerms, seed: bytes) -> FusionWeights:
    """Learn A and B by back-propagation on the training rows and keep the epoch that is best on the test rows."""
    if not models or terms.epochs < 1 or terms.batch_size < 1 or not 0 <= terms.first_stage_epochs <= terms.epochs:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "a fusion needs a model, epochs and a batch size")
    learner = _Learner(models, terms, seed)
    equal = [compute_equalisation(model.training) if model.equal is None else model.equal for model in models]
    training = _join_features([model.training @ each for model, each in zip(models, equal, strict=True)])
    test = _join_features([model.test @ each for model, each in zip(models, equal, strict=True)])
    wanted = torch.from_numpy(truth.training.astype(np.int64))
    wanted_test = torch.from_numpy(truth.test.astype(np.int64))
    best: tuple[int, float] | None = None
    kept = learner.matrices()
    for epoch in range(terms.epochs):
        order = torch.from_numpy(permutation("fusion/order", seed + epoch.to_bytes(4, "big"), len(wanted)))
        for rows in order.split(terms.batch_size):
            learner.advance(training[rows], wanted[rows], epoch)
        found = learner.measure(test, wanted_test, epoch)
        if not isfinite(found[1]):
            raise Rejected(RejectionReason.WEIGHTS_NOT_FINITE, "the features of a model make the fusion diverge")
        if best is None or found > best:
            best, kept = found, learner.matrices()
    assert best is not None
    return FusionWeights(_in_own_coordinates(equal, kept[0]), kept[1], best[0])


def predict(weights: FusionWeights, features: Sequence[Array]) -> Array:
    """Return the class of every row from the features of all fused models, ties to the lowest class."""
    together = torch.from_numpy(np.concatenate(list(features), axis=1))
    hidden = hidden_layer(together, torch.from_numpy(weights.hidden))
    return log_probabilities(hidden, torch.from_numpy(weights.output)).argmax(1).numpy()


class _Learner:
    """Hold the matrices of one fusion in training."""

    def __init__(self, models: Sequence[FusionModel], terms: FusionTerms, seed: bytes) -> None:
        labels = hidden_labels(models, terms)
        widths, counts = [model.training.shape[1] for model in models], [len(own) for own in labels]
        self._gradual, self._first = terms.strategy is FusionStrategy.GRADUAL, terms.first_stage_epochs
        blocks = draw_initial_hidden(widths, counts, seed)
        identities = initial_output(labels, terms.classes)
        owner_of_row = np.repeat(np.arange(len(widths)), widths)
        owner_of_column = np.repeat(np.arange(len(counts)), counts)
        self._own_hidden = torch.from_numpy((owner_of_row[:, None] == owner_of_column[None, :]).astype(np.float32))
        self._own_output = torch.from_numpy(identities)
        if not self._gradual:
            blocks = _draw_uniform("fusion/hidden", seed, blocks.shape, sqrt(1.0 / blocks.shape[0]))
            identities = _draw_uniform("fusion/output", seed, identities.shape, sqrt(3.0 / identities.shape[0]))
        self._hidden = torch.tensor(blocks * np.float32(_FIRST_WEIGHTS), requires_grad=True)
        self._output = torch.tensor(identities, requires_grad=True)
        self._optimiser = torch.optim.Adam([self._hidden, self._output], lr=terms.learning_rate, fused=True)

    def advance(self, features: torch.Tensor, wanted: torch.Tensor, epoch: int) -> None:
        self._optimiser.zero_grad()
        torch.nn.functional.nll_loss(self._forward(features, epoch), wanted).backward()
        self._optimiser.step()

    def measure(self, features: torch.Tensor, wanted: torch.Tensor, epoch: int) -> tuple[int, float]:
        with torch.inference_mode():
            found = self._forward(features, epoch)
            return int((found.argmax(1) == wanted).sum()), -float(torch.nn.functional.nll_loss(found, wanted))

    def matrices(self) -> tuple[Array, Array]:
        return self._hidden.detach().numpy().copy(), self._output.detach().numpy().copy()

    def _forward(self, features: torch.Tensor, epoch: int) -> torch.Tensor:
        if not self._gradual:
            return log_probabilities(hidden_layer(features, self._hidden), self._output)
        gamma = int(epoch >= self._first)
        hidden = staged_hidden_layer(features, self._hidden, self._own_hidden, gamma)
        return staged_log_probabilities(hidden, self._output, self._own_output, gamma)


def _join_features(features: Sequence[Array]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(features, axis=1).astype(np.float32))


def _in_own_coordinates(equal: Sequence[Array], hidden: Array) -> Array:
    """Return diag(P_1, ..., P_n) A: blocks stay blocks, so the two stages mean what they mean in Eq. 5."""
    row, parts = 0, list[Array]()
    for each in equal:
        parts.append(each @ hidden[row : row + len(each)])
        row += len(each)
    return np.concatenate(parts).astype(np.float32)


def _draw_uniform(tag: str, seed: bytes, shape: tuple[int, ...], bound: float) -> Array:
    integers = np.frombuffer(shake256(tag, seed, 4 * shape[0] * shape[1]), dtype="<u4").astype(np.float64)
    return ((2 * integers + (1 - 2.0**32)) * (bound / 2.0**32)).astype(np.float32).reshape(shape)
