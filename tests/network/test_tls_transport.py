"""Strangers at the door: whatever they send, they get no connection, and the next honest peer does."""

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from learnchain.network import tls_transport
from learnchain.network.tls_transport import PROTOCOL_NAME, TlsTransport
from learnchain.network.transport import PeerAddress, parse_address
from learnchain.rejection import Rejected, RejectionReason, Unavailable
from tests.network.worlds import identity

Stranger = Callable[[PeerAddress, Path], Awaitable[None]]


def context_of_a_stranger(folder: Path, *, certificate: str, protocol: str = PROTOCOL_NAME) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    if certificate:
        context.load_cert_chain(certificate_file(folder, certificate))
    return context


def certificate_file(folder: Path, kind: str) -> Path:
    """Write a certificate that is self-signed, or of another key kind, or as it should be."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "elliptic" else Ed25519PrivateKey.generate()
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "learnchain issuer that vouches for nothing")])
    subject = issuer if kind == "self-signed" else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36_500))
    )
    signer = key if kind == "self-signed" else tls_transport._ISSUER
    certificate = builder.sign(signer, hashes.SHA256() if isinstance(signer, ec.EllipticCurvePrivateKey) else None)
    path = folder / "stranger.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    return path


def shaking(certificate: str, protocol: str = PROTOCOL_NAME) -> Stranger:
    async def stranger(address: PeerAddress, folder: Path) -> None:
        context = context_of_a_stranger(folder, certificate=certificate, protocol=protocol)
        try:
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
            assert await reader.read(1) == b""
            writer.close()
        except OSError:
            return

    return stranger


def sending(data: bytes) -> Stranger:
    async def stranger(address: PeerAddress, folder: Path) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(data)
            while await reader.read(1_000):
                pass
        except OSError:
            pass
        writer.transport.abort()

    return stranger


@pytest.mark.parametrize(
    "stranger",
    [
        sending(b"GET / HTTP/1.1\r\n\r\n"),
        sending(b"\x16\x03\x01\x40\x00" + b"\x01" * 20_000),
        sending(b"\0" * 1_000_000),
        sending(b""),
        shaking(""),
        shaking("self-signed"),
        shaking("elliptic"),
        shaking("right", "http/1.1"),
    ],
    ids=["http", "half a hello", "zeros", "silence", "no certificate", "self-signed", "other key", "other protocol"],
)
def test_stranger_gets_no_connection(stranger: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_transport, "HANDSHAKE_SECONDS", 0.5)

    async def whole() -> None:
        server = await TlsTransport.listen(identity("server"))
        honest = await TlsTransport.listen(identity("honest"))
        async with asyncio.timeout(100):
            await stranger(server.address(), tmp_path)
            near = await honest.connect(server.address())
            far = await server.accept()
        assert far.peer_id == honest.peer_id
        assert near.peer_id == server.peer_id
        await asyncio.gather(server.close(), honest.close())

    asyncio.run(whole())


def test_stranger_with_a_proper_certificate_gets_one(tmp_path: Path) -> None:
    """Show that the strangers above fail for what they are, not for how they are built."""

    async def whole() -> None:
        server = await TlsTransport.listen(identity("server"))
        context = context_of_a_stranger(tmp_path, certificate="right")
        address = server.address()
        async with asyncio.timeout(100):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
            connection = await server.accept()
            assert connection.peer_id not in {server.peer_id, bytes(32)}
            writer.write(b"garbage inside")
            await connection.wait_until_closed()
            assert connection.fault is not None
            assert connection.fault.reason is RejectionReason.MALFORMED
        writer.transport.abort()
        await server.close()

    asyncio.run(whole())


def test_crowd_in_the_handshake_delays_but_does_not_shut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_transport, "HANDSHAKE_SECONDS", 0.5)

    async def whole() -> None:
        server = await TlsTransport.listen(identity("server"))
        honest = await TlsTransport.listen(identity("honest"))
        address = server.address()
        silent = [await asyncio.open_connection(address.host, address.port) for _ in range(100)]
        async with asyncio.timeout(100):
            await honest.connect(address)
            assert (await server.accept()).peer_id == honest.peer_id
        for _, writer in silent:
            writer.transport.abort()
        await asyncio.gather(server.close(), honest.close())

    asyncio.run(whole())


def test_port_in_use_is_unavailable() -> None:
    async def whole() -> None:
        server = await TlsTransport.listen(identity("server"))
        with pytest.raises(Unavailable):
            await TlsTransport.listen(identity("other"), port=server.address().port)
        await server.close()

    asyncio.run(whole())


def test_identity_outlives_a_restart() -> None:
    async def whole() -> None:
        ids = []
        for _ in range(2):
            server = await TlsTransport.listen(identity("server"))
            ids.append(server.peer_id)
            await server.close()
        assert ids[0] == ids[1]

    asyncio.run(whole())


@pytest.mark.parametrize("text", ["127.0.0.1:80", "ab" * 32 + "@host.example:65535", "[::1]:1"])
def test_address_round_trip(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize("text", ["", ":80", "host", "host:0", "host:65536", "host:x", "ab@host:1", "zz" * 32 + "@h:1"])
def test_bad_address_is_refused(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_address(text)
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID
