"""What a node and its training process say to each other: typed jobs, answers as JSON, in bounded frames.

A frame is four bytes of length and JSON. A request names an id, the kind of a job and the hex of the job's canonical
bytes; the answers carry the same id and `progress`, `result` or `error`. Every kind of job names the type of its
answer, so that one more kind touches this file and the table of `worker` and nothing between them. No torch here: the
node imports this file.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, BinaryIO, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints

from learnchain.consensus.audits import MAXIMUM_SAMPLED_SEGMENTS, AuditFinding, FraudProof
from learnchain.encoding.codec import Bound, Hash32, encode, parse_json
from learnchain.protocol.audit_messages import AuditedSegment, StateLeaf
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.protocol.puzzle import Puzzle
from learnchain.protocol.task_specification import Metric, Optimiser, TrainingRules
from learnchain.protocol.training_terms import HyperParameters, LoopTerms, Watermark
from learnchain.rejection import Rejected, RejectionReason

MAXIMUM_FRAME_BYTES = 1 << 20
WEIGHTS_NAME = "model.safetensors"
TRACE_NAME = "trace"

UNAVAILABLE, INTERNAL = "unavailable", "internal"
"""Error reasons beside those of `RejectionReason`: not here yet, and our own bug."""

FilePath = Annotated[str, Bound(4_096)]
Answer = TypeVar("Answer")


class Job(Generic[Answer]):
    """Ask a training process for one thing; the parameter of this class is the type of the answer."""

    __slots__ = ()

    def request(self) -> dict[str, str]:
        """Return what the line to the process carries of the job: its kind and its canonical bytes."""
        return {"method": type(self).__name__, "job": encode(self).hex()}

    @classmethod
    def read_answer(cls, answer: Any) -> Answer:
        """Return the answer that its JSON stands for."""
        return _from_json(get_args(cls.__orig_bases__[-1])[0], answer)  # pyrefly: ignore[missing-attribute]


def answer_to_json(answer: object) -> Any:
    """Return an answer as JSON: nouns as objects, tuples as lists, bytes as hex."""
    if isinstance(answer, bytes):
        return answer.hex()
    if isinstance(answer, tuple):
        return [answer_to_json(item) for item in answer]
    if is_dataclass(answer):
        return {field.name: answer_to_json(getattr(answer, field.name)) for field in fields(answer)}
    return answer


def _from_json(kind: Any, value: Any) -> Any:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if kind is None or kind is type(None):
        return None
    if kind is bytes:
        return bytes.fromhex(value)
    if get_origin(kind) is tuple:
        return tuple(_from_json(get_args(kind)[0], item) for item in value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _from_json(hints[name], item) for name, item in value.items()})
    return kind(value)


@dataclass(frozen=True, slots=True)
class ReadyJob(Job[None]):
    """Ask whether the process has loaded all that jobs need."""


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
class TrainingProgress:
    """Say how far a run is; loss and accuracy are means over the epoch's measured batches, for display only."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    seconds: float


OnProgress = Callable[[TrainingProgress], None]


@dataclass(frozen=True, slots=True)
class TrainingJob(Job[TrainedFiles]):
    """Ask for a run; weights and trace then lie in `directory`.

    `mapping_path` names a file with the mapping layer in front of the model, or nothing. With a required accuracy the
    run ends after the epoch in which the training rows are counted right that often (PoLe Algorithm 1, line 9).
    `work_id` seeds the order of the batches, `initial_id` the initialisation where another seed does (ROUND-9).
    With a `start_path` the run goes on from that state, whose digest is `start_digest`.
    """

    specification: ModelSpecification
    optimiser: Optimiser
    hyper_parameters: HyperParameters
    terms: LoopTerms
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


