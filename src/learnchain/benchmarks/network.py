"""Figures of network and blobs, each beside its anchor in the same run: what `learnchain bench` and CI take.

Every node is a process of its own, as in life. The transport is the one that a node would take here.

The processes of the benchmarks: the ends of a transfer, the nodes of a gossip, and what keeps cores busy.
"""

import asyncio
import hashlib
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection as ProcessPipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from learnchain.benchmarks import Figures, figure, measure_seconds
from learnchain.encoding.content_id import UNIXFS_V1_2025, Cid, cid_of_block
from learnchain.network.concurrency import SystemClock
from learnchain.network.gossip import ValidationResult
from learnchain.network.listening import IROH, TLS, ListenPlan, is_iroh_installed, listen
from learnchain.network.network import Network
from learnchain.network.transport import (
    ConnectionLost,
    Transport,
    is_signed_by,
    parse_address,
    peer_id_of,
    signature_of,
)
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.blobs.blob_files import tree_of_file
from learnchain.storage.blobs.peer_blobs import PeerBlobs

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
        figure("blob of 200 MB", BLOB_BYTES / blob / 1e6, "MB/s", stream / blob, "bare stream"),
        figure("bare stream of 200 MB", BLOB_BYTES / stream / 1e6, "MB/s", 1.0, "itself"),
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
        figure("messages delivered", 100 * share, "%", share, f"all {expected} deliveries"),
        figure("median delay", 1000 * median(delays), "ms", median(delays) / SLOWEST_SECONDS, "50 ms"),
        figure("99th percentile of the delay", 1000 * slow, "ms", slow / SLOWEST_SECONDS, "50 ms"),
    ]
    return {"name": "gossip", "synthetic": True, "transport": _transport_name(), "figures": figures}


def model_hashing() -> Figures:
    """Compare the CID of a model of 270 MB with SHA-256 over the same file, and with the most that the cores give."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "model"
        _write_random(path, MODEL_BYTES)
        held = path.read_bytes()
        ways = (lambda: tree_of_file(path), lambda: _sha256(path), lambda: _hash_cached(held))
        rounds = [[measure_seconds(way) for way in ways] for _ in range(_HASH_ROUNDS + 1)]
    ours, anchor, most = (median(each[index] for each in rounds[1:]) for index in range(3))
    figures = [
        figure("CID of 270 MB", MODEL_BYTES / ours / 1e6, "MB/s", anchor / ours, "hashlib.sha256"),
        figure("its leaves, held in memory", MODEL_BYTES / most / 1e6, "MB/s", anchor / most, "hashlib.sha256"),
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


Part = Callable[..., Coroutine[Any, Any, None]]
PIECE_BYTES = 1 << 20
MESSAGE_BYTES = 2_048
NETWORK_ID = b"b" * 32
WARM_UP_SECONDS = 2.0
SETTLE_SECONDS = 3.0
_STAMP_BYTES = 8
_SIGNATURE_BYTES = 64


class Children:
    """Start processes, each with a pipe to talk through; all end with the `with` block."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._processes: list[BaseProcess] = []

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def start(self, part: Part, *arguments: object) -> ProcessPipe:
        """Run a part in a process of its own; return our end of its pipe."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_run_part, args=(part, theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        self._processes.append(process)
        return ours


def _run_part(part: Part, pipe: ProcessPipe, *arguments: object) -> None:
    asyncio.run(part(pipe, *arguments))


async def open_transport() -> Transport:
    """Return the transport that a node would take here, under a new identity."""
    return await listen(ListenPlan(os.urandom(32)))


async def open_network() -> Network:
    """Return a network on such a transport."""
    return Network(await open_transport(), NETWORK_ID, SystemClock(), random.SystemRandom())


async def give_streams(pipe: ProcessPipe, size: int) -> None:
    """Send so many bytes on every stream that is opened to us."""
    transport = await open_transport()
    pipe.send(str(transport.address()))
    piece = os.urandom(PIECE_BYTES)
    while True:
        connection = await transport.accept()
        try:
            while True:
                stream = await connection.accept_stream()
                await stream.read_exactly(1)
                for start in range(0, size, PIECE_BYTES):
                    await stream.write(piece[: size - start])
                await stream.finish()
        except ConnectionLost:
            continue


async def give_blob(pipe: ProcessPipe, source: str, directory: str) -> None:
    """Serve one file as a blob until the process ends."""
    network = await open_network()
    blobs = PeerBlobs(Path(directory), network)
    cid = await blobs.add(Path(source))
    await network.start()
    pipe.send((str(network.address()), cid))
    await asyncio.Event().wait()


async def gossip(pipe: ProcessPipe, rate_per_second: float, seconds: float) -> None:
    """Publish signed messages at a rate and report how long those of the others took, in seconds."""
    network = await open_network()
    delays: list[float] = []

    async def validate(peer_id: bytes, payload: bytes) -> ValidationResult:
        signer, signature, body = payload[:32], payload[32 : 32 + _SIGNATURE_BYTES], payload[32 + _SIGNATURE_BYTES :]
        if not is_signed_by(signer, body, signature):
            raise Rejected(RejectionReason.WRONG_SIGNATURE)
        # One machine has one steady clock for all processes.
        delays.append((time.monotonic_ns() - int.from_bytes(body[:_STAMP_BYTES], "big")) / 1e9)
        return ValidationResult.ACCEPT

    network.on_topic("benchmark", validate)
    pipe.send(str(network.address()))
    neighbours = await asyncio.to_thread(pipe.recv)
    await network.start(parse_address(each) for each in neighbours)
    while len(network.peers()) < 2:
        await asyncio.sleep(0.05)
    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    await _publish(network, rate_per_second, WARM_UP_SECONDS)
    await asyncio.sleep(SETTLE_SECONDS)
    delays.clear()
    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    await _publish(network, rate_per_second, seconds)
    await asyncio.sleep(SETTLE_SECONDS)
    pipe.send(delays)


async def _publish(network: Network, rate_per_second: float, seconds: float) -> None:
    identity = os.urandom(32)
    signer = peer_id_of(identity)
    filler = os.urandom(MESSAGE_BYTES - 32 - _SIGNATURE_BYTES - _STAMP_BYTES)
    begun = time.monotonic()
    for number in range(round(rate_per_second * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate_per_second - time.monotonic()))
        body = time.monotonic_ns().to_bytes(_STAMP_BYTES, "big") + filler
        await network.publish("benchmark", signer + signature_of(identity, body) + body)


async def burn(pipe: ProcessPipe) -> None:
    """Keep a core busy, with the lower priority that training has beside a node."""
    os.nice(5)
    digest = b""
    while True:
        digest = hashlib.sha256(digest * 1_000).digest()
