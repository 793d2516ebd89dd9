"""The bound on unread answers, on real sockets: the kernel's buffers and TLS sit between us and the peer."""

import asyncio
import resource
import socket
import ssl
from pathlib import Path

import pytest

from learnchain.network.multiplexer import ConnectionLimits, Frame, FrameKind, encode_frame
from learnchain.network.tls_transport import TlsTransport
from learnchain.rejection import RejectionReason
from tests.network.test_tls_transport import context_of_a_stranger
from tests.network.worlds import identity

LIMIT_BYTES = 200_000


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.network
def test_peer_that_pings_and_never_reads_is_dropped(tmp_path: Path) -> None:
    async def whole() -> None:
        server = await TlsTransport.listen(
            identity("server"), limits=ConnectionLimits(maximum_unsent_bytes=LIMIT_BYTES)
        )
        address = server.address()
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plain.connect((address.host, address.port))
        context = context_of_a_stranger(tmp_path, certificate="right")
        reader, writer = await asyncio.open_connection(sock=plain, ssl=context, server_hostname="", limit=1)
        writer.transport.pause_reading()
        connection = await server.accept()
        before = peak_bytes()
        pings = encode_frame(Frame(FrameKind.PING)) * 7_000
        try:
            async with asyncio.timeout(100):
                while connection.fault is None:
                    writer.write(pings)
                    await asyncio.sleep(0)
                    await writer.drain()
        except (OSError, ssl.SSLError):
            await connection.wait_until_closed()
        assert connection.fault is not None
        assert connection.fault.reason is RejectionReason.RATE_LIMITED
        assert peak_bytes() - before < 50_000_000
        writer.transport.abort()
        await server.close()
        assert reader is not None

    asyncio.run(whole())
