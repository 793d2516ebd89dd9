"""Time two published implementations of the same scheme, where the caller has them: CiFEr in C, pymife in Python.

Neither is part of the project nor fetched by it: whoever measures names a built library and an interpreter.
"""

import ctypes
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from learnchain.rejection import Rejected, RejectionReason, Unavailable

BOUND = 255
_PYMIFE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class PeerSeconds:
    """Hold the processor seconds that a peer takes for one sample, and for one inner product of it."""

    encrypt: float
    inner_product: float


class _Integer(ctypes.Structure):
    """Stand for GMP's mpz_t."""

    _fields_ = [("allocated", ctypes.c_int), ("size", ctypes.c_int), ("limbs", ctypes.c_void_p)]


class _Vector(ctypes.Structure):
    """Stand for CiFEr's cfe_vec."""

    _fields_ = [("items", ctypes.POINTER(_Integer)), ("size", ctypes.c_size_t)]


class _Scheme(ctypes.Structure):
    """Stand for CiFEr's cfe_ddh."""

    _fields_ = [("length", ctypes.c_size_t), *((name, _Integer) for name in ("bound", "g", "p", "q"))]


class Cifer:
    """Drive CiFEr's `simple/ddh` (fentec-project, C over GMP) through its shared library."""

    def __init__(self, library: Path) -> None:
        try:
            self._cifer, self._gmp = ctypes.CDLL(str(library)), ctypes.CDLL("libgmp.so.10")
        except OSError as error:
            raise Unavailable(f"CiFEr: {error}") from error

    def seconds(self, modulus_bits: int, sample: NDArray[np.integer], queries: NDArray[np.integer]) -> PeerSeconds:
        """Encrypt one sample and open some inner products of it, checked against the plain ones."""
        scheme, bound = _Scheme(), self._integer(BOUND)
        bits = ctypes.c_size_t(modulus_bits)
        failed = self._cifer.cfe_ddh_precomp_init(ctypes.byref(scheme), ctypes.c_size_t(len(sample)), bits, bound)
        self._check(failed == 0)
        secret, public, ciphertext = _Vector(), _Vector(), _Vector()
        self._cifer.cfe_ddh_master_keys_init(*map(ctypes.byref, (secret, public, scheme)))
        self._cifer.cfe_ddh_generate_master_keys(*map(ctypes.byref, (secret, public, scheme)))
        self._cifer.cfe_ddh_ciphertext_init(ctypes.byref(ciphertext), ctypes.byref(scheme))
        plain = self._vector(sample)
        started = time.process_time()
        failed = self._cifer.cfe_ddh_encrypt(*map(ctypes.byref, (ciphertext, scheme, plain, public)))
        encrypted = time.process_time() - started
        self._check(failed == 0)
        opening = 0.0
        for query in queries:
            weights, key, result = self._vector(query), self._integer(0), self._integer(0)
            self._cifer.cfe_ddh_derive_fe_key(key, *map(ctypes.byref, (scheme, secret, weights)))
            started = time.process_time()
            failed = self._cifer.cfe_ddh_decrypt(
                result, ctypes.byref(scheme), ctypes.byref(ciphertext), key, ctypes.byref(weights)
            )
            opening += time.process_time() - started
            self._check(failed == 0 and self._gmp["__gmpz_get_si"](result) == int(query @ sample))
        return PeerSeconds(encrypted, opening / len(queries))

    def _integer(self, value: int) -> "ctypes.Array[_Integer]":
        number = (_Integer * 1)()
        self._gmp["__gmpz_init_set_si"](number, ctypes.c_long(value))
        return number

    def _vector(self, values: NDArray[np.integer]) -> _Vector:
        vector = _Vector()
        self._cifer.cfe_vec_init(ctypes.byref(vector), ctypes.c_size_t(len(values)))
        for place, value in enumerate(values.tolist()):
            self._cifer.cfe_vec_set(ctypes.byref(vector), self._integer(value), ctypes.c_size_t(place))
        return vector

    @staticmethod
    def _check(is_right: bool) -> None:
        if not is_right:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "the library given as CiFEr does not do what CiFEr does")


_PYMIFE = """
import json, sys, time
from mife.data.zmod import Zmod
from mife.single.selective.ddh import FeDDH
asked = json.load(sys.stdin)
sample, queries = asked["sample"], asked["queries"]
key = FeDDH.generate(len(sample), Zmod(asked["prime"]))
started = time.process_time()
ciphertext = FeDDH.encrypt(sample, key)
encrypted = time.process_time() - started
opening = 0.0
for query in queries:
    functional = FeDDH.keygen(query, key)
    largest = 255 * sum(abs(weight) for weight in query)
    started = time.process_time()
    value = FeDDH.decrypt(ciphertext, key.get_public_key(), functional, (-largest, largest))
    opening += time.process_time() - started
    assert value == sum(x * z for x, z in zip(sample, query))
print(json.dumps([encrypted, opening / len(queries)]))
"""

_PI_2048 = (
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B"
    "302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE6"
    "49286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D"
    "670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF"
)
"""The prime of group 14 of RFC 3526: 2048 bits, about 112 bits of security."""


def pymife_seconds(interpreter: Path, sample: NDArray[np.integer], queries: NDArray[np.integer]) -> PeerSeconds:
    """Run pymife's `FeDDH` over 2048 bits in the interpreter that has it, checked against the plain products."""
    asked = {"sample": sample.tolist(), "queries": queries.tolist(), "prime": int(_PI_2048, 16)}
    try:
        answer = subprocess.run(
            [str(interpreter), "-c", _PYMIFE],
            input=json.dumps(asked),
            capture_output=True,
            check=True,
            text=True,
            timeout=_PYMIFE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"pymife: {error}") from error
    encrypted, opening = json.loads(answer.stdout)
    return PeerSeconds(encrypted, opening)
