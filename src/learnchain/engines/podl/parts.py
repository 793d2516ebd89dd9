"""What PoDL alone adds to the messages of a round: a verdict counts the best model so far on the winner's test set."""

from dataclasses import dataclass

from learnchain.encoding.codec import decode, encode
from learnchain.protocol.messages import Verdict
from learnchain.rejection import Rejected, RejectionReason


@dataclass(frozen=True, slots=True)
class BaselineCount:
    """Count the best earlier model of a task over several blocks on the winner's test set (PODL-R1)."""

    correct: int
    total: int


def baseline_count(verdict: Verdict) -> tuple[int, int]:
    """Return (correct, total) of the best earlier model; zeros where none was counted."""
    if not verdict.engine:
        return 0, 0
    count = decode(BaselineCount, verdict.engine)
    if not count.total:
        raise Rejected(RejectionReason.MALFORMED, "a count out of nothing: without an earlier model the part is empty")
    return count.correct, count.total


def encode_baseline(correct: int, total: int) -> bytes:
    """Return the part of a verdict that counts an earlier model; nothing where none was counted."""
    return encode(BaselineCount(correct, total)) if total else b""
