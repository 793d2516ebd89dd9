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
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch

from learnchain.encoding.codec import decode
from learnchain.learning.data import DataSet
from learnchain.learning.disputes.machine_class import machine_class
from learnchain.learning.disputes.settling import (
    check_states,
    join_answer,
    outlying_step,
    proves,
    split_answer,
    write_answer,
)
from learnchain.learning.fixed_point import evaluate
from learnchain.learning.job_data import Requirement, evaluation_rows, job_rows
from learnchain.learning.jobs import (
    INTERNAL,
    TRACE_NAME,
    UNAVAILABLE,
    WEIGHTS_NAME,
    AuditJob,
    ClassJob,
    DisputeJob,
    EvaluationJob,
    SearchJob,
    SegmentJob,
    TrainingJob,
    TrainingProgress,
    WatermarkJob,
    encode_audit_lines,
    pack_frame,
    read_frame,
)
from learnchain.learning.model import build_model, load_weights, save_weights, set_weights
from learnchain.learning.replay import audit_published_run
from learnchain.learning.train import Watcher, configure_torch, plan_of, probe, start_of, to_float, train
from learnchain.learning.watermark import check_watermark
from learnchain.protocol.model_specification import ModelLimits, validate
from learnchain.rejection import Rejected, RejectionReason, Unavailable

_DISPLAY_BATCH = 256


Answer = dict[str, Any]


Job = TypeVar("Job", TrainingJob, EvaluationJob, WatermarkJob)


