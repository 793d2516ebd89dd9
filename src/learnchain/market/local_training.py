"""What a computing contributor does at home: train on private rows, and ask what the model would give away."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from learnchain.encoding.numbers import Accuracy
from learnchain.learning.data import DataSet
from learnchain.learning.fused_model import answers_of
from learnchain.learning.model import save_weights
from learnchain.learning.private_training import Membership, PrivacyTerms, membership, row_losses, train_privately
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import TrainingPlan, Watcher, train
from learnchain.market.contributors import LocallyTrainedModel
from learnchain.market.package import PackageManifest
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters


@dataclass(frozen=True, slots=True)
class LocalTrainingTerms:
    """Say how contributors train; the paper's 100,000 iterations at 0.0001 overfit 500 rows long before they end.

    `noise` above 0 trains with differential privacy: Gaussian noise of so many gradient norms at every step.
    """

    epochs: int = 40
    learning_rate_millionths: int = 300
    batch_size: int = 32
    noise: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutSplit:
    """Hold private rows: those to learn from, and those kept back to judge by."""

    labels: tuple[int, ...]
    training: DataSet
    held_out: DataSet


@dataclass(frozen=True, slots=True, eq=False)
class LocalTrainingResult:
    """Hold a model, what its losses betray of its rows, and the epsilon that bounds it; None without a bound."""

    model: LocallyTrainedModel
    membership: Membership
    epsilon: float | None


def train_locally(
    specification: ModelSpecification,
    own: HeldOutSplit,
    terms: LocalTrainingTerms,
    directory: Path,
    tools: "LocalTrainingTools",
) -> LocalTrainingResult:
    """Train on private rows; return the model with its accuracy on kept-back rows, and what it gives away."""
    chosen = HyperParameters(terms.learning_rate_millionths, 0, 0, terms.batch_size, terms.epochs)
    weights, epsilon = _train_weights(specification, own.training, chosen, terms.noise, tools)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "home.safetensors"
    save_weights(path, weights)
    right = int((answers_of(specification, weights, own.held_out) == own.held_out.labels).sum())
    members = row_losses(specification, weights, own.training)
    strangers = row_losses(specification, weights, own.held_out)
    accuracy = Accuracy(right, len(own.held_out))
    trained = LocallyTrainedModel(PackageManifest(specification, own.labels), path, accuracy)
    return LocalTrainingResult(trained, membership(members, strangers), epsilon)


@dataclass(frozen=True, slots=True)
class LocalTrainingTools:
    """Bring in the clock and 32 bytes that nobody else knows."""

    clock: Callable[[], float]
    secret: bytes


def _train_weights(
    specification: ModelSpecification, rows: DataSet, chosen: HyperParameters, noise: float, tools: LocalTrainingTools
) -> tuple[dict[str, Array], float | None]:
    if noise:
        found = train_privately(specification, rows, chosen, PrivacyTerms(noise), tools.secret)
        return found.weights, found.epsilon
    plan = TrainingPlan(specification, Optimiser.ADAM, chosen, FreeTraining(), tools.secret, 1 << 30)
    return train(plan, rows, Watcher(tools.clock)).weights, None
