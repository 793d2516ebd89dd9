"""Functional keys are verified by everybody, from public values."""

import importlib
import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from learnchain.encryption import functional as room
from learnchain.encryption.functional import MasterPublic, derive_key, generate_master_keys, verify_key
from learnchain.encryption.functional.group import ORDER, generator_multiple
from learnchain.rejection import Rejected, RejectionReason, Unavailable

SEED = b"\5" * 32
QUERIES = np.array([[1, -2, 0, 3], [0, 0, 0, 0], [7, 7, -7, 1]], dtype=np.int16)


def reason_of(*arguments: object) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        verify_key(*arguments)
    return caught.value.reason


def test_setup_publishes_the_powers_of_its_secret() -> None:
    secret, public = generate_master_keys(SEED, 4, 3)
    assert len(set(secret.scalars)) == 12 and generate_master_keys(SEED, 4, 3)[0] == secret
    assert all(np.array_equal(generator_multiple(s), h) for s, h in zip(secret.scalars, public.points, strict=True))


def test_a_derived_key_is_the_inner_product_and_verifies() -> None:
    secret, public = generate_master_keys(SEED, 4, 3)
    key = derive_key(secret, public, QUERIES)
    verify_key(public, QUERIES, key)
    for slot in range(3):
        for number, query in enumerate(QUERIES):
            own = secret.scalars[4 * slot : 4 * slot + 4]
            expected = sum(int(z) * s for z, s in zip(query, own, strict=True)) % ORDER
            assert key.etas[3 * slot + number] == expected


def test_a_key_of_zero_queries_verifies() -> None:
    secret, public = generate_master_keys(SEED, 4, 1)
    nothing = np.zeros((2, 4), dtype=np.int32)
    key = derive_key(secret, public, nothing)
    verify_key(public, nothing, key)
    assert reason_of(public, nothing, replace(key, etas=(1, 0))) is RejectionReason.FUNCTIONAL_KEY_WRONG


@pytest.mark.parametrize("place", range(9))
def test_one_wrong_eta_is_refused(place: int) -> None:
    secret, public = generate_master_keys(SEED, 4, 3)
    key = derive_key(secret, public, QUERIES)
    etas = list(key.etas)
    etas[place] = (etas[place] + 1) % ORDER
    assert reason_of(public, QUERIES, replace(key, etas=tuple(etas))) is RejectionReason.FUNCTIONAL_KEY_WRONG


def test_errors_that_cancel_out_are_refused() -> None:
    secret, public = generate_master_keys(SEED, 4, 3)
    key = derive_key(secret, public, QUERIES)
    etas = list(key.etas)
    etas[0], etas[1] = (etas[0] + 1) % ORDER, (etas[1] - 1) % ORDER
    assert reason_of(public, QUERIES, replace(key, etas=tuple(etas))) is RejectionReason.FUNCTIONAL_KEY_WRONG


def test_keys_that_are_not_canonical_or_not_for_this_are_refused() -> None:
    secret, public = generate_master_keys(SEED, 4, 3)
    key = derive_key(secret, public, QUERIES)
    other = generate_master_keys(b"\6" * 32, 4, 3)[1]
    wrong = RejectionReason.FUNCTIONAL_KEY_WRONG
    assert reason_of(public, QUERIES, replace(key, etas=(key.etas[0] + ORDER, *key.etas[1:]))) is wrong
    assert reason_of(public, QUERIES, replace(key, etas=key.etas[1:])) is wrong
    assert reason_of(public, QUERIES + 1, key) is wrong
    assert reason_of(other, QUERIES, key) is wrong
    assert reason_of(other, QUERIES, replace(key, master=other.identity())) is wrong


def test_a_master_key_off_the_curve_is_refused() -> None:
    secret, public = generate_master_keys(SEED, 4, 3)
    points = public.points.copy()
    points[5, 1, 0] ^= 1
    broken = MasterPublic(4, 3, points)
    key = replace(derive_key(secret, public, QUERIES), master=broken.identity())
    assert reason_of(broken, QUERIES, key) is RejectionReason.CIPHERTEXT_INVALID


@pytest.mark.parametrize(("seed", "dimension", "slots"), [(b"", 4, 1), (SEED, 0, 1), (SEED, 4, 0), (SEED, 70_000, 1)])
def test_setup_refuses_sizes_without_meaning(seed: bytes, dimension: int, slots: int) -> None:
    with pytest.raises(Rejected) as caught:
        generate_master_keys(seed, dimension, slots)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


@pytest.mark.parametrize(
    "queries", [np.zeros((1, 5), int), np.zeros(4, int), np.full((1, 4), 5000), np.zeros((1, 4)), np.zeros((0, 4), int)]
)
def test_queries_of_another_kind_are_refused(queries: np.ndarray) -> None:
    secret, public = generate_master_keys(SEED, 4, 1)
    with pytest.raises(Rejected) as caught:
        derive_key(secret, public, queries)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


def test_without_numba_the_room_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(Unavailable):
        exec(compile((importlib.import_module("pathlib").Path(room.__file__)).read_text(), "room", "exec"), {})
