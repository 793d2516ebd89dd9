"""The three phases of a DLBC block interval on the clock (IV-B, Figure 5; readings DLBC-R3, R4)."""

from dataclasses import dataclass
from itertools import pairwise

from learnchain.primitives.chain_state import ChainState
from learnchain.primitives.rejection import Rejected, RejectionReason
from learnchain.primitives.selection import Schedule
from learnchain.rules.contract import LocalTimes


@dataclass(frozen=True, slots=True)
class Phases:
    """Hold the fixed lengths: P1 key, decryption, probe; P2 training; P3 release, reveal, judgement.

    `release_*` and `reveal_*` count from the start of Phase 3 and lie inside it.
    """

    one_milliseconds: int = 60_000
    two_milliseconds: int = 540_000
    three_milliseconds: int = 60_000
    release_milliseconds: int = 15_000
    reveal_milliseconds: int = 35_000

    def check(self) -> None:
        """Refuse phases that do not follow each other."""
        ordered = (0, self.release_milliseconds, self.reveal_milliseconds, self.three_milliseconds)
        rising = all(left < right for left, right in pairwise(ordered))
        if not rising or min(self.one_milliseconds, self.two_milliseconds) <= 0 or self.interval_milliseconds < 1_000:
            detail = f"phases {self} must be positive, rise inside Phase 3 and last at least a second together"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)

    @property
    def interval_milliseconds(self) -> int:
        """Return the length of a block interval."""
        return self.one_milliseconds + self.two_milliseconds + self.three_milliseconds

    def schedule(self, parent: ChainState) -> Schedule:
        """Return the deadlines of the height after `parent`; the interval is fixed, whatever arrives early."""
        start = parent.end_milliseconds
        commitment = start + self.one_milliseconds + self.two_milliseconds
        return Schedule(
            start_milliseconds=start,
            key_milliseconds=start + self.one_milliseconds,
            release_opens_milliseconds=commitment,
            commitment_milliseconds=commitment,
            release_milliseconds=commitment + self.release_milliseconds,
            reveal_after_milliseconds=self.reveal_milliseconds - self.release_milliseconds,
            block_after_milliseconds=self.three_milliseconds - self.release_milliseconds,
            clocked=True,
            payload_timestamp_seconds=max(parent.payload_timestamp_seconds + 1, commitment // 1000),
            training_milliseconds=start + self.one_milliseconds,
        )


def local_phases(times: LocalTimes) -> Phases:
    """Return the phases that tasks ask for on one machine: they are DLBC's own three."""
    phases = (times.one_milliseconds, times.two_milliseconds, times.three_milliseconds)
    return Phases(*phases, times.release_milliseconds, times.reveal_milliseconds)
