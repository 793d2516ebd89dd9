"""Judge from the highest claim downwards and stop at the first honest one (DLBC II and IV-C3, after PoDL III-B)."""

from learnchain.encoding.codec import Hash32
from learnchain.engines.contract import JudgementCase
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import CandidateOutcome, Verdict, VerdictEntry
from learnchain.protocol.state import ZERO_HASH
from learnchain.rejection import RejectionReason

KINDS = (MeasurementKind.PAYLOAD, MeasurementKind.WATERMARK, MeasurementKind.COUNT)
"""What a candidate must pass, cheapest first; a model without the miner's mark is pruned unmeasured (IV-C3)."""


def judge(case: JudgementCase) -> MeasurementRequest | Verdict | None:
    """Ask for the next measurement, give the verdict, or wait for reveals that may still come."""
    if not case.reveals_closed and len(case.reveals) < len(case.commitments):
        return None
    refused: dict[Hash32, str] = {}
    missing: set[Hash32] = set()
    for key in order_by_claim(case):
        finding = _examine(case, key)
        if isinstance(finding, MeasurementRequest):
            return finding
        if finding is None:
            return _build_verdict(case, key, refused, missing)
        if finding == Finding.UNAVAILABLE:
            missing.add(key)
        else:
            refused[key] = finding
    return _build_verdict(case, ZERO_HASH, refused, missing)


def order_by_claim(case: JudgementCase) -> list[Hash32]:
    """Return the revealed candidates, highest claim first; ties go to the lower commitment hash (ROUND-1)."""
    return sorted(case.reveals, key=lambda key: (-case.reveals[key].claim().share, key))


def _examine(case: JudgementCase, key: Hash32) -> MeasurementRequest | str | None:
    """Return what to measure next, why the candidate is out, or None when it passed everything."""
    for kind in KINDS:
        measured = case.measurements.get((key, kind))
        if measured is None:
            return MeasurementRequest(key, kind)
        if measured.finding is Finding.UNAVAILABLE:
            return Finding.UNAVAILABLE.value
        if kind is MeasurementKind.COUNT:
            return _compare_count(case, key, measured)
        if measured.finding is Finding.REJECTED:
            return measured.reason
    return None


def _compare_count(case: JudgementCase, key: Hash32, measured: Measurement) -> str | None:
    """Compare the count with the claim at hand: a miner may have shown others an opening with another claim."""
    inexact = RejectionReason.CLAIM_NOT_EXACT.value
    if measured.finding is Finding.REJECTED and measured.reason != inexact:
        return measured.reason
    reveal = case.reveals[key]
    exact = (measured.correct, measured.total) == (reveal.claim_correct, reveal.claim_total)
    return None if exact else inexact


def _build_verdict(case: JudgementCase, winner: Hash32, refused: dict[Hash32, str], missing: set[Hash32]) -> Verdict:
    entries = tuple(
        _build_entry(case, key, miner, winner=winner, refused=refused, missing=missing)
        for key, miner in ((key, commitment.miner) for key, commitment in case.commitments)
    )
    won = case.reveals.get(winner)
    correct, total = (won.claim_correct, won.claim_total) if won else (0, 0)
    return Verdict(winner, correct, total, entries)


def _build_entry(
    case: JudgementCase, key: Hash32, miner: bytes, *, winner: Hash32, refused: dict[Hash32, str], missing: set[Hash32]
) -> VerdictEntry:
    reveal = case.reveals.get(key)
    claim, total = (reveal.claim_correct, reveal.claim_total) if reveal else (0, 0)
    if key == winner:
        return VerdictEntry(key, miner, CandidateOutcome.WINNER, claim, "", total)
    if key in refused:
        return VerdictEntry(key, miner, CandidateOutcome.REJECTED, claim, refused[key], total)
    if reveal is None or key in missing:
        return VerdictEntry(key, miner, CandidateOutcome.UNREVEALED, 0, "")
    return VerdictEntry(key, miner, CandidateOutcome.LOWER_CLAIM, claim, "", total)
