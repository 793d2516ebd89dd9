import asyncio
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from learnchain.encoding.content_id import Codec, HashKind, Link, cid_of_block, cid_of_bytes, cid_text, encode_node
from learnchain.network.concurrency import SystemClock
from learnchain.network.network import Network
from learnchain.network.tls_transport import TlsTransport
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.simulated_network import SimulatedClock, SimulatedNetwork, run_simulated
from learnchain.storage.blobs.fetching import METHOD_LEAF, METHOD_TREE
from learnchain.storage.blobs.peer_blobs import PeerBlobs
from tests.network.worlds import identity

MEBIBYTE = 1024 * 1024
DATA = hashlib.shake_128(b"blob").digest(5 * MEBIBYTE + 17)
SMALL = DATA[:1_000]


class Peers:
    """Some nodes with blobs in one simulation, all connected to the first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.simulated = SimulatedNetwork(3)
        self.networks: list[Network] = []

    async def node(self, name: str) -> tuple[Network, PeerBlobs]:
        transport = self.simulated.transport(identity(name))
        network = Network(transport, bytes(32), SimulatedClock(), random.Random(len(self.networks)))
        blobs = PeerBlobs(self.directory / name, network)
        await network.start()
        if self.networks:
            await network.connect(self.networks[0].address())
            await asyncio.sleep(1)
        self.networks.append(network)
        return network, blobs


def simulate(directory: Path, scenario: Callable[[Peers], Awaitable[None]]) -> None:
    async def whole() -> None:
        peers = Peers(directory)
        try:
            async with asyncio.timeout(3_600):
                await scenario(peers)
        finally:
            for network in peers.networks:
                await network.close()

    run_simulated(whole())


def spy(network: Network, method: str) -> list[bytes]:
    """Record the questions that a node is asked."""
    asked: list[bytes] = []
    handle = network._handlers[method]

    def recorded(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        asked.append(body)
        return handle(peer_id, body)

    network.on_request(method, recorded)
    return asked


@pytest.mark.parametrize("data", [b"", b"x", SMALL, DATA[:MEBIBYTE], DATA], ids=len)
def test_local_store_keeps_what_it_was_given(tmp_path: Path, data: bytes) -> None:
    async def whole() -> None:
        blobs = PeerBlobs(tmp_path / "blobs")
        (tmp_path / "source").write_bytes(data)
        cid = await blobs.add(tmp_path / "source")
        assert cid == await blobs.add_bytes(data) == cid_of_bytes(data)
        assert await PeerBlobs(tmp_path / "blobs").read(cid, len(data)) == data
        stat = await blobs.stat(cid)
        assert (stat.size_bytes, stat.complete, stat.pinned) == (len(data), True, False)
        await blobs.verify(cid)
        with pytest.raises(Unavailable):
            await blobs.fetch(cid_of_block(b"elsewhere"), max_bytes=10)

    asyncio.run(whole())


@pytest.mark.parametrize("data", [b"", SMALL, DATA], ids=len)
def test_blob_travels(tmp_path: Path, data: bytes) -> None:
    async def scenario(peers: Peers) -> None:
        _, giver = await peers.node("giver")
        _, taker = await peers.node("taker")
        cid = await giver.add_bytes(data)
        seen: list[tuple[int, int]] = []
        path = await taker.fetch(cid, max_bytes=len(data), progress=lambda here, all_: seen.append((here, all_)))
        assert path.read_bytes() == data
        assert seen == sorted(seen)
        assert seen[-1] == (len(data), len(data))

    simulate(tmp_path, scenario)


def test_concurrent_fetches_share_one(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        network, giver = await peers.node("giver")
        _, taker = await peers.node("taker")
        cid = await giver.add_bytes(DATA)
        asked = spy(network, METHOD_LEAF)
        paths = await asyncio.gather(*(taker.fetch(cid, max_bytes=len(DATA)) for _ in range(5)))
        assert len(set(paths)) == 1
        assert len(asked) == 6

    simulate(tmp_path, scenario)


@pytest.mark.parametrize("data", [SMALL, DATA], ids=len)
def test_blob_above_the_limit_is_too_large_and_blames_nobody(tmp_path: Path, data: bytes) -> None:
    async def scenario(peers: Peers) -> None:
        network, giver = await peers.node("giver")
        taking, taker = await peers.node("taker")
        cid = await giver.add_bytes(data)
        asked = spy(network, METHOD_LEAF)
        for store in (taker, giver):
            with pytest.raises(Rejected) as caught:
                await store.fetch(cid, max_bytes=len(data) - 1)
            assert caught.value.reason is RejectionReason.TOO_LARGE
        assert len(asked) <= 1
        assert [peer.score for peer in taking.peers()] == [0.0]

    simulate(tmp_path, scenario)


def test_nobody_has_it(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        await peers.node("giver")
        _, taker = await peers.node("taker")
        for cid in (cid_of_block(b"nowhere"), cid_of_block(b"nowhere", Codec.DAG_PB)):
            with pytest.raises(Unavailable):
                await taker.fetch(cid, max_bytes=10)

    simulate(tmp_path, scenario)


@pytest.mark.parametrize("data", [SMALL, DATA], ids=len)
def test_corrupt_source_is_dropped_at_its_first_block(tmp_path: Path, data: bytes) -> None:
    async def scenario(peers: Peers) -> None:
        taking, taker = await peers.node("taker")
        corrupting, corrupt = await peers.node("corrupt")
        _, honest = await peers.node("honest")
        cid = await honest.add_bytes(data)
        await corrupt.add_bytes(data)
        leaves: list[bytes] = []

        async def lie(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            leaves.append(body)
            yield b"!" * min(len(data), MEBIBYTE)

        corrupting.on_request(METHOD_LEAF, lie)
        path = await taker.fetch(cid, max_bytes=len(data), sources=[corrupting.peer_id])
        assert path.read_bytes() == data
        assert 1 <= len(leaves) <= 3
        scores = {peer.peer_id: peer.score for peer in taking.peers()}
        assert scores[corrupting.peer_id] < -15

    simulate(tmp_path, scenario)


def test_false_tree_is_blamed_on_its_sender_and_another_source_asked(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        taking, taker = await peers.node("taker")
        lying, _ = await peers.node("liar")
        _, honest = await peers.node("honest")
        cid = await honest.add_bytes(DATA)

        async def lie(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            node = encode_node((Link(cid_of_block(b"x"), 1, 1),))
            yield len(node).to_bytes(4, "big") + node

        lying.on_request(METHOD_TREE, lie)
        path = await taker.fetch(cid, max_bytes=len(DATA), sources=[lying.peer_id])
        assert path.read_bytes() == DATA
        assert {peer.peer_id: peer.score < -15 for peer in taking.peers()}[lying.peer_id]

    simulate(tmp_path, scenario)


def test_several_sources_share_the_work(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        _, taker = await peers.node("taker")
        asked = []
        for name in ("one", "two"):
            network, giver = await peers.node(name)
            cid = await giver.add_bytes(DATA)
            asked.append(spy(network, METHOD_LEAF))
        await taker.fetch(cid, max_bytes=len(DATA))
        assert min(map(len, asked)) >= 1
        assert sum(map(len, asked)) == 6

    simulate(tmp_path, scenario)


def test_fetch_resumes_from_another_source(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        _, taker = await peers.node("taker")
        first, giver = await peers.node("first")
        cid = await giver.add_bytes(DATA)
        allowed = 3

        async def some(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            nonlocal allowed
            allowed -= 1
            if allowed < 0:
                raise Unavailable("no more")
            async for chunk in giver._serve_leaf(peer_id, body):
                yield chunk

        first.on_request(METHOD_LEAF, some)
        with pytest.raises(Unavailable):
            await taker.fetch(cid, max_bytes=len(DATA))
        second, other = await peers.node("second")
        await other.add_bytes(DATA)
        asked = spy(second, METHOD_LEAF)
        path = await PeerBlobs(peers.directory / "taker", peers.networks[0]).fetch(cid, max_bytes=len(DATA))
        assert path.read_bytes() == DATA
        assert len(asked) == 3

    simulate(tmp_path, scenario)


def test_damaged_leaf_is_not_served(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        _, giver = await peers.node("giver")
        taking, taker = await peers.node("taker")
        cid = await giver.add_bytes(DATA)
        path = giver.path(cid)
        assert path is not None
        with path.open("r+b") as file:
            file.seek(2 * MEBIBYTE)
            file.write(b"rot")
        with pytest.raises(Unavailable):
            await taker.fetch(cid, max_bytes=len(DATA))
        assert [peer.score for peer in taking.peers()] == [0.0]
        with pytest.raises(Rejected) as caught:
            await giver.verify(cid)
        assert caught.value.reason is RejectionReason.WRONG_HASH
        assert giver.path(cid) is None

    simulate(tmp_path, scenario)


def test_bad_questions_get_reasons(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        network, giver = await peers.node("giver")
        asking, _ = await peers.node("asker")
        cid = await giver.add_bytes(DATA)
        for method, body, reason in (
            (METHOD_TREE, b"", RejectionReason.MALFORMED),
            (METHOD_LEAF, cid, RejectionReason.MALFORMED),
            (METHOD_LEAF, b"../../../etc/passwd" + bytes(21), RejectionReason.MALFORMED),
            (METHOD_LEAF, cid + b"\0\0\0\6", RejectionReason.ARGUMENT_INVALID),
        ):
            with pytest.raises(Unavailable) as caught:
                await asking.request_bytes(network.peer_id, method, body)
            assert caught.value.reason is reason

    simulate(tmp_path, scenario)


def test_sha256_blobs_are_readable(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        network, _ = await peers.node("giver")
        _, taker = await peers.node("taker")
        cid = cid_of_block(SMALL, Codec.RAW, HashKind.SHA2_256)

        async def serve(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            yield SMALL

        network.on_request(METHOD_LEAF, serve)
        assert await taker.read(cid, len(SMALL)) == SMALL

    simulate(tmp_path, scenario)


def test_quota_frees_the_oldest_unpinned(tmp_path: Path) -> None:
    async def whole() -> None:
        blobs = PeerBlobs(tmp_path, quota_bytes=3_000)
        cids = []
        for number in range(5):
            cids.append(await blobs.add_bytes(bytes([number]) * 1_000))
            path = blobs.path(cids[-1])
            assert path is not None
            os.utime(path, (number, number))
            if number == 0:
                await blobs.pin(cids[0])
        here = [(await blobs.stat(cid)).complete for cid in cids]
        assert here == [True, False, False, True, True]
        assert blobs.pins() == (cids[0],)
        await blobs.unpin(cids[0])
        assert await blobs.collect_garbage(0) == 3_000

    asyncio.run(whole())


KILLED = """
import asyncio, sys
from pathlib import Path
from learnchain.storage.blobs.peer_blobs import PeerBlobs
async def main():
    blobs = PeerBlobs(Path(sys.argv[1]))
    print("ready", flush=True)
    for number in range(100_000):
        await blobs.add_bytes(number.to_bytes(4, "big") * 600_000)
