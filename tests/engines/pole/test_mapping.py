"""The layer of a height: which vectors, of which shape, from what; and what no layer fits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.engines.pole.mapping import (
    LayerShape,
    MappingLayer,
    MappingMode,
    Shift,
    layer_shape,
    mapping_layer,
    query_vectors,
)
from learnchain.engines.pole.scenario import POLE, start_pole_node
from learnchain.protocol.model_presets import mlp, strided_cnn
from learnchain.protocol.state import Assignment
from learnchain.protocol.task_specification import TaskSpecification
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.sample_tasks import build_sample_specification

WORK = b"\x05" * 32
PAPER = MappingLayer(MappingMode.PAPER, 3, Shift.ROTATE)


def task(sample: tuple[int, ...], model: tuple[int, ...]) -> TaskSpecification:
    base = build_sample_specification("shapes")
    network = mlp(model, 4) if len(model) == 1 else strided_cnn(model, 4, (4,), 8)
    return replace(base, model=network, data=replace(base.data, sample_shape=sample))


@pytest.mark.parametrize(
    ("sample", "model", "shape"),
    [
        ((16,), (16,), LayerShape(16, 16, False)),
        ((1, 28, 28), (128,), LayerShape(128, 784, False)),
        ((1, 8, 8), (1, 8, 8), LayerShape(1, 9, True)),
        ((3, 8, 8), (192, 8, 8), LayerShape(64, 9, True)),
    ],
)
def test_the_models_input_decides(sample: tuple[int, ...], model: tuple[int, ...], shape: LayerShape) -> None:
    assert layer_shape(task(sample, model), MappingLayer()) == shape


@pytest.mark.parametrize(
    ("sample", "model"), [((16,), (1, 8, 8)), ((3, 8, 8), (4, 8, 8)), ((1, 8, 8), (1, 4, 4)), ((1, 4, 8, 8), (1, 8, 8))]
)
def test_a_model_that_no_layer_leads_to_is_refused(sample: tuple[int, ...], model: tuple[int, ...]) -> None:
    with pytest.raises(Rejected) as refusal:
        layer_shape(task(sample, model), MappingLayer())
    assert refusal.value.reason is RejectionReason.MODEL_SHAPE_MISMATCH


def test_features_that_fit_into_no_memory_are_refused() -> None:
    wide = task((1, 28, 28), (512, 28, 28))
    wide = replace(wide, data=replace(wide.data, training=replace(wide.data.training, rows=60_000)))
    with pytest.raises(Rejected) as refusal:
        layer_shape(wide, MappingLayer())
    assert refusal.value.reason is RejectionReason.MODEL_TOO_LARGE


def test_paper_mode_is_algorithm_3_of_the_previous_hash() -> None:
    selection = start_pole_node().round.selection
    terms = PAPER.terms(selection, WORK)
    assert terms.rows == mapping_layer(query_vectors(selection.parent, 16, 16, 3, Shift.ROTATE)).rows
    assert terms.identity == selection.parent


@pytest.mark.parametrize("mode", list(MappingMode))
def test_another_previous_block_gives_another_layer(mode: MappingMode) -> None:
    node, layer = start_pole_node(), MappingLayer(mode)
    later = POLE.select_task(replace(node.parent, block_hash=b"\x11" * 32), node.builder.parameters)
    here, there = (layer.terms(each, WORK) for each in (node.round.selection, later))
    assert here.identity != there.identity
    assert here.rows != there.rows


def test_miners_share_a_layer_unless_each_has_its_own() -> None:
    selection, others = start_pole_node().round.selection, b"\x06" * 32
    shared, own = MappingLayer(), MappingLayer(per_miner=True)
    assert shared.terms(selection, WORK) == shared.terms(selection, others)
    assert own.terms(selection, WORK).rows != own.terms(selection, others).rows


@pytest.mark.parametrize(
    "wrong",
    [
        MappingLayer(filter_width=4),
        MappingLayer(parts=0),
        MappingLayer(parts=65),
        MappingLayer(filter_width=17),
        MappingLayer(bits_per_weight=0),
        MappingLayer(bits_per_weight=16),
        MappingLayer(MappingMode.PAPER, per_miner=True),
    ],
)
def test_parameters_that_draw_nothing_are_refused(wrong: MappingLayer) -> None:
    with pytest.raises(Rejected) as refusal:
        wrong.check()
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID


@given(st.integers(1, 6))
def test_sparse_mode_draws_for_any_number_of_vectors(vectors: int) -> None:
    specification = task((16,), (vectors,))
    selection = start_pole_node().round.selection
    selection = replace(
        selection, assignments=(Assignment(replace(selection.posted_task, specification=specification)),)
    )
    assert len(MappingLayer(MappingMode.SPARSE).terms(selection, WORK).rows) == vectors


def test_parts_are_mapped_by_the_same_vectors() -> None:
    selection = start_pole_node().round.selection
    rows = replace(PAPER, parts=4).terms(selection, WORK).rows
    drawn = mapping_layer(query_vectors(selection.parent, 4, 4, 3, Shift.ROTATE)).rows
    nothing = (1 << 15).to_bytes(2, "big")
    assert len(rows) == 16
    for place in range(4):
        for number in range(4):
            assert rows[4 * place + number] == nothing * (4 * place) + drawn[number] + nothing * (12 - 4 * place)


def test_parts_must_divide_sample_and_layer() -> None:
    with pytest.raises(Rejected) as refusal:
        layer_shape(task((16,), (16,)), MappingLayer(parts=3))
    assert refusal.value.reason is RejectionReason.MODEL_SHAPE_MISMATCH
