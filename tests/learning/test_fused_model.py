"""Features of contributors' models, fusions one at a time, and the fused model as one file that any node loads."""

from pathlib import Path

import numpy as np
import pytest

from learnchain.encoding.codec import decode
from learnchain.learning.data import DataSet, digits
from learnchain.learning.fused_model import (
    Examined,
    FusionEvaluator,
    SharedModel,
    VerifierData,
    answers_of,
    examine,
    export,
    features_of,
    fuse_models,
    fusion_curve,
    rows_of_labels,
    specification_of,
    upper_part,
)
from learnchain.learning.fusion import FusionStrategy, FusionTerms, Outputs
from learnchain.learning.model import initial_weights, load_weights, save_weights
from learnchain.market.demo_cast import SMALL, TABLE_2_LABELS, deal
from learnchain.protocol.model_presets import baas_cnn, lenet, mlp, unet2d
from learnchain.protocol.model_specification import Layer, ModelLimits, ModelSpecification, validate
from learnchain.rejection import Rejected, RejectionReason

SHAPE = (1, 8, 8)
TERMS = FusionTerms(10, epochs=8, first_stage_epochs=3, learning_rate=0.003)


@pytest.fixture(scope="module")
def sample() -> VerifierData:
    return deal(digits(), SMALL, b"test")[0]


@pytest.fixture(scope="module")
def members(sample: VerifierData) -> list[Examined]:
    """Random features already carry a lot; heterogeneous CNNs of Table I."""
    found = []
    for index in range(3):
        specification = baas_cnn(SHAPE, 10, index + 1)
        model = SharedModel(specification, initial_weights(specification, bytes([index])), TABLE_2_LABELS[index])
        found.append(examine(model, sample))
    return found


def test_the_upper_features_are_the_last_hidden_layer():
    for contributor in range(1, 6):
        upper = upper_part(baas_cnn((1, 28, 28), 10, contributor))
        assert upper.layers[-1].kind == "ReLU"
        assert upper.layers[-2].settings[-1].value == 500


@pytest.mark.parametrize(
    "specification",
    [
        unet2d((1, 8, 8), 2, width=2, steps=2),
        ModelSpecification((4,), (Layer("only", "Linear", (), mlp((4,), 3).layers[0].settings),)),
    ],
)
def test_models_without_such_features_are_refused(specification: ModelSpecification):
    with pytest.raises(Rejected) as caught:
        upper_part(specification)
    assert caught.value.reason is RejectionReason.MODEL_SHAPE_MISMATCH


def test_a_model_for_other_samples_is_refused(sample: VerifierData):
    specification = lenet((1, 28, 28), 10)
    with pytest.raises(Rejected) as caught:
        features_of(SharedModel(specification, initial_weights(specification, b""), (0,)), sample.test)
    assert caught.value.reason is RejectionReason.MODEL_SHAPE_MISMATCH


def test_features_that_overflow_are_refused(sample: VerifierData):
    specification = mlp(SHAPE, 10, hidden=(4, 4))
    weights = {name: array + np.float32(1e30) for name, array in initial_weights(specification, b"").items()}
    with pytest.raises(Rejected) as caught:
        features_of(SharedModel(specification, weights, (0,)), sample.test)
    assert caught.value.reason is RejectionReason.WEIGHTS_NOT_FINITE


@pytest.mark.parametrize("strategy", list(FusionStrategy))
def test_the_exported_model_answers_as_the_fusion(
    strategy: FusionStrategy, members: list[Examined], sample: VerifierData, tmp_path: Path
):
    terms = FusionTerms(10, strategy, Outputs.BY_LABEL, 8, 3, 0.003)
    fused = fuse_models(members, sample, terms, b"seed")
    weights_path, specification_path = export(fused, tmp_path / "fused")
    specification = decode(ModelSpecification, specification_path.read_bytes())
    assert specification == specification_of(fused)
    validate(specification, ModelLimits())
    weights = load_weights(weights_path, specification)
    right = int((answers_of(specification, weights, sample.verification) == sample.verification.labels).sum())
    assert abs(right - fused.accuracy.correct) <= 1
    assert fused.accuracy.correct > 100


def test_contributors_weights_stay_as_they_were(members: list[Examined], sample: VerifierData, tmp_path: Path):
    fused = fuse_models(members[:1], sample, TERMS, b"seed")
    path, _ = export(fused, tmp_path)
    found, own = load_weights(path, specification_of(fused)), members[0].model.weights
    layers = [layer.name for layer in members[0].model.specification.layers]
    for name, array in own.items():
        layer, _, part = name.rpartition(".")
        if layer != layers[-1]:
            assert (found[f"m0_{layers.index(layer)}.{part}"] == array).all()


def test_too_many_models_are_refused(members: list[Examined], sample: VerifierData):
    with pytest.raises(Rejected) as caught:
        fuse_models(members * 6, sample, TERMS, b"seed")
    assert caught.value.reason is RejectionReason.TOO_LARGE


def test_judges_agree_exactly_and_models_are_added_one_at_a_time(
    members: list[Examined], sample: VerifierData, tmp_path: Path
):
    judges = [FusionEvaluator(b"task", sample, TERMS) for _ in range(2)]
    for judge in judges:
        for place, member in enumerate(members):
            path = tmp_path / f"{place}"
            save_weights(path, member.model.weights)
            assert not judge.is_known(place)
            judge.add(place, member.model.specification, member.model.labels, path)
            assert judge.is_known(place)
    assert judges[0].measure((0,), 2) == judges[1].measure((0,), 2) == judges[0].fuse((0, 2)).accuracy.correct
    assert judges[0].fuse((0, 2)) is judges[0].fuse((0, 2))


def test_the_curve_has_one_figure_for_each_number_of_models(members: list[Examined], sample: VerifierData):
    curve = fusion_curve(members, sample, TERMS, b"seed")
    assert len(curve) == 3
    assert curve[0] == fuse_models(members[:1], sample, TERMS, b"seed").accuracy.correct


def test_table_2_deals_disjoint_rows_of_the_right_labels():
    sample, private = deal(digits(), SMALL, b"test")
    parts = [sample.training, sample.test, sample.verification]
    for own, labels in zip(private, TABLE_2_LABELS, strict=True):
        assert set(own.training.labels.tolist()) == set(labels)
        assert (len(own.training), len(own.test), len(own.verification)) == SMALL.contributor
        parts += [own.training, own.test, own.verification]
    assert len(rows_of_labels(sample.test, tuple(range(10)))) == len(sample.test)
    assert sum(len(part) for part in parts) <= len(digits())


def test_too_few_rows_are_refused():
    few = DataSet(digits().inputs[:760], digits().labels[:760])
    with pytest.raises(Rejected) as caught:
        deal(few, SMALL, b"test")
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