asyncio.run(main())
"""


def test_killed_store_holds_whole_blobs_only(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    blobs = PeerBlobs(tmp_path)

    async def whole() -> int:
        count = 0
        for number in range(1_000):
            cid = cid_of_bytes(number.to_bytes(4, "big") * 600_000)
            if blobs.path(cid) is None:
                break
            await blobs.verify(cid)
            count += 1
        return count

    assert asyncio.run(whole()) == len(list((tmp_path / "files").iterdir())) > 0
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.network
def test_blob_travels_over_tls(tmp_path: Path) -> None:
    async def whole() -> None:
        stores, networks = [], []
        for number in range(3):
            transport = await TlsTransport.listen(identity(f"blob {number}"))
            networks.append(Network(transport, bytes(32), SystemClock(), random.Random(number)))
            stores.append(PeerBlobs(tmp_path / str(number), networks[-1]))
            await networks[-1].start()
        cid = await stores[0].add_bytes(DATA * 4)
        await stores[1].add_bytes(DATA * 4)
        for network in networks[:2]:
            await networks[2].connect(network.address())
        start = time.perf_counter()
        path = await stores[2].fetch(cid, max_bytes=4 * len(DATA))
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(DATA * 4).digest()
        print(f"{4 * len(DATA) / 1e6 / (time.perf_counter() - start):.1f} MB/s for {cid_text(cid)}")  # noqa: T201
        await asyncio.gather(*(network.close() for network in networks))

    asyncio.run(whole())
    shutil.rmtree(tmp_path)
