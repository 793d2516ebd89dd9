"""Take the upper features of contributors' models, fuse the models in arrival order, export the result as one model.

Measure what a model brings to a fusion: what a verification contributor runs, and the initiator at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from learnchain.encoding.codec import Accuracy, encode
from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning import fusion
from learnchain.learning.data import DataSet, load_data
from learnchain.learning.fusion import fuse
from learnchain.learning.model import Weights, build_model, load_weights, save_weights, set_weights
from learnchain.learning.safe_tensors import Array
from learnchain.learning.train import to_float
from learnchain.protocol import model_specification
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_FUSED_MODELS = 16
"""As many inputs as one `Concat` reads."""

_BATCH_ROWS = 250


@dataclass(frozen=True, slots=True, eq=False)
class SharedModel:
    """Hold one contributor's trained model and the labels of the data it has seen."""

    specification: model_specification.ModelSpecification
    weights: Weights
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class VerifierData:
    """Hold the three parts of the initiator's sample: fit the fusion, choose its epoch, and judge it."""

    training: DataSet
    test: DataSet
    verification: DataSet


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """Hold a model with its features on all parts of the sample, computed once and used in every fusion after."""

    model: SharedModel
    features: tuple[Array, Array, Array]
    equal: Array
    """`equalising` of the features on the training rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """Hold a learned fusion and what it scores on the verification rows."""

    members: tuple[Examined, ...]
    weights: fusion.FusionWeights
    accuracy: Accuracy


def upper_part(specification: model_specification.ModelSpecification) -> model_specification.ModelSpecification:
    """Return the model without its last layer: its output is f_i, the features of the highest abstraction."""
    shapes, sources = model_specification.layer_shapes(specification), model_specification.resolve_inputs(specification)
    if len(specification.layers) < 2 or specification.layers[-1].kind != "Linear":
        raise model_specification.shape_mismatch(
            "a model can be fused when a Linear layer gives its classes and another layer stands before it"
        )
    if sources[-1] != (specification.layers[-2].name,) or len(shapes[specification.layers[-2].name]) != 1:
        raise model_specification.shape_mismatch(
            "the last layer has to read the layer before it, which has to be a vector"
        )
    return model_specification.ModelSpecification(specification.input_shape, specification.layers[:-1])


def features_of(model: SharedModel, data: DataSet) -> Array:
    """Return f_i of every row; a model that answers with NaN or an infinity is refused."""
    upper = upper_part(model.specification)
    if data.sample_shape != tuple(upper.input_shape):
        raise model_specification.shape_mismatch(
            f"samples of {data.sample_shape} for a model that reads {upper.input_shape}"
        )
    module = build_model(upper).eval()
    last = model.specification.layers[-1].name
    set_weights(module, {name: array for name, array in model.weights.items() if name.rpartition(".")[0] != last})
    rows = torch.from_numpy(np.require(data.inputs, requirements=["C", "W"]))
    with torch.inference_mode():
        found = torch.cat([module(to_float(batch)) for batch in rows.split(_BATCH_ROWS)]).numpy()
    if not np.isfinite(found).all():
        raise Rejected(RejectionReason.WEIGHTS_NOT_FINITE, "the model's features hold a NaN or an infinity")
    return np.array(found, dtype=np.float32)


def examine(model: SharedModel, data: VerifierData) -> Examined:
    """Return the model with its features on the verifier's rows."""
    parts = (data.training, data.test, data.verification)
    training, test, verification = (features_of(model, part) for part in parts)
    return Examined(model, (training, test, verification), fusion.compute_equalisation(training))


def fuse_models(members: Sequence[Examined], data: VerifierData, terms: fusion.FusionTerms, seed: bytes) -> Fused:
    """Fuse models in their order of arrival and count the right answers on the verification rows."""
    if not 1 <= len(members) <= MAXIMUM_FUSED_MODELS:
        raise Rejected(RejectionReason.TOO_LARGE, f"{len(members)} models; 1 to {MAXIMUM_FUSED_MODELS} can be fused")
    models = [fusion.FusionModel(each.features[0], each.features[1], each.model.labels, each.equal) for each in members]
    truth = fusion.FusionLabels(data.training.labels, data.test.labels)
    weights = fuse(models, truth, terms, seed)
    answers = fusion.predict(weights, [each.features[2] for each in members])
    right = int((answers == data.verification.labels).sum())
    return Fused(tuple(members), weights, Accuracy(right, len(data.verification)))


def build_fused_specification(
    members: Sequence[SharedModel], hidden: int, classes: int
) -> model_specification.ModelSpecification:
    """Return the fused architecture as one graph: all models on one sample, joined, then two linear layers."""
    layers: list[model_specification.Layer] = []
    ends: list[str] = []
    for index, member in enumerate(members):
        upper = upper_part(member.specification)
        names = {model_specification.INPUT: model_specification.INPUT} | {
            layer.name: f"m{index}_{at}" for at, layer in enumerate(upper.layers)
        }
        for layer, sources in zip(upper.layers, model_specification.resolve_inputs(upper), strict=True):
            renamed = tuple(names[source] for source in sources)
            layers.append(replace(layer, name=names[layer.name], inputs=renamed))
        ends.append(names[upper.layers[-1].name])
    joined = ends[0]
    if len(ends) > 1:
        joined = "joined"
        layers.append(model_specification.Layer(joined, "Concat", tuple(ends), ()))
    layers.append(_linear("hidden", joined, hidden))
    layers.append(_linear("classes", "hidden", classes))
    return model_specification.ModelSpecification(members[0].specification.input_shape, tuple(layers))


