"""What carries bytes between two nodes: four methods that TLS, a simulation, and later iroh implement alike.

One conformance suite holds them together (`tests/node/network/test_transport_conformance.py`). A peer is its ed25519
public key; the transport has proven it before a `Connection` exists.

A node's identity: one ed25519 key in a file that only its owner reads, made once and kept for good.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from learnchain.encoding.files import write_whole
from learnchain.rejection import Rejected, RejectionReason, Unavailable

PEER_ID_BYTES = 32
DIAL_TIMEOUT_SECONDS = 5.0
_MAXIMUM_HOST_CHARACTERS = 253


class ConnectionLost(Unavailable):
    """Say that the connection or stream under a call has ended: nobody's fault, dial again."""


class StreamEnded(ConnectionLost):
    """Say that the other side finished the stream before the bytes that were asked for."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Say where a peer listens; an empty `peer_id` means whoever answers there."""

    host: str
    port: int
    peer_id: bytes = b""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.peer_id.hex()}@{host}:{self.port}" if self.peer_id else f"{host}:{self.port}"


def parse_address(text: str) -> PeerAddress:
    """Return the address that `HEX@HOST:PORT` or `HOST:PORT` spells; anything else is `ARGUMENT_INVALID`."""
    identity, _, place = text.rpartition("@")
    host, colon, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        peer_id = bytes.fromhex(identity)
        number = int(port)
    except ValueError:
        peer_id, number = b"", 0
    wrong_identity = bool(identity) and len(peer_id) != PEER_ID_BYTES
    if wrong_identity or not colon or not 0 < len(host) <= _MAXIMUM_HOST_CHARACTERS or not 0 < number < 65_536:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{text[:400]!r} is not HOST:PORT or PEER@HOST:PORT")
    return PeerAddress(host, number, peer_id)


class Stream(Protocol):
    """Carry bytes in order, both ways, with back-pressure; closing one direction leaves the other open."""

    async def read(self, maximum_bytes: int) -> bytes:
        """Return at least one byte, at most `maximum_bytes`; nothing once the other side has finished."""

    async def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes; raise `StreamEnded` when fewer are left."""

    async def write(self, data: bytes) -> None:
        """Send bytes; wait while the other side's window is full."""

    async def finish(self) -> None:
        """Say that no more bytes follow; the other direction stays open."""

    async def reset(self) -> None:
        """Give the stream up in both directions; harmless on one that has ended."""


class Connection(Protocol):
    """Carry many streams to one proven peer."""

    @property
    def peer_id(self) -> bytes:
        """Return the ed25519 public key that the other side has proven to hold."""

    @property
    def is_dialled(self) -> bool:
        """Return whether this side dialled."""

    @property
    def remote_host(self) -> str:
        """Return the network address of the other side, for caps per address range."""

    @property
    def fault(self) -> Rejected | None:
        """Return the rule that the other side broke, once that has closed the connection."""

    async def open_stream(self) -> Stream:
        """Open a stream; raise `Unavailable` when too many are open."""

    async def accept_stream(self) -> Stream:
        """Return the next stream that the other side opens; raise `ConnectionLost` at the end."""

    async def close(self) -> None:
        """End every stream and the connection; harmless when closed."""

    async def wait_until_closed(self) -> None:
        """Return when the connection has ended, whoever ended it."""


class Transport(Protocol):
    """Dial and accept connections under one identity."""

    @property
    def peer_id(self) -> bytes:
        """Return our own ed25519 public key."""

    def address(self) -> PeerAddress:
        """Return where others can dial us."""

    def sign(self, message: bytes) -> bytes:
        """Return our signature of a message: 64 bytes."""

    def verify(self, peer_id: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether a peer signed a message."""

    async def connect(self, address: PeerAddress, timeout_seconds: float = DIAL_TIMEOUT_SECONDS) -> Connection:
        """Dial; raise `Unavailable` when nobody answers in time, `Rejected` when somebody else does."""

    async def accept(self) -> Connection:
        """Return the next connection that somebody dialled to us; raise `ConnectionLost` once closed."""

    async def close(self) -> None:
        """Stop listening and close every connection."""


IDENTITY_NAME = "identity.key"
_KEY_BYTES = 32


def load_identity(path: Path) -> bytes:
    """Return the node's ed25519 private key, made on the first call; a file of another length is `MALFORMED`."""
    if not path.exists():
        write_whole(path, secrets.token_bytes(_KEY_BYTES))
    with path.open("rb") as file:
        key = file.read(_KEY_BYTES + 1)
    if len(key) != _KEY_BYTES:
        raise Rejected(RejectionReason.MALFORMED, f"{path} does not hold a key of {_KEY_BYTES} bytes")
    return key


def peer_id_of(identity: bytes) -> bytes:
    """Return the public key by which peers know this identity."""
    return Ed25519PrivateKey.from_private_bytes(identity).public_key().public_bytes_raw()


def signature_of(identity: bytes, message: bytes) -> bytes:
    """Return the ed25519 signature of a message."""
    return Ed25519PrivateKey.from_private_bytes(identity).sign(message)


def is_signed_by(peer_id: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the signature is the peer's; a `peer_id` that is no key has signed nothing."""
    try:
        Ed25519PublicKey.from_public_bytes(peer_id).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
