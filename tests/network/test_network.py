"""Gossip and requests, mostly in virtual time; a small run over TLS at the end."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from learnchain.network.concurrency import SystemClock
from learnchain.network.gossip import ValidationResult
from learnchain.network.network import Network
from learnchain.network.peers import NetworkLimits
from learnchain.network.tls_transport import TlsTransport
from learnchain.network.wire import PeerRefused
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.simulated_network import (
    LinkConditions,
    SimulatedClock,
    SimulatedNetwork,
    SimulatedTransport,
    run_simulated,
)
from tests.network.worlds import identity

NETWORK_ID = b"n" * 32


class Nodes:
    """Some networks in one simulation, each recording what it accepts."""

    def __init__(self, count: int, limits: NetworkLimits | None = None, weather: LinkConditions | None = None) -> None:
        self.simulated = SimulatedNetwork(7, weather)
        self.networks: list[Network] = []
        self.transports: list[SimulatedTransport] = []
        self.received: list[list[bytes]] = []
        for number in range(count):
            transport = self.simulated.transport(identity(f"node {number}"))
            self.transports.append(transport)
            self.networks.append(Network(transport, NETWORK_ID, SimulatedClock(), random.Random(number), limits))
            self.received.append([])

    def listen(self, topic: str = "topic") -> None:
        for network, received in zip(self.networks, self.received, strict=True):
            network.on_topic(topic, collector(received))

    async def start_ring(self) -> None:
        for number, network in enumerate(self.networks):
            await network.start([self.networks[number - 1].address()] if len(self.networks) > 1 else [])
        await asyncio.sleep(3)

    async def close(self) -> None:
        for network in self.networks:
            await network.close()


def collector(received: list[bytes]) -> Callable[[bytes, bytes], Awaitable[ValidationResult]]:
    async def validate(peer_id: bytes, payload: bytes) -> ValidationResult:
        received.append(payload)
        return ValidationResult.ACCEPT

    return validate


def simulate(scenario: Callable[[Nodes], Awaitable[None]], count: int, limits: NetworkLimits | None = None) -> None:
    async def whole() -> None:
        nodes = Nodes(count, limits)
        try:
            async with asyncio.timeout(3_600):
                await scenario(nodes)
        finally:
            await nodes.close()

    run_simulated(whole())


@pytest.mark.parametrize("size", [10, 4_000, 65_536])
def test_every_message_reaches_every_node_once(size: int) -> None:
    async def scenario(nodes: Nodes) -> None:
        nodes.listen()
        await nodes.start_ring()
        for number, network in enumerate(nodes.networks):
            await network.publish("topic", bytes([number]) * size)
        await asyncio.sleep(10)
        for number, received in enumerate(nodes.received):
            others = {bytes([other]) * size for other in range(12) if other != number}
            assert len(received) == 11
            assert set(received) == others

    simulate(scenario, 12, NetworkLimits(target_peers=4, push_peers=2))


def test_oversize_message_is_refused_at_home() -> None:
    async def scenario(nodes: Nodes) -> None:
        with pytest.raises(Rejected) as caught:
            await nodes.networks[0].publish("topic", bytes(65_537))
        assert caught.value.reason is RejectionReason.TOO_LARGE

    simulate(scenario, 1)


def test_rejected_messages_do_not_travel_and_ban_their_sender() -> None:
    async def scenario(nodes: Nodes) -> None:
        victim, liar, beyond = nodes.networks

        async def refuse(peer_id: bytes, payload: bytes) -> ValidationResult:
            raise Rejected(RejectionReason.WRONG_SIGNATURE)

        victim.on_topic("topic", refuse)
        beyond.on_topic("topic", collector(nodes.received[2]))
        for network in nodes.networks:
            await network.start()
        await liar.connect(victim.address())
        await beyond.connect(victim.address())
        await asyncio.sleep(1)
        for number in range(5):
            await liar.publish("topic", bytes([number]))
        await asyncio.sleep(2)
        assert [peer.peer_id for peer in victim.peers()] == [beyond.peer_id]
        assert nodes.received[2] == []
        with pytest.raises(Unavailable):
            await liar.connect(victim.address())
        await asyncio.sleep(601)
        assert await liar.connect(victim.address()) == victim.peer_id

    simulate(scenario, 3)


def test_differences_between_honest_nodes_do_not_ban() -> None:
    async def scenario(nodes: Nodes) -> None:
        late, sender = nodes.networks

        async def too_late(peer_id: bytes, payload: bytes) -> ValidationResult:
            raise Rejected(RejectionReason.COMMITMENT_LATE)

        late.on_topic("topic", too_late)
        await nodes.start_ring()
        for number in range(20):
            await sender.publish("topic", bytes([number]))
        await asyncio.sleep(2)
        assert [round(peer.score) for peer in late.peers()] == [-20]

    simulate(scenario, 2)


def test_early_messages_wait_for_their_topic_and_for_what_they_need() -> None:
    async def scenario(nodes: Nodes) -> None:
        early, sender = nodes.networks
        accepted: list[bytes] = []
        ready = False

        async def validate(peer_id: bytes, payload: bytes) -> ValidationResult:
            if not ready:
                raise Unavailable("the parent block")
            accepted.append(payload)
            return ValidationResult.ACCEPT

        await nodes.start_ring()
        await sender.publish("topic", b"early")
        await asyncio.sleep(5)
        early.on_topic("topic", validate)
        await asyncio.sleep(10)
        assert accepted == []
        ready = True
        early.retry_deferred()
        await asyncio.sleep(0.1)
        assert accepted == [b"early"]
        await asyncio.sleep(60)
        assert accepted == [b"early"]

    simulate(scenario, 2)


def test_messages_of_an_interruption_are_announced_on_reconnection() -> None:
    async def scenario(nodes: Nodes) -> None:
        nodes.listen()
        await nodes.start_ring()
        one, other = nodes.networks
        nodes.simulated.partition({one.peer_id}, {other.peer_id})
        await asyncio.sleep(60)
        assert one.peers() == ()
        await one.publish("topic", b"said into the void")
        await asyncio.sleep(10)
        nodes.simulated.heal()
        await asyncio.sleep(45)
        assert nodes.received[1] == [b"said into the void"]

    simulate(scenario, 2)


def test_flood_is_dropped_and_bans() -> None:
    limits = NetworkLimits(messages_per_second=10, message_burst=20)

    async def scenario(nodes: Nodes) -> None:
        victim, flooder = nodes.networks
        victim.on_topic("topic", collector(nodes.received[0]))
        await victim.start()
        await flooder.start()
        await flooder.connect(victim.address())
        for number in range(500):
            await flooder.publish("topic", number.to_bytes(2, "big"))
        await asyncio.sleep(5)
        assert victim.peers() == ()
        assert len(nodes.received[0]) <= 25

    simulate(scenario, 2, limits)


def test_catching_up_after_an_absence_is_no_flood() -> None:
    limits = NetworkLimits(messages_per_second=5, message_burst=20)

    async def scenario(nodes: Nodes) -> None:
        nodes.listen()
        full, late = nodes.networks
        await full.start()
        await late.start()
        for number in range(500):
            await full.publish("topic", number.to_bytes(2, "big") * 1_000)
        await late.connect(full.address())
        await asyncio.sleep(20)
        assert len(nodes.received[1]) == 500
        assert [peer.score for peer in late.peers() + full.peers()] == [0.0, 0.0]

    simulate(scenario, 2, limits)


def test_silent_announcer_is_passed_over_for_the_next() -> None:
    async def scenario(nodes: Nodes) -> None:
        taker, silent, giver = nodes.networks
        nodes.listen()
        silent._gossip._answer = lambda peer, identifiers: None  # type: ignore[method-assign]
        for network in nodes.networks:
            await network.start()
        payload = bytes(10_000)
        for network in (silent, giver):
            await network.publish("topic", payload)
        await taker.connect(silent.address())
        await asyncio.sleep(0.5)
        await taker.connect(giver.address())
        await asyncio.sleep(1)
        assert nodes.received[0] == []
        await asyncio.sleep(3)
        assert nodes.received[0] == [payload]

    simulate(scenario, 3, NetworkLimits(target_peers=1))


def test_requests_stream_chunks_and_carry_reasons() -> None:
    async def scenario(nodes: Nodes) -> None:
        asker, answerer = nodes.networks

        async def count(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            assert peer_id == asker.peer_id
            for number in range(body[0]):
                yield bytes([number]) * 100_000
            if body[0] == 3:
                raise Unavailable("the fourth")
            if body[0] == 4:
                raise Rejected(RejectionReason.ARGUMENT_INVALID, "not four")
            if body[0] == 5:
                raise ZeroDivisionError

        answerer.on_request("count", count)
        await nodes.start_ring()
        chunks = [chunk async for chunk in asker.request(answerer.peer_id, "count", b"\2")]
        assert chunks == [bytes(100_000), b"\1" * 100_000]
        for number in (3, 5):
            with pytest.raises(Unavailable) as absent:
                await asker.request_bytes(answerer.peer_id, "count", bytes([number]))
            assert not isinstance(absent.value, PeerRefused)
        for method, body, reason in (
            ("count", b"\4", RejectionReason.ARGUMENT_INVALID),
            ("other", b"", RejectionReason.METHOD_UNKNOWN),
        ):
            with pytest.raises(PeerRefused) as caught:
                await asker.request_bytes(answerer.peer_id, method, body)
            assert caught.value.reason is reason
        with pytest.raises(Unavailable):
            await asker.request_bytes(identity("stranger"), "count", b"")

    simulate(scenario, 2)


def test_answer_above_the_limit_counts_against_the_answerer() -> None:
    async def scenario(nodes: Nodes) -> None:
        asker, answerer = nodes.networks

        async def talk(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            while True:
                yield bytes(1_000)

        answerer.on_request("talk", talk)
        await nodes.start_ring()
        with pytest.raises(Unavailable):
            await asker.request_bytes(answerer.peer_id, "talk", b"", limit_bytes=10_500)
        assert [round(peer.score) for peer in asker.peers()] == [-20]

    simulate(scenario, 2)


def test_answer_that_does_not_come_is_unavailable_in_time() -> None:
    async def scenario(nodes: Nodes) -> None:
        asker, answerer = nodes.networks

        async def silence(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            await asyncio.sleep(1_000)
            yield b""

        answerer.on_request("silence", silence)
        await nodes.start_ring()
        start = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable):
            await asker.request_bytes(answerer.peer_id, "silence", b"", timeout_seconds=3)
        assert asyncio.get_running_loop().time() - start == pytest.approx(3)

    simulate(scenario, 2)


def test_more_requests_than_streams_and_rate_all_get_their_answer() -> None:
    async def scenario(nodes: Nodes) -> None:
        asker, answerer = nodes.networks

        async def echo(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            yield body

        answerer.on_request("echo", echo)
        await nodes.start_ring()
        bodies = [number.to_bytes(2, "big") for number in range(200)]
        ask = asker.request_bytes
        answers = await asyncio.gather(*(ask(answerer.peer_id, "echo", body, 120) for body in bodies))
        assert answers == bodies
        assert [peer.score for peer in answerer.peers()] == [0.0]

    simulate(scenario, 2, NetworkLimits(requests_per_second=20, request_burst=10))


def test_another_network_is_refused() -> None:
    async def scenario(nodes: Nodes) -> None:
        stranger = Network(
            nodes.simulated.transport(identity("stranger")), b"x" * 32, SimulatedClock(), random.Random(1)
        )
        await stranger.start()
        await nodes.start_ring()
        with pytest.raises(Rejected) as caught:
            await stranger.connect(nodes.networks[0].address())
        assert caught.value.reason is RejectionReason.WRONG_CHAIN
        assert nodes.networks[0].peers() == ()
        await stranger.close()

    simulate(scenario, 1)


def test_peers_beyond_the_range_cap_are_refused() -> None:
    async def scenario(nodes: Nodes) -> None:
        centre, *others = nodes.networks
        for network in nodes.networks:
            await network.start()
        outcomes = await asyncio.gather(
            *(network.connect(centre.address()) for network in others), return_exceptions=True
        )
        assert sum(outcome == centre.peer_id for outcome in outcomes) == 3
        assert sum(isinstance(outcome, Unavailable) for outcome in outcomes) == 3
        await asyncio.sleep(1)
        assert len(centre.peers()) == 3

    simulate(scenario, 7, NetworkLimits(maximum_peers_per_range=3, target_peers=1))


def test_two_nodes_that_dial_each_other_keep_one_connection() -> None:
    async def scenario(nodes: Nodes) -> None:
        one, other = nodes.networks
        calls: list[bytes] = []

        async def connected(peer_id: bytes) -> None:
            calls.append(peer_id)

        one.on_peer_connected(connected)
        for network in nodes.networks:
            await network.start()
        await asyncio.gather(one.connect(other.address()), other.connect(one.address()))
        await asyncio.sleep(2)
        assert [peer.dialled for peer in one.peers()] == [not peer.dialled for peer in other.peers()]
        assert set(calls) == {other.peer_id}
        nodes.listen()
        await one.publish("topic", b"hello")
        await asyncio.sleep(1)
        assert nodes.received[1] == [b"hello"]

    simulate(scenario, 2)


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("dialler", [0, 1])
def test_killed_peer_that_comes_back_is_connected_at_once(killed: int, dialler: int) -> None:
    async def scenario(nodes: Nodes) -> None:
        other = nodes.networks[1 - killed]
        for network in nodes.networks:
            await network.start()
        await nodes.networks[dialler].connect(nodes.networks[1 - dialler].address())
        await asyncio.sleep(1)
        gone = nodes.networks[killed]
        # Its sockets are gone before it could say so; the other side still holds its end.
        nodes.simulated.kill(gone.peer_id)
        await gone.close()
        transport = nodes.simulated.reopen_transport(nodes.transports[killed])
        again = Network(transport, NETWORK_ID, SimulatedClock(), random.Random(99))
        nodes.networks[killed] = again
        assert [peer.peer_id for peer in other.peers()] == [gone.peer_id]
        await again.start([other.address()])
        await asyncio.sleep(1)
        assert [peer.peer_id for peer in again.peers()] == [other.peer_id]
        nodes.listen()
        await other.publish("topic", b"welcome")
        await asyncio.sleep(1)
        assert nodes.received[killed] == [b"welcome"]

    simulate(scenario, 2)


def test_bootstrap_is_dialled_again_after_it_was_away() -> None:
    async def scenario(nodes: Nodes) -> None:
        one, _ = nodes.networks
        await nodes.start_ring()
        for _ in range(3):
            nodes.simulated.break_connections(one.peer_id)
            await asyncio.sleep(0.01)
            assert one.peers() == ()
            await asyncio.sleep(5)
            assert len(one.peers()) == 1

    simulate(scenario, 2)


def test_peer_exchange_joins_a_star() -> None:
    async def scenario(nodes: Nodes) -> None:
        centre, *others = nodes.networks
        await centre.start()
        for network in others:
            await network.start([centre.address()])
        await asyncio.sleep(60)
        assert all(len(network.peers()) >= 3 for network in nodes.networks)

    simulate(scenario, 6, NetworkLimits(target_peers=3))


def test_all_messages_arrive_although_connections_break() -> None:
    async def whole() -> None:
        nodes = Nodes(5, NetworkLimits(target_peers=4), LinkConditions(break_probability=0.002))
        nodes.listen()
        await nodes.start_ring()
        for number in range(100):
            await nodes.networks[number % 5].publish("topic", bytes([number]) * 100)
            await asyncio.sleep(0.2)
        await asyncio.sleep(30)
        for number, received in enumerate(nodes.received):
            assert {payload[0] for payload in received} == {n for n in range(100) if n % 5 != number}
        await nodes.close()

    run_simulated(whole())


def test_simulation_repeats_exactly() -> None:
    def run() -> list[tuple[float, bytes]]:
        events: list[tuple[float, bytes]] = []

        async def whole() -> None:
            nodes = Nodes(5)
            for network in nodes.networks:

                async def validate(peer_id: bytes, payload: bytes) -> ValidationResult:
                    events.append((asyncio.get_running_loop().time(), peer_id + payload))
                    return ValidationResult.ACCEPT

                network.on_topic("topic", validate)
            await nodes.start_ring()
            for number, network in enumerate(nodes.networks):
                await network.publish("topic", bytes([number]))
            await asyncio.sleep(5)
            await nodes.close()

        run_simulated(whole())
        return events

    first = run()
    assert len(first) == 20
    assert first == run()


@pytest.mark.network
def test_five_nodes_over_tls_deliver_everything() -> None:
    async def whole() -> None:
        networks: list[Network] = []
        received: list[list[bytes]] = []
        for number in range(5):
            transport = await TlsTransport.listen(identity(f"tls {number}"))
            networks.append(Network(transport, NETWORK_ID, SystemClock(), random.Random(number)))
            received.append([])
            networks[-1].on_topic("topic", collector(received[-1]))
        for number, network in enumerate(networks):
            await network.start([networks[number - 1].address()])
        async with asyncio.timeout(100):
            while any(len(network.peers()) < 2 for network in networks):
                await asyncio.sleep(0.05)
            for number in range(100):
                size = 60_000 if number % 10 == 0 else 500
                await networks[number % 5].publish("topic", bytes([number]) * size)
                await asyncio.sleep(0.01)
            while any(len(messages) < 80 for messages in received):
                await asyncio.sleep(0.05)
        for number, messages in enumerate(received):
            assert sorted(payload[0] for payload in messages) == [n for n in range(100) if n % 5 != number]
        await asyncio.gather(*(network.close() for network in networks))

    asyncio.run(whole())
