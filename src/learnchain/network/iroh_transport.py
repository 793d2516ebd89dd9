"""QUIC by `iroh`: encrypted, authenticated by ed25519 keys, through address translators if somebody runs a relay.

No preset of iroh's own is used: the default one asks public servers, and a plain bind address leaves a second socket
open to the world. Ours starts from the minimal preset, names both sockets and leaves relays off unless one is named.
Every connection carries one QUIC stream, and our multiplexer runs over it: so windows, stream counts, idle times and
faults are the same as with TLS, and none of iroh's own bounds has to be trusted. A dial proves an identity that it
must know before, so an address without one cannot be dialled (`learnchain` writes addresses as PEER@HOST:PORT).
"""

import asyncio
import contextlib
import ctypes
import inspect
import ipaddress
import logging
import socket
from collections.abc import Coroutine
from typing import Any

import iroh
from iroh import iroh_ffi

from learnchain.network.multiplexer import ConnectionLimits, Frame, FrameKind, MultiplexedConnection, Remote
from learnchain.network.transport import DIAL_TIMEOUT_SECONDS, ConnectionLost, PeerAddress, is_signed_by, signature_of
from learnchain.rejection import Rejected, RejectionReason, Unavailable

PROTOCOL_NAME = b"learnchain/1"
HANDSHAKE_SECONDS = 5.0
MAXIMUM_HANDSHAKES = 64
MAXIMUM_WAITING_CONNECTIONS = 64
_SHUTDOWN_SECONDS = 1.0
_READ_BYTES = 256 * 1024
_WRITE_BUFFER_BYTES = 512 * 1024
_SLOW_COPY = "for i, byte in enumerate(value)"
_WRONG_PEER = "invalid peer certificate"
"""What iroh says of a handshake with somebody else; the only way it tells."""
_log = logging.getLogger(__name__)


def copies_bytes_in_a_loop() -> bool:
    """Return whether this iroh copies what we send byte by byte in Python, as 1.2 does (1 MB/s)."""
    return _SLOW_COPY in inspect.getsource(iroh_ffi._UniffiRustBufferBuilder.write)


def copy_bytes_at_once() -> bool:
    """Replace the copying loop by one `memmove`; return whether there was one, so newer releases stay untouched."""
    try:
        slow = copies_bytes_in_a_loop()
    except (AttributeError, OSError):
        return False
    if slow:
        iroh_ffi._UniffiRustBufferBuilder.write = _write_at_once  # pyrefly: ignore
    return slow


def _write_at_once(builder: Any, value: bytes) -> None:
    with builder._reserve(len(value)):
        target = ctypes.cast(builder.rbuf.data, ctypes.c_void_p).value
        ctypes.memmove((target or 0) + builder.rbuf.len, bytes(value), len(value))


class _ClosedPreset(iroh.Preset):
    """Configure an endpoint that talks to nobody but the peers it is told of."""

    def __init__(self, sockets: tuple[str, str], relay_urls: tuple[str, ...]) -> None:
        self._sockets = sockets
        self._relay_urls = relay_urls

    def apply(self, builder: iroh.EndpointBuilder) -> None:  # pyrefly: ignore[missing-override-decorator]
        builder.apply_minimal()
        urls = list(self._relay_urls)
        builder.relay_mode(iroh.RelayMode.custom_from_urls(urls) if urls else iroh.RelayMode.disabled())
        for each in self._sockets:
            builder.bind_addr(each)