class Worker:
    """Answer jobs one after the other; a thread of its own reads the frames, so that a run can be stopped."""

    def __init__(self, source: BinaryIO, target: BinaryIO, clock: Callable[[], float]) -> None:
        self._source, self._target, self._clock = source, target, clock
        self._jobs: queue.Queue[tuple[int, str, bytes, float]] = queue.Queue()
        self._finished: set[int] = set()
        self._cancelled: set[int] = set()
        self._methods: dict[str, Callable[[int, bytes, float], Answer]] = {
            "ready": lambda _number, _job, _arrived: {},
            "class": self._class,
            "probe": self._probe,
            "train": self._train,
            "evaluate": self._evaluate,
            "check_watermark": self._check_watermark,
            "search": self._search,
            "audit": self._audit,
            "disclose_steps": self._disclose_steps,
            "check_states": self._check_states,
            "first_step_out_of_bounds": self._first_step_out_of_bounds,
            "settle_dispute": self._settle_dispute,
            "float_accuracy": self._float_accuracy,
        }

    def serve(self) -> None:
        """Answer until the input ends; the reading thread then ends the process."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            number, method, job, arrived = self._jobs.get()
            self._send({"id": number, **self._answer(number, method, job, arrived)})

    def _answer(self, number: int, method: str, job: bytes, arrived: float) -> Answer:
        try:
            if number in self._cancelled:
                raise Unavailable("the job was cancelled")
            if method not in self._methods:
                raise Rejected(RejectionReason.METHOD_UNKNOWN, method)
            return {"result": self._methods[method](number, job, arrived)}
        except Rejected as error:
            return _error(error.reason.value, error.detail)
        except (Unavailable, FileNotFoundError) as error:
            return _error(UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001 - one job's failure must not end the process
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                # A full disk is nobody's fault and no bug: the next job finds room or says so again.
                return _error(UNAVAILABLE, f"{error}; free disk space there, the node goes on by itself")
            return _error(INTERNAL, f"{type(error).__name__}: {error}")

    def _read(self) -> None:
        try:
            while (message := read_frame(self._source)) is not None:
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

    def _send(self, message: Answer) -> None:
        self._target.write(pack_frame(message))
        self._target.flush()

    def _class(self, _number: int, job: bytes, _arrived: float) -> Answer:
        return {"class": machine_class(Path(decode(ClassJob, job).directory)).hex()}

    def _audit(self, _number: int, job: bytes, _arrived: float) -> Answer:
        asked = decode(AuditJob, job)
        return encode_audit_lines(audit_published_run(asked, _training_rows(asked.run), self._clock))

    def _disclose_steps(self, _number: int, job: bytes, _arrived: float) -> Answer:
        asked = _segment(job)
        join_answer(Path(asked.directory), write_answer(asked, _training_rows(asked.run)))
        return {}

    def _check_states(self, _number: int, job: bytes, _arrived: float) -> Answer:
        check_states(_segment(job))
        return {}

    def _first_step_out_of_bounds(self, _number: int, job: bytes, _arrived: float) -> Answer:
        asked = _segment(job)
        digests = split_answer(Path(asked.directory))
        return {"offset": outlying_step(asked, _training_rows(asked.run), digests)}

    def _settle_dispute(self, _number: int, job: bytes, _arrived: float) -> Answer:
        asked = decode(DisputeJob, job)
        validate(asked.run.specification, ModelLimits())
        holds, detail = proves(asked, _training_rows(asked.run))
        return {"holds": holds, "detail": detail}

    def _probe(self, _number: int, job: bytes, _arrived: float) -> Answer:
        asked = _decode_job(TrainingJob, job)
        return {"seconds": probe(plan_of(asked), _training_rows(asked), self._clock)}

    def _train(self, number: int, job: bytes, arrived: float) -> Answer:
        asked = _decode_job(TrainingJob, job)
        directory = Path(asked.directory)

        def report(progress: TrainingProgress) -> None:
            self._send({"id": number, "progress": asdict(progress)})

        rows = _training_rows(asked)
        required = Requirement(asked, rows)
        watcher = Watcher(
            self._clock,
            report,
            lambda: number in self._finished,
            lambda: number in self._cancelled,
            required.is_reached,
        )
        result = train(plan_of(asked), rows, watcher, directory / TRACE_NAME, start_of(asked))
        counted = required.count(result.weights) if asked.required_denominator else None
        weights_path = directory / WEIGHTS_NAME
        save_weights(weights_path, result.weights, asked.terms.weight_bits)
        return {
            "weights_path": str(weights_path),
            "trace_directory": str(directory / TRACE_NAME),
            "trace_root": result.trace.root().hex(),
            "epochs": result.epochs,
            "steps": result.steps,
            "loss": result.loss,
            "accuracy": result.accuracy,
            "training_seconds": result.training_seconds,
            "trace_seconds": result.trace_seconds,
            "process_seconds": self._clock() - arrived,
            "training_correct": counted.correct if counted else 0,
            "training_total": counted.total if counted else 0,
        }

    def _evaluate(self, _number: int, job: bytes, arrived: float) -> Answer:
        asked = _decode_job(EvaluationJob, job)
        weights = load_weights(Path(asked.weights_path), asked.specification)
        training, test = evaluation_rows(asked)
        counts = evaluate(asked.specification, weights, training, test, asked.metric)
        seconds = self._clock() - arrived
        return {
            "correct": counts.correct,
            "total": counts.total,
            "digest": counts.digest.hex(),
            "seconds": seconds,
        }

    def _check_watermark(self, _number: int, job: bytes, _arrived: float) -> Answer:
        asked = _decode_job(WatermarkJob, job)
        weights = load_weights(Path(asked.weights_path), asked.specification)
        return asdict(check_watermark(weights, asked.specification, asked.watermark))

    def _search(self, _number: int, job: bytes, _arrived: float) -> Answer:
        asked = decode(SearchJob, job)
        salt, tried = asked.puzzle.search(asked.first, asked.attempts)
        return {"salt": salt.hex(), "attempts": tried}

    def _float_accuracy(self, _number: int, job: bytes, _arrived: float) -> Answer:
        asked = _decode_job(EvaluationJob, job)
        model = build_model(asked.specification)
        set_weights(model, load_weights(Path(asked.weights_path), asked.specification))
        _, test = evaluation_rows(asked)
        return {"accuracy": float_accuracy(model, test)}


def float_accuracy(model: torch.nn.Module, test: DataSet) -> float:
    """Return the accuracy of the float32 model: for display, never for consensus."""
    model.eval()
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(test), _DISPLAY_BATCH):
            logits = model(to_float(torch.from_numpy(test.inputs[start : start + _DISPLAY_BATCH].copy())))
            labels = torch.from_numpy(test.labels[start : start + _DISPLAY_BATCH].copy())
            correct += int((logits.argmax(1) == labels).sum())
    return correct / test.labels.size


def _decode_job(kind: type[Job], data: bytes) -> Job:
    """Return a job whose model is within the default limits: a second line behind the chain's own."""
    job = decode(kind, data)
    validate(job.specification, ModelLimits())
    return job


def _segment(data: bytes) -> SegmentJob:
    job = decode(SegmentJob, data)
    validate(job.run.specification, ModelLimits())
    return job


def _training_rows(job: TrainingJob) -> DataSet:
    return job_rows(job.training_path, job.training_path, job.mapping_path)


def _error(reason: str, detail: str) -> Answer:
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
