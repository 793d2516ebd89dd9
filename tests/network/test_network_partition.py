"""A cut network over real transports: connections die, the halves go on, and healing loses nothing."""

import asyncio
import random

import pytest

from learnchain.encoding.content_id import cid_of_block, cid_of_bytes
from learnchain.network.concurrency import SystemClock
from learnchain.network.gossip import ValidationResult
from learnchain.network.multiplexer import ConnectionLimits
from learnchain.network.network import Network
from learnchain.network.tls_transport import TlsTransport
from learnchain.network.transport import PeerAddress, Transport
from learnchain.rejection import Unavailable
from learnchain.storage.blobs.peer_blobs import PeerBlobs
from tests.network.worlds import identity, iroh_transport

NETWORK_ID = b"n" * 32
LIMITS = ConnectionLimits(keepalive_seconds=0.2, idle_seconds=1.0)


class Cable:
    """Forward TCP to a node, and be cut: bytes vanish and nobody is told, as with a firewall that drops."""

    def __init__(self, target: PeerAddress) -> None:
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def lay(self) -> PeerAddress:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return PeerAddress("127.0.0.1", self._server.sockets[0].getsockname()[1], self._target.peer_id)

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                if self._whole.is_set():
                    sink.write(data)
        except OSError:
            pass
        sink.close()


def network_on(transport: Transport, received: list[bytes]) -> Network:
    network = Network(transport, NETWORK_ID, SystemClock(), random.Random(1))

    async def accept(peer_id: bytes, payload: bytes) -> ValidationResult:
        received.append(payload)
        return ValidationResult.ACCEPT

    network.on_topic("topic", accept)
    return network


async def until(condition: object, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


@pytest.mark.network
def test_cut_and_healed_halves_know_the_same() -> None:
    async def whole() -> None:
        received: list[list[bytes]] = [[], [], []]
        transports = [await TlsTransport.listen(identity(f"node {n}"), limits=LIMITS) for n in range(3)]
        left, right, beyond = (network_on(t, r) for t, r in zip(transports, received, strict=True))
        cable = Cable(left.address())
        await left.start()
        await right.start([await cable.lay()])
        await beyond.start([right.address()])
        await until(lambda: len(left.peers()) == 1 and len(right.peers()) == 2)
        cable.cut()
        await until(lambda: not left.peers() and len(right.peers()) == 1)
        await left.publish("topic", b"left")
        await right.publish("topic", b"right")
        await until(lambda: received[2] == [b"right"])
        assert received[0] == received[1] == []
        cable.mend()
        await until(lambda: received == [[b"right"], [b"left"], [b"right", b"left"]])
        for network in (left, right, beyond):
            await network.close()
        await cable.close()

    asyncio.run(whole())


@pytest.mark.network
@pytest.mark.parametrize("kind", ["tls", "iroh"])
def test_blob_that_is_late_comes_as_soon_as_somebody_has_it(kind: str, tmp_path) -> None:
    """What a pending block does: it asks, hears that nobody has it, and asks again."""
    data = random.Random(5).randbytes(3_000_000)

    async def whole() -> None:
        made = [
            await (iroh_transport(name) if kind == "iroh" else TlsTransport.listen(identity(name)))
            for name in ("taker", "half", "giver")
        ]
        networks = [network_on(transport, []) for transport in made]
        taker, half, giver = (PeerBlobs(tmp_path / str(n), network) for n, network in enumerate(networks))
        await networks[0].start()
        for network in networks[1:]:
            await network.start([networks[0].address()])
        await until(lambda: len(networks[0].peers()) == 2)
        cid = cid_of_bytes(data)
        with pytest.raises(Unavailable):
            await taker.fetch(cid, max_bytes=len(data))
        # One peer holds the tree and the first of three leaves only.
        assert await half.add_bytes(data) == cid
        tree = half._files.tree(cid)
        assert tree is not None
        first = half._files.read_leaf(cid, tree.leaves[0])
        (tmp_path / "1" / "files").joinpath(next((tmp_path / "1" / "files").iterdir()).name).unlink()
        assert first is not None
        half._files.write_leaf(cid, tree.leaves[0], first)
        seen: list[tuple[int, int]] = []
        with pytest.raises(Unavailable):
            await taker.fetch(cid, max_bytes=len(data), progress=lambda *both: seen.append(both))
        assert seen == [(1 << 20, len(data))]
        await giver.add_bytes(data)
        path = await taker.fetch(cid, max_bytes=len(data))
        assert path.read_bytes() == data
        assert all(peer.score == 0 for peer in networks[0].peers())
        assert cid_of_block(first) == tree.leaves[0].cid
        for network in networks:
            await network.close()

    asyncio.run(whole())
