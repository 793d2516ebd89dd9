"""The event-driven round of PoLe: solutions end it, the task's time limit bounds it (3.1, 3.2; reading POLE-R5)."""

from dataclasses import dataclass

from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.selection import Schedule
from learnchain.primitives.task_specification import TaskSpecification
from learnchain.rules.contract import LocalTimes


@dataclass(frozen=True, slots=True)
class Times:
    """Hold what bounds a height; nothing is due at a fixed time as long as solutions come.

    `minimum` passes before a release, `longest` bounds every task's own time limit, `grace` is for commitments of
    models that ran into the limit; `reveal` and `block` count from the actual release. `solutions` is the number of
    bonded commitments that a data node waits for (3.1).
    """

    key_milliseconds: int = 60_000
    minimum_milliseconds: int = 60_000
    longest_milliseconds: int = 3_600_000
    grace_milliseconds: int = 15_000
    release_milliseconds: int = 15_000
    reveal_milliseconds: int = 35_000
    block_milliseconds: int = 60_000
    solutions: int = 2

    def check(self, maximum_commitments: int) -> None:
        """Refuse times that do not follow each other, and more solutions than a height holds."""
        times = (self.key_milliseconds, self.minimum_milliseconds, self.grace_milliseconds, self.release_milliseconds)
        first = max(self.key_milliseconds, self.minimum_milliseconds)
        ordered = first < self.longest_milliseconds and 0 < self.reveal_milliseconds < self.block_milliseconds
        if min(times) < 1 or not ordered or self.longest_milliseconds < 1_000:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{self}: times must be positive and follow each other")
        if not 1 <= self.solutions <= maximum_commitments:
            detail = f"{self.solutions} solutions to wait for, a height holds 1 to {maximum_commitments}"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def limit_milliseconds(self, specification: TaskSpecification) -> int:
        """Return the time limit of a task's height: its own, within what the chain allows (3.1)."""
        least = max(self.key_milliseconds, self.minimum_milliseconds) + 1
        return max(least, min(specification.time_limit_seconds * 1000, self.longest_milliseconds))

    def round_milliseconds(self, specification: TaskSpecification) -> int:
        """Return how long the height of a task lasts at the most."""
        limit = self.limit_milliseconds(specification)
        return limit + self.grace_milliseconds + self.release_milliseconds + self.block_milliseconds

    def schedule(self, parent: ChainState, specification: TaskSpecification) -> Schedule:
        """Return the deadlines of the height after `parent`; only a missed one is ever waited for."""
        start = parent.end_milliseconds
        limit = start + self.limit_milliseconds(specification)
        return Schedule(
            start_milliseconds=start,
            key_milliseconds=start + self.key_milliseconds,
            release_opens_milliseconds=start + self.minimum_milliseconds,
            commitment_milliseconds=limit + self.grace_milliseconds,
            release_milliseconds=limit + self.grace_milliseconds + self.release_milliseconds,
            reveal_after_milliseconds=self.reveal_milliseconds,
            block_after_milliseconds=self.block_milliseconds,
            clocked=False,
            payload_timestamp_seconds=max(parent.payload_timestamp_seconds + 1, start // 1000),
            enough_commitments=self.solutions,
            time_limit_milliseconds=limit,
        )


def local_times(times: LocalTimes, miners: int) -> Times:
    """Return what bounds an event-driven height whose tasks need these phases.

    Two solutions usually end it, so bounds may be wide: only what is missed is waited for.
    """
    return Times(
        key_milliseconds=3 * times.one_milliseconds,
        minimum_milliseconds=min(1_000, times.two_milliseconds),
        longest_milliseconds=4 * (times.one_milliseconds + times.two_milliseconds),
        grace_milliseconds=2 * times.one_milliseconds,
        release_milliseconds=times.release_milliseconds,
        reveal_milliseconds=times.reveal_milliseconds,
        block_milliseconds=times.three_milliseconds,
        solutions=min(2, miners),
    )
