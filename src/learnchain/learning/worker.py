"""Run training and evaluation in a process of its own: `python -m learnchain.learning.worker`.

Frames arrive on standard input and leave on standard output. A failed job is answered and does not end the process;
the end of standard input does, at once. `finish` ends a run after its epoch, `cancel` drops it at its next step.
"""

import argparse
import errno
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from learnchain.encoding.codec import decode
from learnchain.learning import jobs
from learnchain.learning.disputes import settling
from learnchain.learning.disputes.machine_class import machine_class
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.job_data import Requirement, evaluation_rows, training_rows
from learnchain.learning.model import load_weights, save_weights
from learnchain.learning.replay import audit_published_run
from learnchain.learning.train import Watcher, configure_torch, plan_of, probe, start_of, train
from learnchain.learning.watermark import check_watermark
from learnchain.protocol.model_specification import ModelLimits, validate
from learnchain.rejection import Rejected, RejectionReason, Unavailable

Performer = Callable[[Any, Watcher, float], Any]
"""Takes a job, what watches and stops it, and the seconds of its arrival; returns the answer."""


def _train(job: jobs.TrainingJob, watcher: Watcher, arrived: float) -> jobs.TrainedFiles:
    directory, rows = Path(job.directory), training_rows(job)
    required = Requirement(job, rows)
    watcher = replace(watcher, reached=required.is_reached)
    result = train(plan_of(job), rows, watcher, directory / jobs.TRACE_NAME, start_of(job))
    counted = required.count(result.weights) if job.required_denominator else None
    save_weights(directory / jobs.WEIGHTS_NAME, result.weights, job.terms.weight_bits)
    return jobs.TrainedFiles(
        weights_path=str(directory / jobs.WEIGHTS_NAME),
        trace_directory=str(directory / jobs.TRACE_NAME),
        trace_root=result.trace.root(),
        epochs=result.epochs,
        steps=result.steps,
        loss=result.loss,
        accuracy=result.accuracy,
        training_seconds=result.training_seconds,
        trace_seconds=result.trace_seconds,
        process_seconds=watcher.clock() - arrived,
        training_correct=counted.correct if counted else 0,
        training_total=counted.total if counted else 0,
    )


def _evaluate(job: jobs.EvaluationJob, watcher: Watcher, arrived: float) -> jobs.Evaluation:
    weights = load_weights(Path(job.weights_path), job.specification)
    training, test = evaluation_rows(job)
    counts = evaluate(job.specification, weights, training, test, job.metric)
    return jobs.Evaluation(counts.correct, counts.total, counts.digest, watcher.clock() - arrived)


def _check_watermark(job: jobs.WatermarkJob, *_: object) -> jobs.WatermarkCheck:
    weights = load_weights(Path(job.weights_path), job.specification)
    return check_watermark(weights, job.specification, job.watermark)


def _find_outlying_step(job: jobs.OutlyingStepJob, *_: object) -> int:
    digests = settling.split_answer(Path(job.directory))
    return settling.outlying_step(job, training_rows(job.run), digests)


PERFORMERS: dict[type[jobs.Job[Any]], Performer] = {
    jobs.ReadyJob: lambda *_: None,
    jobs.ClassJob: lambda job, *_: machine_class(Path(job.directory)),
    jobs.ProbeJob: lambda job, watcher, _: probe(plan_of(job.run), training_rows(job.run), watcher.clock),
    jobs.TrainingJob: _train,
    jobs.EvaluationJob: _evaluate,
    jobs.WatermarkJob: _check_watermark,
    jobs.SearchJob: lambda job, *_: jobs.Search(*job.puzzle.search(job.first, job.attempts)),
    jobs.AuditJob: lambda job, watcher, _: audit_published_run(job, training_rows(job.run), watcher.clock),
    jobs.DisclosureJob: lambda job, *_: settling.join_answer(
        Path(job.directory), settling.write_answer(job, training_rows(job.run))
    ),
    jobs.DisclosedStatesJob: lambda job, *_: settling.check_states(job),
    jobs.OutlyingStepJob: _find_outlying_step,
    jobs.DisputeJob: lambda job, *_: settling.proves(job, training_rows(job.run))[0],
}
"""What a process does for each kind of job."""


