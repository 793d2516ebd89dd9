"""Figures of network and blobs, each beside its anchor in the same run: what `learnchain bench` and CI take.

Every node is a process of its own, as in life. The transport is the one that a node would take here.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from learnchain.benchmarks.network_processes import (
    PIECE_BYTES,
    Children,
    burn,
    give_blob,
    give_streams,
    gossip,
    open_network,
    open_transport,
)
from learnchain.encoding.content_id import UNIXFS_V1_2025, Cid, cid_of_block
from learnchain.network.listening import IROH, TLS, is_iroh_installed
from learnchain.network.transport import parse_address
from learnchain.storage.blobs.blob_files import tree_of_file
from learnchain.storage.blobs.peer_blobs import PeerBlobs

Figures = dict[str, Any]
BLOB_BYTES = 200_000_000
MODEL_BYTES = 270_000_000
NODES = 5
MESSAGES_PER_SECOND = 100
GOSSIP_SECONDS = 10
SLOWEST_SECONDS = 0.05
_ROUNDS, _HASH_ROUNDS = 3, 15


def blob_transfer() -> Figures:
    """Compare fetching a blob of 200 MB, verified and written to disk, with one bare stream of the same transport."""
    with TemporaryDirectory() as directory, Children() as children:
        source = Path(directory) / "source"
        _write_random(source, BLOB_BYTES)
        bare = children.start(give_streams, BLOB_BYTES).recv()
        address, cid = children.start(give_blob, str(source), f"{directory}/given").recv()
        rounds = asyncio.run(_alternate_transfers(bare, address, cid, Path(directory)))
    stream, blob = (median(each[index] for each in rounds[1:]) for index in (0, 1))
    figures = [
        _figure("blob of 200 MB", BLOB_BYTES / blob / 1e6, "MB/s", stream / blob, "bare stream"),
        _figure("bare stream of 200 MB", BLOB_BYTES / stream / 1e6, "MB/s", 1.0, "itself"),
    ]
    return {"name": "blobs", "synthetic": True, "transport": _transport_name(), "figures": figures}


def gossip_latency() -> Figures:
    """Send signed messages of 2 KB at 100 a second through 5 nodes while two other processes keep both cores busy."""
    with Children() as children:
        pipes = [children.start(gossip, MESSAGES_PER_SECOND / NODES, GOSSIP_SECONDS) for _ in range(NODES)]
        addresses = [pipe.recv() for pipe in pipes]
        for number, pipe in enumerate(pipes):
            # A ring and a chord: every node has two or three neighbours.
            pipe.send([addresses[number - 1], *([addresses[2]] if number == 0 else [])])
        for signal in ("warm up", "measure"):
            for pipe in pipes:
                pipe.recv()
            if signal == "measure":
                for _ in range(2):
                    children.start(burn)
            for pipe in pipes:
                pipe.send(signal)
        delays = [delay for pipe in pipes for delay in pipe.recv()]
    expected = MESSAGES_PER_SECOND * GOSSIP_SECONDS * (NODES - 1)
    share, slow = len(delays) / expected, quantiles(delays, n=100)[98]
    figures = [
        _figure("messages delivered", 100 * share, "%", share, f"all {expected} deliveries"),
        _figure("median delay", 1000 * median(delays), "ms", median(delays) / SLOWEST_SECONDS, "50 ms"),
        _figure("99th percentile of the delay", 1000 * slow, "ms", slow / SLOWEST_SECONDS, "50 ms"),
    ]
    return {"name": "gossip", "synthetic": True, "transport": _transport_name(), "figures": figures}


def model_hashing() -> Figures:
    """Compare the CID of a model of 270 MB with SHA-256 over the same file, and with the most that the cores give."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "model"
        _write_random(path, MODEL_BYTES)
        held = path.read_bytes()
        ways = (lambda: tree_of_file(path), lambda: _sha256(path), lambda: _hash_cached(held))
        rounds = [[_seconds(way) for way in ways] for _ in range(_HASH_ROUNDS + 1)]
    ours, anchor, most = (median(each[index] for each in rounds[1:]) for index in range(3))
    figures = [
        _figure("CID of 270 MB", MODEL_BYTES / ours / 1e6, "MB/s", anchor / ours, "hashlib.sha256"),
        _figure("its leaves, held in memory", MODEL_BYTES / most / 1e6, "MB/s", anchor / most, "hashlib.sha256"),
    ]
    return {"name": "hashing", "synthetic": True, "figures": figures}


BENCHMARKS: dict[str, Callable[[], Figures]] = {
    "blobs": blob_transfer,
    "gossip": gossip_latency,
    "hashing": model_hashing,
}
"""What `learnchain bench NAME` runs."""


async def _alternate_transfers(bare: str, address: str, cid: Cid, directory: Path) -> list[tuple[float, float]]:
    """Return the seconds of stream and blob, round by round; the first round warms up."""
    transport, network = await open_transport(), await open_network()
    await network.start([parse_address(address)])
    connection = await transport.connect(parse_address(bare))
    while not network.peers():
        await asyncio.sleep(0.01)
    rounds: list[tuple[float, float]] = []
    for number in range(_ROUNDS + 1):
        started = time.perf_counter()
        stream = await connection.open_stream()
        await stream.write(b"x")
        while await stream.read(PIECE_BYTES):
            pass
        await stream.finish()
        streamed = time.perf_counter()
        blobs = PeerBlobs(directory / str(number), network)
        path = await blobs.fetch(cid, max_bytes=BLOB_BYTES)
        rounds.append((streamed - started, time.perf_counter() - streamed))
        path.unlink()
    await network.close()
    await transport.close()
    return rounds


def _transport_name() -> str:
    return IROH if is_iroh_installed() else TLS


def _write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, PIECE_BYTES):
            file.write(os.urandom(min(PIECE_BYTES, size - start)))


def _sha256(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _hash_cached(held: bytes) -> None:
    """Hash the leaves of a file that need not be read: what no reading of files can exceed."""
    size, threads = UNIXFS_V1_2025.leaf_bytes, os.cpu_count() or 1
    view, offsets = memoryview(held), range(0, len(held), size)

    def some(first: int) -> None:
        for offset in offsets[first::threads]:
            cid_of_block(view[offset : offset + size])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _figure(what: str, value: float, unit: str, ratio: float, against: str) -> Figures:
    return {"what": what, "value": round(value, 4), "unit": unit, "ratio": round(ratio, 4), "against": against}
