"""The processes of the benchmarks: the ends of a transfer, the nodes of a gossip, and what keeps cores busy."""

import asyncio
import hashlib
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection as ProcessPipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from learnchain.network.concurrency import SystemClock
from learnchain.network.gossip import ValidationResult
from learnchain.network.listening import ListenPlan, listen
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
from learnchain.storage.blobs.peer_blobs import PeerBlobs

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

    async def judge(peer_id: bytes, payload: bytes) -> ValidationResult:
        signer, signature, body = payload[:32], payload[32 : 32 + _SIGNATURE_BYTES], payload[32 + _SIGNATURE_BYTES :]
        if not is_signed_by(signer, body, signature):
            raise Rejected(RejectionReason.WRONG_SIGNATURE)
        # One machine has one steady clock for all processes.
        delays.append((time.monotonic_ns() - int.from_bytes(body[:_STAMP_BYTES], "big")) / 1e9)
        return ValidationResult.ACCEPT

    network.on_topic("benchmark", judge)
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
