"""Proof of work: the baseline of PoLe's Table 1 (Nakamoto 2008, as PoLe 1 and 2.1 describe it), on the same spine.

Nothing is trained. A commitment is the solution of a SHA-256 puzzle over parent, miner and payload; the first one in
time ends the height, the rest is the round of every other engine. The target follows the time that solutions took.

Read `rules.py` for the ten answers, `difficulty.py` for the target, and the readings below for what a puzzle leaves
open on a spine that was made for tasks.
"""

from dataclasses import replace

from learnchain.engines.contract import Engine, LocalDurations
from learnchain.engines.proof_of_work.interpretations import INTERPRETATIONS
from learnchain.engines.proof_of_work.rules import LOCAL, Difficulty, ProofOfWork
from learnchain.protocol.puzzle import LARGEST_TARGET

__all__ = ["ENGINE", "INTERPRETATIONS", "LOCAL", "ProofOfWork"]

SIMULATED_AIM_MILLISECONDS = 60_000
"""Long against the two seconds in which a solution is released and spread, as on chains that hash: those seconds are
the same for every block and would hide how much the search itself varies."""


def build_local_engine(times: LocalDurations, _miners: int) -> ProofOfWork:
    """Return the engine for several nodes on one machine; blocks have as much time to spread as those that train."""
    return replace(
        LOCAL,
        release_milliseconds=max(LOCAL.release_milliseconds, times.release_milliseconds),
        reveal_milliseconds=max(LOCAL.reveal_milliseconds, times.reveal_milliseconds),
        block_milliseconds=max(LOCAL.block_milliseconds, times.judging_milliseconds),
    )


def build_simulated_engine(times: LocalDurations, hashes_per_second: int) -> ProofOfWork:
    """Return the engine for simulated machines that try so many hashes a second together."""
    aim = SIMULATED_AIM_MILLISECONDS
    difficulty = Difficulty(aim, LARGEST_TARGET * 1_000 // (hashes_per_second * aim), 8)
    return replace(build_local_engine(times, 1), difficulty=difficulty, limit_milliseconds=50 * aim)


ENGINE = Engine(ProofOfWork, build_local_engine, accepts_posted_tasks=False, build_simulated=build_simulated_engine)
