"""Which tasks may keep their rows encrypted, and what the key release must then name."""

from dataclasses import replace

import pytest

from learnchain.encoding.codec import encode
from learnchain.encoding.cryptography import UNSIGNED, sign
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.podl import Podl
from learnchain.engines.pole.mapping import MappingLayer, check_encryption
from learnchain.engines.pole.parts import FunctionalKey
from learnchain.engines.pole.scenario import POLE, start_pole_node
from learnchain.protocol.model_presets import mlp, strided_cnn
from learnchain.protocol.state import Assignment, PostedTask
from learnchain.protocol.task_specification import (
    Encryption,
    TaskSpecification,
    decode_specification,
    encode_specification,
)
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import build_sample_parameters
from learnchain.simulation.sample_tasks import build_sample_specification, build_sample_task, private_key


def encrypted(sample: tuple[int, ...], model: tuple[int, ...]) -> TaskSpecification:
    base = build_sample_specification("encrypted")
    network = mlp(model, 4) if len(model) == 1 else strided_cnn(model, 4, (4,), 8)
    data = replace(base.data, sample_shape=sample)
    return replace(base, model=network, data=data, encryption=Encryption.INNER_PRODUCT)


def admitted(specification: TaskSpecification, layer: MappingLayer, standing: bool = False) -> None:
    posted = build_sample_task("encrypted", specification=specification)
    check_encryption(replace(posted.task, is_standing=standing), specification, layer)


def refusal_of(specification: TaskSpecification, layer: MappingLayer, standing: bool = False) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        admitted(specification, layer, standing)
    return caught.value.reason


def test_a_quarter_of_the_dimension_may_be_given_away() -> None:
    admitted(encrypted((1, 8, 8), (16,)), MappingLayer())
    admitted(encrypted((1, 28, 28), (128,)), MappingLayer())
    unsuitable = RejectionReason.ENCRYPTION_UNSUITABLE
    assert refusal_of(encrypted((1, 8, 8), (17,)), MappingLayer()) is unsuitable
    assert refusal_of(encrypted((3,), (1,)), MappingLayer()) is unsuitable


def test_layers_that_give_everything_away_are_refused() -> None:
    flat, images = encrypted((1, 8, 8), (16,)), encrypted((1, 8, 8), (1, 8, 8))
    unsuitable = RejectionReason.ENCRYPTION_UNSUITABLE
    assert refusal_of(images, MappingLayer()) is unsuitable
    assert refusal_of(flat, MappingLayer(per_miner=True)) is unsuitable
    assert refusal_of(flat, MappingLayer(), standing=True) is unsuitable
    admitted(replace(images, encryption=Encryption.SYMMETRIC), MappingLayer(), standing=True)


@pytest.mark.parametrize("rules", [Dlbc(), Podl()])
def test_consensus_that_trains_on_rows_refuses_encrypted_ones(rules: Dlbc | Podl) -> None:
    plain = build_sample_specification("encrypted")
    rules.admit_task(build_sample_task("encrypted", specification=plain).task, plain, build_sample_parameters())
    wanted = replace(plain, encryption=Encryption.INNER_PRODUCT)
    with pytest.raises(Rejected) as caught:
        rules.admit_task(build_sample_task("encrypted", specification=wanted).task, wanted, build_sample_parameters())
    assert caught.value.reason is RejectionReason.ENCRYPTION_UNSUITABLE


def test_the_engine_asks_at_posting() -> None:
    wanted = encrypted((1, 8, 8), (17,))
    with pytest.raises(Rejected) as caught:
        POLE.admit_task(build_sample_task("encrypted", specification=wanted).task, wanted, build_sample_parameters())
    assert caught.value.reason is RejectionReason.ENCRYPTION_UNSUITABLE


def test_the_specification_travels() -> None:
    wanted = encrypted((1, 8, 8), (16,))
    assert decode_specification(encode_specification(wanted)) == wanted


@pytest.mark.parametrize("encryption", list(Encryption))
def test_a_functional_key_belongs_to_encrypted_rows_only(encryption: Encryption) -> None:
    node = start_pole_node()
    selection = node.round.selection
    plain = node.builder.build_key_release(node.parent)
    key = private_key("steward")
    place = sign(replace(plain, engine=encode(FunctionalKey(b"\1" * 36)), signature=UNSIGNED), key)
    specification = replace(selection.posted_task.specification, encryption=encryption)
    changed = replace(selection, assignments=(Assignment(PostedTask(selection.task, specification)),))
    right, wrong = (place, plain) if encryption is Encryption.INNER_PRODUCT else (plain, place)
    POLE.parts.check(changed, right)
    with pytest.raises(Rejected) as caught:
        POLE.parts.check(changed, wrong)
    assert caught.value.reason is RejectionReason.FUNCTIONAL_KEY_WRONG
