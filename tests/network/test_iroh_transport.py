"""What only iroh has: the copying patch, closed sockets, dials that end in time."""

import asyncio
import inspect
import time
from typing import Any

import pytest

pytest.importorskip("iroh")

from iroh import iroh_ffi

from learnchain.network import iroh_transport
from learnchain.network.iroh_transport import IrohTransport, copies_bytes_in_a_loop, copy_bytes_at_once
from learnchain.network.transport import PeerAddress
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from tests.network.worlds import identity

MEGABYTE = 1_000_000


def run(scenario: Any) -> None:
    async def whole() -> None:
        one, other = await IrohTransport.listen(identity("one")), await IrohTransport.listen(identity("other"))
        try:
            async with asyncio.timeout(100):
                await scenario(one, other)
        finally:
            await one.close()
            await other.close()

    asyncio.run(whole())


@pytest.mark.network
def test_bytes_move_faster_than_20_megabytes_a_second() -> None:
    async def scenario(one: IrohTransport, other: IrohTransport) -> None:
        near = await one.connect(other.address())
        far = await other.accept()
        stream = await near.open_stream()

        async def send() -> None:
            await stream.write(bytes(40 * MEGABYTE))
            await stream.finish()

        started, before = time.monotonic(), time.process_time()
        sending = asyncio.create_task(send())
        await (await far.accept_stream()).read_exactly(40 * MEGABYTE)
        await sending
        # Both ends run here: CPU seconds, so that a busy machine does not fail the test.
        seconds = min(time.monotonic() - started, time.process_time() - before)
        assert 40 / seconds > 20

    run(scenario)


def test_patch_replaces_a_loop_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looping:
        def write(self, value: bytes) -> None:
            for i, byte in enumerate(value):
                self.data = (i, byte)

    class Fixed:
        def write(self, value: bytes) -> None:
            self.data = value

    monkeypatch.setattr(iroh_ffi, "_UniffiRustBufferBuilder", Looping)
    assert copy_bytes_at_once()
    assert Looping.write is iroh_transport._write_at_once
    assert not copy_bytes_at_once()
    monkeypatch.setattr(iroh_ffi, "_UniffiRustBufferBuilder", Fixed)
    before = inspect.getsource(Fixed.write)
    assert not copies_bytes_in_a_loop()
    assert not copy_bytes_at_once()
    assert inspect.getsource(Fixed.write) == before


def test_patch_is_left_out_where_the_class_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(iroh_ffi, "_UniffiRustBufferBuilder")
    assert not copy_bytes_at_once()


def test_only_loopback_is_bound() -> None:
    async def scenario(one: IrohTransport, other: IrohTransport) -> None:
        sockets = one._endpoint.bound_sockets()
        assert len(sockets) == 2
        assert all(each.startswith(("127.0.0.1:", "[::1]:")) for each in sockets)
        assert one._endpoint.addr().relay_url() is None

    run(scenario)


def test_named_relay_is_the_only_one() -> None:
    async def whole() -> None:
        relay = "https://relay.invalid./"
        transport = await IrohTransport.listen(identity("one"), relay_urls=(relay,))
        assert await transport._endpoint.remove_relay(relay)
        await transport.close()

    asyncio.run(whole())


def test_dial_of_a_dead_address_ends_in_time() -> None:
    async def scenario(one: IrohTransport, other: IrohTransport) -> None:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await one.connect(PeerAddress("127.0.0.1", 9, other.peer_id), timeout_seconds=0.5)
        assert time.monotonic() - started < 10

    run(scenario)


def test_own_address_is_refused() -> None:
    async def scenario(one: IrohTransport, other: IrohTransport) -> None:
        with pytest.raises(Rejected) as caught:
            await one.connect(one.address())
        assert caught.value.reason is RejectionReason.ARGUMENT_INVALID

    run(scenario)


def test_port_in_use_is_unavailable() -> None:
    async def scenario(one: IrohTransport, other: IrohTransport) -> None:
        with pytest.raises(Unavailable) as caught:
            await IrohTransport.listen(identity("third"), port=one.address().port)
        # The library's errors are empty as text: ours must say what happened.
        assert "in use" in caught.value.what

    run(scenario)
