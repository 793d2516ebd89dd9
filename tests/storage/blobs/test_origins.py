"""One suite for every place where blobs can lie: a peer's disk, kubo's RPC (js-ipfs serves it), an S3 bucket (moto)."""

import asyncio
import hashlib
import os
import random
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from learnchain.encoding.content_id import cid_from_text, cid_of_bytes, cid_text
from learnchain.network.concurrency import SystemClock
from learnchain.network.network import Network
from learnchain.network.tls_transport import TlsTransport
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.storage.blobs.origins import open_origin
from learnchain.storage.blobs.peer_blobs import PeerBlobs
from tests.network.worlds import identity

pytestmark = pytest.mark.network

MEBIBYTE = 1024 * 1024
DATA = hashlib.shake_128(b"stores").digest(3 * MEBIBYTE + 17)
SMALL = DATA[:1_000]
KUBO_SERVER = Path(__file__).parent / "kubo_server"
SECONDS = 60


@dataclass
class World:
    """Open stores that share one place; `close` ends what ran for it."""

    directory: Path
    setting: str
    networks: list[Network]
    stores: list[PeerBlobs]

    async def store(self, name: str) -> PeerBlobs:
        if self.setting != "embedded":
            self.stores.append(PeerBlobs(self.directory / name, origin=open_origin(self.setting)))
            return self.stores[-1]
        network = Network(
            await TlsTransport.listen(identity(name), "127.0.0.1", 0), bytes(32), SystemClock(), random.Random(3)
        )
        await network.start()
        if self.networks:
            await network.connect(self.networks[0].address())
        self.networks.append(network)
        return PeerBlobs(self.directory / name, network)


@pytest.fixture(scope="module", params=["embedded", "folder", "kubo", "s3"])
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        yield "embedded"
    elif request.param == "folder":
        yield f"folder:{folder}/shared"
    elif request.param == "kubo":
        yield from kubo(folder)
    else:
        yield from bucket(folder)


