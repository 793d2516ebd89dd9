"""Dice claims have totals of their own: who is best is decided by the exact share, not by the first number."""

from dataclasses import replace

from learnchain.engines.contract import Case
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.dlbc.judging import in_claim_order, judge
from learnchain.protocol.measurement import Finding, Measure, MeasureKind, Measurement
from learnchain.protocol.messages import Outcome, Verdict
from learnchain.simulation.chain_builder import ChainBuilder


def case(*claims: tuple[int, int], found: dict[int, tuple[int, int]] | None = None) -> tuple[Case, list[bytes]]:
    builder = ChainBuilder(Dlbc())
    parent = builder.genesis()
    made = [builder.candidate(parent, f"miner-{index}", 1) for index in range(1, len(claims) + 1)]
    reveals = {
        each.key: replace(builder.reveal(parent, each), claim_correct=correct, claim_total=total)
        for each, (correct, total) in zip(made, claims, strict=True)
    }
    measurements = {}
    for index, each in enumerate(made):
        counted = (found or {}).get(index, claims[index])
        for kind in MeasureKind:
            counts = counted if kind is MeasureKind.COUNT else (0, 0)
            measurements[each.key, kind] = Measurement(each.key, kind, Finding.ACCEPTED, "", *counts)
    listed = tuple((each.key, each.commitment) for each in made)
    return Case(builder.selection(parent), listed, reveals, measurements, True), [each.key for each in made]


def test_the_larger_share_wins_although_its_count_is_smaller() -> None:
    judged, keys = case((800, 1_000), (90, 100))
    assert in_claim_order(judged) == [keys[1], keys[0]]
    verdict = judge(judged)
    assert isinstance(verdict, Verdict)
    assert (verdict.winner, verdict.correct, verdict.total) == (keys[1], 90, 100)
    entry = next(each for each in verdict.entries if each.commitment == keys[0])
    assert (entry.outcome, entry.claim_correct, entry.claim_total) == (Outcome.LOWER_CLAIM, 800, 1_000)


def test_equal_shares_are_a_tie_for_the_lower_commitment() -> None:
    judged, keys = case((2, 4), (50, 100))
    assert in_claim_order(judged) == sorted(keys)


def test_a_total_that_is_not_exact_refuses_the_claim() -> None:
    judged, keys = case((90, 100), (80, 100), found={0: (90, 101)})
    verdict = judge(judged)
    assert isinstance(verdict, Verdict)
    assert verdict.winner == keys[1]
    refused = next(each for each in verdict.entries if each.commitment == keys[0])
    assert (refused.outcome, refused.reason) == (Outcome.REJECTED, "claim_not_exact")


def test_nothing_is_judged_before_it_is_measured() -> None:
    judged, keys = case((90, 100))
    asked = judge(replace(judged, measurements={}))
    assert isinstance(asked, Measure)
    assert asked.candidate == keys[0]
