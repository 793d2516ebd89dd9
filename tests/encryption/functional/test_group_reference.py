"""The lanes open what single points in exact numbers encrypt: the vector of PoLe's Equation 1, run through them."""

import json
from pathlib import Path

import numpy as np
import pytest

from learnchain.encryption.functional import CipherBatch, CipherHeader, FunctionalKey, MasterSecret, decrypt, derive_key
from learnchain.encryption.functional.ciphertexts import SCHEME
from learnchain.encryption.functional.group import ORDER, decompress, generator_multiples
from learnchain.encryption.functional.keys import MasterPublic, verify_key
from learnchain.rejection import Rejected, RejectionReason
from learnchain_conformance import references

VECTOR = json.loads((Path(__file__).parents[3] / "src/learnchain/engines/pole/vectors/equations/1.json").read_text())


def cases(name):
    return [(each["given"], each["expected"]) for each in VECTOR["cases"] if each["step"] == name]


def points(written):
    return decompress(b"".join(bytes.fromhex(each[2:]) for each in written))


@pytest.fixture(scope="module")
def secret():
    ((given, _),) = cases("derive_public_key")
    return MasterSecret(bytes(32), len(given["secret"]), 1, tuple(given["secret"]))


@pytest.fixture(scope="module")
def public(secret):
    ((_, expected),) = cases("derive_public_key")
    return MasterPublic(secret.dimension, 1, points(expected["result"]))


@pytest.fixture(scope="module")
def header(secret, public):
    return CipherHeader(SCHEME, secret.dimension, 1, 1, 3, public.identity())


def opened(given, header, key):
    (product,) = decrypt(header, key, np.array([given["query"]]), [CipherBatch(points(given["ciphertext"]))])
    return int(product[0])


def test_the_order_is_that_of_the_group():
    assert references.ORDER == ORDER


def test_what_is_published_is_g_to_the_power_of_the_secret(secret, public):
    assert np.array_equal(generator_multiples(list(secret.scalars)), public.points)


def test_functional_keys_are_those_of_the_vector_and_everybody_can_verify_them(secret, public):
    found = cases("functional_key")
    assert found
    for given, expected in found:
        queries = np.array([given["query"]])
        key = derive_key(secret, public, queries)
        assert key.etas == (int(expected["result"], 16),)
        verify_key(public, queries, key)


def test_the_lanes_find_the_products_of_the_vector(secret, public, header):
    found = [each for each in cases("open_product") if each[0]["sign"] == -1]
    assert len(found) == 4
    for given, expected in found:
        key = derive_key(secret, public, np.array([given["query"]]))
        assert key.etas == (int(given["eta"], 16),)
        assert opened(given, header, key) == expected["result"]


def test_the_printed_sign_finds_nothing_in_either(secret, public, header):
    ((given, expected),) = [each for each in cases("open_product") if each[0]["sign"] == 1]
    assert expected == {"reason": RejectionReason.CIPHERTEXT_INVALID.value}
    honest = derive_key(secret, public, np.array([given["query"]]))
    printed = FunctionalKey(honest.master, honest.queries, tuple(-eta % ORDER for eta in honest.etas))
    with pytest.raises(Rejected) as refused:
        opened(given, header, printed)
    assert refused.value.reason is RejectionReason.CIPHERTEXT_INVALID
