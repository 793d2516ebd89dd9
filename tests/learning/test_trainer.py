import asyncio
import hashlib
import os

import pytest

from learnchain.learning.data import digits, save_data, split
from learnchain.learning.disputes.machine_class import class_elsewhere
from learnchain.learning.jobs import EvaluationJob, ProbeJob, TrainingJob, TrainingProgress, WatermarkJob
from learnchain.learning.trainer import Trainer, TrainerFailed
from learnchain.protocol.model_presets import mlp, strided_cnn
from learnchain.protocol.task_specification import Metric, Optimiser
from learnchain.protocol.training_terms import HyperParameters, Watermark
from learnchain.rejection import Rejected, RejectionReason, Unavailable

MODEL = strided_cnn((1, 8, 8), 10)
WORK_ID = hashlib.sha256(b"miner").digest()
MARK = Watermark(hashlib.sha512(b"mark").digest(), 100_000, 999_900)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    training, test = split(digits(), b"split", 360)
    save_data(directory / "training", training)
    save_data(directory / "test", test)
    return directory


def training_job(files, directory, epochs=16, specification=MODEL):
    chosen = HyperParameters(50_000, 900_000, 0, 32, epochs)
    training_path = str(files / "training")
    return TrainingJob(specification, Optimiser.SGD, chosen, MARK, WORK_ID, 40, training_path, str(directory))


def evaluation_job(files, weights_path, test="test"):
    return EvaluationJob(MODEL, str(weights_path), str(files / "training"), str(files / test), Metric.ACCURACY)


def with_trainer(action):
    async def run():
        trainer = Trainer()
        try:
            return await action(trainer)
        finally:
            await trainer.close()

    return asyncio.run(run())


async def rejected(awaitable):
    with pytest.raises(Rejected) as caught:
        await awaitable
    return caught.value.reason


def test_a_model_is_probed_trained_evaluated_and_checked_in_its_own_process(files, tmp_path):
    async def action(trainer):
        seconds = await trainer.run(ProbeJob(training_job(files, tmp_path)))
        seen: list[TrainingProgress] = []
        trained = await trainer.run(training_job(files, tmp_path), seen.append)
        job = evaluation_job(files, trained.weights_path)
        mark = await trainer.run(WatermarkJob(MODEL, trained.weights_path, MARK))
        return seconds, seen, trained, await trainer.run(job), mark

    seconds, seen, trained, exact, mark = with_trainer(action)
    assert 0 < seconds < 30
    # A point is shown at every epoch's end, and in between whenever enough time has passed: sometimes at both at once.
    ends = sorted({progress.step for progress in seen if progress.step % 45 == 0})
    assert ends == [45 * epoch for epoch in range(1, 17)]
    assert (trained.epochs, trained.steps, len(trained.trace_root)) == (16, 720, 32)
    assert 0 < trained.training_seconds <= trained.process_seconds
    assert exact.total == 360
    assert exact.correct > 0.9 * exact.total
    assert mark.matches


def test_a_refused_job_is_answered_with_its_reason_and_the_process_goes_on(files, tmp_path):
    (tmp_path / "weights").write_bytes(b"\x80\x02cposix\nsystem\n")

    async def action(trainer):
        await trainer.start()
        process = trainer.process_id
        reasons = [
            await rejected(trainer.run(evaluation_job(files, tmp_path / "weights"))),
            await rejected(trainer.run(training_job(files, tmp_path, specification=mlp((3,), 2)))),
            await rejected(trainer.run(training_job(files, tmp_path, epochs=0))),
            await rejected(
                trainer.run(ProbeJob(training_job(files, tmp_path, specification=mlp((1, 8, 8), 1 << 20, (1 << 20,)))))
            ),
        ]
        with pytest.raises(Unavailable):
            await trainer.run(evaluation_job(files, tmp_path / "missing"))
        with pytest.raises(TrainerFailed):
            await trainer.run(training_job(files, tmp_path / "weights" / "no-directory"))
        await trainer.run(ProbeJob(training_job(files, tmp_path)))
        assert trainer.process_id == process
        return reasons

    assert with_trainer(action) == [
        RejectionReason.WEIGHTS_MALFORMED,
        RejectionReason.MODEL_SHAPE_MISMATCH,
        RejectionReason.HYPERPARAMETER_OUT_OF_RANGE,
        RejectionReason.MODEL_TOO_LARGE,
    ]


def test_training_ends_early_is_cancelled_and_survives_a_killed_process(files, tmp_path):
    async def started(trainer, directory):
        running = asyncio.Event()
        job = training_job(files, directory, epochs=100_000)
        task = asyncio.create_task(trainer.run(job, lambda _: running.set()))
        await running.wait()
        return task

    async def action(trainer):
        task = await started(trainer, tmp_path / "early")
        await trainer.finish_early()
        early = await task
        assert 1 <= early.epochs < 100_000

        task = await started(trainer, tmp_path / "dropped")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await trainer.run(ProbeJob(training_job(files, tmp_path)))
        assert not (tmp_path / "dropped" / "model.safetensors").exists()

        task = await started(trainer, tmp_path / "killed")
        killed = trainer.process_id
        os.kill(killed, 9)
        with pytest.raises(Unavailable):
            await task
        await trainer.run(ProbeJob(training_job(files, tmp_path)))
        return killed, trainer.process_id

    before, after = with_trainer(action)
    assert before != after is not None


def test_the_process_does_not_outlive_its_input(files, tmp_path):
    async def action():
        trainer = Trainer()
        await trainer.start()
        running = asyncio.Event()
        task = asyncio.create_task(trainer.run(training_job(files, tmp_path, epochs=100_000), lambda _: running.set()))
        await running.wait()
        process = trainer.process_id
        await trainer.close()
        with pytest.raises(Unavailable):
            await task
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)

    asyncio.run(action())


def test_the_process_names_the_class_that_the_probe_of_doctor_names(tmp_path):
    first, again = (with_trainer_of(tmp_path, lambda trainer: trainer.machine_class()) for _ in range(2))
    assert first == again == bytes.fromhex(class_elsewhere({}, 1)["class"])
    assert len(list(tmp_path.iterdir())) == 2, "one file and its lock"


def with_trainer_of(classes, action):
    async def run():
        trainer = Trainer(classes=classes)
        try:
            return await action(trainer)
        finally:
            await trainer.close()

    return asyncio.run(run())