def perform(job: jobs.Job[Any], watcher: Watcher, arrived: float) -> Any:
    """Return the answer to a job whose model is within the default limits: a second line behind the chain's own."""
    run = job.run if isinstance(job, jobs.ProbeJob | jobs.AuditJob | jobs.SegmentJob | jobs.DisputeJob) else job
    if isinstance(run, jobs.TrainingJob | jobs.EvaluationJob | jobs.WatermarkJob):
        validate(run.specification, ModelLimits())
    return PERFORMERS[type(job)](job, watcher, arrived)


class Worker:
    """Answer jobs one after the other; a thread of its own reads the frames, so that a run can be stopped."""

    def __init__(
        self,
        source: BinaryIO,
        target: BinaryIO,
        clock: Callable[[], float],
        perform: Callable[[jobs.Job[Any], Watcher, float], Any] = perform,
    ) -> None:
        self._source, self._target, self._clock, self._perform = source, target, clock, perform
        self._jobs: queue.Queue[tuple[int, str, bytes, float]] = queue.Queue()
        self._finished: set[int] = set()
        self._cancelled: set[int] = set()
        self._kinds = {kind.__name__: kind for kind in PERFORMERS}

    def serve(self) -> None:
        """Answer until the input ends; the reading thread then ends the process."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            number, method, job, arrived = self._jobs.get()
            self._send({"id": number, **self.answer(number, method, job, arrived)})

    def answer(self, number: int, method: str, job: bytes, arrived: float) -> dict[str, Any]:
        """Return the result of one job, or the reason why there is none."""
        watcher = Watcher(
            self._clock,
            lambda progress: self._send({"id": number, "progress": asdict(progress)}),
            lambda: number in self._finished,
            lambda: number in self._cancelled,
        )
        try:
            if number in self._cancelled:
                raise Unavailable("the job was cancelled")
            if method not in self._kinds:
                raise Rejected(RejectionReason.METHOD_UNKNOWN, method)
            return {"result": jobs.answer_to_json(self._perform(decode(self._kinds[method], job), watcher, arrived))}
        except Rejected as error:
            return _error(error.reason.value, error.detail)
        except (Unavailable, FileNotFoundError) as error:
            return _error(jobs.UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001 - one job's failure must not end the process
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                # A full disk is nobody's fault and no bug: the next job finds room or says so again.
                return _error(jobs.UNAVAILABLE, f"{error}; free disk space there, the node goes on by itself")
            return _error(jobs.INTERNAL, f"{type(error).__name__}: {error}")

    def _read(self) -> None:
        try:
            while (message := jobs.read_frame(self._source)) is not None:
                self._accept(message)
        except Rejected as error:
            self._send({"id": 0, **_error(error.reason.value, error.detail)})
        finally:
            # Whoever gave the jobs is gone (killed with answers unread, it resets the line), or no longer speaks our
            # language: nobody waits for a result.
            os._exit(0)

    def _accept(self, message: dict[str, Any]) -> None:
        number, method, job = message.get("id"), message.get("method"), message.get("job", "")
        if not isinstance(number, int) or not isinstance(method, str) or not isinstance(job, str):
            raise Rejected(RejectionReason.MALFORMED, "a request has an id, a method and a job")
        if method == "finish":
            self._finished.add(number)
        elif method == "cancel":
            self._cancelled.add(number)
        else:
            try:
                self._jobs.put((number, method, bytes.fromhex(job), self._clock()))
            except ValueError as error:
                raise Rejected(RejectionReason.MALFORMED, "a job is written in hex") from error

    def _send(self, message: dict[str, Any]) -> None:
        self._target.write(jobs.pack_frame(message))
        self._target.flush()


def _error(reason: str, detail: str) -> dict[str, Any]:
    return {"error": {"reason": reason, "detail": detail[:1_000]}}


def serve(source: BinaryIO, target: BinaryIO, threads: int, clock: Callable[[], float]) -> None:
    """Answer jobs from one stream on another until the first one ends; that ends the process."""
    configure_torch(threads)
    Worker(source, target, clock).serve()


def main() -> None:
    """Serve on standard input and output; whatever a library prints goes to standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nice", type=int, default=0)
    chosen = parser.parse_args()
    os.nice(chosen.nice)
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, target, chosen.threads, time.perf_counter)


if __name__ == "__main__":
    main()