class IrohTransport:
    """Dial and accept iroh connections; a `Transport`. Made by `await IrohTransport.listen(...)`."""

    def __init__(
        self,
        endpoint: iroh.Endpoint,
        host: str,
        limits: ConnectionLimits | None = None,
        relay_urls: tuple[str, ...] = (),
    ) -> None:
        self._endpoint = endpoint
        self._peer_id = endpoint.id().to_bytes()
        self._address = _listening_address(endpoint, host, self._peer_id)
        self._limits = limits
        self._relay_url = relay_urls[0] if relay_urls else None
        self._accepted: asyncio.Queue[MultiplexedConnection | None] = asyncio.Queue(MAXIMUM_WAITING_CONNECTIONS + 1)
        self._handshakes = asyncio.Semaphore(MAXIMUM_HANDSHAKES)
        self._closed = False
        self._connections: set[MultiplexedConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start(self._listen())

    @classmethod
    async def listen(
        cls,
        identity: bytes,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: ConnectionLimits | None = None,
        relay_urls: tuple[str, ...] = (),
    ) -> "IrohTransport":
        """Listen under a 32-byte ed25519 private key; port 0 takes any free one."""
        copy_bytes_at_once()
        try:
            version = ipaddress.ip_address(host).version
        except ValueError as error:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"cannot listen on {host!r}: no IP address") from error
        # Both families are named: the one that we do not listen on is bound to loopback, not to every interface.
        sockets = (f"{host}:{port}", "[::1]:0") if version == 4 else ("127.0.0.1:0", f"[{host}]:{port}")
        preset = _ClosedPreset(sockets, relay_urls)
        options = iroh.EndpointOptions(preset=preset, secret_key=identity, alpns=[PROTOCOL_NAME])
        try:
            endpoint = await iroh.Endpoint.bind(options)
        except iroh.IrohError as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {_describe_error(error)}") from error
        return cls(endpoint, host, limits, relay_urls)

    @property
    def peer_id(self) -> bytes:
        """Return our own public key."""
        return self._peer_id

    def address(self) -> PeerAddress:
        """Return the address that the listening socket has."""
        return self._address

    def sign(self, message: bytes) -> bytes:
        """Return our ed25519 signature of a message."""
        return signature_of(self._endpoint.secret_key().to_bytes(), message)

    def verify(self, peer_id: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether a peer signed a message."""
        return is_signed_by(peer_id, message, signature)

    async def connect(
        self, address: PeerAddress, timeout_seconds: float = DIAL_TIMEOUT_SECONDS
    ) -> MultiplexedConnection:
        """Dial; raise `Unavailable` when nobody answers in time, `Rejected` when somebody else does.

        iroh itself tries a dead address for 30 s: every dial is bounded here.
        """
        if not address.peer_id or address.peer_id == self._peer_id:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{address}: iroh dials another's PEER@HOST:PORT only")
        if self._closed:
            raise ConnectionLost("the transport is closed")
        try:
            async with asyncio.timeout(timeout_seconds):
                target = iroh.EndpointAddr(
                    iroh.EndpointId.from_bytes(address.peer_id), self._relay_url, [await _socket_address(address)]
                )
                raw = await self._endpoint.connect(target, PROTOCOL_NAME)
                stream = await raw.open_bi()
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{address} does not answer: {error or 'timed out'}") from error
        except iroh.IrohError as error:
            if _WRONG_PEER in error.message():
                raise Rejected(RejectionReason.WRONG_SIGNATURE, f"somebody else answers at {address}") from error
            raise Unavailable(f"{address} does not answer: {_describe_error(error)}") from error
        connection = self._connection(_IrohPipe(raw, stream), Remote(address.peer_id, address.host, dialled=True))
        # The other side learns of the stream by its first bytes.
        connection.send(Frame(FrameKind.PING))
        return connection

    async def accept(self) -> MultiplexedConnection:
        """Return the next connection that somebody dialled to us."""
        connection = None if self._closed else await self._accepted.get()
        if connection is None:
            self._wake_acceptors()
            raise ConnectionLost("the transport is closed")
        return connection

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self._closed = True
        self._wake_acceptors()
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError, iroh.IrohError):
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                await self._endpoint.close()

    def _wake_acceptors(self) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._accepted.put_nowait(None)

    async def _listen(self) -> None:
        while True:
            await self._handshakes.acquire()
            incoming = await self._endpoint.accept_next()
            if incoming is None:
                return
            self._start(self._shake_hands(incoming))

    async def _shake_hands(self, incoming: iroh.Incoming) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                host = _host_of(await incoming.remote_addr())
                raw = await (await incoming.accept()).connect()
                # One stream is the protocol; more would hold memory that our multiplexer does not count.
                raw.set_max_concurrent_bi_streams(1)
                raw.set_max_concurrent_uni_streams(0)
                pipe = _IrohPipe(raw, await raw.accept_bi())
        except (iroh.IrohError, TimeoutError) as error:
            _log.debug("no handshake: %s", _describe_error(error) if isinstance(error, iroh.IrohError) else "timed out")
            return
        finally:
            self._handshakes.release()
        connection = self._connection(pipe, Remote(raw.remote_id().to_bytes(), host, dialled=False))
        if self._accepted.qsize() >= MAXIMUM_WAITING_CONNECTIONS or self._closed:
            await connection.close()
        else:
            self._accepted.put_nowait(connection)

    def _connection(self, pipe: "_IrohPipe", remote: Remote) -> MultiplexedConnection:
        connection = MultiplexedConnection(pipe, remote, self._limits)
        self._connections.add(connection)
        self._start(self._forget_closed(connection))
        return connection

    async def _forget_closed(self, connection: MultiplexedConnection) -> None:
        await connection.wait_until_closed()
        self._connections.discard(connection)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _IrohPipe:
    """Read and write one QUIC stream; a `Pipe`. Holds the connection too: iroh closes what nobody holds."""

    def __init__(self, connection: iroh.Connection, stream: iroh.BiStream) -> None:
        self._connection = connection
        self._reader = stream.recv()
        self._writer = stream.send()
        self._waiting = bytearray()
        self._under_way_bytes = 0
        self._ended = False
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._sender = asyncio.create_task(self._send())

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_READ_BYTES)
        except iroh.IrohError:
            return b""

    def write(self, data: bytes) -> None:
        if not self._ended:
            self._waiting += data
            self._filled.set()

    def unsent_bytes(self) -> int:
        return len(self._waiting) + self._under_way_bytes

    async def drain(self) -> None:
        while self.unsent_bytes() > _WRITE_BUFFER_BYTES and not self._ended:
            self._drained.clear()
            await self._drained.wait()

    async def close(self) -> None:
        if self._ended and self._sender.done():
            return
        self._ended = True
        self._filled.set()
        with contextlib.suppress(iroh.IrohError, TimeoutError):
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                await asyncio.wait({self._sender})
                await self._writer.finish()
                await self._writer.stopped()
        self._sender.cancel()
        self._drained.set()
        self._connection.close(0, b"")

    async def _send(self) -> None:
        try:
            while self._waiting or not self._ended:
                if not self._waiting:
                    self._filled.clear()
                    await self._filled.wait()
                    continue
                data = bytes(self._waiting)
                self._waiting.clear()
                self._under_way_bytes = len(data)
                await self._writer.write_all(data)
                self._under_way_bytes = 0
                self._drained.set()
        except iroh.IrohError:
            self._waiting.clear()
        finally:
            self._ended = True
            self._under_way_bytes = 0
            self._drained.set()


def _describe_error(error: iroh.IrohError) -> str:
    """Return what happened in one line: `str` of these errors is empty, and the message has a line for each cause."""
    return error.message().strip().rpartition("\n")[2].strip()[:200]


def _listening_address(endpoint: iroh.Endpoint, host: str, peer_id: bytes) -> PeerAddress:
    for each in endpoint.bound_sockets():
        bound, _, port = each.rpartition(":")
        if ipaddress.ip_address(bound.strip("[]")) == ipaddress.ip_address(host):
            return PeerAddress(host, int(port), peer_id)
    raise Unavailable(f"iroh did not bind {host}")


async def _socket_address(address: PeerAddress) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    host, port = found[0][4][:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _host_of(remote: Any) -> str:
    """Return the host of an incoming connection; those that come by a relay count as one address range."""
    if not remote.is_ip():
        return "relay"
    return str(remote.addr).rpartition(":")[0].strip("[]")
