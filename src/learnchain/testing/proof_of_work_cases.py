"""Choose what the vectors of proof of work show: its readings, whole heights, and every bad input it shares or adds."""

from dataclasses import replace

from learnchain.primitives.events import Committed, Event, Released, Revealed, TaskPosted
from learnchain.primitives.messages import Commitment, Deadline
from learnchain.primitives.puzzle import LARGEST_TARGET, is_solved
from learnchain.primitives.rejection import RejectionReason
from learnchain.primitives.training_terms import HashPuzzle
from learnchain.rules.proof_of_work import READINGS, ProofOfWork
from learnchain.rules.proof_of_work.difficulty import Difficulty
from learnchain.testing.bad_disputes import DISPUTE_NAMES
from learnchain.testing.bad_inputs import BAD_INPUTS, PLAN, BadInput, Found, prepare
from learnchain.testing.chain_builder import ChainBuilder, altered
from learnchain.testing.play import Observer, observe, play_empty, play_height
from learnchain.testing.sample_tasks import sample_task
from learnchain.testing.vectors import Case, Vector, call, walk

PROOF_OF_WORK = ProofOfWork(
    difficulty=Difficulty(60_000, LARGEST_TARGET // 16, 8),
    limit_milliseconds=600_000,
    release_milliseconds=15_000,
    reveal_milliseconds=20_000,
    block_milliseconds=60_000,
)
"""Every number is written out; sixteen hashes solve the first puzzle."""
_READINGS: dict[str, tuple[str, ...]] = {}
for _each in READINGS:
    _READINGS[_each.vector] = (*_READINGS.get(_each.vector, ()), _each.identifier)
_OF_TRAINING = frozenset(
    {
        *DISPUTE_NAMES,
        *(each.name for each in BAD_INPUTS if each.name.startswith(("task_", "escrow_short"))),
        "release_dated_late",
        "reveal_double",
        "empty_block_between_windows",
        "reveal_claim_of_other_total",
    }
)
"""What presumes a model, a task, two claims to choose from, or DLBC's clock."""


def solving() -> Observer:
    """Return a fresh node on the sample chain under proof of work."""
    return observe(ChainBuilder(PROOF_OF_WORK))


def _unsolved_digest(node: Observer, commitment: Commitment) -> bytes:
    """Return the commitment's digest changed as little as makes it unsolved."""
    terms = node.builder.rules.training_terms(node.round.selection, b"\0" * 32)
    target = terms.target if isinstance(terms, HashPuzzle) else 0
    if is_solved(target.to_bytes(32, "big"), target):
        raise AssertionError("the target itself must not count as below it")
    return target.to_bytes(32, "big")


def _unsolved(node: Observer, found: Found) -> Event:
    digest = _unsolved_digest(node, found[1].commitment)
    return Committed(altered(found[1].commitment, digest=digest), node.round.selection.schedule.start_milliseconds + 1)


def _proud(node: Observer, found: Found) -> Event:
    reveal = altered(node.builder.reveal(node.parent, found[1]), claim_correct=1)
    return Revealed(reveal, node.round.selection.schedule.release_opens_milliseconds + 2)


def _dated_late(node: Observer, found: Found) -> Event:
    schedule = node.round.selection.schedule
    late = schedule.release_milliseconds - schedule.release_opens_milliseconds + 1
    announcement = node.builder.announcement(node.parent, found, late)
    return Released(announcement, announcement.release.released_milliseconds)


def _tasked(node: Observer, _found: Found) -> Event:
    return TaskPosted(node.parent.block_hash, sample_task("wanted"))


_R = RejectionReason
PROOF_OF_WORK_BAD_INPUTS: tuple[BadInput, ...] = (
    *(each for each in BAD_INPUTS if each.name not in _OF_TRAINING),
    BadInput("task_posted", "begun", _R.TASK_NOT_TRAINED, _tasked),
    BadInput("commitment_unsolved", "opened", _R.PUZZLE_UNSOLVED, _unsolved),
    BadInput("release_dated_late", "committed", _R.WRONG_PHASE, _dated_late),
    BadInput("reveal_claims_a_model", "released", _R.CLAIM_OUT_OF_RANGE, _proud),
)
"""Every wrong event under proof of work: what all engines refuse, and what only a puzzle can break."""


def proof_of_work_vectors() -> tuple[Vector, ...]:
    """Return the vectors of proof of work."""
    return (*_readings(), *_heights(), *(_bad_input(each) for each in PROOF_OF_WORK_BAD_INPUTS))


def _vector(path: str, about: str, *cases: Case) -> Vector:
    return Vector(path, about, cases, ", ".join(_READINGS.get(path, ())))


def _readings() -> tuple[Vector, ...]:
    node, engine = solving(), PROOF_OF_WORK
    parameters, selection = node.builder.parameters, node.round.selection
    found = prepare(node, "begun")
    solved = found[0].commitment
    unsolved = altered(solved, digest=_unsolved_digest(node, solved))
    shared = {"self": engine, "selection": selection, "parameters": parameters, "at_milliseconds": 1}
    first, second = (node.builder.block(node.parent, (each,)) for each in found)
    paid = [
        call(ProofOfWork.payouts, self=engine, selection=selection, block=block, parameters=parameters)
        for block in (first, node.builder.empty_block(node.parent, Deadline.KEY))
    ]
    late = replace(first, release=replace(first.release, released_milliseconds=selection.schedule.key_milliseconds))
    slow = call(ProofOfWork.payouts, self=engine, selection=selection, block=late, parameters=parameters)
    return (
        _vector(
            "proof_of_work/commitment/unsolved.json",
            "A digest below the target is a solution, the target itself is none.",
            call(ProofOfWork.training_terms, self=engine, selection=selection, work=b"\0" * 32),
            *(call(ProofOfWork.check_commitment, commitment=each, **shared) for each in (solved, unsolved)),
        ),
        _vector(
            "proof_of_work/payout/target.json",
            "A solution at once makes the next puzzle harder; a height without one makes it easier.",
            *paid,
            slow,
        ),
        _vector(
            "proof_of_work/fork_choice/longest.json",
            "Solved siblings weigh the same.",
            *(call(ProofOfWork.weigh, self=engine, block=each, siblings=(first, second)) for each in (first, second)),
        ),
    )


def _played(node: Observer, *last: Event) -> Case:
    return walk(PROOF_OF_WORK, node.builder.parameters, node.builder.genesis(), (*node.events, *last))


def _heights() -> tuple[Vector, ...]:
    solved, ended = solving(), solving()
    for _ in range(2):
        play_height(solved, PLAN)
    prepare(ended, "opened")
    play_empty(ended, Deadline.COMMITMENT)
    return (
        _vector("proof_of_work/height/solved.json", "Two heights end with a solution.", _played(solved)),
        _vector("proof_of_work/height/empty.json", "Nobody finds a solution in time.", _played(ended)),
    )


def _bad_input(wrong: BadInput) -> Vector:
    node = solving()
    event = wrong.make(node, prepare(node, wrong.stage))
    path = f"proof_of_work/bad_input/{wrong.name}.json"
    return Vector(path, f"Refused: {wrong.reason.value}.", (_played(node, event),))
