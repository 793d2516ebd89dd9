"""The target of the puzzle: adjusted after every height, in integers, by how long the solution took."""

from dataclasses import dataclass

from learnchain.primitives.puzzle import LARGEST_TARGET

_TARGET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Hold the time a solution should take, the first target, and how slowly the target follows (POW-R3).

    After a solution that took t of the aimed T the target changes by target * (t - T) / (T * damping), with t - T
    between -T and `_SLOWEST` * T.
    """

    aim_milliseconds: int = 60_000
    first_target: int = LARGEST_TARGET >> 26
    damping: int = 8

    def target(self, memory: bytes) -> int:
        """Return the target that a parent's memory holds; the first one at genesis."""
        return int.from_bytes(memory, "big") if memory else self.first_target

    def memory(self, memory: bytes, solved_milliseconds: int) -> bytes:
        """Return the memory with the target that follows a height which took so long to solve."""
        target, aim = self.target(memory), self.aim_milliseconds
        error = min(max(solved_milliseconds - aim, -aim), _SLOWEST * aim)
        following = target + target * error // (aim * self.damping)
        return min(max(following, 1), LARGEST_TARGET).to_bytes(_TARGET_BYTES, "big")


_SLOWEST = 8
"""A height that nobody solves makes the next one easier by at most this many aims: power that left is forgotten fast,
while one late block does not open the door."""
