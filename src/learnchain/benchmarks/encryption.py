"""Measure inner products of encrypted data beside their peers, and over a whole data set, in the form of all benches.

Times are processor seconds of one core unless a figure says otherwise, so that a busy machine distorts them little.
"""

import os
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from learnchain.benchmarks.encryption_peers import Cifer, PeerSeconds, pymife_seconds
from learnchain.encoding.hashing import shake256
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
from learnchain.rejection import Rejected, RejectionReason

Figures = dict[str, Any]
Peers = Mapping[str, Path]
Result = TypeVar("Result")
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
        figures.append(_figure(f"verify a block's key, {mode}", checking, "s", None, "once a block"))
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
        figures.append(_figure("products that differ from the plain projection", whole.wrong, "", None, "0"))
        wire = whole.wire.stat().st_size
    figures.append(_figure("ciphertexts", wire / 1e9, "GB", wire / samples.size, "plain bytes"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures.append(_figure("peak memory, plain samples included", peak, "GB", peak / 1.5, "1.5 GB"))
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

    def __init__(self, samples: NDArray[np.uint8], place: Path, pool: ThreadPoolExecutor) -> None:
        self._samples, self._pool = samples, pool
        self._secret, self._public = generate_master_keys(_SEED, DIMENSION)
        self._header = build_header(self._public, len(samples))
        self.wire, self._points = place / "wire", place / "points"
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

        def opened(group: int) -> int:
            own = self._samples[group * rows : (group + 1) * rows]
            batches = range(group * LANES, min((group + 1) * LANES, self._header.batches()))
            values = opener.open_group([self._read(batch) for batch in batches])
            return int((values[: len(own)] != own @ queries.T.astype(np.int64)).sum())

        self.wrong += sum(self._map_in_order(opened, -(-self._header.batches() // LANES)))

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
        _figure(what, 1e3 * seconds, "ms", choose(rival) / seconds, name)
        if rival is not None
        else _figure(what, 1e3 * seconds, "ms", None, f"{name}: not here")
        for name, rival in rivals.items()
    ]


def _addition_figures(what: str, additions: float, seconds: float, limit: float, plain: int) -> list[Figures]:
    each = 1e9 * seconds / additions
    return [
        _figure(f"{what}: additions an image", additions, "", plain / additions, "operation by operation"),
        _figure(f"{what}: one addition, everything included", each, "ns", each / limit, f"the kernel: {limit:.1f} ns"),
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
    return [_figure("first use in a process, compiled code cached", cached, "s", compiling / cached, "empty cache")]


def _figure(what: str, value: float, unit: str, ratio: float | None, against: str) -> Figures:
    rounded = None if ratio is None else round(ratio, 4)
    return {"what": what, "value": round(value, 4), "unit": unit, "ratio": rounded, "against": against}


def _wall(what: str, act: Callable[[], None], limit: int | None) -> list[Figures]:
    """Time both ways: the wall clock holds on a quiet machine only, processor seconds nearly always."""
    started, worked = time.perf_counter(), time.process_time()
    act()
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    against = "" if limit is None else f"{limit} s"
    ratios = (None, None) if limit is None else (seconds / limit, processor / (_THREADS * limit))
    return [
        _figure(what, seconds, "s wall, two threads", ratios[0], against),
        _figure(what, processor, "processor s", ratios[1], against and f"{_THREADS} x {against}"),
    ]


def _seconds(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started
