"""Choose the vectors of what torch and numba carry out: PoLe's Equation 1, DLBC's Equation 7, watermark, signature."""

from fractions import Fraction

from learnchain.protocol.messages import attestation_digest
from learnchain_conformance.references import (
    derive_public_key,
    encrypt_sample,
    functional_key,
    open_product,
    regularised_gradient,
    watermark_rows,
)
from learnchain_conformance.vectors import Case, Vector, build_call_case

SECRET = (7, 11, 13)


NONCE = 5


SAMPLE = (2, 0, 3)


QUERIES = ((1, 2, 3), (4, 0, -5), (-1, 1, 0), (0, 9, 0))


LIMIT = 40
"""Tiny on purpose: whoever implements it can follow every number; the group is the real one."""


def reference_vectors() -> tuple[Vector, ...]:
    """Return the vectors that `references` computes in exact numbers."""
    return (_inner_product(), *_watermark(), _attestation())


def _inner_product() -> Vector:
    published = derive_public_key(SECRET)
    ciphertext = encrypt_sample(published, NONCE, SAMPLE)
    opened: list[Case] = []
    for query in QUERIES:
        eta = functional_key(SECRET, query)
        opened.append(build_call_case(open_product, ciphertext=ciphertext, query=query, eta=eta, sign=-1, limit=LIMIT))
    query, eta = QUERIES[0], functional_key(SECRET, QUERIES[0])
    printed = build_call_case(open_product, ciphertext=ciphertext, query=query, eta=eta, sign=1, limit=LIMIT)
    return Vector(
        "pole/equations/1.json",
        "Products of one sample with queries: ct_0 to the power -eta opens them, +eta as printed finds nothing. "
        "Published is g**s; eta follows from the secret s, one number a query.",
        (
            *opened,
            printed,
            build_call_case(derive_public_key, secret=SECRET),
            build_call_case(encrypt_sample, published=published, nonce=NONCE, sample=SAMPLE),
            *(build_call_case(functional_key, secret=SECRET, query=each) for each in QUERIES),
        ),
        "POLE-R2, POLE-R9",
    )


def _watermark() -> tuple[Vector, ...]:
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    gradient, regulariser = (Fraction(1), -2 * half, 3 * quarter, Fraction(0)), (-half, Fraction(0), quarter, -half)
    steps = [
        build_call_case(regularised_gradient, gradient=gradient, strength=each, regulariser_gradient=regulariser)
        for each in (half, Fraction(8), Fraction(0))
    ]
    bits = bytes.fromhex("a53c")
    matrices = [build_call_case(watermark_rows, bits=bits, length=length) for length in (6, 16, 20)]
    matrices.append(build_call_case(watermark_rows, bits=b"\xff", length=8))
    return (
        Vector("dlbc/equations/7.json", "Equation 7: what training descends, weight by weight.", tuple(steps)),
        Vector(
            "dlbc/training/watermark_matrix.json",
            "One 1 in each column: first row for a 0, second for a 1; columns beyond the bits are zero, bits beyond "
            "the columns are dropped, a row without a 1 is left out.",
            tuple(matrices),
            "DLBC-R14",
        ),
    )


def _attestation() -> Vector:
    model, rows, task = (bytes([each]) * 32 for each in (1, 2, 3))
    cid = bytes.fromhex("01551e20") + model
    cases = [
        build_call_case(attestation_digest, model_cid=cid, training_root=root, task_id=of)
        for root, of in ((rows, task), (task, rows))
    ]
    about = "What a miner signs covers model, training data and task; the signature itself is the miner's, 65 bytes."
    return Vector("dlbc/commitment/attestation.json", about, tuple(cases), "DLBC-R15")
