"""Keep enough peers: dial the bootstrap list for ever with a growing pause, and fill up by peer exchange."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from learnchain.node.network.tasks import TaskSet
from learnchain.node.network.transport import PeerAddress
from learnchain.node.network.wire import KnownAddress, KnownAddresses
from learnchain.primitives.codec import decode, encode
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

if TYPE_CHECKING:
    from learnchain.node.network.network import Network

METHOD_PEERS = "network/peers"
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
EXCHANGE_SECONDS = 5.0
_log = logging.getLogger(__name__)
_MAXIMUM_TOLD = 64
_MAXIMUM_TOLD_BYTES = 32_768


class Dialler:
    """Dial for a network; addresses learned from peers are a hint, the dial proves the identity."""

    def __init__(self, network: "Network", random_source: random.Random, target_peers: int) -> None:
        self._network = network
        self._random = random_source
        self._target_peers = target_peers

    def start(self, tasks: TaskSet, bootstrap: tuple[PeerAddress, ...]) -> None:
        """Begin dialling, and answer peers that ask whom we know."""
        self._network.on_request(METHOD_PEERS, self._tell)
        for address in bootstrap:
            tasks.start(f"dialling {address}", self._keep_connected(address))
        tasks.start("peer exchange", self._exchange())

    async def _keep_connected(self, address: PeerAddress) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                peer_id = await self._network.connect(address)
                address = replace(address, peer_id=address.peer_id or peer_id)
                pause = FIRST_PAUSE_SECONDS
            except Unavailable:
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            except Rejected as rejected:
                if rejected.reason is RejectionReason.ARGUMENT_INVALID:
                    _log.warning("not dialling %s any more: %s", address, rejected)
                    return
                pause = LONGEST_PAUSE_SECONDS
            await asyncio.sleep(pause * self._random.uniform(0.75, 1.25))

    async def _tell(self, peer_id: bytes, body: bytes) -> AsyncIterator[bytes]:
        if body:
            raise Rejected(RejectionReason.MALFORMED, "the question has no body")
        known = [peer.address for peer in self._network.peers() if peer.address and peer.peer_id != peer_id]
        self._random.shuffle(known)
        told = tuple(KnownAddress(address.peer_id, address.host, address.port) for address in known[:_MAXIMUM_TOLD])
        yield encode(KnownAddresses(told))

    async def _exchange(self) -> None:
        while True:
            await asyncio.sleep(EXCHANGE_SECONDS * self._random.uniform(0.5, 1.5))
            connected = [peer.peer_id for peer in self._network.peers()]
            if connected and len(connected) < self._target_peers:
                try:
                    await self._ask_one(self._random.choice(connected), {*connected, self._network.peer_id})
                except (Rejected, Unavailable):
                    continue

    async def _ask_one(self, peer_id: bytes, connected: set[bytes]) -> None:
        answer = await self._network.request_bytes(peer_id, METHOD_PEERS, b"", limit_bytes=_MAXIMUM_TOLD_BYTES)
        told = [known for known in decode(KnownAddresses, answer).addresses if known.peer_id not in connected]
        if told:
            chosen = self._random.choice(told)
            if 0 < chosen.port < 65_536:
                await self._network.connect(PeerAddress(chosen.host, chosen.port, chosen.peer_id))
