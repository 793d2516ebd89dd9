"""What a functional key opens is the plain integer projection: in every mode, in every edge."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnchain.encryption.functional import (
    CipherBatch,
    Decryptor,
    FunctionalKey,
    MasterPublic,
    MasterSecret,
    build_header,
    decrypt,
    derive_key,
    encrypt,
    generate_master_keys,
)
from learnchain.encryption.functional.group import ORDER, generator_multiple, generator_multiples
from learnchain.rejection import Rejected, RejectionReason

SEED = bytes(range(32))
Rows = Callable[[np.random.Generator, int, int], np.ndarray]


def repeated_words(random: np.random.Generator, outputs: int, dimension: int) -> np.ndarray:
    """Slice 3-bit weights from a word that repeats, as Algorithm 3 does, here with 32 bits."""
    bits = random.integers(0, 2, (outputs, 32))
    places = np.arange(dimension)[:, None] * 3 + np.arange(3)
    return bits[:, places % 32] @ np.array([1, 2, 4])


def sparse(random: np.random.Generator, outputs: int, dimension: int) -> np.ndarray:
    return random.choice([-1, 0, 0, 0, 1], (outputs, dimension))


def dense(random: np.random.Generator, outputs: int, dimension: int) -> np.ndarray:
    return random.choice([-1, 1], (outputs, dimension))


def odd_signed(random: np.random.Generator, outputs: int, dimension: int) -> np.ndarray:
    return random.choice([-7, -5, -3, -1, 1, 3, 5, 7], (outputs, dimension))


def opened(samples: np.ndarray, queries: np.ndarray, slots: int = 4, maximum: int = 255) -> np.ndarray:
    secret, public = generate_master_keys(SEED, samples.shape[1], slots)
    header = build_header(public, len(samples), maximum)
    key = derive_key(secret, public, queries)
    return decrypt(header, key, queries, encrypt(secret, header, samples))


@pytest.mark.parametrize("rows", [repeated_words, sparse, dense, odd_signed])
@pytest.mark.parametrize(("dimension", "outputs", "count"), [(1, 1, 1), (7, 3, 5), (64, 20, 40), (101, 33, 9)])
def test_opened_products_equal_the_plain_projection(rows: Rows, dimension: int, outputs: int, count: int) -> None:
    random = np.random.default_rng(dimension)
    samples = random.integers(0, 256, (count, dimension))
    queries = rows(random, outputs, dimension)
    assert np.array_equal(opened(samples, queries), samples @ queries.T)


def test_extreme_samples_and_products_open() -> None:
    samples = np.array([[0] * 9, [255] * 9, [1] + [0] * 8, [0] * 8 + [255], [7, 7] + [0] * 7])
    queries = np.array([[0] * 9, [1] * 9, [-1] * 9, [1, -1] + [0] * 7, [0] * 8 + [-3], [5] + [-1] * 8])
    result = opened(samples, queries)
    assert np.array_equal(result, samples @ queries.T)
    assert result.min() < 0 and (result == 0).any()


def test_a_large_range_takes_giant_steps() -> None:
    samples = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [1, 2, 3], [128, 200, 255]])
    queries = np.array([[4096, 4096, 4096], [-4096, -4096, -4096], [1, -4096, 4095]])
    assert np.array_equal(opened(samples, queries), samples @ queries.T)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_small_matrix_opens(data: st.DataObject) -> None:
    dimension, outputs = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    weight = data.draw(st.sampled_from([1, 3, 20]))
    cells = st.integers(-weight, weight)
    queries = np.array([[data.draw(cells) for _ in range(dimension)] for _ in range(outputs)])
    samples = np.array([[data.draw(st.integers(0, 15)) for _ in range(dimension)] for _ in range(3)])
    assert np.array_equal(opened(samples, queries, 2, 15), samples @ queries.T)


def test_threads_give_the_same_products() -> None:
    random = np.random.default_rng(5)
    samples, queries = random.integers(0, 256, (40, 8)), dense(random, 4, 8)
    secret, public = generate_master_keys(SEED, 8, 2)
    header = build_header(public, 40)
    key = derive_key(secret, public, queries)
    with ThreadPoolExecutor(2) as pool:
        result = decrypt(header, key, queries, encrypt(secret, header, samples), pool.map)
    assert np.array_equal(result, samples @ queries.T)


def crafted(secret: MasterSecret, samples: np.ndarray, nonce: int) -> CipherBatch:
    exponents = [s * nonce + int(x) for s, x in zip(secret.scalars, samples.ravel(), strict=True)]
    return CipherBatch(generator_multiples([nonce, *(exponent % ORDER for exponent in exponents)]))


@pytest.mark.parametrize("scalars", [(5, 5, 5, 5), (5, ORDER - 5, 9, ORDER - 9)])
def test_crafted_points_that_meet_open_on_the_slow_path(scalars: tuple[int, ...]) -> None:
    secret = MasterSecret(SEED, 2, 2, scalars)
    public = MasterPublic(2, 2, generator_multiples(list(scalars)))
    header = build_header(public, 2)
    queries = np.array([[1, 1], [2, -3], [0, 0]])
    key = derive_key(secret, public, queries)
    samples = np.array([[4, 4], [0, 0]])
    batch = crafted(secret, samples, 77)
    decryptor = Decryptor(header, key, queries)
    assert decryptor._plan.carry_out([batch] * 8, 1) is None, "the crafted batch must not pass the fast path"
    assert np.array_equal(decryptor.open_group([batch]), samples @ queries.T)


def refusal(act: Callable[[], object]) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        act()
    return caught.value.reason


def setting(count: int = 9) -> tuple[MasterSecret, MasterPublic, np.ndarray, np.ndarray, FunctionalKey]:
    random = np.random.default_rng(3)
    secret, public = generate_master_keys(SEED, 6, 4)
    queries = dense(random, 3, 6)
    return secret, public, random.integers(0, 256, (count, 6)), queries, derive_key(secret, public, queries)


def test_a_wrong_eta_opens_nothing() -> None:
    secret, public, samples, queries, key = setting()
    header = build_header(public, len(samples))
    wrong = replace(key, etas=(key.etas[0] + 1, *key.etas[1:]))
    reason = refusal(lambda: decrypt(header, wrong, queries, encrypt(secret, header, samples)))
    assert reason is RejectionReason.CIPHERTEXT_INVALID


def test_a_product_beyond_the_declared_range_is_refused() -> None:
    secret, public, _, queries, key = setting()
    header = build_header(public, 4)
    batch = crafted(secret, np.full((4, 6), 10**6), 78)
    assert refusal(lambda: decrypt(header, key, queries, [batch])) is RejectionReason.CIPHERTEXT_INVALID


def test_the_inverse_of_a_product_in_range_is_refused() -> None:
    # x alone does not tell g**v from g**-v: the table looks at the parity of y.
    secret, public = generate_master_keys(SEED, 1, 1)
    queries = np.array([[1]])
    header, key = build_header(public, 1), derive_key(secret, public, queries)
    nonce = 99
    minus = (secret.scalars[0] * nonce - 7) % ORDER
    batch = CipherBatch(np.stack([generator_multiple(nonce), generator_multiple(minus)]))
    assert refusal(lambda: decrypt(header, key, queries, [batch])) is RejectionReason.CIPHERTEXT_INVALID


def test_a_key_for_other_queries_or_another_data_set_is_refused() -> None:
    secret, public, samples, queries, key = setting()
    header = build_header(public, len(samples))
    other = replace(header, master=bytes(32))
    batches = list(encrypt(secret, header, samples))
    wrong = RejectionReason.FUNCTIONAL_KEY_WRONG
    assert refusal(lambda: decrypt(header, key, -queries, batches)) is wrong
    assert refusal(lambda: decrypt(other, key, queries, batches)) is wrong
    assert refusal(lambda: decrypt(header, replace(key, etas=key.etas[1:]), queries, batches)) is wrong


def test_missing_surplus_and_misshapen_batches_are_refused() -> None:
    secret, public, samples, queries, key = setting()
    header = build_header(public, len(samples))
    batches = list(encrypt(secret, header, samples))
    short = CipherBatch(batches[0].points[:-1])
    for wrong in (batches[:-1], [*batches, batches[0]], [short, *batches[1:]]):
        assert refusal(lambda wrong=wrong: decrypt(header, key, queries, wrong)) is RejectionReason.MALFORMED
