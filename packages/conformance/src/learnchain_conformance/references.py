"""Carry out in exact numbers what torch and numba carry out fast: the vectors of three equations rest on this.

Vectors load neither of the two. Tests of both rooms run the same vectors through the real code.
"""

from fractions import Fraction

from coincurve import PrivateKey, PublicKey

from learnchain.rejection import Rejected, RejectionReason

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""The order of the group secp256k1, which Step 1 of PoLe 3.4 calls p."""


# --- PoLe 3.4: one sample, one query, one point after the other ----------------------------------------------------


def derive_public_key(secret: tuple[int, ...]) -> tuple[bytes, ...]:
    """Return the master public key h = g**s of Step 1; s itself stays secret (POLE-R9)."""
    return tuple(_power(each).format() for each in secret)


def encrypt_sample(published: tuple[bytes, ...], nonce: int, sample: tuple[int, ...]) -> tuple[bytes, ...]:
    """Return ct_0 = g**r and ct_i = h_i**r * g**x_i of Step 2, made from the published key alone."""
    hidden = [PublicKey(each).multiply(_scalar(nonce)) for each in published]
    shifted = [_shift_point(point, value) for point, value in zip(hidden, sample, strict=True)]
    return (_power(nonce).format(), *(each.format() for each in shifted))


def functional_key(secret: tuple[int, ...], query: tuple[int, ...]) -> bytes:
    """Return eta = <s, z> modulo the order: what the data node issues for a query (Step 4)."""
    return _scalar(sum(s * z for s, z in zip(secret, query, strict=True)))


def open_product(ciphertext: tuple[bytes, ...], query: tuple[int, ...], eta: bytes, sign: int, limit: int) -> int:
    """Return log_g(prod ct_j**z_j * ct_0**(sign * eta)) if it lies within +-limit; else there is nothing to be found.

    Equation 1 prints the sign +1; its proof needs -1 (POLE-R2).
    """
    first, *others = (PublicKey(each) for each in ciphertext)
    terms = [point.multiply(_scalar(z)) for point, z in zip(others, query, strict=True) if z % ORDER]
    blinding = first.multiply(_scalar(sign * int.from_bytes(eta, "big")))
    # Shifted by more than the limit, no honest result is the point at infinity, which has no bytes.
    wanted = PublicKey.combine_keys([*terms, blinding, _power(limit + 1)]).format()
    for product in range(-limit, limit + 1):
        if _power(product + limit + 1).format() == wanted:
            return product
    raise Rejected(RejectionReason.CIPHERTEXT_INVALID, f"no inner product within {limit}")


def _scalar(value: int) -> bytes:
    return (value % ORDER).to_bytes(32, "big")


def _power(exponent: int) -> PublicKey:
    return PrivateKey(_scalar(exponent)).public_key


def _shift_point(point: PublicKey, value: int) -> PublicKey:
    return point if value == 0 else PublicKey.combine_keys([point, _power(value)])


# --- DLBC IV-C1 ----------------------------------------------------------------------------------------------------


def watermark_rows(bits: bytes, length: int) -> tuple[tuple[int, ...], ...]:
    """Return the rows of the watermark's matrix over the mean weights; one that no bit selects is left out (R14)."""
    values = [(byte >> (7 - place)) & 1 for byte in bits for place in range(8)][:length]
    values += [-1] * (length - len(values))
    rows = tuple(tuple(int(value == row) for value in values) for row in (0, 1))
    return tuple(row for row in rows if any(row))


def regularised_gradient(
    gradient: tuple[Fraction, ...], strength: Fraction, regulariser_gradient: tuple[Fraction, ...]
) -> tuple[Fraction, ...]:
    """Return what Equation 7 descends: the gradient of E_0 and lambda times that of E_R, weight by weight."""
    pairs = zip(gradient, regulariser_gradient, strict=True)
    return tuple(each + strength * added for each, added in pairs)
