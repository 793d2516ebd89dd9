"""A15: one host fills the places of a node's peers with free identities and is all that the node hears from then on.

Places of peers are first come, nobody is ever evicted, and a node's own dials to its bootstrap peers count against the
same bound (32 an address range of /16, 64 in all).

Earns: an eclipsed node for 32 keys and seconds of time; an eclipsed steward or publisher ends heights empty and burns
bonds.
Kind: the chain is owned at no cost; real TLS connections on loopback, one address range.
Wins today; to be turned around by the rule that stops it.
"""

import asyncio
import hashlib
import random
from dataclasses import dataclass

import pytest

from learnchain.network.concurrency import SystemClock
from learnchain.network.network import Network
from learnchain.network.tls_transport import TlsTransport
from learnchain.rejection import Rejected, Unavailable

pytestmark = pytest.mark.network
NETWORK_ID = b"\1" * 32
IDENTITIES = 34
"""Two more than the places of one address range."""


@dataclass(frozen=True)
class EclipsedNode:
    """Whom the victim can hear after the attack."""

    attackers_connected: int
    honest_peer_comes_in: bool
    victim_reaches_bootstrap_peer: bool
    peers: int


async def open_network(name: str) -> Network:
    """Listen on a free port of loopback as one identity."""
    transport = await TlsTransport.listen(hashlib.sha256(name.encode()).digest(), port=0)
    network = Network(transport, NETWORK_ID, SystemClock(), random.Random(name))
    await network.start(())
    return network


async def is_connected(dialling: Network, called: Network, victim: Network, honest: Network) -> bool:
    """Dial, and return whether the victim has the honest peer then."""
    try:
        await asyncio.wait_for(dialling.connect(called.address()), 8)
    except (Rejected, Unavailable, TimeoutError):
        return False
    await asyncio.sleep(0.2)
    return honest.peer_id in {peer.peer_id for peer in victim.peers()}


async def play(identities: int) -> EclipsedNode:
    """Fill the victim's places, then let the honest peer and the victim dial each other."""
    honest, victim = await open_network("honest"), await open_network("victim")
    attackers = [await open_network(f"free identity {index}") for index in range(identities)]
    inside = 0
    for attacker in attackers:
        try:
            await attacker.connect(victim.address())
        except (Rejected, Unavailable):
            continue
        inside += 1
    comes_in = await is_connected(honest, victim, victim, honest)
    reaches = await is_connected(victim, honest, victim, honest)
    result = EclipsedNode(inside, comes_in, reaches, len(victim.peers()))
    for network in (*attackers, honest, victim):
        await network.close()
    return result


def attack(identities: int = IDENTITIES) -> EclipsedNode:
    """Run the attack with this many free identities."""
    return asyncio.run(play(identities))


def test_free_identities_keep_an_honest_peer_out_and_the_victim_in() -> None:
    result = attack()
    assert result.attackers_connected == result.peers == 32
    assert not result.honest_peer_comes_in
    assert not result.victim_reaches_bootstrap_peer


def test_without_the_attack_the_two_find_each_other() -> None:
    result = attack(identities=0)
    assert result.honest_peer_comes_in
