"""The two phases of PoDL on the clock: Phase 2 of a block overlaps Phase 1 of the next (III-B; reading PODL-R5)."""

from dataclasses import dataclass
from itertools import pairwise

from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.selection import Schedule
from learnchain.rules.contract import LocalTimes


@dataclass(frozen=True, slots=True)
class TwoPhases:
    """Hold the fixed lengths: Phase 1 trains and is the block interval, Phase 2 releases, reveals and judges.

    `key_*` counts from the parent's end: time to open the training data. `release_*` and `reveal_*` count from the
    start of Phase 2 and lie inside it.
    """

    one_milliseconds: int = 600_000
    two_milliseconds: int = 60_000
    key_milliseconds: int = 60_000
    release_milliseconds: int = 15_000
    reveal_milliseconds: int = 35_000

    def check(self) -> None:
        """Refuse phases that do not follow each other, and a Phase 2 that outlasts the Phase 1 it overlaps."""
        ordered = (0, self.release_milliseconds, self.reveal_milliseconds, self.two_milliseconds)
        rising = all(left < right for left, right in pairwise(ordered))
        apart = self.one_milliseconds - self.two_milliseconds
        if not rising or not 0 < self.key_milliseconds < apart or self.one_milliseconds < 1_000:
            detail = f"phases {self} must rise inside Phase 2, and what is left of Phase 1 must outlast the key"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    def schedule(self, parent: ChainState, turn: int) -> Schedule:
        """Return the deadlines after `parent`; Phase 1 of a task that goes on began with the parent's Phase 2."""
        start = parent.end_milliseconds - (self.two_milliseconds if turn else 0)
        commitment = start + self.one_milliseconds
        return Schedule(
            start_milliseconds=start,
            key_milliseconds=parent.end_milliseconds + self.key_milliseconds,
            release_opens_milliseconds=commitment,
            commitment_milliseconds=commitment,
            release_milliseconds=commitment + self.release_milliseconds,
            reveal_after_milliseconds=self.reveal_milliseconds - self.release_milliseconds,
            block_after_milliseconds=self.two_milliseconds - self.release_milliseconds,
            clocked=True,
            payload_timestamp_seconds=max(parent.payload_timestamp_seconds + 1, commitment // 1000),
        )


def local_phases(times: LocalTimes) -> TwoPhases:
    """Return the phases for one machine: all that comes before judging is Phase 1, which judging overlaps."""
    training = times.one_milliseconds + times.two_milliseconds
    key = min(times.one_milliseconds, (training - times.three_milliseconds) // 2)
    inside = (times.release_milliseconds, times.reveal_milliseconds)
    return TwoPhases(training, times.three_milliseconds, key, *inside)
