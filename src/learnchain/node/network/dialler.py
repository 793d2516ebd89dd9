"""Keep enough peers: dial the bootstrap list for ever with a growing pause, and fill up by peer exchange."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from learnchain.node.network.address_book import AddressBook, AddressRecord, AddressRecords
from learnchain.node.network.tasks import TaskSet
from learnchain.node.network.transport import PeerAddress
from learnchain.primitives.codec import decode, encode
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

if TYPE_CHECKING:
    from learnchain.node.network.network import Network

METHOD_PEERS = "network/peers"
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
EXCHANGE_SECONDS = 5.0
_log = logging.getLogger(__name__)
_MAXIMUM_TOLD_BYTES = 32_768


class Dialler:
    """Dial for a network; addresses come from records that the peers signed, the dial proves the identity."""

    def __init__(self, network: "Network", book: AddressBook, random_source: random.Random, target_peers: int) -> None:
        self._network = network
        self._book = book
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
        yield encode(self._book.told(peer_id))

    async def _exchange(self) -> None:
        while True:
            await asyncio.sleep(EXCHANGE_SECONDS * self._random.uniform(0.5, 1.5))
            connected = [peer.peer_id for peer in self._network.peers()]
            strangers = [peer_id for peer_id in connected if self._book.record(peer_id) is None]
            hungry = len(connected) < self._target_peers
            try:
                if strangers or (connected and hungry):
                    await self._ask(self._random.choice(strangers or connected))
                if hungry:
                    await self._dial_another({*connected, self._network.peer_id})
            except (Rejected, Unavailable) as outcome:
                _log.debug("peer exchange: %s", outcome)

    async def _ask(self, teller: bytes) -> None:
        answer = await self._network.request_bytes(teller, METHOD_PEERS, b"", limit_bytes=_MAXIMUM_TOLD_BYTES)
        try:
            records = decode(AddressRecords, answer).records
        except Rejected as rejected:
            self._network.report(teller, rejected)
            raise
        self._learn(records, teller)

    def _learn(self, records: tuple[AddressRecord, ...], teller: bytes) -> None:
        """Take records in; a broken rule counts against the signer if he equivocated, else once against the teller."""
        fault: Rejected | None = None
        for record in records:
            try:
                self._book.learn(record)
            except Rejected as rejected:
                if rejected.reason is RejectionReason.PEER_RECORD_DOUBLE:
                    self._network.report(record.peer_id, rejected)
                elif fault is None or fault.reason is RejectionReason.PEER_RECORD_STALE:
                    fault = rejected
        if fault is not None:
            self._network.report(teller, fault)

    async def _dial_another(self, but: set[bytes]) -> None:
        address = self._book.choose(but)
        if address is None:
            return
        try:
            await self._network.connect(address)
            self._book.answered(address.peer_id)
        except Unavailable:
            self._book.failed(address.peer_id)
        except Rejected:
            self._book.forget(address.peer_id)
            raise
