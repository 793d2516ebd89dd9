"""Batches on the wire: bound to data set and place, resumable, hostile bytes refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from learnchain.encoding.codec import encode
from learnchain.encoding.cryptography import check_list_branch, list_branch
from learnchain.encryption.functional import (
    CipherHeader,
    batch_leaf,
    build_header,
    ciphertext_root,
    decode_batch,
    decode_header,
    encode_batch,
    encrypt,
    encrypt_batch,
    generate_master_keys,
)
from learnchain.rejection import Rejected, RejectionReason

SECRET, PUBLIC = generate_master_keys(b"\7" * 32, 5, 2)
SAMPLES = np.random.default_rng(2).integers(0, 256, (7, 5))
HEADER = build_header(PUBLIC, 7)
WIRE = [encode_batch(batch) for batch in encrypt(SECRET, HEADER, SAMPLES)]
LEAVES = tuple(batch_leaf(HEADER, index, data) for index, data in enumerate(WIRE))


def reason_of(act: Callable[[], object]) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        act()
    return caught.value.reason


def test_the_wire_brings_header_and_batches_back() -> None:
    assert decode_header(encode(HEADER)) == HEADER
    assert len(WIRE) == HEADER.batches() == 4 and all(len(data) == HEADER.batch_bytes() for data in WIRE)
    for index, batch in enumerate(encrypt(SECRET, HEADER, SAMPLES)):
        assert np.array_equal(decode_batch(HEADER, index, WIRE[index], LEAVES[index]).points, batch.points)


def test_encryption_resumes_with_equal_bytes() -> None:
    assert [encode_batch(batch) for batch in encrypt(SECRET, HEADER, SAMPLES, first_batch=2)] == WIRE[2:]


def test_randomness_never_serves_two_contents() -> None:
    first = encrypt_batch(SECRET, HEADER, 0, SAMPLES[:2])
    others = [
        encrypt_batch(SECRET, HEADER, 1, SAMPLES[:2]),
        encrypt_batch(SECRET, HEADER, 0, SAMPLES[1:3]),
        encrypt_batch(SECRET, replace(HEADER, samples=8), 0, SAMPLES[:2]),
        encrypt_batch(generate_master_keys(b"\6" * 32, 5, 2)[0], HEADER, 0, SAMPLES[:2]),
    ]
    assert not any(np.array_equal(first.points[0], other.points[0]) for other in others)


def test_a_batch_proves_its_place_under_the_root() -> None:
    listed = (encode(HEADER), *LEAVES)
    branch = list_branch(listed, 2)
    check_list_branch(ciphertext_root(HEADER, LEAVES), LEAVES[1], 2, len(listed), branch)


def test_a_swapped_batch_is_refused() -> None:
    assert reason_of(lambda: decode_batch(HEADER, 0, WIRE[1], LEAVES[0])) is RejectionReason.WRONG_HASH
    assert reason_of(lambda: decode_batch(HEADER, 1, WIRE[0], LEAVES[0])) is RejectionReason.WRONG_HASH


@pytest.mark.parametrize("data", [b"", WIRE[0][:-1], WIRE[0] + b"\0", WIRE[0][33:]])
def test_a_truncated_or_longer_batch_is_refused(data: bytes) -> None:
    leaf = batch_leaf(HEADER, 0, data)
    assert reason_of(lambda: decode_batch(HEADER, 0, data, leaf)) is RejectionReason.MALFORMED


def test_a_batch_with_a_wrong_point_is_refused() -> None:
    data = WIRE[0][:33] + b"\2" + (5).to_bytes(32, "big") + WIRE[0][66:]
    leaf = batch_leaf(HEADER, 0, data)
    assert reason_of(lambda: decode_batch(HEADER, 0, data, leaf)) is RejectionReason.CIPHERTEXT_INVALID


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scheme": "other"}, RejectionReason.MALFORMED),
        ({"dimension": 0}, RejectionReason.MALFORMED),
        ({"dimension": 2**17}, RejectionReason.MALFORMED),
        ({"slots": 257}, RejectionReason.MALFORMED),
        ({"samples": 0}, RejectionReason.TOO_LARGE),
        ({"maximum": 2**16}, RejectionReason.TOO_LARGE),
    ],
)
def test_headers_without_meaning_are_refused(change: dict[str, object], reason: RejectionReason) -> None:
    broken: CipherHeader = replace(HEADER, **change)
    assert reason_of(lambda: decode_header(encode(broken))) is reason


@pytest.mark.parametrize("samples", [SAMPLES[:0], SAMPLES[:3], SAMPLES[:2, :4], SAMPLES[:2] - 256, SAMPLES[:2] + 256])
def test_batches_of_another_shape_or_range_are_not_encrypted(samples: np.ndarray) -> None:
    assert reason_of(lambda: encrypt_batch(SECRET, HEADER, 0, samples)) is RejectionReason.ARGUMENT_INVALID


def test_a_header_for_another_count_is_refused() -> None:
    assert reason_of(lambda: list(encrypt(SECRET, HEADER, SAMPLES[:6]))) is RejectionReason.ARGUMENT_INVALID