def kubo(folder: Path) -> Iterator[str]:
    if shutil.which("node") is None or not (KUBO_SERVER / "node_modules").is_dir():
        pytest.skip("js-ipfs is not installed: make tests/storage/blobs/kubo_server/node_modules")
    command = ["node", "serve.mjs", str(folder / "repository")]
    with subprocess.Popen(command, cwd=KUBO_SERVER, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"kubo:http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def bucket(folder: Path) -> Iterator[str]:
    pytest.importorskip("obstore")
    pytest.importorskip("moto.server")
    program = (
        "import logging, sys; from moto.server import ThreadedMotoServer;"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False); server.start();"
        "print(server.get_host_and_port()[1], flush=True); sys.stdin.read()"
    )
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    before = {name: os.environ.get(name) for name in credentials}
    os.environ.update(credentials)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", program], text=True, cwd=folder, **pipes) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{int(process.stdout.readline())}/blobs"
            urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
            yield f"s3:{url}/learnchain"
        finally:
            process.kill()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def run(setting: str, directory: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        world = World(directory, setting, [], [])
        try:
            async with asyncio.timeout(SECONDS):
                await scenario(world)
        finally:
            # What the last connections have started has to begin before it can be ended.
            await asyncio.sleep(0.1)
            for store in world.stores:
                await store.close()
            for network in reversed(world.networks):
                await network.close()

    asyncio.run(whole())


@pytest.mark.parametrize("data", [DATA, DATA[: 2 * MEBIBYTE], SMALL, b""], ids=["odd", "even", "small", "empty"])
def test_what_one_adds_another_reads(setting: str, tmp_path: Path, data: bytes):
    async def scenario(world: World) -> None:
        writer, reader = await world.store("writer"), await world.store("reader")
        cid = await writer.add_bytes(data)
        assert cid == cid_of_bytes(data)
        await writer.handed_over()
        assert not (await reader.stat(cid)).complete
        assert await reader.read(cid, len(data)) == data
        assert (await reader.stat(cid)).complete

    run(setting, tmp_path, scenario)


def test_sizes_bind_before_bytes_come(setting: str, tmp_path: Path):
    async def scenario(world: World) -> None:
        writer, reader = await world.store("writer"), await world.store("reader")
        for data in (DATA, SMALL):
            cid = await writer.add_bytes(data)
            await writer.handed_over()
            with pytest.raises(Rejected) as caught:
                await reader.fetch(cid, max_bytes=len(data) - 1)
            assert caught.value.reason is RejectionReason.TOO_LARGE

    run(setting, tmp_path, scenario)


def test_what_nobody_has_is_unavailable(setting: str, tmp_path: Path):
    async def scenario(world: World) -> None:
        reader = await world.store("reader")
        for data in (b"never added", bytes(3 * MEBIBYTE)):
            with pytest.raises(Unavailable):
                await reader.fetch(cid_of_bytes(data), max_bytes=len(data))

    run(setting, tmp_path, scenario)


def test_pins_come_and_go(setting: str, tmp_path: Path):
    async def scenario(world: World) -> None:
        writer = await world.store("writer")
        cid = await writer.add_bytes(SMALL)
        for _ in range(2):
            await writer.pin(cid)
        await writer.handed_over()
        assert (await writer.stat(cid)).pinned
        for _ in range(2):
            await writer.unpin(cid)
        assert not (await writer.stat(cid)).pinned

    run(setting, tmp_path, scenario)


def test_a_store_that_is_away_stops_nobody_and_gets_its_blobs_later(tmp_path: Path):
    """Files that are owed lie on disk: another life of the node, with the store back, hands them over."""

    async def scenario() -> None:
        away = PeerBlobs(tmp_path / "node", origin=open_origin("kubo:http://127.0.0.1:1"))
        cid = await away.add_bytes(DATA)
        with pytest.raises(Unavailable):
            await away.handed_over()
        await away.close()
        taken = Taking()
        back = PeerBlobs(tmp_path / "node", origin=taken)
        await back.handed_over()
        assert taken.cids == [cid]
        await back.handed_over()
        assert taken.cids == [cid]

    asyncio.run(scenario())


def test_a_gateway_that_lies_is_not_believed(tmp_path: Path):
    """The trustless gateway protocol, served by hand: right blocks are taken, wrong and endless ones are not."""
    other = bytes(100)
    answers = {cid_text(cid_of_bytes(data)): data for data in (SMALL, b"asked for")}
    answers[cid_text(cid_of_bytes(b"asked for"))] = other
    huge = cid_text(cid_of_bytes(b"huge"))

    async def block(request: web.Request) -> web.Response:
        assert request.query["format"] == "raw"
        name = request.match_info["cid"]
        if name == huge:
            return web.Response(body=bytes(5 * MEBIBYTE))
        return web.Response(body=answers[name]) if name in answers else web.Response(status=404)

    async def scenario() -> None:
        application = web.Application()
        application.router.add_get("/ipfs/{cid}", block)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        reader = PeerBlobs(tmp_path / "reader", origin=open_origin(f"gateway:http://127.0.0.1:{port}"))
        assert await reader.read(cid_of_bytes(SMALL), 1 << 20) == SMALL
        for missing in (cid_of_bytes(b"asked for"), cid_from_text(huge), cid_of_bytes(DATA)):
            with pytest.raises(Unavailable):
                await reader.fetch(missing, max_bytes=8 * MEBIBYTE)
        await reader.close()
        await runner.cleanup()

    asyncio.run(scenario())


NO_STORES = ["", "kubo", "kubo:127.0.0.1", "s3:", "s3:http://127.0.0.1:9", "ftp:http://x", "folder:here"]


@pytest.mark.parametrize("text", NO_STORES)
def test_settings_that_name_no_store(text: str):
    with pytest.raises(Rejected) as caught:
        open_origin(text)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


class Taking:
    """An origin that notes what it is given."""

    def __init__(self) -> None:
        self.cids: list[bytes] = []

    async def put(self, tree, written, path) -> None:
        self.cids.append(tree.root)

    async def tree(self, cid, max_bytes) -> None: ...

    async def leaf(self, root, leaf, limit_bytes) -> None: ...

    async def pin(self, cid) -> None: ...

    async def unpin(self, cid) -> None: ...

    async def close(self) -> None: ...
