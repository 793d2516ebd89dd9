"""Signed address records: what is believed, what is refused, and how much is kept."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from learnchain.encoding.codec import encode
from learnchain.network.network import METHOD_PEERS, Network
from learnchain.network.peers import (
    FORGOTTEN_AFTER_FAILURES,
    MAXIMUM_RECORDS,
    MAXIMUM_RECORDS_PER_RANGE,
    MAXIMUM_TOLD,
    AddressBook,
    AddressRecord,
    AddressRecords,
    NetworkLimits,
    PeerBook,
    compute_signed_hash,
)
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from learnchain.simulation.simulated_network import SimulatedClock, SimulatedNetwork, run_simulated
from tests.network.worlds import identity

NETWORK_ID = b"n" * 32
SIMULATED = SimulatedNetwork(3)
HOME = SIMULATED.transport(identity("home"))


def signed(name: str, host: str = "10.1.0.1", port: int = 7, sequence: int = 1) -> AddressRecord:
    transport = SIMULATED.transport(identity(name))
    unsigned = AddressRecord(transport.peer_id, host, port, sequence, bytes(64))
    return replace(unsigned, signature=transport.sign(compute_signed_hash(NETWORK_ID, unsigned)))


def book(seed: int = 1) -> AddressBook:
    return AddressBook(HOME, NETWORK_ID, random.Random(seed))


def refused(known: AddressBook, record: AddressRecord) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        known.learn(record)
    return caught.value.reason


def test_newest_record_counts() -> None:
    known = book()
    for sequence, port in ((1, 7), (5, 8)):
        known.learn(signed("peer", port=port, sequence=sequence))
    record = known.record(identity("peer"))
    assert record is not None
    assert record.port == 8
    assert refused(known, signed("peer", sequence=4)) is RejectionReason.PEER_RECORD_STALE
    assert (known.stale, known.equivocating, len(known)) == (1, 0, 1)


def test_same_record_again_is_no_fault() -> None:
    known = book()
    for _ in range(3):
        known.learn(signed("peer"))
    assert (known.stale, len(known)) == (0, 1)


def test_equivocator_is_forgotten_and_believed_no_more() -> None:
    known = book()
    known.learn(signed("peer", port=7))
    assert refused(known, signed("peer", port=8)) is RejectionReason.PEER_RECORD_DOUBLE
    assert known.record(identity("peer")) is None
    assert refused(known, signed("peer", sequence=9)) is RejectionReason.PEER_RECORD_DOUBLE
    assert (known.equivocating, len(known)) == (1, 0)


@pytest.mark.parametrize(
    "change", [{"host": "10.9.0.1"}, {"port": 9}, {"sequence": 2}, {"peer_id": identity("x")}, {"signature": bytes(64)}]
)
def test_record_that_its_peer_did_not_sign_is_refused(change: dict[str, object]) -> None:
    assert refused(book(), replace(signed("peer"), **change)) is RejectionReason.WRONG_SIGNATURE


def test_record_of_another_network_is_refused() -> None:
    stranger = AddressBook(HOME, b"x" * 32, random.Random(1))
    assert refused(stranger, signed("peer")) is RejectionReason.WRONG_SIGNATURE


@pytest.mark.parametrize("change", [{"host": ""}, {"port": 0}, {"port": 65_536}, {"sequence": 1 << 64}])
def test_impossible_address_is_malformed(change: dict[str, object]) -> None:
    assert refused(book(), replace(signed("peer"), **change)) is RejectionReason.MALFORMED


def test_crowd_of_one_range_is_bounded_and_dialled_no_more_often() -> None:
    known = book()
    known.learn(signed("honest", host="10.2.0.1"))
    for number in range(3 * MAXIMUM_RECORDS_PER_RANGE):
        known.learn(signed(f"crowd {number}", host=f"10.1.0.{number % 250}"))
    assert len(known) == MAXIMUM_RECORDS_PER_RANGE + 1
    drawn = [known.choose(set()) for _ in range(400)]
    honest = sum(1 for each in drawn if each is not None and each.host == "10.2.0.1")
    assert 140 < honest < 260


def test_crowd_of_many_ranges_is_bounded_and_pushes_out_the_fullest() -> None:
    known = book()
    known.learn(signed("honest", host="172.16.0.1"))
    for number in range(MAXIMUM_RECORDS + 100):
        known.learn(signed(f"crowd {number}", host=f"10.{number % 40}.0.1"))
    assert len(known) == MAXIMUM_RECORDS
    assert known.record(identity("honest")) is not None


def test_answer_is_bounded_and_leaves_the_asker_out() -> None:
    known = book()
    known.sign_own(5)
    for number in range(2 * MAXIMUM_TOLD):
        known.learn(signed(f"peer {number}", host=f"10.{number}.0.1"))
    told = known.select_records(identity("peer 3")).records
    assert len(told) == MAXIMUM_TOLD
    assert told[0] == known.own_record
    assert identity("peer 3") not in {record.peer_id for record in told}
    assert len(encode(known.select_records(b""))) <= 32_768


def test_address_that_nobody_answers_at_is_forgotten() -> None:
    known = book()
    known.learn(signed("peer"))
    for _ in range(FORGOTTEN_AFTER_FAILURES - 1):
        known.count_failure(identity("peer"))
    known.clear_failures(identity("peer"))
    for _ in range(FORGOTTEN_AFTER_FAILURES):
        assert known.choose(set()) is not None
        known.count_failure(identity("peer"))
    assert known.choose(set()) is None


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ((replace(signed("third"), port=99),), RejectionReason.WRONG_SIGNATURE),
        ((signed("liar", sequence=2), signed("liar", port=9, sequence=2)), RejectionReason.PEER_RECORD_DOUBLE),
    ],
    ids=["forged", "equivocating"],
)
def test_liar_in_the_peer_exchange_is_banned(records: tuple[AddressRecord, ...], reason: RejectionReason) -> None:
    async def whole() -> None:
        simulated = SimulatedNetwork(5)
        victim = Network(simulated.transport(identity("victim")), NETWORK_ID, SimulatedClock(), random.Random(1))
        liar = Network(simulated.transport(identity("liar")), NETWORK_ID, SimulatedClock(), random.Random(2))
        reasons = []
        report = victim.report

        def reported(peer_id: bytes, rejected: Rejected) -> None:
            reasons.append((peer_id, rejected.reason))
            report(peer_id, rejected)

        victim.report = reported
        await victim.start()
        await liar.start([victim.address()])

        async def lie(peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
            yield encode(AddressRecords(records))

        liar.on_request(METHOD_PEERS, lie)
        await asyncio.sleep(60)
        assert (liar.peer_id, reason) in reasons
        assert victim.peers() == ()
        await victim.close()
        await liar.close()

    run_simulated(whole())


def test_host_of_several_banned_identities_is_banned() -> None:
    limits = NetworkLimits(host_bans_after=2, ban_seconds=100)
    known = PeerBook(limits)
    known.count_ban("10.0.0.1", 0)
    known.count_ban("127.0.0.1", 0)
    known.count_ban("127.0.0.1", 0)
    assert not known.is_host_banned("10.0.0.1", 1)
    known.count_ban("10.0.0.1", 50)
    assert known.is_host_banned("10.0.0.1", 60)
    assert not known.is_host_banned("10.0.0.1", 101)
    assert not known.is_host_banned("10.0.0.2", 60)
    assert not known.is_host_banned("127.0.0.1", 1)


def test_new_identity_of_a_banned_host_is_not_let_in() -> None:
    async def whole() -> None:
        simulated = SimulatedNetwork(5)
        limits = NetworkLimits(host_bans_after=1)
        victim = Network(
            simulated.transport(identity("victim")), NETWORK_ID, SimulatedClock(), random.Random(1), limits
        )
        first = Network(simulated.transport(identity("first")), NETWORK_ID, SimulatedClock(), random.Random(2))
        await victim.start()
        await first.connect(victim.address())
        await asyncio.sleep(1)
        for _ in range(5):
            victim.report(first.peer_id, Rejected(RejectionReason.MALFORMED))
        reborn = simulated.transport(identity("second"))
        reborn._port = first.address().port
        second = Network(reborn, NETWORK_ID, SimulatedClock(), random.Random(2))
        with pytest.raises(Unavailable):
            await second.connect(victim.address())
        elsewhere = Network(simulated.transport(identity("third")), NETWORK_ID, SimulatedClock(), random.Random(2))
        assert await elsewhere.connect(victim.address()) == victim.peer_id
        for network in (victim, first, second, elsewhere):
            await network.close()

    run_simulated(whole())
