"""One suite for every transport: what the network above relies on."""

import asyncio
from dataclasses import replace

import pytest

from learnchain.network.multiplexer import MAXIMUM_STREAMS, WINDOW_BYTES, ConnectionLimits
from learnchain.network.transport import Connection, ConnectionLost, StreamEnded
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from tests.network.worlds import World, run_in

pytestmark = pytest.mark.parametrize("kind", ["iroh", "tls", "simulated"])


async def pair(world: World) -> tuple[Connection, Connection]:
    one, other = await world.transport("one"), await world.transport("other")
    near = await one.connect(other.address())
    return near, await other.accept()


def test_both_sides_know_each_other(kind: str) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.transport("one"), await world.transport("other")
        near = await one.connect(other.address())
        far = await other.accept()
        assert (near.peer_id, far.peer_id) == (other.peer_id, one.peer_id)
        assert (near.is_dialled, far.is_dialled) == (True, False)

    run_in(kind, scenario)


def test_address_without_identity_is_whoever_answers_or_refused_at_home(kind: str) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.transport("one"), await world.transport("other")
        anonymous = replace(other.address(), peer_id=b"")
        if kind == "iroh":
            with pytest.raises(Rejected) as caught:
                await one.connect(anonymous)
            assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
        else:
            assert (await one.connect(anonymous)).peer_id == other.peer_id

    run_in(kind, scenario)


def test_streams_carry_bytes_both_ways_and_end_one_way_at_a_time(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)
        asking = await near.open_stream()
        await asking.write(b"question")
        await asking.finish()
        answering = await far.accept_stream()
        assert await answering.read_exactly(8) == b"question"
        assert await answering.read(10) == b""
        await answering.write(b"answer")
        await answering.finish()
        assert await asking.read_exactly(6) == b"answer"
        with pytest.raises(StreamEnded):
            await asking.read_exactly(1)

    run_in(kind, scenario)


def test_far_side_opens_streams_too(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)
        opened = await far.open_stream()
        await opened.write(b"hello")
        assert await (await near.accept_stream()).read_exactly(5) == b"hello"

    run_in(kind, scenario)


def test_large_transfer_arrives_unchanged(kind: str) -> None:
    data = bytes(range(256)) * 16_384

    async def scenario(world: World) -> None:
        near, far = await pair(world)

        async def send() -> None:
            stream = await near.open_stream()
            await stream.write(data)
            await stream.finish()

        sending = asyncio.create_task(send())
        stream = await far.accept_stream()
        assert await stream.read_exactly(len(data)) == data
        await sending

    run_in(kind, scenario)


def test_writer_waits_for_a_reader_that_does_not_read(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)
        stream, other = await near.open_stream(), await near.open_stream()
        stuck = asyncio.create_task(stream.write(bytes(4 * WINDOW_BYTES)))
        unread = await far.accept_stream()
        await asyncio.sleep(0.5)
        assert not stuck.done()
        await other.write(b"still alive")
        assert await (await far.accept_stream()).read_exactly(11) == b"still alive"
        await unread.read_exactly(4 * WINDOW_BYTES)
        await stuck

    run_in(kind, scenario)


def test_reset_ends_both_directions(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)
        stream = await near.open_stream()
        stuck = asyncio.create_task(stream.write(bytes(4 * WINDOW_BYTES)))
        await (await far.accept_stream()).reset()
        with pytest.raises(ConnectionLost):
            await stuck
        with pytest.raises(ConnectionLost):
            await stream.read(1)

    run_in(kind, scenario)


def test_many_more_streams_than_may_be_open_at_a_time(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)

        async def ask(number: int) -> bytes:
            stream = await near.open_stream()
            await stream.write(number.to_bytes(4, "big"))
            await stream.finish()
            answer = await stream.read_exactly(4)
            assert await stream.read(1) == b""
            return answer

        async def echo() -> None:
            while True:
                stream = await far.accept_stream()
                await stream.write(await stream.read_exactly(4))
                assert await stream.read(1) == b""
                await stream.finish()

        echoing = asyncio.create_task(echo())
        answers = await asyncio.gather(*(ask(number) for number in range(5 * MAXIMUM_STREAMS)))
        assert answers == [number.to_bytes(4, "big") for number in range(5 * MAXIMUM_STREAMS)]
        echoing.cancel()

    run_in(kind, scenario)


def test_close_is_seen_by_everybody_who_waits(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)
        stream = await near.open_stream()
        waiting = [asyncio.create_task(stream.read(1)), asyncio.create_task(near.accept_stream())]
        await asyncio.sleep(0.1)
        await far.close()
        await far.close()
        await near.wait_until_closed()
        for task in waiting:
            with pytest.raises(ConnectionLost):
                await task
        with pytest.raises(ConnectionLost):
            await near.open_stream()
        assert near.fault is None

    run_in(kind, scenario)


def test_close_wakes_everybody_who_waits_for_a_stream(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)
        for _ in range(MAXIMUM_STREAMS):
            await near.open_stream()
        waiting = [asyncio.create_task(near.open_stream()) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        await far.close()
        for task in waiting:
            with pytest.raises(ConnectionLost):
                await task

    run_in(kind, scenario)


def test_signature_is_its_peers_alone(kind: str) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.transport("one"), await world.transport("other")
        signature = one.sign(b"message")
        assert len(signature) == 64
        assert other.verify(one.peer_id, b"message", signature)
        assert not other.verify(other.peer_id, b"message", signature)
        assert not other.verify(one.peer_id, b"massage", signature)
        assert not other.verify(one.peer_id, b"message", signature[::-1])

    run_in(kind, scenario)


def test_somebody_else_answering_is_refused(kind: str) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.transport("one"), await world.transport("other")
        with pytest.raises(Rejected) as caught:
            await one.connect(replace(other.address(), peer_id=bytes(32)))
        assert caught.value.reason is RejectionReason.WRONG_SIGNATURE

    run_in(kind, scenario)


def test_nobody_answering_is_unavailable(kind: str) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.transport("one"), await world.transport("other")
        address = other.address()
        await other.close()
        with pytest.raises(Unavailable):
            await one.connect(address, timeout_seconds=2)

    run_in(kind, scenario)


def test_closed_transport_accepts_no_more_and_drops_its_connections(kind: str) -> None:
    async def scenario(world: World) -> None:
        one, other = await world.transport("one"), await world.transport("other")
        near = await one.connect(other.address())
        await other.accept()
        waiting = asyncio.create_task(other.accept())
        await asyncio.sleep(0.1)
        await other.close()
        with pytest.raises(ConnectionLost):
            await waiting
        await near.wait_until_closed()

    run_in(kind, scenario)


def test_keepalive_outlives_the_idle_timeout(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)
        await asyncio.sleep(1.5)
        stream = await near.open_stream()
        await stream.write(b"x")
        assert await (await far.accept_stream()).read_exactly(1) == b"x"

    run_in(kind, scenario, ConnectionLimits(keepalive_seconds=0.2, idle_seconds=0.8))


def test_silence_ends_the_connection(kind: str) -> None:
    async def scenario(world: World) -> None:
        near, far = await pair(world)
        await asyncio.gather(near.wait_until_closed(), far.wait_until_closed())
        assert (near.fault, far.fault) == (None, None)

    run_in(kind, scenario, ConnectionLimits(keepalive_seconds=60, idle_seconds=0.5))