@dataclass(frozen=True, slots=True)
class ProbeJob(Job[float]):
    """Ask for the seconds of one epoch of a run."""

    run: TrainingJob


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Hold the exact counts and the digest of all logits."""

    correct: int
    total: int
    digest: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class EvaluationJob(Job[Evaluation]):
    """Ask for the exact counts of a model; the first rows of the training file calibrate the fixed-point image."""

    specification: ModelSpecification
    weights_path: FilePath
    training_path: FilePath
    test_path: FilePath
    metric: Metric
    mapping_path: FilePath = ""


@dataclass(frozen=True, slots=True)
class WatermarkCheck:
    """Hold the decision and, for display only, the confidence of each effective row."""

    matches: bool
    confidences: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WatermarkJob(Job[WatermarkCheck]):
    """Ask whether a model carries a mark."""

    specification: ModelSpecification
    weights_path: FilePath
    watermark: Watermark


@dataclass(frozen=True, slots=True)
class Search:
    """Hold the salt that solves a puzzle, or nothing, and how many were tried."""

    salt: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class SearchJob(Job[Search]):
    """Ask for at most so many attempts at a hash puzzle, counted from `first`."""

    puzzle: Puzzle
    first: int
    attempts: int


@dataclass(frozen=True, slots=True)
class ClassJob(Job[Hash32]):
    """Ask for the reproducibility class of the process; `directory` remembers it for processes like this one."""

    directory: FilePath


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


WHOLE_RUN = -1
"""What the line of an audit says in place of a segment when it is about the run as a whole."""


@dataclass(frozen=True, slots=True)
class AuditLine:
    """Report one check: the segment, or -1 for the run as a whole; `witness` is a digest of what replaying came to."""

    segment: int
    finding: AuditFinding
    detail: str
    steps: int
    seconds: float
    witness: bytes


@dataclass(frozen=True, slots=True)
class AuditJob(Job[tuple[AuditLine, ...]]):
    """Ask for the check of a published run: as a whole, and of these segments.

    `run` says what the miner had to do; its directory holds the published index and the states of the segments.
    `replay` trains the segments again; without it only what the bytes show is checked, the same on every machine.
    `origin` names the committed state from which a run over several blocks went on. The `forced` segments start from
    a state that `forced_seed` corrupts, so that they must not reproduce. With `every` the audit goes on after a segment
    whose bits differ: an auditor reports on all that it was given.
    """

    run: TrainingJob
    rules: TrainingRules
    weights_path: FilePath
    state_root: Hash32
    states: int
    indices: Annotated[tuple[int, ...], Bound(MAXIMUM_SAMPLED_SEGMENTS)]
    whole: bool
    replay: bool
    origin: Annotated[tuple[Hash32, ...], Bound(1)] = ()
    forced: Annotated[tuple[int, ...], Bound(MAXIMUM_SAMPLED_SEGMENTS)] = ()
    forced_seed: Hash32 = b"\0" * 32
    every: bool = False


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """Name a segment and where its states lie, or an answer that shows its steps.

    The directory holds the segment's first state as state 0, or an answer: `DIGESTS_NAME` and `STATES_NAME`. An auditor
    that was given a forced error names its `forced_seed`: its steps begin in the state that the seed corrupts.
    """

    run: TrainingJob
    first: StateLeaf
    following: StateLeaf
    directory: FilePath
    index: int = 0
    forced_seed: Annotated[bytes, Bound(32)] = b""


@dataclass(frozen=True, slots=True)
class DisclosureJob(SegmentJob, Job[None]):
    """Ask to train a segment again; its directory then holds the states of all steps and their digests."""


@dataclass(frozen=True, slots=True)
class DisclosedStatesJob(SegmentJob, Job[None]):
    """Ask to refuse an answer whose states are not those of its digests."""


@dataclass(frozen=True, slots=True)
class OutlyingStepJob(SegmentJob, Job[int]):
    """Ask for the first step of an answer that no honest machine takes, or -1."""


@dataclass(frozen=True, slots=True)
class ReportedSegment:
    """Say what an auditor reported of a segment; a `forced_seed` corrupted the state that it had to begin with."""

    line: AuditedSegment
    forced_seed: Annotated[bytes, Bound(32)]


@dataclass(frozen=True, slots=True)
class DisputeJob(Job[bool]):
    """Ask whether a proof of `FAULT_STEP_CHAIN` or `FAULT_OUT_OF_BOUNDS` holds.

    The directory holds what it rests on: the digests of the answer, or the two states of the opened step. Where an
    auditor is accused, `reported` is what it said; a chain that had to begin in a corrupted state needs state 0 too.
    """

    run: TrainingJob
    proof: FraudProof
    directory: FilePath
    reported: Annotated[tuple[ReportedSegment, ...], Bound(1)] = ()


DIGESTS_NAME, BEFORE_NAME, AFTER_NAME = "digests", "before.safetensors", "after.safetensors"

STATES_NAME = "states"
"""How the files of a dispute are called."""


class Training(Protocol):
    """Train and measure models elsewhere: in a process of its own, or in a simulation in this one."""

    async def start(self) -> None:
        """Get ready; the first job then need not wait."""
        ...

    async def machine_class(self) -> Hash32:
        """Return the reproducibility class of the process that trains; zero where nobody may compare bits with it."""
        ...

    async def run(self, job: Job[Answer], on_progress: OnProgress | None = None) -> Answer:
        """Return the answer to a job; raise `Rejected` or `Unavailable` where there is none."""
        ...

    async def finish_early(self) -> None:
        """End running training after its present epoch."""
        ...

    async def close(self) -> None:
        """Stop."""
        ...
