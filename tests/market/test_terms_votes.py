"""The majority, the median and the pay, by hand and for any committee."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.market.terms import INTERPRETATIONS as READINGS_OF_THE_PAPER
from learnchain.market.terms import (
    REFUSALS,
    UNAVAILABLE,
    Ballot,
    ModelStatus,
    Payment,
    Vote,
    VoteInterpretation,
    decide_model,
    is_approval,
    refusal_code,
    refusal_text,
    vote_commitment,
)
from learnchain.rejection import Rejected, RejectionReason
from tests.market.samples import TERMS

BALLOT = Ballot(1, b"\x01" * 20, b"\x02" * 32, 0)
SALT = b"\x03" * 32
READINGS = Path(__file__).parents[2] / "src/learnchain/market/vectors/votes/interpretations.json"


def test_both_readings_of_the_vector():
    cases = json.loads(READINGS.read_text())["cases"]
    for case in cases:
        given = case["given"]
        terms = replace(
            TERMS,
            interpretation=VoteInterpretation[given["interpretation"].upper()],
            rows=given["rows"],
            fitness=given["fitness"],
        )
        found = decide_model([Vote(correct) for correct in given["votes"]], terms, given["accepted"])
        assert {"status": found.status.name, "median": found.median} == case["expected"]
    assert len({case["expected"]["status"] for case in cases}) == 2


def test_every_reading_names_a_vector():
    for reading in READINGS_OF_THE_PAPER:
        assert (READINGS.parents[1] / reading.vector).is_file()


def test_a_lying_verifier_is_outvoted_and_unpaid():
    found = decide_model([Vote(950), Vote(0), Vote(951)], TERMS, 0)
    assert (found.status, found.median) == (ModelStatus.ACCEPTED, 950)
    assert found.paid == (True, False, True)
    assert found.fined == (False, True, False)


def test_the_paper_pays_all_who_voted():
    found = decide_model([Vote(950), Vote(0), None], replace(TERMS, payment=Payment.ALL), 0)
    assert found.paid == (True, True, False)


@pytest.mark.parametrize(
    ("interpretation", "correct", "accepted", "expected"),
    [
        (VoteInterpretation.GAIN, 909, 900, False),
        (VoteInterpretation.GAIN, 910, 900, True),
        (VoteInterpretation.ABSOLUTE, 10, 900, True),
        (VoteInterpretation.ABSOLUTE, 9, 0, False),
    ],
)
def test_reading_3(interpretation: VoteInterpretation, correct: int, accepted: int, expected: bool):
    assert is_approval(Vote(correct), replace(TERMS, interpretation=interpretation), accepted) is expected


def test_the_tolerance_is_met_exactly():
    paid = decide_model([Vote(900), Vote(905), Vote(906), Vote(900), Vote(900)], TERMS, 0).paid
    assert paid == (True, True, False, True, True)


def test_a_model_that_cannot_be_measured_is_refused_by_majority():
    found = decide_model([Vote(0, 11), Vote(0, UNAVAILABLE), Vote(990)], TERMS, 0)
    assert found.status is ModelStatus.REFUSED
    assert found.paid == (True, True, False)


def test_half_a_silent_committee_decides_nothing():
    found = decide_model([Vote(900), None, None, Vote(900)], TERMS, 0)
    assert found.status is ModelStatus.ANNOUNCED
    assert found.fined == (False, True, True, False)


@given(st.lists(st.integers(0, 1_000), min_size=3, max_size=15), st.integers(0, 1_000), st.integers(0, 1_000))
def test_fewer_than_half_liars_never_change_an_honest_decision(honest: list[int], lie: int, accepted: int):
    truth = honest[0]
    votes = [Vote(truth)] * len(honest) + [Vote(lie)] * (len(honest) - 1)
    found = decide_model(votes, TERMS, accepted)
    wanted = ModelStatus.ACCEPTED if is_approval(Vote(truth), TERMS, accepted) else ModelStatus.BELOW
    assert (found.status, found.median) == (wanted, truth)
    assert all(found.paid[: len(honest)])


@pytest.mark.parametrize(
    "other",
    [
        vote_commitment(BALLOT, b"\x05" * 20, Vote(7), SALT),
        vote_commitment(BALLOT, b"\x04" * 20, Vote(8), SALT),
        vote_commitment(BALLOT, b"\x04" * 20, Vote(7, 1), SALT),
        vote_commitment(BALLOT, b"\x04" * 20, Vote(7), b"\x04" * 32),
        vote_commitment(replace(BALLOT, model_index=1), b"\x04" * 20, Vote(7), SALT),
        vote_commitment(replace(BALLOT, chain_id=2), b"\x04" * 20, Vote(7), SALT),
    ],
)
def test_a_commitment_covers_everything(other: bytes):
    assert vote_commitment(BALLOT, b"\x04" * 20, Vote(7), SALT) != other


def test_a_short_salt_is_refused():
    with pytest.raises(Rejected) as caught:
        vote_commitment(BALLOT, b"\x04" * 20, Vote(7), b"")
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


def test_refusals_have_one_code_each_and_come_back():
    assert len(set(REFUSALS.values()) | {UNAVAILABLE, 0}) == len(REFUSALS) + 2
    assert refusal_text(refusal_code(RejectionReason.WEIGHTS_NOT_FINITE)) == "weights_not_finite"
    assert refusal_text(refusal_code(RejectionReason.RATE_LIMITED)) == "other"
