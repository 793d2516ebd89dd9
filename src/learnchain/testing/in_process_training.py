"""Train in this process and in virtual time: real models and real counts, seconds as the simulation says."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from learnchain.learning.data import load_data
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.jobs import (
    TRACE_NAME,
    WEIGHTS_NAME,
    Evaluation,
    EvaluationJob,
    Progress,
    Search,
    SearchJob,
    TrainedFiles,
    TrainingJob,
    WatermarkCheck,
    WatermarkJob,
)
from learnchain.learning.model import load_weights, save_weights
from learnchain.learning.train import TrainingPlan, Watcher, configure_torch, train
from learnchain.learning.watermark import check_watermark
from learnchain.primitives.training_terms import Free, HyperParameters

SIMULATED_HASHES_PER_SECOND = 4_000
"""Few enough that a simulated hour of hashing takes seconds."""


class InProcessTraining:
    """Stand in for a training process; one epoch takes `epoch_seconds` of virtual time, at most `maximum_epochs`."""

    def __init__(
        self, epoch_seconds: float = 0.4, maximum_epochs: int = 8, hashes_per_second: int = SIMULATED_HASHES_PER_SECOND
    ) -> None:
        configure_torch()
        self._epoch_seconds = epoch_seconds
        self._maximum_epochs = maximum_epochs
        self._hashes_per_second = hashes_per_second
        self._finished = False

    async def start(self) -> None:
        """Nothing has to be loaded."""

    async def probe(self, job: TrainingJob) -> float:
        """Return the seconds of one epoch, after having spent them."""
        await asyncio.sleep(self._epoch_seconds)
        return self._epoch_seconds

    async def train(self, job: TrainingJob, on_progress: Callable[[Progress], None] | None = None) -> TrainedFiles:
        """Train for real; the time that passes is the simulation's."""
        chosen = job.hyper_parameters
        epochs, self._finished = 0, False
        while epochs < min(chosen.epochs, self._maximum_epochs) and not self._finished:
            await asyncio.sleep(self._epoch_seconds)
            epochs += 1
        shortened = HyperParameters(
            chosen.learning_rate_millionths,
            chosen.momentum_millionths,
            chosen.weight_decay_millionths,
            chosen.batch_size,
            epochs,
        )
        terms = job.watermarks[0] if job.watermarks else Free()
        plan = TrainingPlan(
            job.specification, job.optimiser, shortened, terms, job.work_id, job.checkpoint_interval_steps
        )
        directory = Path(job.directory)
        watcher = Watcher(asyncio.get_running_loop().time, on_progress or (lambda _progress: None))
        result = train(plan, load_data(Path(job.training_path)), watcher, directory / TRACE_NAME)
        save_weights(directory / WEIGHTS_NAME, result.weights)
        seconds = self._epoch_seconds * epochs
        return TrainedFiles(
            weights_path=str(directory / WEIGHTS_NAME),
            trace_directory=str(directory / TRACE_NAME),
            trace_root=result.trace.root(),
            epochs=result.epochs,
            steps=result.steps,
            loss=result.loss,
            accuracy=result.accuracy,
            training_seconds=seconds,
            trace_seconds=0.0,
            process_seconds=seconds,
        )

    async def finish_early(self) -> None:
        """End running training after its present epoch."""
        self._finished = True

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        """Return the exact counts of a model."""
        weights = load_weights(Path(job.weights_path), job.specification)
        training, test = load_data(Path(job.training_path)), load_data(Path(job.test_path))
        counts = evaluate(job.specification, weights, training, test, job.metric)
        return Evaluation(counts.correct, counts.total, counts.digest, 0.0)

    async def check_watermark(self, job: WatermarkJob) -> WatermarkCheck:
        """Return whether a model carries a mark."""
        weights = load_weights(Path(job.weights_path), job.specification)
        return check_watermark(weights, job.specification, job.watermark)

    async def search(self, job: SearchJob) -> Search:
        """Try salts for real, a twentieth of a virtual second of them at a time."""
        salt, tried = job.puzzle.search(job.first, min(job.attempts, self._hashes_per_second // 20))
        await asyncio.sleep(tried / self._hashes_per_second)
        return Search(salt, tried)

    async def close(self) -> None:
        """Nothing runs."""
