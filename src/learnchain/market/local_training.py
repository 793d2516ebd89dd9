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
from learnchain.market.contributors import TrainedAtHome
from learnchain.market.package import Manifest
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.task_specification import Optimiser
from learnchain.protocol.training_terms import Free, HyperParameters


@dataclass(frozen=True, slots=True)
class HomeTerms:
    """Say how contributors train; the paper's 100,000 iterations at 0.0001 overfit 500 rows long before they end.

    `noise` above 0 trains with differential privacy: Gaussian noise of so many gradient norms at every step.
    """

    epochs: int = 40
    learning_rate_millionths: int = 300
    batch_size: int = 32
    noise: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class HomeData:
    """Hold private rows: those to learn from, and those kept back to judge by."""

    labels: tuple[int, ...]
    training: DataSet
    kept_back: DataSet


@dataclass(frozen=True, slots=True, eq=False)
class HomeResult:
    """Hold a model, what its losses betray of its rows, and the epsilon that bounds it; None without a bound."""

    trained: TrainedAtHome
    membership: Membership
    epsilon: float | None


def train_at_home(
    specification: ModelSpecification, own: HomeData, terms: HomeTerms, directory: Path, tools: "HomeTools"
) -> HomeResult:
    """Train on private rows; return the model with its accuracy on kept-back rows, and what it gives away."""
    chosen = HyperParameters(terms.learning_rate_millionths, 0, 0, terms.batch_size, terms.epochs)
    weights, epsilon = _train_weights(specification, own.training, chosen, terms.noise, tools)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "home.safetensors"
    save_weights(path, weights)
    right = int((answers_of(specification, weights, own.kept_back) == own.kept_back.labels).sum())
    members = row_losses(specification, weights, own.training)
    strangers = row_losses(specification, weights, own.kept_back)
    accuracy = Accuracy(right, len(own.kept_back))
    trained = TrainedAtHome(Manifest(specification, own.labels), path, accuracy)
    return HomeResult(trained, membership(members, strangers), epsilon)


@dataclass(frozen=True, slots=True)
class HomeTools:
    """Bring in the clock and 32 bytes that nobody else knows."""

    clock: Callable[[], float]
    secret: bytes


def _train_weights(
    specification: ModelSpecification, rows: DataSet, chosen: HyperParameters, noise: float, tools: HomeTools
) -> tuple[dict[str, Array], float | None]:
    if noise:
        found = train_privately(specification, rows, chosen, PrivacyTerms(noise), tools.secret)
        return found.weights, found.epsilon
    plan = TrainingPlan(specification, Optimiser.ADAM, chosen, Free(), tools.secret, 1 << 30)
    return train(plan, rows, Watcher(tools.clock)).weights, None
