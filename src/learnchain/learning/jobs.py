"""What a node and its training process say to each other: jobs as nouns, answers as JSON, in bounded frames.

A frame is four bytes of length and JSON. A request names an id, a method and the hex of a job's canonical bytes; the
answers carry the same id and `progress`, `result` or `error`. No torch here: the node imports this file.

Ask a process to audit somebody else's run: a job as a noun, findings as its answer; no torch here.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Protocol

from learnchain.consensus.audits import MAXIMUM_SAMPLED_SEGMENTS, AuditFinding, FraudProof
from learnchain.encoding.codec import Bound, Hash32
from learnchain.encoding.numbers import parse_json
from learnchain.protocol.audit_messages import AuditedSegment
from learnchain.protocol.dispute_messages import StateLeaf
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


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Ask for a run, or for the probe of one epoch; files go to `directory`.

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
class TrainingProgress:
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


WHOLE_RUN = -1
"""What the line of an audit says in place of a segment when it is about the run as a whole."""


@dataclass(frozen=True, slots=True)
class AuditJob:
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
class AuditLine:
    """Report one check: the segment, or -1 for the run as a whole; `witness` is a digest of what replaying came to."""

    segment: int
    finding: AuditFinding
    detail: str
    steps: int
    seconds: float
    witness: bytes


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """Ask for the states of a segment's steps (the accused), or for its first step out of bounds (the accuser).

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
class ReportedSegment:
    """Say what an auditor reported of a segment; a `forced_seed` corrupted the state that it had to begin with."""

    line: AuditedSegment
    forced_seed: Annotated[bytes, Bound(32)]


@dataclass(frozen=True, slots=True)
class DisputeJob:
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


def decode_audit_lines(answer: dict[str, Any]) -> tuple[AuditLine, ...]:
    """Return the lines of a process's answer."""
    return tuple(
        AuditLine(
            each["segment"],
            AuditFinding(each["finding"]),
            each["detail"],
            each["steps"],
            each["seconds"],
            bytes.fromhex(each["middle_state_hash"]),
        )
        for each in answer["segments"]
    )


def encode_audit_lines(lines: tuple[AuditLine, ...]) -> dict[str, Any]:
    """Return the answer that carries these lines."""
    named = [
        {
            "segment": each.segment,
            "finding": each.finding.value,
            "detail": each.detail[:200],
            "steps": each.steps,
            "seconds": each.seconds,
            "middle_state_hash": each.witness.hex(),
        }
        for each in lines
    ]
    return {"segments": named}


class Training(Protocol):
    """Train and measure models somewhere else: in a process of its own, or in a simulation in this one."""

    async def start(self) -> None:
        """Get ready; the first job then need not wait."""
        ...

    async def machine_class(self) -> Hash32:
        """Return the reproducibility class of the process that trains; zero where nobody may compare bits with it."""
        ...

    async def probe(self, job: TrainingJob) -> float:
        """Return the seconds of one epoch."""
        ...

    async def train(
        self, job: TrainingJob, on_progress: Callable[[TrainingProgress], None] | None = None
    ) -> TrainedFiles:
        """Run a job; weights and trace then lie in its directory."""
        ...

    async def finish_early(self) -> None:
        """End running training after its present epoch."""
        ...

    async def evaluate(self, job: EvaluationJob) -> Evaluation:
        """Return the exact counts of a model."""
        ...

    async def check_watermark(self, job: WatermarkJob) -> WatermarkCheck:
        """Return whether a model carries a mark."""
        ...

    async def search(self, job: SearchJob) -> Search:
        """Try salts of a puzzle, at most as many as the job says."""
        ...

    async def audit(self, job: AuditJob) -> tuple[AuditLine, ...]:
        """Return what the check of a published run came to, up to the first fault."""
        ...

    async def disclose_steps(self, job: SegmentJob) -> None:
        """Train a segment again; its directory then holds the states of all steps and their digests."""
        ...

    async def check_states(self, job: SegmentJob) -> None:
        """Refuse an answer whose states are not those of its digests."""
        ...

    async def first_step_out_of_bounds(self, job: SegmentJob) -> int:
        """Return the first step of an answer that no honest machine takes, or -1."""
        ...

    async def settle_dispute(self, job: DisputeJob) -> bool:
        """Return whether a proof about one step, or about an answer's ends, holds."""
        ...

    async def close(self) -> None:
        """Stop."""
        ...
