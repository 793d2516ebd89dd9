"""Judge in decreasing order of the claimed accuracy and accept the first claim that is true (III-A, III-B)."""

from learnchain.encoding.codec import Hash32
from learnchain.engines.contract import JudgementCase
from learnchain.engines.podl.multi_block_progress import decode_memory
from learnchain.engines.podl.parts import encode_baseline
from learnchain.protocol.measurement import Finding, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import CandidateOutcome, Commitment, Verdict, VerdictEntry
from learnchain.protocol.state import ZERO_HASH
from learnchain.rejection import RejectionReason

KINDS = (MeasurementKind.PAYLOAD, MeasurementKind.COUNT)
"""What a candidate must pass, cheapest first."""


def judge(case: JudgementCase) -> MeasurementRequest | Verdict | None:
    """Ask for the next measurement, give the verdict, or wait for reveals that may still come."""
    if not case.reveals_closed and len(case.reveals) < len(case.commitments):
        return None
    out: dict[Hash32, str] = {}
    for key in order_by_claim(case):
        found = _examine(case, key)
        if isinstance(found, MeasurementRequest):
            return found
        if found == "":
            return _accept_winner(case, key, out)
        out[key] = found
    return _build_verdict(case, ZERO_HASH, out, (0, 0))


def order_by_claim(case: JudgementCase) -> list[Hash32]:
    """Return the revealed candidates, highest claim first; ties go to the lower commitment hash (ROUND-1)."""
    return sorted(case.reveals, key=lambda key: (-case.reveals[key].claim().share, key))


def _examine(case: JudgementCase, key: Hash32) -> MeasurementRequest | str:
    """Return what to measure next, why the candidate is out, or nothing when its claim is true."""
    for kind in KINDS:
        measured = case.measurements.get((key, kind))
        if measured is None:
            return MeasurementRequest(key, kind)
        if measured.finding is Finding.UNAVAILABLE:
            return Finding.UNAVAILABLE.value
        inexact = RejectionReason.CLAIM_NOT_EXACT.value
        if measured.finding is Finding.REJECTED and measured.reason != inexact:
            return measured.reason
        # A miner may have shown others an opening with another claim: only the one at hand is compared.
        reveal = case.reveals[key]
        claimed = (reveal.claim_correct, reveal.claim_total)
        if kind is MeasurementKind.COUNT and (measured.correct, measured.total) != claimed:
            return inexact
    return ""


def _accept_winner(case: JudgementCase, key: Hash32, out: dict[Hash32, str]) -> MeasurementRequest | Verdict | None:
    """Count the champion on the winner's test set, where there is one, and close the verdict (PODL-R1)."""
    if decode_memory(case.selection.memory) is None:
        return _build_verdict(case, key, out, (0, 0))
    measured = case.measurements.get((key, MeasurementKind.BASELINE))
    if measured is None:
        return MeasurementRequest(key, MeasurementKind.BASELINE)
    if measured.finding is Finding.UNAVAILABLE:
        # Without the champion nobody can say what was gained; whoever has it proposes the block.
        return None
    return _build_verdict(case, key, out, (measured.correct, measured.total))


def _build_verdict(case: JudgementCase, winner: Hash32, out: dict[Hash32, str], baseline: tuple[int, int]) -> Verdict:
    entries = tuple(_build_entry(case, key, commitment, winner, out) for key, commitment in case.commitments)
    won = case.reveals.get(winner)
    correct, total = (won.claim_correct, won.claim_total) if won else (0, 0)
    return Verdict(winner, correct, total, entries, encode_baseline(*baseline))


def _build_entry(
    case: JudgementCase, key: Hash32, commitment: Commitment, winner: Hash32, out: dict[Hash32, str]
) -> VerdictEntry:
    reveal, reason = case.reveals.get(key), out.get(key, "")
    if reveal is None or reason == Finding.UNAVAILABLE:
        return VerdictEntry(key, commitment.miner, CandidateOutcome.UNREVEALED, 0, "")
    claim = (reveal.claim_correct, reveal.claim_total)
    outcome = (
        CandidateOutcome.WINNER
        if key == winner
        else CandidateOutcome.REJECTED
        if reason
        else CandidateOutcome.LOWER_CLAIM
    )
    return VerdictEntry(key, commitment.miner, outcome, claim[0], reason, claim[1])
