"""Take the lowest solved commitment whose payload runs; there is no model to measure."""

from learnchain.primitives.block_checks import NOBODY
from learnchain.primitives.codec import Hash32
from learnchain.primitives.measurement import Finding, Measure, MeasureKind
from learnchain.primitives.messages import Commitment, Outcome, Verdict, VerdictEntry
from learnchain.rules.contract import Case


def judge(case: Case) -> Measure | Verdict | None:
    """Ask for the payload of the lowest commitment, then the next; give the verdict or wait for reveals."""
    if not case.reveals_closed and len(case.reveals) < len(case.commitments):
        return None
    for key in sorted(case.reveals):
        paid = case.measurements.get((key, MeasureKind.PAYLOAD))
        if paid is None:
            return Measure(key, MeasureKind.PAYLOAD)
        if paid.finding is Finding.ACCEPTED:
            return _verdict(case, key)
    return _verdict(case, NOBODY)


def _verdict(case: Case, winner: Hash32) -> Verdict:
    entries = tuple(_entry(case, key, commitment, winner) for key, commitment in case.commitments)
    won = case.reveals.get(winner)
    return Verdict(winner, 0, won.claim_total if won else 0, entries)


def _entry(case: Case, key: Hash32, commitment: Commitment, winner: Hash32) -> VerdictEntry:
    reveal, paid = case.reveals.get(key), case.measurements.get((key, MeasureKind.PAYLOAD))
    total = reveal.claim_total if reveal else 0
    if key == winner:
        return VerdictEntry(key, commitment.miner, Outcome.WINNER, 0, "", total)
    if paid is not None and paid.finding is Finding.REJECTED:
        return VerdictEntry(key, commitment.miner, Outcome.REJECTED, 0, paid.reason, total)
    if reveal is None or (paid is not None and paid.finding is Finding.UNAVAILABLE):
        return VerdictEntry(key, commitment.miner, Outcome.UNREVEALED, 0, "")
    return VerdictEntry(key, commitment.miner, Outcome.LOWER_CLAIM, 0, "", total)
