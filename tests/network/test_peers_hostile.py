"""Peers that pass the door and then misbehave in the protocol above the streams."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from learnchain.encoding.codec import FORMAT_VERSION, decode
from learnchain.network.gossip import DEFERRED_MESSAGES_PER_PEER, WANTED_IDENTIFIERS_PER_PEER, ValidationResult
from learnchain.network.multiplexer import WINDOW_BYTES
from learnchain.network.network import LONGEST_PAUSE_SECONDS, Network
from learnchain.network.peers import NetworkLimits
from learnchain.network.transport import Connection, ConnectionLost, Stream, Transport
from learnchain.network.wire import (
    Full,
    Have,
    Hello,
    MessageKind,
    Refusal,
    Want,
    message_bytes,
    message_id,
    raw_message,
    read_message,
)
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.simulated_network import SimulatedClock, SimulatedNetwork, run_simulated
from tests.network.worlds import identity

NETWORK_ID = b"n" * 32
ATTACKER = identity("attacker")


class Attack:
    """A victim, and a connection of an attacker who speaks the protocol by hand."""

    def __init__(
        self, victim: Network, attacker: Transport, connection: Connection, gossip: Stream, heard: Stream
    ) -> None:
        self.victim = victim
        self.attacker = attacker
        self.connection = connection
        self.gossip = gossip
        self.heard = heard

    @property
    def score(self) -> float:
        now = self.victim._clock.monotonic_seconds()
        return self.victim._book.standing(ATTACKER, now).score(now)

    def is_connected(self) -> bool:
        return bool(self.victim.peers())


def attack(
    scenario: Callable[[Attack], Awaitable[None]], limits: NetworkLimits | None = None, *, hello: bytes | None = None
) -> None:
    async def whole() -> None:
        simulated = SimulatedNetwork(11)
        victim = Network(
            simulated.transport(identity("victim")), NETWORK_ID, SimulatedClock(), random.Random(1), limits
        )
        await victim.start()
        attacker = simulated.transport(ATTACKER)
        connection = await attacker.connect(victim.address())
        gossip = await connection.open_stream()
        introduction = message_bytes(MessageKind.HELLO, Hello(FORMAT_VERSION, NETWORK_ID, bytes(32), "", 0))
        await gossip.write(introduction if hello is None else hello)
        heard = await connection.accept_stream()
        await asyncio.sleep(1)
        await scenario(Attack(victim, attacker, connection, gossip, heard))
        await victim.close()
        await attacker.close()

    run_simulated(whole())


async def accept(peer_id: bytes, payload: bytes) -> ValidationResult:
    return ValidationResult.ACCEPT


def test_honest_hand_is_connected() -> None:
    async def scenario(attack: Attack) -> None:
        assert attack.is_connected()
        assert attack.score == 0

    attack(scenario)


def test_peer_that_comes_back_replaces_its_dead_connection() -> None:
    async def scenario(attack: Attack) -> None:
        connection = await attack.attacker.connect(attack.victim.address())
        gossip = await connection.open_stream()
        await gossip.write(message_bytes(MessageKind.HELLO, Hello(FORMAT_VERSION, NETWORK_ID, bytes(32), "", 0)))
        await asyncio.sleep(1)
        assert attack.is_connected()
        with pytest.raises(ConnectionLost):
            await attack.connection.open_stream()
        await (await connection.open_stream()).reset()

    attack(scenario)


@pytest.mark.parametrize(
    "hello",
    [
        raw_message(MessageKind.FULL, b""),
        raw_message(MessageKind.HELLO, b"garbage"),
        bytes((MessageKind.HELLO,)) + b"\xff\xff\xff\xff",
        message_bytes(MessageKind.HELLO, Hello(FORMAT_VERSION, b"x" * 32, bytes(32), "", 0)),
    ],
    ids=["no hello", "garbage", "oversize", "other network"],
)
def test_bad_introduction_ends_it(hello: bytes) -> None:
    async def scenario(attack: Attack) -> None:
        assert not attack.is_connected()
        assert attack.score < -15

    attack(scenario, hello=hello)


def hello_of_format(version: int) -> bytes:
    return message_bytes(MessageKind.HELLO, Hello(version, NETWORK_ID, bytes(32), "", 0))


@pytest.mark.parametrize("version", [0, 1, FORMAT_VERSION + 1, 2**32 - 1])
def test_peer_of_another_format_hears_why_and_is_named(version: int) -> None:
    async def scenario(attack: Attack) -> None:
        assert (await read_message(attack.heard, frozenset({MessageKind.HELLO})))[0] is MessageKind.HELLO
        _, body = await read_message(attack.heard, frozenset({MessageKind.REFUSAL}))
        refusal = decode(Refusal, body)
        assert refusal.reason == RejectionReason.FORMAT_UNSUPPORTED.value
        assert refusal.detail == f"the node that refuses speaks format {FORMAT_VERSION}"
        await asyncio.sleep(2)
        assert not attack.is_connected()
        assert -2 < attack.score < 0
        (refused,) = attack.victim.list_refused_peers()
        assert refused.peer_id == ATTACKER
        assert f"the peer speaks format {version}, this node {FORMAT_VERSION}" in refused.why
        with pytest.raises(ConnectionLost):
            await attack.connection.open_stream()

    attack(scenario, hello=hello_of_format(version))


@pytest.mark.parametrize(
    "opening",
    [hello_of_format(FORMAT_VERSION - 1), message_bytes(MessageKind.REFUSAL, Refusal("format_unsupported", "old"))],
    ids=["another format", "a refusal"],
)
def test_peer_of_another_format_is_dialled_seldom_until_it_changes(opening: bytes) -> None:
    async def whole() -> None:
        simulated = SimulatedNetwork(11)
        victim = Network(simulated.transport(identity("victim")), NETWORK_ID, SimulatedClock(), random.Random(1))
        other = simulated.transport(ATTACKER)
        dials, says = 0, opening

        async def answer() -> None:
            nonlocal dials
            while True:
                connection = await other.accept()
                dials += 1
                await (await connection.open_stream()).write(says)

        answering = asyncio.create_task(answer())
        await victim.start([other.address()])
        await asyncio.sleep(20 * LONGEST_PAUSE_SECONDS)
        assert 10 <= dials <= 21
        (refused,) = victim.list_refused_peers()
        assert refused.peer_id == ATTACKER
        assert victim.rejections.total() == (dials if "this node" in refused.why else 0)
        with pytest.raises((Rejected, Unavailable), match="format"):
            await victim.connect(other.address())
        says = hello_of_format(FORMAT_VERSION)
        await asyncio.sleep(3 * LONGEST_PAUSE_SECONDS)
        assert victim.peers()
        assert not victim.list_refused_peers()
        answering.cancel()
        await victim.close()
        await other.close()

    run_simulated(whole())


def test_missing_introduction_ends_in_time() -> None:
    async def scenario(attack: Attack) -> None:
        assert not attack.is_connected()
        await asyncio.sleep(6)
        with pytest.raises(ConnectionLost):
            await attack.connection.open_stream()

    attack(scenario, hello=b"\1")


@pytest.mark.parametrize(
    "message",
    [
        raw_message(MessageKind.FULL, b"garbage"),
        bytes((MessageKind.FULL,)) + (1 << 20).to_bytes(4, "big"),
        raw_message(MessageKind.REQUEST, b""),
        b"\xee" * 5,
        raw_message(MessageKind.HAVE, b"\xc3\xc2\x01\x02"),
    ],
)
def test_malformed_gossip_ends_the_connection(message: bytes) -> None:
    async def scenario(attack: Attack) -> None:
        await attack.gossip.write(message)
        await asyncio.sleep(1)
        assert not attack.is_connected()
        assert attack.score < -15

    attack(scenario)


def test_peer_that_does_not_read_its_gossip_is_dropped_with_bounded_memory() -> None:
    limits = NetworkLimits(outbox_bytes=100_000)

    async def scenario(attack: Attack) -> None:
        peer = attack.victim._peers[ATTACKER]
        for number in range(400):
            await attack.victim.publish("topic", number.to_bytes(2, "big") * 2_000)
            await asyncio.sleep(0.01)
            assert peer.waiting_bytes <= limits.outbox_bytes
            if not attack.is_connected():
                break
        assert not attack.is_connected()
        assert number * 4_000 > WINDOW_BYTES

    attack(scenario, limits)


def test_invented_announcements_are_asked_for_once_and_bounded() -> None:
    limits = NetworkLimits(messages_per_second=1e6, message_burst=1e6)

    async def scenario(attack: Attack) -> None:
        for batch in range(40):
            identifiers = tuple((256 * batch + n).to_bytes(32, "big") for n in range(256))
            await attack.gossip.write(message_bytes(MessageKind.HAVE, Have(identifiers)))
        await attack.heard.read_exactly(4 * 8_459)
        await asyncio.sleep(1)
        assert len(attack.victim._gossip._wanted) == WANTED_IDENTIFIERS_PER_PEER
        await asyncio.sleep(31)
        assert len(attack.victim._gossip._wanted) == 0

    attack(scenario, limits)


def test_asking_again_and_again_is_answered_once() -> None:
    async def scenario(attack: Attack) -> None:
        payload = bytes(60_000)
        identifier = await attack.victim.publish("topic", payload)
        for _ in range(50):
            await attack.gossip.write(message_bytes(MessageKind.WANT, Want((identifier,) * 100)))
        heard = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                while True:
                    heard += len(await attack.heard.read(100_000))
        assert len(payload) < heard < 2 * len(payload)

    attack(scenario)


def test_messages_of_unknown_topics_fill_no_memory() -> None:
    async def scenario(attack: Attack) -> None:
        for number in range(500):
            await attack.gossip.write(message_bytes(MessageKind.FULL, Full("nothing", number.to_bytes(4, "big"))))
        await asyncio.sleep(2)
        assert len(attack.victim._gossip._deferred) == DEFERRED_MESSAGES_PER_PEER
        await asyncio.sleep(70)
        assert len(attack.victim._gossip._deferred) == 0

    attack(scenario)


def test_bug_in_a_validator_does_not_end_the_node() -> None:
    async def scenario(attack: Attack) -> None:
        async def broken(peer_id: bytes, payload: bytes) -> ValidationResult:
            if payload == b"bug":
                raise ZeroDivisionError
            heard.append(payload)
            return ValidationResult.ACCEPT

        heard: list[bytes] = []
        attack.victim.on_topic("topic", broken)
        for payload in [b"bug"] + [bytes([number]) for number in range(20)]:
            await attack.gossip.write(message_bytes(MessageKind.FULL, Full("topic", payload)))
        await asyncio.sleep(1)
        assert sorted(heard) == [bytes([number]) for number in range(20)]
        assert attack.is_connected()

    attack(scenario)


def test_same_message_twice_is_judged_once() -> None:
    async def scenario(attack: Attack) -> None:
        judged: list[bytes] = []

        async def validate(peer_id: bytes, payload: bytes) -> ValidationResult:
            judged.append(payload)
            return ValidationResult.ACCEPT

        attack.victim.on_topic("topic", validate)
        full = Full("topic", b"x")
        for _ in range(3):
            await attack.gossip.write(message_bytes(MessageKind.FULL, full))
        await attack.gossip.write(message_bytes(MessageKind.HAVE, Have((message_id(full),))))
        await asyncio.sleep(1)
        assert judged == [b"x"]

    attack(scenario)


@pytest.mark.parametrize(
    "question", [raw_message(MessageKind.FULL, b""), raw_message(MessageKind.REQUEST, b"x"), b"\5\xff\xff\xff\xff"]
)
def test_malformed_request_costs_standing_and_nothing_else(question: bytes) -> None:
    async def scenario(attack: Attack) -> None:
        stream = await attack.connection.open_stream()
        await stream.write(question)
        await asyncio.sleep(2)
        assert attack.score < -15
        assert attack.is_connected()

    attack(scenario)


def test_asker_that_does_not_read_its_answer_holds_a_window_for_a_while() -> None:
    async def scenario(attack: Attack) -> None:
        yielded = 0

        async def talk(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            nonlocal yielded
            while True:
                yielded += 50_000
                yield bytes(50_000)

        attack.victim.on_request("talk", talk)
        stream = await attack.connection.open_stream()
        await stream.write(raw_message(MessageKind.REQUEST, b"\xc6\x84talk\x80"))
        await asyncio.sleep(5)
        assert WINDOW_BYTES <= yielded <= WINDOW_BYTES + 100_000
        await asyncio.sleep(40)
        with pytest.raises(ConnectionLost):
            while await stream.read(100_000):
                pass
        assert attack.is_connected()

    attack(scenario)
