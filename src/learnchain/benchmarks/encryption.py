"""Measure inner products of encrypted data beside their peers, and over a whole data set, in the form of all benches.

Times are processor seconds of one core unless a figure says otherwise, so that a busy machine distorts them little.

Time two published implementations of the same scheme, where the caller has them: CiFEr in C, pymife in Python.

Neither is part of the project nor fetched by it: whoever measures names a built library and an interpreter.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from learnchain.benchmarks import Figures, figure, measure_seconds
from learnchain.encoding.cryptography import shake256
from learnchain.encryption.functional import (
    CipherBatch,
    Decryptor,
    batch_leaf,
    build_header,
    decode_batch,
    derive_key,
    encode_batch,
    encrypt,
    encrypt_batch,
    generate_master_keys,
    verify_key,
)
from learnchain.encryption.functional.group import WINDOWS, generator_multiples, scratch_space, spread_over_lanes
from learnchain.encryption.functional.lane_code import LANES
from learnchain.encryption.functional.lane_kernels import CHAIN, add_indexed
from learnchain.engines.pole.mapping import Shift, dense_vectors, query_vectors, sparse_vectors
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


Peers = Mapping[str, Path]
Result = TypeVar("Result")
_seconds = partial(measure_seconds, clock=time.process_time)
DIMENSION, OUTPUTS = 784, 128
SAMPLES, WHOLE = 256, 60_000
MODULI = (3_072, 2_048)
_SEED = b"\1" * 32
_PEER_QUERIES = 2
_THREADS = 2
_ROUNDS = 3

_EXPONENT = 384
"""Additions of one exponentiation bit by bit: 256 doublings and 128 additions."""

_IDX_HEADER_BYTES = 16


def functional_encryption(peers: Peers) -> Figures:
    """Encrypt and open random images of MNIST's size: against CiFEr and pymife, additions and their cost, first use."""
    samples = _random_samples(SAMPLES)
    secret, public = generate_master_keys(_SEED, DIMENSION)
    header = build_header(public, SAMPLES)
    rivals, limit = _time_peers(peers, samples[0]), addition_limit()
    batches = list(encrypt(secret, header, samples))
    encrypting = median(_seconds(lambda: list(encrypt(secret, header, samples))) for _ in range(_ROUNDS)) / SAMPLES
    figures = _compare_with_peers("encrypt one image", encrypting, rivals, lambda rival: rival.encrypt)
    figures += _addition_figures("encrypt", DIMENSION * (WINDOWS - 1), encrypting, limit, DIMENSION * _EXPONENT)
    for mode, queries in _modes().items():
        key = derive_key(secret, public, queries)
        opener = Decryptor(header, key, queries)
        values = opener.open_group(batches[:LANES])
        if not np.array_equal(values, samples[: len(values)] @ queries.T.astype(np.int64)):
            raise RuntimeError("opened products differ from the plain projection")
        rounds = [_seconds(lambda opener=opener: opener.open_group(batches[:LANES])) for _ in range(_ROUNDS)]
        opening, name = median(rounds) / len(values), f"decrypt one image, {OUTPUTS} products, {mode}"
        figures += _compare_with_peers(name, opening, rivals, lambda rival: OUTPUTS * rival.inner_product)
        plain = int((queries != 0).sum()) + OUTPUTS * _EXPONENT
        figures += _addition_figures(f"decrypt, {mode}", opener.additions_per_sample(), opening, limit, plain)
        checking = _seconds(lambda queries=queries, key=key: verify_key(public, queries, key))
        figures.append(figure(f"verify a block's key, {mode}", checking, "s", None, "once a block"))
    return {"name": "functional_encryption", "synthetic": True, "figures": figures + _first_use()}


