"""Play heights of a chain that hashes, and list every wrong event that it must refuse."""

from learnchain.engines.proof_of_work import INTERPRETATIONS, ProofOfWork
from learnchain.engines.proof_of_work.rules import Difficulty
from learnchain.protocol.events import CommitmentReceived, Event, ReleaseReceived, RevealReceived, TaskPosted
from learnchain.protocol.messages import Commitment
from learnchain.protocol.puzzle import LARGEST_TARGET, is_solved
from learnchain.rejection import RejectionReason
from learnchain.simulation.chain_builder import ChainBuilder, alter
from learnchain.simulation.sample_tasks import build_sample_task
from learnchain.simulation.scenario import ScenarioNode, start_from_genesis
from learnchain_conformance.bad_disputes import BAD_DISPUTE_NAMES
from learnchain_conformance.bad_inputs import BAD_INPUTS, BadInput, CandidatePair
from learnchain_conformance.engine_scenarios import EngineScenario

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
        *BAD_DISPUTE_NAMES,
        *(each.name for each in BAD_INPUTS if each.name.startswith(("task_", "escrow_short"))),
        "release_dated_late",
        "reveal_double",
        "empty_block_between_windows",
        "reveal_claim_of_other_total",
    }
)
"""What presumes a model, a task, two claims to choose from, or DLBC's clock."""


def start_proof_of_work_node() -> ScenarioNode:
    """Return a fresh node on the sample chain under proof of work."""
    return start_from_genesis(ChainBuilder(PROOF_OF_WORK))


def make_unsolved_digest(node: ScenarioNode, commitment: Commitment) -> bytes:
    """Return the commitment's digest changed as little as makes it unsolved."""
    terms = node.builder.rules.training_terms(node.round.selection, b"\0" * 32)
    target = 0 if terms.puzzle is None else terms.puzzle.target
    if is_solved(target.to_bytes(32, "big"), target):
        raise AssertionError("the target itself must not count as below it")
    return target.to_bytes(32, "big")


def _commit_unsolved(node: ScenarioNode, candidates: CandidatePair) -> Event:
    digest = make_unsolved_digest(node, candidates[1].commitment)
    return CommitmentReceived(
        alter(candidates[1].commitment, digest=digest), node.round.selection.schedule.start_milliseconds + 1
    )


def _claim_a_model(node: ScenarioNode, candidates: CandidatePair) -> Event:
    reveal = alter(node.builder.build_reveal(node.parent, candidates[1]), claim_correct=1)
    return RevealReceived(reveal, node.round.selection.schedule.release_opens_milliseconds + 2)


def _date_release_late(node: ScenarioNode, candidates: CandidatePair) -> Event:
    schedule = node.round.selection.schedule
    late = schedule.release_milliseconds - schedule.release_opens_milliseconds + 1
    announcement = node.builder.build_announcement(node.parent, candidates, late)
    return ReleaseReceived(announcement, announcement.release.released_milliseconds)


def _post_task(node: ScenarioNode, _found: CandidatePair) -> Event:
    return TaskPosted(node.parent.block_hash, build_sample_task("wanted"))


_R = RejectionReason

PROOF_OF_WORK_BAD_INPUTS: tuple[BadInput, ...] = (
    *(each for each in BAD_INPUTS if each.name not in _OF_TRAINING),
    BadInput("task_posted", "begun", _R.TASK_NOT_TRAINED, _post_task),
    BadInput("commitment_unsolved", "opened", _R.PUZZLE_UNSOLVED, _commit_unsolved),
    BadInput("release_dated_late", "committed", _R.WRONG_PHASE, _date_release_late),
    BadInput("reveal_claims_a_model", "released", _R.CLAIM_OUT_OF_RANGE, _claim_a_model),
)
"""Every wrong event under proof of work: what all engines refuse, and what only a puzzle can break."""

PROOF_OF_WORK_CALLS = ()

SCENARIO = EngineScenario(
    PROOF_OF_WORK, INTERPRETATIONS, PROOF_OF_WORK_CALLS, PROOF_OF_WORK_BAD_INPUTS, start_proof_of_work_node
)
