"""Keep enough peers: dial the bootstrap list for ever with a growing pause, and fill up by peer exchange.

The network as the node sees it: topics, requests and peers, on any transport.

Every connection runs the same course: each side opens its gossip stream with a `Hello`; a peer of another format or
chain, a banned one, or one too many of an address range is closed; then gossip flows and requests open streams of
their own. A peer of another format hears why before it is closed, and is not dialled again for a while (ROUND-15).
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from learnchain.encoding.codec import FORMAT_VERSION, Hash32, decode, encode
from learnchain.network import wire
from learnchain.network.concurrency import Clock, Tasks
from learnchain.network.gossip import Gossip, GossipContext, Validate
from learnchain.network.peers import (
    AddressBook,
    AddressRecord,
    AddressRecords,
    NetworkLimits,
    Peer,
    PeerBook,
    PeerInfo,
    RefusedPeer,
    address_range,
)
from learnchain.network.transport import (
    DIAL_TIMEOUT_SECONDS,
    Connection,
    ConnectionLost,
    PeerAddress,
    Stream,
    Transport,
)
from learnchain.network.wire import ask
from learnchain.rejection import Rejected, RejectionReason, Unavailable

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

    def start(self, tasks: Tasks, bootstrap: tuple[PeerAddress, ...]) -> None:
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
        yield encode(self._book.select_records(peer_id))

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
            self._book.clear_failures(address.peer_id)
        except Unavailable:
            self._book.count_failure(address.peer_id)
        except Rejected:
            self._book.forget(address.peer_id)
            raise


REQUEST_SECONDS = 10.0
REQUEST_LIMIT_BYTES = 4 * 1024 * 1024
REQUEST_PAUSE_SECONDS = 0.05
TICK_SECONDS = 0.5
_GREETING = frozenset({wire.MessageKind.HELLO, wire.MessageKind.REFUSAL})
_ONLY_REQUEST = frozenset({wire.MessageKind.REQUEST})
_GOSSIP = frozenset({wire.MessageKind.FULL, wire.MessageKind.HAVE, wire.MessageKind.WANT, wire.MessageKind.REFUSAL})
OnPeerConnected = Callable[[bytes], Coroutine[Any, Any, None]]


class Network:
    """Connect to peers, spread messages, ask and answer questions.

    Register topics and methods, then `await start()`; nothing is accepted before.
    """

    def __init__(
        self,
        transport: Transport,
        network_id: Hash32,
        clock: Clock,
        random_source: random.Random,
        limits: NetworkLimits | None = None,
    ) -> None:
        self._transport = transport
        self._network_id = network_id
        self._session = random_source.randbytes(32)
        self._clock = clock
        self._limits = limits or NetworkLimits()
        self._tasks = Tasks(logging.DEBUG)
        self._book = PeerBook(self._limits)
        self._peers: dict[bytes, Peer] = {}
        self._handlers: dict[str, wire.Handle] = {}
        self._callbacks: list[OnPeerConnected] = []
        self._admitted: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        """Broken rules of peers by reason, since the start."""
        context = GossipContext(clock, random_source, self._limits, self._tasks, self._peers, self.report)
        self._gossip = Gossip(context)
        self._addresses = AddressBook(transport, network_id, random_source)
        self._dialler = Dialler(self, self._addresses, random_source, self._limits.target_peers)

    @property
    def peer_id(self) -> bytes:
        """Return our own identity."""
        return self._transport.peer_id

    def address(self) -> PeerAddress:
        """Return where others can dial us."""
        return self._transport.address()

    async def start(self, bootstrap: Iterable[PeerAddress] = ()) -> None:
        """Accept connections, and dial the bootstrap addresses again and again for as long as they are away."""
        self._addresses.sign_own(self._clock.now_milliseconds())
        self._tasks.start("accepting connections", self._accept())
        self._tasks.start("gossip clockwork", self._tick())
        self._dialler.start(self._tasks, tuple(bootstrap))

    async def close(self) -> None:
        """Drop every peer and stop listening."""
        await self._tasks.close()
        await asyncio.gather(*(peer.connection.close() for peer in list(self._peers.values())))
        self._peers.clear()
        await self._transport.close()

    def on_topic(self, topic: str, validate: Validate) -> None:
        """Judge a topic's messages with `validate(peer_id, payload)`; it may raise `Rejected` or `Unavailable`."""
        self._gossip.on_topic(topic, validate)

    async def publish(self, topic: str, payload: bytes) -> Hash32:
        """Spread at most 64 KiB; larger content is a blob, of which the CID is spread."""
        return self._gossip.publish(topic, payload)

    def retry_deferred(self) -> None:
        """Judge again what could not be judged yet; call it when the node's state has moved on."""
        self._gossip.retry_deferred()

    def on_request(self, method: str, handle: wire.Handle) -> None:
        """Answer a method with the chunks that `handle(peer_id, body)` yields; it may raise as validators may."""
        self._handlers[method] = handle

    async def request(
        self,
        peer_id: bytes,
        method: str,
        body: bytes,
        timeout_seconds: float = REQUEST_SECONDS,
        limit_bytes: int = REQUEST_LIMIT_BYTES,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a peer's answer, one for each that its handler yielded.

        The whole answer has to come within `timeout_seconds` and `limit_bytes`. Whatever goes wrong at the peer is
        `Unavailable` to us (`PeerRefused` carries its reason); an answer that breaks the protocol counts against it.
        So a validator that asks one peer about another's message never blames the wrong one.
        """
        peer = self._peers.get(peer_id)
        if peer is None:
            raise Unavailable(f"{peer_id.hex()[:16]} is not connected")
        question = wire.message_bytes(wire.MessageKind.REQUEST, wire.Request(method, body))
        try:
            answer = ask(peer.connection, question, timeout_seconds, limit_bytes)
            async with contextlib.aclosing(answer):
                async for chunk in answer:
                    yield chunk
        except Rejected as rejected:
            self.report(peer_id, rejected)
            raise Unavailable(f"{peer_id.hex()[:16]} answers outside the protocol: {rejected}") from rejected

    async def request_bytes(
        self,
        peer_id: bytes,
        method: str,
        body: bytes,
        timeout_seconds: float = REQUEST_SECONDS,
        limit_bytes: int = REQUEST_LIMIT_BYTES,
    ) -> bytes:
        """Return the whole answer in one piece."""
        answer = self.request(peer_id, method, body, timeout_seconds, limit_bytes)
        async with contextlib.aclosing(answer):
            return b"".join([chunk async for chunk in answer])

    def peers(self) -> tuple[PeerInfo, ...]:
        """Return the connected peers, by identity."""
        now = self._clock.monotonic_seconds()
        return tuple(
            PeerInfo(
                peer_id, peer.address, peer.standing.score(now), now - peer.since_seconds, peer.connection.is_dialled
            )
            for peer_id, peer in sorted(self._peers.items())
        )

    def list_refused_peers(self) -> tuple[RefusedPeer, ...]:
        """Return the peers of another format version, and those that refused this node, the latest last."""
        return tuple(self._book.refused.values())

    @property
    def own_record(self) -> AddressRecord | None:
        """Return the signed record of our own address, once started."""
        return self._addresses.own_record

    def learn_address(self, record: AddressRecord) -> None:
        """Take in a record that came outside the peer exchange; `Rejected` says what is wrong with it."""
        self._addresses.learn(record)

    def on_peer_connected(self, callback: OnPeerConnected) -> None:
        """Call back with the identity of every peer that connects, so that the chain can compare tips."""
        self._callbacks.append(callback)

    async def connect(self, address: PeerAddress, timeout_seconds: float = DIAL_TIMEOUT_SECONDS) -> bytes:
        """Dial and introduce ourselves; return the peer's identity once it is connected."""
        known = self._peers.get(address.peer_id)
        if known is not None:
            return known.peer_id
        refused = self._book.refused.get(address.peer_id)
        if refused is not None and self._clock.monotonic_seconds() - refused.since_seconds < LONGEST_PAUSE_SECONDS:
            raise Unavailable(f"not dialled again so soon: {refused.why}")
        connection = await self._transport.connect(address, timeout_seconds)
        if connection.peer_id == self.peer_id:
            await connection.close()
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{address} is this node")
        greeted: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._tasks.start("connection", self._run(connection, greeted))
        return await greeted

    def report(self, peer_id: bytes, rejected: Rejected) -> None:
        """Count a broken rule against a peer; at the threshold it is dropped and banned for a while."""
        self.rejections[rejected.reason.value] += 1
        now = self._clock.monotonic_seconds()
        _log.info("peer %s: %s", peer_id.hex()[:16], rejected)
        if self._book.standing(peer_id, now).penalise(rejected, now):
            _log.warning("peer %s is banned for %d seconds", peer_id.hex()[:16], self._limits.ban_seconds)
            self._addresses.forget(peer_id)
            peer = self._peers.pop(peer_id, None)
            if peer is not None:
                self._book.count_ban(peer.connection.remote_host, now)
                self._tasks.start("dropping a banned peer", peer.connection.close())

    # --- the course of a connection ----------------------------------------------------------------------------------

    async def _accept(self) -> None:
        while True:
            connection = await self._transport.accept()
            self._tasks.start("connection", self._run(connection, None))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._gossip.tick()

    async def _run(self, connection: Connection, greeted: "asyncio.Future[bytes] | None") -> None:
        block = address_range(connection.remote_host)
        self._admitted[block] += 1
        try:
            self._check_admission(connection, block)
            incoming = await self._greet(connection)
            peer = self._peers[connection.peer_id]
            if greeted is not None and not greeted.done():
                greeted.set_result(peer.peer_id)
            await self._converse(peer, incoming)
        except (Rejected, Unavailable) as ending:
            if greeted is not None and not greeted.done():
                if connection.peer_id in self._peers:
                    greeted.set_result(connection.peer_id)
                else:
                    greeted.set_exception(ending)
            if isinstance(ending, Rejected):
                self.report(connection.peer_id, ending)
            self._remember_refusal(connection, ending)
        finally:
            self._admitted[block] -= 1
            self._admitted += Counter()
            if greeted is not None and not greeted.done():
                greeted.set_exception(Unavailable("the node is closing"))
            known = self._peers.get(connection.peer_id)
            if known is not None and known.connection is connection:
                del self._peers[connection.peer_id]
            await connection.close()

    def _remember_refusal(self, connection: Connection, ending: Rejected | Unavailable) -> None:
        """Name a peer to the operator that cannot be talked to until one side changes its program."""
        if isinstance(ending, Rejected) and ending.reason is RejectionReason.FORMAT_UNSUPPORTED:
            why = ending.detail
        elif isinstance(ending, wire.PeerRefused):
            why = str(ending)
        else:
            return
        now, peer_id = self._clock.monotonic_seconds(), connection.peer_id
        if self._book.remember_refusal(RefusedPeer(peer_id, connection.remote_host, why, now)):
            _log.warning("peer %s at %s: %.400r", peer_id.hex()[:16], connection.remote_host, why)

    def _check_admission(self, connection: Connection, block: str) -> None:
        now = self._clock.monotonic_seconds()
        if self._book.standing(connection.peer_id, now).banned_until_seconds > now:
            raise Unavailable("the peer is banned")
        if self._book.is_host_banned(connection.remote_host, now):
            raise Unavailable("the peer's host is banned")
        crowded = self._admitted[block] > self._limits.maximum_peers_per_range
        if crowded or self._admitted.total() > self._limits.maximum_peers:
            raise Unavailable("there are enough peers, in all or of this address range")

    async def _greet(self, connection: Connection) -> Stream:
        """Exchange introductions and register the peer; return the stream that its gossip comes on."""
        address = self._transport.address()
        outgoing = await connection.open_stream()
        hello = wire.Hello(FORMAT_VERSION, self._network_id, self._session, address.host, address.port)
        await outgoing.write(wire.message_bytes(wire.MessageKind.HELLO, hello))
        try:
            async with asyncio.timeout(self._limits.hello_seconds):
                incoming = await connection.accept_stream()
                kind, body = await wire.read_message(incoming, _GREETING)
        except TimeoutError as error:
            raise Unavailable("the peer does not introduce itself") from error
        if kind is wire.MessageKind.REFUSAL:
            raise wire.build_refusal_error(body)
        try:
            theirs = wire.decode_hello(body)
        except Rejected as rejected:
            if rejected.reason is RejectionReason.FORMAT_UNSUPPORTED:
                await wire.refuse(
                    outgoing, rejected.reason.value, f"the node that refuses speaks format {FORMAT_VERSION}"
                )
                await self._let_go(outgoing)
            raise
        if theirs.network_id != self._network_id:
            raise Rejected(RejectionReason.WRONG_CHAIN, "the peer is on another network")
        now = self._clock.monotonic_seconds()
        peer = Peer(connection, self._book.standing(connection.peer_id, now), self._limits, now)
        peer.session = theirs.session
        if 0 < theirs.port < 65_536:
            peer.address = PeerAddress(theirs.host or connection.remote_host, theirs.port, peer.peer_id)
        await self._register(peer, outgoing)
        return incoming

    async def _register(self, peer: Peer, outgoing: Stream) -> None:
        known = self._peers.get(peer.peer_id)
        if known is not None:
            if not self._prefers(peer, known):
                raise ConnectionLost("the peer is connected already")
            self._tasks.start("closing the other connection", known.connection.close())
        self._peers[peer.peer_id] = peer
        self._book.refused.pop(peer.peer_id, None)
        self._tasks.start("outbox", self._send(peer, outgoing))
        self._gossip.greet(peer)
        for callback in self._callbacks:
            self._tasks.start("comparing with a new peer", callback(peer.peer_id))

    def _prefers(self, new: Peer, old: Peer) -> bool:
        """Decide which of two connections to one peer stays, so that both sides decide alike.

        Only two that were dialled at once need the order of the identities. Nobody dials a peer it is connected to: who
        comes back later, or after a restart, has lost the old connection, and we would hear nothing of it until that
        one has been idle for long enough.
        """
        if new.session != old.session or new.since_seconds - old.since_seconds > DIAL_TIMEOUT_SECONDS:
            return True
        if new.connection.is_dialled == old.connection.is_dialled:
            return True
        return new.connection.is_dialled == (self.peer_id < new.peer_id)

    async def _send(self, peer: Peer, outgoing: Stream) -> None:
        while True:
            await outgoing.write(await peer.next_message())

    async def _converse(self, peer: Peer, incoming: Stream) -> None:
        """Run a peer until its connection ends, it breaks a rule, or it turns out too slow."""
        parts = {
            asyncio.create_task(self._listen(peer, incoming)),
            asyncio.create_task(self._answer_requests(peer)),
            asyncio.create_task(peer.connection.wait_until_closed()),
            asyncio.create_task(peer.too_slow.wait()),
        }
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if peer.connection.fault is not None:
                raise peer.connection.fault
            for part in done:
                part.result()
            if peer.too_slow.is_set():
                raise Rejected(RejectionReason.RATE_LIMITED, "the peer does not read its gossip")
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _listen(self, peer: Peer, incoming: Stream) -> None:
        while True:
            kind, body = await wire.read_message(incoming, _GOSSIP)
            if kind is wire.MessageKind.REFUSAL:
                raise wire.build_refusal_error(body)
            await self._gossip.handle(peer, kind, body)

    async def _answer_requests(self, peer: Peer) -> None:
        while True:
            stream = await peer.connection.accept_stream()
            self._tasks.start("request", self._answer(peer, stream))

    async def _answer(self, peer: Peer, stream: Stream) -> None:
        try:
            # Above the rate requests wait; the bound on streams makes the asker wait in turn, and nothing is lost.
            while not peer.standing.requests.take(1.0, self._clock.monotonic_seconds()):
                await asyncio.sleep(REQUEST_PAUSE_SECONDS)
            async with asyncio.timeout(REQUEST_SECONDS):
                _, body = await wire.read_message(stream, _ONLY_REQUEST)
            fault = await wire.serve(stream, peer.peer_id, body, self._handlers)
            if fault is not None:
                raise fault
        except TimeoutError:
            await stream.reset()
        except Rejected as rejected:
            self.report(peer.peer_id, rejected)
            raise
        finally:
            await self._let_go(stream)

    async def _let_go(self, stream: Stream) -> None:
        """Reset a stream whose other side has not finished it, once it had the time to read our answer."""
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(1.0):
                await stream.read(1)
        await stream.reset()
