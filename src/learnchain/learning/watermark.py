r"""Embed and check a miner's watermark as DLBC IV-C writes it (`paper` mode); `docs/design.md` says what it is worth.

Reading DLBC-R14. The paper: "a binary matrix of n columns and m rows ... each column of the matrix should contain
only one 1 ... If the i-th bit of the hash is 0, the first row of the i-th column is 1; if [it] is 1, the second row".
So two rows carry everything: with $\bar w$ the mean over a layer's filters (Uchida et al., cited as [1]) and $X$ the
matrix, the confidences are $y_j = \sigma(z_j)$, $z_j = \sum_i X_{ji} \bar w_i$, the target is 1 for both rows. "Only
if the confidence level of all watermark elements is higher than 0.9999" the mark counts.

The paper does not print $E_R$. Uchida's cross-entropy $-\sum_j \log y_j$ has a gradient of 1e-4 where the rule wants
it: on the digits CNN (SGD) it stays below 0.998 for twelve epochs at lambda 0.01 to 1, embeds at 10 for about three
points of accuracy, and destroys the model at 100. We take

$$ E_R = \sum_j \frac{F T}{n_j} \max(0, T - z_j), \quad T = \mathrm{logit}(t) + 1, $$

for F filters and $n_j$ ones in row j. Its gradient does not fade, it is zero once the rule holds with a margin, and the
factor makes lambda mean the same for every model: the mark is in after about $1 / (\lambda \eta)$ steps of the
effective learning rate $\eta$ (that is rate / (1 - momentum)).

The paper names no layer; Uchida marks convolutions. We take the hidden convolution with the longest mean vector, the
first of equals, or the hidden linear layer if there is no convolution, or the only layer there is. Bits
beyond its length are dropped, columns beyond the bits are zero. Lambda and threshold come from the terms.

The decision is exact: means are compared as integers with the threshold's logit, never as binary floats.
"""

import itertools
from decimal import Decimal
from math import prod

import numpy as np
import torch
from torch import nn

from learnchain.encoding.codec import CONTEXT, logarithm
from learnchain.learning.jobs import WatermarkCheck
from learnchain.learning.model import Weights
from learnchain.learning.safe_tensors import Array
from learnchain.protocol.citations import equation
from learnchain.protocol.model_specification import ModelSpecification, Tensor, tensors
from learnchain.protocol.training_terms import Watermark
from learnchain.rejection import Rejected, RejectionReason

MILLION = 1_000_000

_FRACTION_BITS = 32
"""Weights are rounded to multiples of 2**-32 for the decision: far finer than any training step."""

_WEIGHT_LIMIT = 256.0
"""Larger weights count as this much, so that the integer sums cannot overflow."""


@equation("dlbc", 7, r"E(w) = E_0(w) + \lambda \times E_R(w)")
def add_regulariser(gradient: torch.Tensor, strength: float, regulariser_gradient: torch.Tensor) -> torch.Tensor:
    r"""Descend $E(w) = E_0(w) + \lambda E_R(w)$: in place, $\nabla E = \nabla E_0 + \lambda \nabla E_R$.

    `strength` is lambda. The gradient of $E_R$ is known in closed form, so nothing is differentiated twice.
    """
    return gradient.add_(regulariser_gradient, alpha=strength)


def marked_tensor(specification: ModelSpecification) -> Tensor:
    """Return the weight that carries the mark: of hidden convolutions, else linear layers, the longest mean vector."""
    kinds = {layer.name: layer.kind for layer in specification.layers}
    weighty = [tensor for tensor in tensors(specification) if len(tensor.shape) > 1]
    hidden = weighty[:-1] or weighty
    for wanted in (("Conv2d", "Conv3d"), ("Linear",)):
        candidates = [tensor for tensor in hidden if kinds[tensor.name.rpartition(".")[0]] in wanted]
        if candidates:
            return max(candidates, key=_mean_length)
    raise Rejected(RejectionReason.MODEL_SHAPE_MISMATCH, "the model has no weights that could carry a watermark")


