"""The rows of a job: plain, or mapped once for a block; a run that ends when its own rows are counted right."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from learnchain.encoding.codec import encode
from learnchain.encoding.cryptography import shake256
from learnchain.learning import job_data
from learnchain.learning.data import DataSet, save_data
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.job_data import MAXIMUM_MAPPING_BYTES, Requirement, evaluation_rows, fit_mapping, job_rows
from learnchain.learning.jobs import EvaluationJob, TrainingJob
from learnchain.learning.train import TrainingPlan, Watcher, train
from learnchain.protocol.model_presets import mlp
from learnchain.protocol.task_specification import Metric, Optimiser
from learnchain.protocol.training_terms import FreeTraining, HyperParameters, SecureMapping
from learnchain.rejection import Rejected, RejectionReason

WIDTH = 32
MODEL = mlp((WIDTH,), 10, (32,))


def layer(seed: bytes) -> SecureMapping:
    signs = np.frombuffer(shake256("test/signs", seed, WIDTH * 64), dtype=np.uint8) & 1
    rows = ((1 << 15) + 1 - 2 * signs.astype(np.int64)).astype(">u2").reshape(WIDTH, 64)
    return SecureMapping(tuple(row.tobytes() for row in rows), 0, seed)


@pytest.fixture
def files(tmp_path: Path, digit_sets: tuple[DataSet, DataSet]) -> Path:
    for name, data in zip(("training", "test"), digit_sets, strict=True):
        save_data(tmp_path / name, data)
    for name in ("own", "other"):
        (tmp_path / f"{name}.mapping").write_bytes(encode(layer(name.encode() * 4)))
    return tmp_path


def job(files: Path, required: int = 9) -> TrainingJob:
    return TrainingJob(
        MODEL,
        Optimiser.SGD,
        HyperParameters(50_000, 900_000, 0, 32, 30),
        FreeTraining(),
        b"\1" * 32,
        1_000,
        str(files / "training"),
        str(files),
        str(files / "own.mapping"),
        required,
        10,
    )


def rows_of(asked: TrainingJob) -> DataSet:
    return job_rows(asked.training_path, asked.training_path, asked.mapping_path)


def run(asked: TrainingJob) -> tuple[int, int, dict[str, np.ndarray]]:
    rows = rows_of(asked)
    plan = TrainingPlan(MODEL, asked.optimiser, asked.hyper_parameters, FreeTraining(), asked.work_id, 1_000)
    required = Requirement(asked, rows)
    result = train(plan, rows, Watcher(lambda: 0.0, reached=required.is_reached))
    return result.epochs, required.count(result.weights).correct, result.weights


def test_rows_are_mapped_as_the_training_rows_fix_it_and_only_once(
    files: Path, digit_sets: tuple[DataSet, DataSet]
) -> None:
    training, test = digit_sets
    paths = (str(files / "test"), str(files / "training"), str(files / "own.mapping"))
    mapped = job_rows(*paths)
    assert (mapped.inputs == fit_mapping(layer(b"own" * 4), training).of(test).inputs).all()
    assert job_rows(*paths) is mapped
    assert job_rows(paths[0]).inputs.shape == test.inputs.shape


def test_a_block_maps_every_row_once_however_many_steps_and_models(
    files: Path, digit_sets: tuple[DataSet, DataSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training counts its rows epoch by epoch, and then three candidates are counted on both sets: nothing more."""
    mapped: list[int] = []
    products = job_data._products

    def counted(inputs: np.ndarray, layer: SecureMapping) -> np.ndarray:
        mapped.append(len(inputs))
        return products(inputs, layer)

    monkeypatch.setattr(job_data, "_products", counted)
    training, test = (len(each) for each in digit_sets)
    fitting = 2 * min(job_data.REFERENCE_ROWS, training)
    for block, name in enumerate(("own", "other"), start=1):
        strict = replace(job(files), required_numerator=97, required_denominator=100)
        asked = replace(strict, mapping_path=str(files / f"{name}.mapping"))
        epochs, _, weights = run(asked)
        assert epochs > 1
        for counted_path in (asked.training_path, str(files / "test")) * 3:
            paths = (asked.training_path, counted_path)
            evaluation = EvaluationJob(MODEL, "weights", *paths, Metric.ACCURACY, asked.mapping_path)
            evaluate(MODEL, weights, *evaluation_rows(evaluation), Metric.ACCURACY)
        assert sum(mapped) == block * (fitting + training + test)


def test_a_run_ends_with_the_first_epoch_whose_exact_count_is_enough(files: Path) -> None:
    asked = job(files)
    epochs, correct, _ = run(asked)
    total = len(rows_of(asked))
    assert epochs < 30
    assert correct * 10 >= total * 9
    strict = replace(asked, required_numerator=97, required_denominator=100)
    more, right, _ = run(strict)
    assert 1 < more < 30
    assert right * 100 >= total * 97
    chosen = replace(asked.hyper_parameters, epochs=more - 1)
    before, fewer, _ = run(replace(strict, required_denominator=0, hyper_parameters=chosen))
    assert before == more - 1
    assert fewer * 100 < total * 97


def test_a_run_without_a_requirement_uses_all_its_epochs(files: Path) -> None:
    asked = job(files)
    short = replace(asked, required_denominator=0, hyper_parameters=replace(asked.hyper_parameters, epochs=2))
    assert run(short)[0] == 2


def test_a_model_guesses_behind_another_layer(files: Path) -> None:
    """Table 3: 13.48 % with the replaced layer; ten classes, so a tenth is chance."""
    _, correct, weights = run(job(files))
    other = replace(job(files), mapping_path=str(files / "other.mapping"))
    behind = Requirement(other, rows_of(other)).count(weights)
    assert behind.correct * 100 < 30 * behind.total
    claimed, measured = Fraction(correct, behind.total), Fraction(behind.correct, behind.total)
    assert 2 * measured < claimed + Fraction(1, 10)


def test_an_evaluation_calibrates_on_mapped_training_rows(files: Path) -> None:
    asked = EvaluationJob(
        MODEL, "weights", str(files / "training"), str(files / "test"), Metric.ACCURACY, str(files / "own.mapping")
    )
    training, test = evaluation_rows(asked)
    assert training.sample_shape == test.sample_shape == (WIDTH,)


def test_a_mapping_that_is_none_is_refused(files: Path) -> None:
    (files / "own.mapping").write_bytes(b"\xff" * 8)
    with pytest.raises(Rejected) as refusal:
        rows_of(job(files))
    assert refusal.value.reason is RejectionReason.MALFORMED


def test_a_mapping_too_large_is_refused_before_it_is_read(files: Path) -> None:
    with (files / "own.mapping").open("wb") as file:
        file.truncate(MAXIMUM_MAPPING_BYTES + 1)
    with pytest.raises(Rejected) as refusal:
        rows_of(job(files))
    assert refusal.value.reason is RejectionReason.TOO_LARGE
