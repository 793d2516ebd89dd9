"""What waits beside the block for a proposer: which of it still counts on a head, and what measuring it came to."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from learnchain.primitives.codec import Hash32
from learnchain.primitives.measurement import Finding, MeasureKind
from learnchain.primitives.rejection import Rejected
from learnchain.spine.round import Round

_Message = TypeVar("_Message")


def still_carried(waiting: Mapping[Hash32, _Message], check: Callable[[_Message], object]) -> dict[Hash32, _Message]:
    """Return the messages that a block on this head may still carry: those that `check` does not refuse."""
    found: dict[Hash32, _Message] = {}
    for key, message in waiting.items():
        try:
            check(message)
        except Rejected:
            continue
        found[key] = message
    return found


def is_unmeasured(state: Round, key: Hash32, kind: MeasureKind) -> bool:
    """Return whether nobody measured it yet, or what that takes was not here."""
    found = state.measurements.get((key, kind))
    return found is None or found.finding is Finding.UNAVAILABLE


def has_finding(state: Round, key: Hash32, kind: MeasureKind, finding: Finding) -> bool:
    """Return whether measuring it came to this."""
    found = state.measurements.get((key, kind))
    return found is not None and found.finding is finding
