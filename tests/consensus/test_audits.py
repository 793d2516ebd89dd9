"""Audits as data: draws, probabilities, openings and the forms of proofs."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnchain.consensus.audits import (
    HARDWARE_INDEPENDENT_FINDINGS,
    MAXIMUM_FRAUD_PROOF_BYTES,
    MAXIMUM_SAMPLED_SEGMENTS,
    SLASHABLE_FINDINGS,
    AuditFinding,
    FraudProof,
    decode_fraud_proof,
    detection_probability,
    draw_segments,
    open_segment,
    open_step,
    parse_step_digests,
    sample_size,
)
from learnchain.encoding.codec import encode
from learnchain.encoding.cryptography import UNSIGNED, list_root
from learnchain.protocol.audit_messages import StateDisclosure, StateLeaf
from learnchain.protocol.messages import TrainingRecord
from learnchain.protocol.training_terms import HyperParameters
from learnchain.rejection import Rejected, RejectionReason

LEAVES = tuple(StateLeaf(10 * place, b"\1" * 32, b"\2" * 32, b"\3" * 32, bytes([place]) * 32) for place in range(6))
ROOT = list_root(tuple(encode(leaf) for leaf in LEAVES))
RECORD = TrainingRecord(ROOT, len(LEAVES), b"cid", HyperParameters(1, 0, 0, 1, 1))
DIGESTS = tuple(bytes([40 + place]) * 32 for place in range(11))
ANSWER = StateDisclosure(7, b"\4" * 32, 2, len(DIGESTS), list_root(DIGESTS), b"digests", b"states", UNSIGNED)
STEP = open_step(DIGESTS, 4, b"before", b"after")
PROOF = FraudProof(
    7, b"\4" * 32, AuditFinding.FAULT_OUT_OF_BOUNDS, (open_segment(LEAVES, 2),), (ANSWER,), (STEP,), bytes(20), UNSIGNED
)


def refusal(action, *arguments):
    with pytest.raises(Rejected) as caught:
        action(*arguments)
    return caught.value.reason


@given(st.binary(min_size=32, max_size=32), st.integers(1, 200), st.integers(1, 60))
def test_a_challenge_draws_without_replacement_and_always_holds_the_last(seed, segments, wanted):
    challenge = draw_segments(seed, ROOT, segments, wanted)
    assert list(challenge.indices) == sorted(set(challenge.indices))
    assert challenge.indices[-1] == segments - 1 >= challenge.indices[0] >= 0
    assert challenge.count == min(wanted, segments)
    assert len(challenge.indices) - challenge.count in (0, 1)
    challenge.check()


def test_every_segment_is_drawn_equally_often():
    trials, segments, drawn = 3_000, 10, 3
    counts = [0] * segments
    for number in range(trials):
        for index in draw_segments(number.to_bytes(32, "big"), ROOT, segments, drawn).indices[:-1]:
            counts[index] += 1
    # The last one is always there, so its own draws are not seen; the others keep the share of the draw.
    for count in counts[:-1]:
        assert abs(count - trials * drawn / segments) < 4.5 * sqrt(trials * 0.3 * 0.7)


def test_the_challenge_belongs_to_seed_trace_and_length():
    one = draw_segments(b"\1" * 32, ROOT, 200, 20)
    others = [
        draw_segments(b"\2" * 32, ROOT, 200, 20),
        draw_segments(b"\1" * 32, b"\5" * 32, 200, 20),
        draw_segments(b"\1" * 32, ROOT, 199, 20),
    ]
    assert len({one.indices, *(each.indices for each in others)}) == 4
    wrong = replace(one, indices=others[0].indices)
    assert refusal(wrong.check) is RejectionReason.SEGMENT_SAMPLE_WRONG
    assert refusal(replace(one, count=19).check) is RejectionReason.SEGMENT_SAMPLE_WRONG


@pytest.mark.parametrize(("segments", "wanted"), [(0, 1), (1 << 24, 1), (5, 0), (5_000, MAXIMUM_SAMPLED_SEGMENTS + 1)])
def test_a_challenge_of_no_trace_or_beyond_the_bound_is_refused(segments, wanted):
    assert refusal(draw_segments, b"\1" * 32, ROOT, segments, wanted) is RejectionReason.ARGUMENT_INVALID


@pytest.mark.parametrize(("segments", "count"), [(1, 1), (19, 1), (20, 1), (21, 2), (400, 20), (10**6, 1_024)])
def test_a_share_is_rounded_up_and_bounded(segments, count):
    assert sample_size(segments, 50) == count


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(0, 7), st.integers(0, 7))
def test_the_probability_is_the_share_of_all_draws(segments, audited, forged):
    audited, forged = min(audited, segments), min(forged, segments)
    draws = list(combinations(range(segments), audited))
    hits = sum(bool(set(draw) & set(range(forged))) for draw in draws)
    assert detection_probability(audited, segments, forged) == Fraction(hits, len(draws))


def test_one_forged_segment_is_found_with_k_of_n():
    assert detection_probability(3, 40, 1) == Fraction(3, 40)
    assert refusal(detection_probability, 3, 2, 1) is RejectionReason.ARGUMENT_INVALID


def test_openings_are_under_the_root():
    for index in range(5):
        open_segment(LEAVES, index).check(RECORD.state_root, RECORD.states)
    opening = open_segment(LEAVES, 2)
    for changed in (
        replace(opening, index=3),
        replace(opening, first=LEAVES[1]),
        replace(opening, following=replace(LEAVES[3], step=31)),
        replace(opening, first_branch=opening.first_branch[:-1]),
    ):
        assert refusal(changed.check, RECORD.state_root, RECORD.states) is RejectionReason.TRACE_MISMATCH


def test_a_step_is_under_the_answer():
    STEP.check(ANSWER)
    for changed in (replace(STEP, offset=5), replace(STEP, after=b"\1" * 32), replace(STEP, before_branch=())):
        assert refusal(changed.check, ANSWER) is RejectionReason.TRACE_MISMATCH


def test_a_proof_survives_its_bytes_and_fits_into_a_block():
    assert decode_fraud_proof(encode(PROOF)) == PROOF
    branch = (b"\1" * 32,) * 24
    segment = replace(PROOF.segments[0], first_branch=branch, following_branch=branch)
    step = replace(STEP, before_branch=branch, after_branch=branch, before_cid=b"c" * 64, after_cid=b"c" * 64)
    assert len(encode(replace(PROOF, segments=(segment,), steps=(step,)))) < MAXIMUM_FRAUD_PROOF_BYTES
    assert refusal(decode_fraud_proof, b"\0" * (MAXIMUM_FRAUD_PROOF_BYTES + 1)) is RejectionReason.TOO_LARGE


def test_each_finding_needs_its_own_parts():
    PROOF.check_form(RECORD)
    invalid = RejectionReason.FRAUD_PROOF_INVALID
    for changes in (
        {"finding": AuditFinding.NUMERIC_MISMATCH},
        {"finding": AuditFinding.WITHIN_BOUNDS},
        {"finding": AuditFinding.FAULT_BATCH_ORDER},
        {"finding": AuditFinding.FAULT_STEP_CHAIN},
        {"steps": ()},
        {"disclosures": ()},
        {"segments": ()},
        {"commitment": b"\5" * 32},
        {"disclosures": (replace(ANSWER, segment=1),)},
        {"chain_id": 8},
    ):
        assert refusal(replace(PROOF, **changes).check_form, RECORD) is invalid
    bare = replace(PROOF, segments=(), disclosures=(), steps=())
    for finding in SLASHABLE_FINDINGS:
        well = {"segments": PROOF.segments, "disclosures": (ANSWER,), "steps": (STEP,)}
        of_the_run = ("merkle", "seed", "range", "end_points", "first_state")
        if any(part in finding.value for part in of_the_run):
            replace(bare, finding=finding).check_form(RECORD)
        else:
            assert refusal(replace(bare, finding=finding).check_form, RECORD) is invalid
        assert (
            finding in HARDWARE_INDEPENDENT_FINDINGS
            or replace(bare, finding=finding, **well).check_form(RECORD) is None
        )
    assert (
        not {AuditFinding.NUMERIC_MISMATCH, AuditFinding.WITHIN_BOUNDS, AuditFinding.NOT_AUDITED} & SLASHABLE_FINDINGS
    )


@pytest.mark.parametrize("data", [b"", b"\1" * 32, b"\1" * 63, b"\1" * 65])
def test_a_list_of_digests_has_two_or_more_whole_ones(data):
    assert refusal(parse_step_digests, data) is RejectionReason.MALFORMED
    assert len(parse_step_digests(b"\1" * 96)) == 3