def functional_encryption_whole(peers: Peers) -> Figures:
    """Encrypt 60,000 images to disk, open a block of `paper` and one of `sparse`: wall seconds, memory, equality.

    Real ones by `--with images=FILE`, an IDX file of 28 x 28 images as MNIST's; else random, and so marked synthetic.
    """
    samples = _images(peers["images"]) if "images" in peers else _random_samples(WHOLE)
    figures: list[Figures] = []
    with TemporaryDirectory() as place, ThreadPoolExecutor(_THREADS) as pool:
        whole = _WholeSet(samples, Path(place), pool)
        figures.extend(_wall(f"encrypt {len(samples):,} images", whole.encrypt, 150))
        figures.extend(_wall("check and decompress, once a data set", whole.decompress, None))
        for mode, limit in (("paper", 110), ("sparse", 90)):
            figures.extend(_wall(f"decrypt one block, {mode}", lambda mode=mode: whole.open(_modes()[mode]), limit))
        figures.append(figure("products that differ from the plain projection", whole.wrong, "", None, "0"))
        wire = whole.wire.stat().st_size
    figures.append(figure("ciphertexts", wire / 1e9, "GB", wire / samples.size, "plain bytes"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures.append(figure("peak memory, plain samples included", peak, "GB", peak / 1.5, "1.5 GB"))
    return {"name": "functional_encryption_whole", "synthetic": "images" not in peers, "figures": figures}


BENCHMARKS_WITH_PEERS: dict[str, Callable[[Peers], Figures]] = {
    "functional_encryption": functional_encryption,
    "functional_encryption_whole": functional_encryption_whole,
}
"""What `learnchain bench NAME --with PEER=PATH` runs."""


def addition_limit() -> float:
    """Return the nanoseconds of one addition by the kernel alone, one chain again and again, all of it in cache."""
    points = generator_multiples(list(range(1, 2 * CHAIN * LANES + 1)))
    lanes, scratch = np.concatenate([spread_over_lanes(points), spread_over_lanes(points[:LANES])]), scratch_space()
    index = np.arange(CHAIN, dtype=np.int64)
    rows = np.stack([np.full(CHAIN, 2 * CHAIN), index, index + CHAIN], axis=1)
    add_indexed(lanes, rows, scratch)
    return 1e9 * median(_seconds(lambda: add_indexed(lanes, rows, scratch)) for _ in range(20)) / (CHAIN * LANES)


class _WholeSet:
    """Carry a data set through the files that a data node and a miner keep."""

    def __init__(self, samples: NDArray[np.uint8], directory: Path, pool: ThreadPoolExecutor) -> None:
        self._samples, self._pool = samples, pool
        self._secret, self._public = generate_master_keys(_SEED, DIMENSION)
        self._header = build_header(self._public, len(samples))
        self.wire, self._points = directory / "wire", directory / "points"
        self._leaves: list[bytes] = []
        self.wrong = 0

    def encrypt(self) -> None:
        """Write what travels."""
        with self.wire.open("wb") as file:
            for index, data in enumerate(self._map_in_order(self._encrypt_batch, self._header.batches())):
                file.write(data)
                self._leaves.append(batch_leaf(self._header, index, data))

    def decompress(self) -> None:
        """Write checked points with both coordinates."""
        with self._points.open("wb") as file:
            for points in self._map_in_order(self._decompress_batch, self._header.batches()):
                file.write(points)

    def open(self, queries: NDArray[np.integer]) -> None:
        """Verify the key, open every sample, count what differs from the plain projection."""
        key = derive_key(self._secret, self._public, queries)
        verify_key(self._public, queries, key)
        opener, rows = Decryptor(self._header, key, queries), self._header.slots * LANES

        def count_differences(group: int) -> int:
            own = self._samples[group * rows : (group + 1) * rows]
            batches = range(group * LANES, min((group + 1) * LANES, self._header.batches()))
            values = opener.open_group([self._read(batch) for batch in batches])
            return int((values[: len(own)] != own @ queries.T.astype(np.int64)).sum())

        self.wrong += sum(self._map_in_order(count_differences, -(-self._header.batches() // LANES)))

    def _encrypt_batch(self, index: int) -> bytes:
        rows = self._samples[index * self._header.slots : (index + 1) * self._header.slots]
        return encode_batch(encrypt_batch(self._secret, self._header, index, rows))

    def _decompress_batch(self, index: int) -> bytes:
        size = self._header.batch_bytes()
        with self.wire.open("rb") as file:
            file.seek(index * size)
            return decode_batch(self._header, index, file.read(size), self._leaves[index]).points.tobytes()

    def _read(self, index: int) -> CipherBatch:
        shape = (1 + self._header.slots * DIMENSION, 2, 32)
        size = int(np.prod(shape))
        return CipherBatch(np.fromfile(self._points, np.uint8, size, offset=index * size).reshape(shape))

    def _map_in_order(self, act: Callable[[int], Result], count: int) -> Iterator[Result]:
        """Run through the pool in order, a few at a time: what is done and not yet taken must fit in memory."""
        waiting: deque[Future[Result]] = deque()
        for index in range(count):
            waiting.append(self._pool.submit(act, index))
            if len(waiting) > 2 * _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _modes() -> dict[str, NDArray[np.integer]]:
    """Return the query matrices of one block in the three modes of PoLe's mapping layer."""
    return {
        "paper": np.array(query_vectors(_SEED, DIMENSION, OUTPUTS, 3, Shift.TRUNCATE)),
        "sparse": np.array(sparse_vectors(_SEED, DIMENSION, OUTPUTS)),
        "dense": np.array(dense_vectors(_SEED, DIMENSION, OUTPUTS)),
    }


def _random_samples(count: int) -> NDArray[np.uint8]:
    drawn = shake256("benchmark/encryption", _SEED, count * DIMENSION)
    return np.frombuffer(drawn, dtype=np.uint8).reshape(count, DIMENSION)


def _images(path: Path) -> NDArray[np.uint8]:
    data = path.read_bytes()
    if data[:4] != b"\0\0\x08\x03" or (len(data) - _IDX_HEADER_BYTES) % DIMENSION:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no plain IDX file of 28 x 28 images")
    return np.frombuffer(data, dtype=np.uint8, offset=_IDX_HEADER_BYTES).reshape(-1, DIMENSION)


def _time_peers(peers: Peers, sample: NDArray[np.uint8]) -> dict[str, PeerSeconds | None]:
    """Time the peers that are here, at the weights of `paper`; one that is not here stays in the list as such."""
    queries, wide = _modes()["paper"][:_PEER_QUERIES], sample.astype(np.int64)
    rivals: dict[str, PeerSeconds | None] = {f"CiFEr, {bits} bits": None for bits in MODULI}
    rivals["pymife, 2048 bits"] = None
    if "cifer" in peers:
        library = Cifer(peers["cifer"])
        rivals |= {f"CiFEr, {bits} bits": library.seconds(bits, wide, queries) for bits in MODULI}
    if "pymife" in peers:
        rivals["pymife, 2048 bits"] = pymife_seconds(peers["pymife"], wide, queries)
    return rivals


def _compare_with_peers(
    what: str, seconds: float, rivals: Mapping[str, PeerSeconds | None], choose: Callable[[PeerSeconds], float]
) -> list[Figures]:
    return [
        figure(what, 1e3 * seconds, "ms", choose(rival) / seconds, name)
        if rival is not None
        else figure(what, 1e3 * seconds, "ms", None, f"{name}: not here")
        for name, rival in rivals.items()
    ]


def _addition_figures(what: str, additions: float, seconds: float, limit: float, plain: int) -> list[Figures]:
    each = 1e9 * seconds / additions
    return [
        figure(f"{what}: additions an image", additions, "", plain / additions, "operation by operation"),
        figure(f"{what}: one addition, everything included", each, "ns", each / limit, f"the kernel: {limit:.1f} ns"),
    ]


_FIRST_USE = """
import time
started = time.perf_counter()
from learnchain.encryption.functional.group import compress, decompress, generator_multiples
decompress(compress(generator_multiples([1, 2, 3])))
print(time.perf_counter() - started)
"""


def _first_use() -> list[Figures]:
    """Time import and first use of the kernels in a fresh process: with an empty cache, then with a filled one."""
    with TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        runs = [
            subprocess.run([sys.executable, "-c", _FIRST_USE], env=environment, capture_output=True, check=True)
            for _ in range(2)
        ]
    compiling, cached = (float(run.stdout) for run in runs)
    return [figure("first use in a process, compiled code cached", cached, "s", compiling / cached, "empty cache")]


def _wall(what: str, act: Callable[[], None], limit: int | None) -> list[Figures]:
    """Time both ways: the wall clock holds on a quiet machine only, processor seconds nearly always."""
    started, worked = time.perf_counter(), time.process_time()
    act()
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    against = "" if limit is None else f"{limit} s"
    ratios = (None, None) if limit is None else (seconds / limit, processor / (_THREADS * limit))
    return [
        figure(what, seconds, "s wall, two threads", ratios[0], against),
        figure(what, processor, "processor s", ratios[1], against and f"{_THREADS} x {against}"),
    ]
