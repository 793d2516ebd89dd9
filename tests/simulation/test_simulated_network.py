import asyncio
import hashlib

import pytest

from learnchain.network.multiplexer import MultiplexedConnection
from learnchain.network.transport import ConnectionLost
from learnchain.rejection import Unavailable
from learnchain.simulation.simulated_network import LinkConditions, SimulatedNetwork, SimulatedTransport, run_simulated

IDS = [hashlib.sha256(bytes([number])).digest() for number in range(2)]


async def joined(
    network: SimulatedNetwork,
) -> tuple[SimulatedTransport, SimulatedTransport, MultiplexedConnection, MultiplexedConnection]:
    one, other = (network.transport(peer_id) for peer_id in IDS)
    near = await one.connect(other.address())
    return one, other, near, await other.accept()


def test_delay_lies_in_its_range() -> None:
    async def scenario() -> float:
        *_, near, far = await joined(SimulatedNetwork(1, LinkConditions(0.1, 0.2)))
        start = asyncio.get_running_loop().time()
        await (await near.open_stream()).write(b"x")
        await (await far.accept_stream()).read_exactly(1)
        return asyncio.get_running_loop().time() - start

    assert 0.1 <= run_simulated(scenario()) <= 0.2


def test_short_partition_delays_and_long_one_breaks() -> None:
    async def scenario() -> None:
        network = SimulatedNetwork(2)
        one, other, near, far = await joined(network)
        stream = await near.open_stream()
        network.partition({IDS[0]}, {IDS[1]})
        await stream.write(b"x")
        await asyncio.sleep(15)
        network.heal()
        assert await (await far.accept_stream()).read_exactly(1) == b"x"
        network.partition({IDS[0]})
        with pytest.raises(Unavailable):
            await one.connect(other.address())
        await asyncio.gather(near.wait_until_closed(), far.wait_until_closed())
        network.heal()
        assert (await one.connect(other.address())).peer_id == IDS[1]

    run_simulated(scenario())


def test_broken_connection_ends_on_both_sides() -> None:
    async def scenario() -> None:
        network = SimulatedNetwork(3)
        *_, near, far = await joined(network)
        network.break_connections(IDS[0])
        await asyncio.gather(near.wait_until_closed(), far.wait_until_closed())
        with pytest.raises(ConnectionLost):
            await near.open_stream()

    run_simulated(scenario())


@pytest.mark.parametrize(("probability", "survives"), [(0.0, True), (0.2, False)])
def test_weather_breaks_connections(probability: float, survives: bool) -> None:
    async def scenario() -> bool:
        *_, near, _ = await joined(SimulatedNetwork(4, LinkConditions(break_probability=probability)))
        try:
            stream = await near.open_stream()
            for _ in range(50):
                await stream.write(b"x")
                await asyncio.sleep(1)
        except ConnectionLost:
            return False
        return True

    assert run_simulated(scenario()) is survives
