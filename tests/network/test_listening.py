"""Discovery on one's own interface, by multicast on loopback."""

import asyncio
import random

import pytest

pytest.importorskip("zeroconf")

from learnchain.encoding.codec import encode
from learnchain.network.concurrency import SystemClock
from learnchain.network.listening import LocalDiscovery, record_of
from learnchain.network.network import Network
from learnchain.network.peers import AddressRecord
from learnchain.network.tls_transport import TlsTransport
from learnchain.rejection import Rejected, RejectionReason
from tests.network.worlds import identity

NETWORK_ID = b"n" * 32


@pytest.mark.network
def test_two_nodes_find_each_other() -> None:
    async def whole() -> None:
        networks = [
            Network(await TlsTransport.listen(identity(name)), NETWORK_ID, SystemClock(), random.Random(1))
            for name in ("one", "other")
        ]
        found = [LocalDiscovery(network) for network in networks]
        for network, discovery in zip(networks, found, strict=True):
            await network.start()
            await discovery.start()
        async with asyncio.timeout(100):
            while not all(network.peers() for network in networks):
                await asyncio.sleep(0.05)
        for network, discovery in zip(networks, found, strict=True):
            await discovery.close()
            await network.close()

    asyncio.run(whole())


@pytest.mark.parametrize("properties", [{}, {b"record": None}, {b"record": b"x"}, {b"record": bytes(249)}])
def test_announcement_without_a_record_is_malformed(properties: dict[bytes, bytes | None]) -> None:
    with pytest.raises(Rejected) as caught:
        record_of(properties)
    assert caught.value.reason is RejectionReason.MALFORMED


def test_record_survives_its_announcement() -> None:
    record = AddressRecord(bytes(32), "127.0.0.1", 5, 1, bytes(64))
    assert record_of({b"record": encode(record)}) == record
