"""Dice claims have totals of their own: who is best is decided by the exact share, not by the first number."""

from dataclasses import replace

from learnchain.engines.contract import JudgementCase
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.dlbc.rules import judge, order_by_claim
from learnchain.protocol.measurement import Finding, Measurement, MeasurementKind, MeasurementRequest
from learnchain.protocol.messages import CandidateOutcome, Verdict
from learnchain.simulation.chain_builder import ChainBuilder


def case(
    *claims: tuple[int, int], found: dict[int, tuple[int, int]] | None = None
) -> tuple[JudgementCase, list[bytes]]:
    builder = ChainBuilder(Dlbc())
    parent = builder.build_genesis()
    made = [builder.build_candidate(parent, f"miner-{index}", 1) for index in range(1, len(claims) + 1)]
    reveals = {
        each.key: replace(builder.build_reveal(parent, each), claim_correct=correct, claim_total=total)
        for each, (correct, total) in zip(made, claims, strict=True)
    }
    measurements = {}
    for index, each in enumerate(made):
        counted = (found or {}).get(index, claims[index])
        for kind in MeasurementKind:
            counts = counted if kind is MeasurementKind.COUNT else (0, 0)
            measurements[each.key, kind] = Measurement(each.key, kind, Finding.ACCEPTED, "", *counts)
    listed = tuple((each.key, each.commitment) for each in made)
    return JudgementCase(builder.select_task(parent), listed, reveals, measurements, True), [each.key for each in made]


def test_the_larger_share_wins_although_its_count_is_smaller() -> None:
    judged, keys = case((800, 1_000), (90, 100))
    assert order_by_claim(judged) == [keys[1], keys[0]]
    verdict = judge(judged)
    assert isinstance(verdict, Verdict)
    assert (verdict.winner, verdict.correct, verdict.total) == (keys[1], 90, 100)
    entry = next(each for each in verdict.entries if each.commitment == keys[0])
    assert (entry.outcome, entry.claim_correct, entry.claim_total) == (CandidateOutcome.LOWER_CLAIM, 800, 1_000)


def test_equal_shares_are_a_tie_for_the_lower_commitment() -> None:
    judged, keys = case((2, 4), (50, 100))
    assert order_by_claim(judged) == sorted(keys)


def test_a_total_that_is_not_exact_refuses_the_claim() -> None:
    judged, keys = case((90, 100), (80, 100), found={0: (90, 101)})
    verdict = judge(judged)
    assert isinstance(verdict, Verdict)
    assert verdict.winner == keys[1]
    refused = next(each for each in verdict.entries if each.commitment == keys[0])
    assert (refused.outcome, refused.reason) == (CandidateOutcome.REJECTED, "claim_not_exact")


def test_nothing_is_judged_before_it_is_measured() -> None:
    judged, keys = case((90, 100))
    asked = judge(replace(judged, measurements={}))
    assert isinstance(asked, MeasurementRequest)
    assert asked.candidate == keys[0]