def collect_fused_weights(fused: Fused) -> dict[str, Array]:
    """Return the weights that belong to `build_fused_specification`: the contributors' own, A and B."""
    weights: dict[str, Array] = {}
    for index, member in enumerate(fused.members):
        upper = upper_part(member.model.specification)
        names = {layer.name: f"m{index}_{at}" for at, layer in enumerate(upper.layers)}
        for name, array in member.model.weights.items():
            layer, _, part = name.rpartition(".")
            if layer in names:
                weights[f"{names[layer]}.{part}"] = array
    weights["hidden.weight"] = np.ascontiguousarray(fused.weights.hidden.T)
    weights["classes.weight"] = np.ascontiguousarray(fused.weights.output.T)
    return weights


def specification_of(fused: Fused) -> model_specification.ModelSpecification:
    """Return the architecture of a learned fusion."""
    hidden, classes = fused.weights.output.shape
    return build_fused_specification([member.model for member in fused.members], hidden, classes)


def export(fused: Fused, directory: Path) -> tuple[Path, Path]:
    """Write `fused.safetensors` and `fused.specification` (canonical bytes); any node can load the pair."""
    directory.mkdir(parents=True, exist_ok=True)
    weights, specification = directory / "fused.safetensors", directory / "fused.specification"
    save_weights(weights, collect_fused_weights(fused))
    specification.write_bytes(encode(specification_of(fused)))
    return weights, specification


def _linear(name: str, source: str, width: int) -> model_specification.Layer:
    return model_specification.Layer(
        name,
        "Linear",
        (source,),
        (model_specification.Setting("bias", 0), model_specification.Setting("out_features", width)),
    )


def answers_of(specification: model_specification.ModelSpecification, weights: Weights, data: DataSet) -> Array:
    """Return the class that a model, fused or not, gives every row."""
    module = build_model(specification).eval()
    set_weights(module, weights)
    rows = torch.from_numpy(np.require(data.inputs, requirements=["C", "W"]))
    with torch.inference_mode():
        return torch.cat([module(to_float(batch)).argmax(1) for batch in rows.split(_BATCH_ROWS)]).numpy()


def load_sample(training: Path, test: Path, verification: Path) -> VerifierData:
    """Return the initiator's sample from its three files."""
    return VerifierData(load_data(training), load_data(test), load_data(verification))


class FusionEvaluator:
    """Keep the features of every model that was examined, and fuse any of them.

    The seed follows from the task and the places that are fused: honest verifiers with equal machines agree exactly,
    with unlike ones within the tolerance of the terms.
    """

    def __init__(self, task_id: bytes, sample: VerifierData, terms: fusion.FusionTerms) -> None:
        self._task_id = task_id
        self._sample = sample
        self._terms = terms
        self._examined: dict[int, Examined] = {}
        self._measured: dict[tuple[int, ...], Fused] = {}

    def add(
        self,
        model_index: int,
        specification: model_specification.ModelSpecification,
        labels: tuple[int, ...],
        weights: Path,
    ) -> None:
        """Load a model and compute its features; raise `Rejected` for one that cannot be used."""
        model = SharedModel(specification, load_weights(weights, specification), labels)
        self._examined[model_index] = examine(model, self._sample)

    def is_known(self, model_index: int) -> bool:
        """Return whether a model was added."""
        return model_index in self._examined

    def measure(self, accepted: tuple[int, ...], model_index: int) -> int:
        """Return the right answers of the fusion of the accepted models and one more."""
        return self.fuse((*accepted, model_index)).accuracy.correct

    def fuse(self, places: tuple[int, ...]) -> Fused:
        """Return the fusion of the models at these places, learned once."""
        found = self._measured.get(places)
        if found is None:
            members = [self._examined[place] for place in places]
            found = fuse_models(members, self._sample, self._terms, self._seed(places))
            self._measured[places] = found
        return found

    def export(self, places: tuple[int, ...], directory: Path) -> tuple[Path, Path]:
        """Write the fusion of these models as one model: weights and architecture."""
        return export(self.fuse(places), directory)

    def _seed(self, places: tuple[int, ...]) -> bytes:
        return tagged_hash("market/fusion", self._task_id, bytes(places))


def fusion_curve(
    members: Sequence[Examined], sample: VerifierData, terms: fusion.FusionTerms, seed: bytes
) -> list[int]:
    """Return the right answers of the fusions of the first one, two, ... models (BaaS Fig. 7 and 9)."""
    return [fuse_models(members[:count], sample, terms, seed).accuracy.correct for count in range(1, len(members) + 1)]


def rows_of_labels(data: DataSet, labels: tuple[int, ...]) -> list[int]:
    """Return the places of the rows whose label is one of these (BaaS Table II)."""
    return [index for index, label in enumerate(data.labels.tolist()) if label in labels]
