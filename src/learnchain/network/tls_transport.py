"""Mutual TLS 1.3 over TCP with nothing but the standard library and `cryptography`: the transport without surprises.

A node's identity is an ed25519 key; its certificate is made from the key at every start and names nothing. The `ssl`
module asks a client for its certificate only if it can verify it against an issuer, so every node signs its own
certificate with one issuer whose private key is public knowledge (`_ISSUER`). The issuer vouches for nothing: what
counts is that TLS proves possession of the certificate's key, and that key is the peer id.
"""

import asyncio
import contextlib
import datetime
import hashlib
import logging
import os
import socket
import ssl
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from learnchain.network.multiplexer import ConnectionLimits, MultiplexedConnection, Remote
from learnchain.network.transport import DIAL_TIMEOUT_SECONDS, ConnectionLost, PeerAddress, is_signed_by, signature_of
from learnchain.rejection import Rejected, RejectionReason, Unavailable

PROTOCOL_NAME = "learnchain/1"
"""Agreed on in the handshake (ALPN): whoever speaks something else is refused before a byte of ours."""
HANDSHAKE_SECONDS = 5.0
MAXIMUM_HANDSHAKES = 64
"""Strangers that may be in the handshake at one time; more wait in the kernel's queue."""
MAXIMUM_WAITING_CONNECTIONS = 64
_SHUTDOWN_SECONDS = 1.0
_READ_BYTES = 65_536
_WRITE_BUFFER_BYTES = 256 * 1024
_ISSUER = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"learnchain/1/issuer that vouches for nothing").digest())
_VALID_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_VALID_UNTIL = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
_log = logging.getLogger(__name__)


class TlsTransport:
    """Dial and accept TLS connections; a `Transport`. Made by `await TlsTransport.listen(...)`."""

    def __init__(self, identity: bytes, listener: socket.socket, limits: ConnectionLimits | None = None) -> None:
        self._identity = identity
        key = Ed25519PrivateKey.from_private_bytes(identity)
        self._peer_id = key.public_key().public_bytes_raw()
        self._server_context, self._client_context = _contexts(key)
        self._listener = listener
        self._limits = limits
        self._accepted: asyncio.Queue[MultiplexedConnection] = asyncio.Queue(MAXIMUM_WAITING_CONNECTIONS)
        self._handshakes = asyncio.Semaphore(MAXIMUM_HANDSHAKES)
        self._closed = asyncio.Event()
        self._connections: set[MultiplexedConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start(self._listen())

    @classmethod
    async def listen(
        cls, identity: bytes, host: str = "127.0.0.1", port: int = 0, limits: ConnectionLimits | None = None
    ) -> "TlsTransport":
        """Listen under a 32-byte ed25519 private key; port 0 takes any free one."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
        listener.setblocking(False)
        return cls(identity, listener, limits)

    @property
    def peer_id(self) -> bytes:
        """Return our own public key."""
        return self._peer_id

    def address(self) -> PeerAddress:
        """Return the address that the listening socket has."""
        host, port = self._listener.getsockname()[:2]
        return PeerAddress(host, port, self._peer_id)

    def sign(self, message: bytes) -> bytes:
        """Return our ed25519 signature of a message."""
        return signature_of(self._identity, message)

    def verify(self, peer_id: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether a peer signed a message."""
        return is_signed_by(peer_id, message, signature)

    async def connect(
        self, address: PeerAddress, timeout_seconds: float = DIAL_TIMEOUT_SECONDS
    ) -> MultiplexedConnection:
        """Dial; raise `Unavailable` when nobody answers in time, `Rejected` when somebody else does."""
        try:
            async with asyncio.timeout(timeout_seconds):
                reader, writer = await asyncio.open_connection(
                    address.host,
                    address.port,
                    ssl=self._client_context,
                    limit=_READ_BYTES,
                    ssl_handshake_timeout=timeout_seconds,
                    ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
                )
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{address} does not answer: {error or 'timed out'}") from error
        try:
            return self._connection(reader, writer, dialled=True, expected=address.peer_id)
        except Rejected:
            writer.transport.abort()
            raise

    async def accept(self) -> MultiplexedConnection:
        """Return the next connection that somebody dialled to us."""
        getter = asyncio.ensure_future(self._accepted.get())
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({getter, closed}, return_when=asyncio.FIRST_COMPLETED)
            if getter.done():
                return getter.result()
            raise ConnectionLost("the transport is closed")
        finally:
            getter.cancel()
            closed.cancel()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self._closed.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._handshakes.acquire()
            try:
                accepted, address = await loop.sock_accept(self._listener)
            except OSError as error:
                self._handshakes.release()
                _log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            self._start(self._shake_hands(accepted, str(address[0])))

    async def _shake_hands(self, accepted: socket.socket, host: str) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_READ_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=self._server_context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            await self._offer(reader, writer)
        except (OSError, TimeoutError) as error:
            _log.debug("no handshake with %s: %s", host, error)
            accepted.close()
        finally:
            self._handshakes.release()

    async def _offer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connection = self._connection(reader, writer, dialled=False)
        except Rejected as rejected:
            _log.info("refused a connection: %s", rejected)
            writer.transport.abort()
            return
        try:
            self._accepted.put_nowait(connection)
        except asyncio.QueueFull:
            await connection.close()

    def _connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, dialled: bool, expected: bytes = b""
    ) -> MultiplexedConnection:
        peer_id = _read_proven_identity(writer)
        if expected not in {b"", peer_id}:
            raise Rejected(RejectionReason.WRONG_SIGNATURE, f"{peer_id.hex()} answers instead of {expected.hex()}")
        writer.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        host = str(writer.get_extra_info("peername")[0])
        connection = MultiplexedConnection(_TlsPipe(reader, writer), Remote(peer_id, host, dialled), self._limits)
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


