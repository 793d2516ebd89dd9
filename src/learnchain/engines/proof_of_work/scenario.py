"""Play heights of a chain that hashes, and list every wrong event that it must refuse."""

from learnchain.engines.proof_of_work import READINGS, ProofOfWork
from learnchain.engines.proof_of_work.rules import Difficulty
from learnchain.protocol.events import Committed, Event, Released, Revealed, TaskPosted
from learnchain.protocol.messages import Commitment
from learnchain.protocol.puzzle import LARGEST_TARGET, is_solved
from learnchain.protocol.training_terms import HashPuzzle
from learnchain.rejection import RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, altered
from learnchain.simulation.sample_tasks import sample_task
from learnchain.simulation.scenario import Observer, observe
from learnchain_conformance.bad_disputes import DISPUTE_NAMES
from learnchain_conformance.bad_inputs import BAD_INPUTS, BadInput, Found
from learnchain_conformance.engine_scenario import EnginePlay

PROOF_OF_WORK = ProofOfWork(
    difficulty=Difficulty(60_000, LARGEST_TARGET // 16, 8),
    limit_milliseconds=600_000,
    release_milliseconds=15_000,
    reveal_milliseconds=20_000,
    block_milliseconds=60_000,
)
"""Every number is written out; sixteen hashes solve the first puzzle."""


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


def unsolved_digest(node: Observer, commitment: Commitment) -> bytes:
    """Return the commitment's digest changed as little as makes it unsolved."""
    terms = node.builder.rules.training_terms(node.round.selection, b"\0" * 32)
    target = terms.target if isinstance(terms, HashPuzzle) else 0
    if is_solved(target.to_bytes(32, "big"), target):
        raise AssertionError("the target itself must not count as below it")
    return target.to_bytes(32, "big")


def _commit_unsolved(node: Observer, found: Found) -> Event:
    digest = unsolved_digest(node, found[1].commitment)
    return Committed(altered(found[1].commitment, digest=digest), node.round.selection.schedule.start_milliseconds + 1)


def _claim_a_model(node: Observer, found: Found) -> Event:
    reveal = altered(node.builder.reveal(node.parent, found[1]), claim_correct=1)
    return Revealed(reveal, node.round.selection.schedule.release_opens_milliseconds + 2)


def _date_release_late(node: Observer, found: Found) -> Event:
    schedule = node.round.selection.schedule
    late = schedule.release_milliseconds - schedule.release_opens_milliseconds + 1
    announcement = node.builder.announcement(node.parent, found, late)
    return Released(announcement, announcement.release.released_milliseconds)


def _post_task(node: Observer, _found: Found) -> Event:
    return TaskPosted(node.parent.block_hash, sample_task("wanted"))


_R = RejectionReason


PROOF_OF_WORK_BAD_INPUTS: tuple[BadInput, ...] = (
    *(each for each in BAD_INPUTS if each.name not in _OF_TRAINING),
    BadInput("task_posted", "begun", _R.TASK_NOT_TRAINED, _post_task),
    BadInput("commitment_unsolved", "opened", _R.PUZZLE_UNSOLVED, _commit_unsolved),
    BadInput("release_dated_late", "committed", _R.WRONG_PHASE, _date_release_late),
    BadInput("reveal_claims_a_model", "released", _R.CLAIM_OUT_OF_RANGE, _claim_a_model),
)
"""Every wrong event under proof of work: what all engines refuse, and what only a puzzle can break."""


PROOF_OF_WORK_CALLS = (
    ProofOfWork.admit_task,
    ProofOfWork.select_task,
    ProofOfWork.training_terms,
    ProofOfWork.check_commitment,
    ProofOfWork.check_reveal,
    ProofOfWork.weigh,
    ProofOfWork.payouts,
)


PLAY = EnginePlay(PROOF_OF_WORK, READINGS, PROOF_OF_WORK_CALLS, PROOF_OF_WORK_BAD_INPUTS, solving)
