"""The worlds that one suite runs in: iroh and TLS on loopback in real time, and the simulation in virtual time."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import pytest

from learnchain.network.multiplexer import ConnectionLimits
from learnchain.network.tls_transport import TlsTransport
from learnchain.network.transport import Transport
from learnchain.simulation.simulated_network import SimulatedNetwork, run_simulated


def identity(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


async def iroh_transport(name: str, limits: ConnectionLimits | None = None) -> Transport:
    pytest.importorskip("iroh")
    from learnchain.network.iroh_transport import IrohTransport

    return await IrohTransport.listen(identity(name), limits=limits)


class World(Protocol):
    """Make transports; close them at the end."""

    async def transport(self, name: str) -> Transport: ...


class _World:
    def __init__(self, make: Callable[[str], Awaitable[Transport]]) -> None:
        self._make = make
        self._made: list[Transport] = []

    async def transport(self, name: str) -> Transport:
        self._made.append(await self._make(name))
        return self._made[-1]

    async def close(self) -> None:
        for transport in self._made:
            await transport.close()


Scenario = Callable[[World], Coroutine[Any, Any, None]]


def run_in(kind: str, scenario: Scenario, limits: ConnectionLimits | None = None, seed: int = 1) -> None:
    """Run one scenario in a world; every wait in it is bounded."""

    async def whole() -> None:
        if kind == "iroh":
            world = _World(lambda name: iroh_transport(name, limits))
        elif kind == "tls":
            world = _World(lambda name: TlsTransport.listen(identity(name), limits=limits))
        else:
            network = SimulatedNetwork(seed, limits=limits)

            async def simulated(name: str) -> Transport:
                return network.transport(identity(name))

            world = _World(simulated)
        try:
            async with asyncio.timeout(100):
                await scenario(world)
        finally:
            await world.close()

    (run_simulated if kind == "simulated" else asyncio.run)(whole())