class _TlsPipe:
    """Read and write the streams that asyncio makes of a TLS socket; a `Pipe`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_READ_BYTES)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    def unsent_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    async def drain(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(2 * _SHUTDOWN_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


def _read_proven_identity(writer: asyncio.StreamWriter) -> bytes:
    """Return the ed25519 key whose possession the handshake has proven."""
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    encoded = session.getpeercert(binary_form=True)
    if session.selected_alpn_protocol() != PROTOCOL_NAME or encoded is None:
        raise Rejected(RejectionReason.MALFORMED, f"the peer does not speak {PROTOCOL_NAME}")
    try:
        key = x509.load_der_x509_certificate(encoded).public_key()
    except ValueError as error:
        raise Rejected(RejectionReason.MALFORMED, "the peer's certificate cannot be read") from error
    if not isinstance(key, Ed25519PublicKey):
        raise Rejected(RejectionReason.MALFORMED, "the peer's key is not an ed25519 key")
    return key.public_bytes_raw()


def _contexts(key: Ed25519PrivateKey) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    issuer = _certificate(_ISSUER, authority=True).public_bytes(Encoding.PEM).decode()
    certificate = _certificate(key, authority=False).public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    contexts = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "identity.pem"
        # `ssl` loads keys from files only; the folder is readable by us alone and lives for these lines.
        path.touch(mode=0o600)
        path.write_bytes(secret + certificate)
        for context in contexts:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=issuer)
            context.load_cert_chain(os.fspath(path))
            context.set_alpn_protocols([PROTOCOL_NAME])
    contexts[0].num_tickets = 0
    return contexts


def _certificate(key: Ed25519PrivateKey, *, authority: bool) -> x509.Certificate:
    """Return a certificate for the key, with a serial number and dates that depend on nothing else."""
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "learnchain issuer that vouches for nothing")])
    subject = issuer if authority else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "learnchain node")])
    public = key.public_key()
    builder = (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=public)
        .serial_number(int.from_bytes(hashlib.sha256(public.public_bytes_raw()).digest()[:19], "big") | 1)
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_UNTIL)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
    )
    return builder.sign(_ISSUER, None)
