"""Ask a process to audit somebody else's run: a job as a noun, findings as its answer; no torch here."""

from dataclasses import dataclass
from typing import Annotated, Any

from learnchain.learning.jobs import FilePath, TrainingJob
from learnchain.primitives.audit import MAXIMUM_CHALLENGED, AuditFinding, FraudProof
from learnchain.primitives.audit_messages import AuditedSegment
from learnchain.primitives.codec import Bound, Hash32
from learnchain.primitives.dispute_messages import StateLeaf
from learnchain.primitives.task_specification import TrainingRules

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
    indices: Annotated[tuple[int, ...], Bound(MAXIMUM_CHALLENGED)]
    whole: bool
    replay: bool
    origin: Annotated[tuple[Hash32, ...], Bound(1)] = ()
    forced: Annotated[tuple[int, ...], Bound(MAXIMUM_CHALLENGED)] = ()
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


def audit_lines(answer: dict[str, Any]) -> tuple[AuditLine, ...]:
    """Return the lines of a process's answer."""
    return tuple(
        AuditLine(
            each["segment"],
            AuditFinding(each["finding"]),
            each["detail"],
            each["steps"],
            each["seconds"],
            bytes.fromhex(each["witness"]),
        )
        for each in answer["lines"]
    )


def audit_answer(lines: tuple[AuditLine, ...]) -> dict[str, Any]:
    """Return the answer that carries these lines."""
    named = [
        {
            "segment": each.segment,
            "finding": each.finding.value,
            "detail": each.detail[:200],
            "steps": each.steps,
            "seconds": each.seconds,
            "witness": each.witness.hex(),
        }
        for each in lines
    ]
    return {"lines": named}
