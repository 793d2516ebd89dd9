"""What a node and its training process say to each other: jobs as nouns, answers as JSON, in bounded frames.

A frame is four bytes of length and JSON. A request names an id, a method and the hex of a job's canonical bytes; the
answers carry the same id and `progress`, `result` or `error`. No torch here: the node imports this file.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

from learnchain.primitives.bounded_json import parse_json
from learnchain.primitives.codec import Bound, Hash32
from learnchain.primitives.model_specification import ModelSpecification
from learnchain.primitives.puzzle import Puzzle
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.task_specification import Metric, Optimiser
from learnchain.primitives.training_terms import FULL_BITS, HyperParameters, Watermark

MAXIMUM_FRAME_BYTES = 1 << 20
WEIGHTS_NAME = "model.safetensors"
TRACE_NAME = "trace"
UNAVAILABLE, INTERNAL = "unavailable", "internal"
"""Error reasons beside those of `RejectionReason`: not here yet, and our own bug."""

FilePath = Annotated[str, Bound(4_096)]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Ask for a run, or for the probe of one epoch; files go to `directory`. No watermark means free terms.

    `mapping_path` names a file with the mapping layer in front of the model, or nothing. With a required accuracy the
    run ends after the epoch in which the training rows are counted right that often (PoLe Algorithm 1, line 9).
    `work_id` seeds the order of the batches, `initial_id` the initialisation where another seed does (ROUND-9).
    With a `start_path` the run goes on from that state, whose digest is `start_digest`.
    """

    specification: ModelSpecification
    optimiser: Optimiser
    hyper_parameters: HyperParameters
    watermarks: Annotated[tuple[Watermark, ...], Bound(1)]
    work_id: Hash32
    checkpoint_interval_steps: int
    training_path: FilePath
    directory: FilePath
    mapping_path: FilePath = ""
    required_numerator: int = 0
    required_denominator: int = 0
    metric: Metric = Metric.ACCURACY
    initial_id: Annotated[bytes, Bound(32)] = b""
    start_path: FilePath = ""
    start_digest: Annotated[bytes, Bound(32)] = b""
    weight_bits: int = FULL_BITS


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """Ask for the exact counts of a model; the first rows of the training file calibrate the fixed-point image."""

    specification: ModelSpecification
    weights_path: FilePath
    training_path: FilePath
    test_path: FilePath
    metric: Metric
    mapping_path: FilePath = ""


@dataclass(frozen=True, slots=True)
class WatermarkJob:
    """Ask whether a model carries a mark."""

    specification: ModelSpecification
    weights_path: FilePath
    watermark: Watermark


@dataclass(frozen=True, slots=True)
class SearchJob:
    """Ask for at most so many attempts at a hash puzzle, counted from `first`."""

    puzzle: Puzzle
    first: int
    attempts: int


@dataclass(frozen=True, slots=True)
class ClassJob:
    """Ask for the reproducibility class of the process; `directory` remembers it for processes like this one."""

    directory: FilePath


@dataclass(frozen=True, slots=True)
class Search:
    """Hold the salt that solves a puzzle, or nothing, and how many were tried."""

    salt: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Say how far a run is; loss and accuracy are means over the epoch's measured batches, for display only."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainedFiles:
    """Say what a run left on disk and where its seconds went.

    `process_seconds` lasts from the arrival of the job to its answer; training_seconds / process_seconds is the
    training share. `training_correct` of `training_total` is the exact count on the training rows where the job
    required an accuracy.
    """

    weights_path: str
    trace_directory: str
    trace_root: bytes
    epochs: int
    steps: int
    loss: float
    accuracy: float
    training_seconds: float
    trace_seconds: float
    process_seconds: float
    training_correct: int = 0
    training_total: int = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Hold the exact counts and the digest of all logits."""

    correct: int
    total: int
    digest: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class WatermarkCheck:
    """Hold the decision and, for display only, the confidence of each effective row."""

    matches: bool
    confidences: tuple[float, ...]


def pack_frame(message: dict[str, Any]) -> bytes:
    """Return the bytes of one message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAXIMUM_FRAME_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a message of {len(body)} bytes")
    return len(body).to_bytes(4, "big") + body


def frame_length(head: bytes) -> int:
    """Return the length of the frame that starts with these four bytes, refused before it is read."""
    length = int.from_bytes(head, "big")
    if length > MAXIMUM_FRAME_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a frame of {length} bytes")
    return length


def unpack_body(body: bytes) -> dict[str, Any]:
    """Return the message of a frame's body."""
    try:
        message = parse_json(body)
    except (ValueError, RecursionError) as error:
        raise Rejected(RejectionReason.MALFORMED, "a frame holds no JSON") from error
    if not isinstance(message, dict):
        raise Rejected(RejectionReason.MALFORMED, "a frame holds no JSON object")
    return message


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """Return the next message of a blocking stream, or None at its end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    body = stream.read(frame_length(head))
    return unpack_body(body)
