"""Stand in for training where a test needs many blocks and no model: every model is right nine times in ten."""

import json
from pathlib import Path
from typing import Any

from learnchain.consensus.audits import AuditFinding
from learnchain.encoding.codec import Hash32
from learnchain.encoding.cryptography import tagged_hash
from learnchain.learning.jobs import (
    TRACE_NAME,
    WEIGHTS_NAME,
    WHOLE_RUN,
    Answer,
    AuditJob,
    AuditLine,
    DisclosedStatesJob,
    DisputeJob,
    Evaluation,
    EvaluationJob,
    Job,
    OnProgress,
    ProbeJob,
    TrainedFiles,
    TrainingJob,
    WatermarkCheck,
    WatermarkJob,
)
from learnchain.learning.trace import INDEX_NAME
from learnchain.rejection import Unavailable

MODEL_BYTES = 4_096


class InstantTraining:
    """Write files of a fixed size in no time; believe every claim."""

    def __init__(self, test_rows: int) -> None:
        self._test_rows = test_rows

    @staticmethod
    def bytes_a_run() -> int:
        """Return the bytes that one run leaves in a blob store, with room for its index."""
        return 4 * MODEL_BYTES

    async def start(self) -> None:
        """Nothing has to be loaded."""

    async def machine_class(self) -> Hash32:
        """Return no class: nothing is trained here."""
        return b"\0" * 32

    async def run(self, job: Job[Answer], on_progress: OnProgress | None = None) -> Answer:
        """Train and count in no time, find every mark and no fault; refuse what asks for steps or puzzles."""
        answers: dict[type[Job[Any]], Any] = {
            ProbeJob: 1.0,
            WatermarkJob: WatermarkCheck(True, ()),
            AuditJob: (AuditLine(WHOLE_RUN, AuditFinding.REPRODUCED, "instant", 0, 0.0, b""),),
            DisclosedStatesJob: None,
            DisputeJob: False,
        }
        if isinstance(job, TrainingJob):
            answers[TrainingJob] = await self.train(job, on_progress)
        if isinstance(job, EvaluationJob):
            answers[EvaluationJob] = await self.evaluate(job)
        if type(job) not in answers:
            raise Unavailable("the steps of training that never was, and puzzles")
        return answers[type(job)]

    async def train(self, job: TrainingJob, on_progress: OnProgress | None = None) -> TrainedFiles:
        """Write a model that only this work id has, and a trace of two states."""
        directory = Path(job.directory)
        (directory / TRACE_NAME).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            state = tagged_hash("instant-state", job.work_id, bytes([number])) * (MODEL_BYTES // 32)
            (directory / TRACE_NAME / f"state-{number}.safetensors").write_bytes(state)
        (directory / TRACE_NAME / INDEX_NAME).write_text(json.dumps({"leaves": []}))
        model = tagged_hash("instant-model", job.work_id) * (MODEL_BYTES // 32)
        (directory / WEIGHTS_NAME).write_bytes(model)
        return TrainedFiles(
            weights_path=str(directory / WEIGHTS_NAME),
            trace_directory=str(directory / TRACE_NAME),
            trace_root=tagged_hash("instant-trace", job.work_id),
            epochs=1,
            steps=1,
            loss=0.1,
            accuracy=0.9,
            training_seconds=1.0,
            trace_seconds=0.0,
            process_seconds=1.0,
        )

    async def finish_early(self) -> None:
        """Nothing runs."""

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        """Count nine tenths."""
        return Evaluation(self._test_rows * 9 // 10, self._test_rows, tagged_hash("instant-count"), 0.0)

    async def close(self) -> None:
        """Nothing runs."""
