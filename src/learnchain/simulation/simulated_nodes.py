"""Train in this process and in virtual time: real models and real counts, seconds as the simulation says."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from learnchain.learning.data import DataSet
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.job_data import Requirement, evaluation_rows, job_rows
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
from learnchain.learning.replay.auditing import audited
from learnchain.learning.replay.disputes import (
    check_states,
    join_answer,
    outlying_step,
    proves,
    split_answer,
    write_answer,
)
from learnchain.learning.replay.jobs import AuditJob, AuditLine, DisputeJob, SegmentJob
from learnchain.learning.train import TrainingResult, Watcher, configure_torch, plan_of, start_of, train
from learnchain.learning.watermark import check_watermark
from learnchain.primitives.codec import Hash32
from learnchain.primitives.hashing import tagged_hash

OnProgress = Callable[[Progress], None]
SIMULATED_HASHES_PER_SECOND = 4_000
"""Few enough that a simulated hour of hashing takes seconds."""
SIMULATED_CLASS: Hash32 = tagged_hash("reproducibility-class", b"simulated")
"""What processes in one process share: their bits."""


class InProcessTraining:
    """Stand in for a training process; one epoch takes `epoch_seconds` of virtual time, at most `maximum_epochs`."""

    def __init__(
        self,
        epoch_seconds: float = 0.4,
        maximum_epochs: int = 8,
        hashes_per_second: int = SIMULATED_HASHES_PER_SECOND,
        named_class: Hash32 = SIMULATED_CLASS,
    ) -> None:
        configure_torch()
        self._class = named_class
        self._epoch_seconds = epoch_seconds
        self._maximum_epochs = maximum_epochs
        self._hashes_per_second = hashes_per_second
        self._finished = False

    async def start(self) -> None:
        """Nothing has to be loaded."""

    async def machine_class(self) -> Hash32:
        """Return the class that this node says it has."""
        return self._class

    async def probe(self, job: TrainingJob) -> float:
        """Return the seconds of one epoch, after having spent them."""
        await asyncio.sleep(self._epoch_seconds)
        return self._epoch_seconds

    async def train(self, job: TrainingJob, on_progress: Callable[[Progress], None] | None = None) -> TrainedFiles:
        """Train for real; the time that passes is the simulation's."""
        self._finished = False
        rows = job_rows(job.training_path, job.training_path, job.mapping_path)
        required = Requirement(job, rows)
        planned = min(job.hyper_parameters.epochs, self._maximum_epochs)
        if job.required_denominator:
            # How long the run takes is known only from the run itself: it is repeated if it is stopped before.
            planned = self._trained(job, rows, planned, None).epochs
        epochs = 0
        while epochs < planned and not self._finished:
            await asyncio.sleep(self._epoch_seconds)
            epochs += 1
        directory = Path(job.directory)
        result = self._trained(job, rows, epochs, directory / TRACE_NAME, on_progress)
        save_weights(directory / WEIGHTS_NAME, result.weights, job.weight_bits)
        counted = required.count(result.weights) if job.required_denominator else None
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
            training_correct=counted.correct if counted else 0,
            training_total=counted.total if counted else 0,
        )

    def _trained(
        self,
        job: TrainingJob,
        rows: DataSet,
        epochs: int,
        directory: Path | None,
        on_progress: OnProgress | None = None,
    ) -> TrainingResult:
        """Train for real, for so many epochs or until the requirement is reached."""
        plan = plan_of(replace(job, hyper_parameters=replace(job.hyper_parameters, epochs=epochs)))
        clock = asyncio.get_running_loop().time
        watcher = Watcher(clock, on_progress or (lambda _progress: None), reached=Requirement(job, rows).is_reached)
        return train(plan, rows, watcher, directory, start_of(job))

    async def finish_early(self) -> None:
        """End running training after its present epoch."""
        self._finished = True

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        """Return the exact counts of a model."""
        weights = load_weights(Path(job.weights_path), job.specification)
        training, test = evaluation_rows(job)
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

    async def audit(self, job: AuditJob) -> tuple[AuditLine, ...]:
        """Audit for real, in no virtual time."""
        return audited(job, self._rows(job.run), asyncio.get_running_loop().time)

    async def answer(self, job: SegmentJob) -> None:
        """Train the segment for real, in no virtual time."""
        join_answer(Path(job.directory), write_answer(job, self._rows(job.run)))

    async def check_states(self, job: SegmentJob) -> None:
        """Check for real, in no virtual time."""
        check_states(job)

    async def outlying(self, job: SegmentJob) -> int:
        """Settle step after step for real, in no virtual time."""
        return outlying_step(job, self._rows(job.run), split_answer(Path(job.directory)))

    async def dispute(self, job: DisputeJob) -> bool:
        """Settle for real, in no virtual time."""
        return proves(job, self._rows(job.run))[0]

    @staticmethod
    def _rows(run: TrainingJob) -> DataSet:
        return job_rows(run.training_path, run.training_path, run.mapping_path)

    async def close(self) -> None:
        """Nothing runs."""