def watermark_matrix(bits: bytes, length: int) -> Array:
    """Return the two effective rows over the mean weights; a row that no bit selects is left out."""
    values = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))[:length]
    rows = np.zeros((2, length), dtype=np.float32)
    rows[values, np.arange(len(values))] = 1
    return rows[rows.any(axis=1)]


class WatermarkTerm:
    """Give the training loop the regulariser of one run.

    Two passes over the columns that carry a bit are all it costs: one to see which rows lack, one to pull.
    """

    def __init__(self, terms: Watermark, specification: ModelSpecification, model: nn.Module) -> None:
        marked = marked_tensor(specification)
        filters, length = marked.shape[0], _mean_length(marked)
        # Columns beyond the bits are zero in every row: neither form nor gradient has anything there.
        self._columns = min(8 * len(terms.bits), length)
        self._strength = terms.strength_millionths / MILLION
        self._target = target_of(terms)
        self._weight = dict(model.named_parameters())[marked.name]
        self._matrix = torch.from_numpy(watermark_matrix(terms.bits, length)[:, : self._columns].copy())
        self._marked_columns = self._columns_of(self._weight.detach())
        self._averaging = torch.full((filters,), 1 / filters)
        pulls = -self._target / self._matrix.sum(dim=1, keepdim=True) * self._matrix
        rows = [torch.tensor(lacking) for lacking in itertools.product((0.0, 1.0), repeat=len(pulls))]
        self._pulls = {tuple(lacking.bool().tolist()): lacking @ pulls for lacking in rows}
        """What pulls, by which rows lack: four cases, so that no step adds them up again."""

    def regulariser_gradient(self) -> torch.Tensor | None:
        r"""Return $\nabla E_R$ over the columns with a bit, for every filter the same; None where $E_R$ is zero.

        $\partial E_R / \partial w_{fi} = -\sum_j X_{ji} \frac{T}{n_j} [z_j < T]$.
        """
        forms = self._matrix @ (self._averaging @ self._marked_columns)
        lacking = tuple(form < self._target for form in forms.tolist())
        return self._pulls[lacking] if any(lacking) else None

    def apply(self, row: torch.Tensor, divisor: float = 1.0) -> None:
        """Add the term to the gradient that backpropagation left and that the optimiser will divide."""
        if self._weight.grad is not None:
            add_regulariser(self._columns_of(self._weight.grad), self._strength * divisor, row)

    def _columns_of(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(len(tensor), -1)[:, : self._columns]


def target_of(terms: Watermark) -> float:
    """Return T, the form at which a row is left alone."""
    return float(_logit(terms.threshold_millionths)) + 1


def check_watermark(weights: Weights, specification: ModelSpecification, terms: Watermark) -> WatermarkCheck:
    """Return whether every element's confidence lies above the threshold, decided in integers (DLBC IV-C2)."""
    marked = marked_tensor(specification)
    filters = marked.shape[0]
    clipped = np.clip(weights[marked.name].astype(np.float64), -_WEIGHT_LIMIT, _WEIGHT_LIMIT)
    steps = np.rint(clipped * 2.0**_FRACTION_BITS).astype(np.int64)
    totals = [int(total) for total in steps.sum(axis=0).reshape(-1)]
    needed = _logit(terms.threshold_millionths) * filters * (1 << _FRACTION_BITS)
    forms = [
        sum(total for total, chosen in zip(totals, row, strict=True) if chosen)
        for row in watermark_matrix(terms.bits, len(totals))
    ]
    scale = float(filters) * 2.0**_FRACTION_BITS
    shown = tuple(float(1 / (1 + np.exp(-np.clip(form / scale, -700, 700)))) for form in forms)
    return WatermarkCheck(bool(forms) and all(Decimal(form) > needed for form in forms), shown)


def _logit(threshold_millionths: int) -> Decimal:
    if not 0 < threshold_millionths < MILLION:
        detail = f"the confidence threshold is {threshold_millionths} millionths"
        raise Rejected(RejectionReason.TASK_NUMBER_OUT_OF_RANGE, detail)
    return logarithm(CONTEXT.divide(Decimal(threshold_millionths), Decimal(MILLION - threshold_millionths)))


def _mean_length(tensor: Tensor) -> int:
    return prod(tensor.shape[1:])
