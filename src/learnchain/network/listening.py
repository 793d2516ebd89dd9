"""Find peers of one's own local network by multicast DNS; off unless asked for, and needs the `zeroconf` package.

What is announced is the signed address record and nothing else, so that a stranger on the same cable can invent no
address for anybody. Only the interface that the node listens on is used.

Choose the transport of a process: iroh where it is installed, else TLS.

A network does not mix: nodes of different transports never reach each other, because one speaks QUIC over UDP and the
other TLS over TCP. Whoever starts a network chooses, and its settings files say so.
"""

import asyncio
import importlib.util
import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from learnchain.encoding.codec import decode, encode
from learnchain.network.concurrency import Tasks
from learnchain.network.network import Network
from learnchain.network.peers import AddressRecord
from learnchain.network.tls_transport import TlsTransport
from learnchain.network.transport import Transport, parse_address
from learnchain.rejection import Rejected, RejectionReason, Unavailable

SERVICE = "_learnchain._udp.local."
MAXIMUM_LOOKUPS = 8
LOOKUP_MILLISECONDS = 3_000
_RECORD = b"record"
_MAXIMUM_RECORD_BYTES = 248
_log = logging.getLogger(__name__)


class LocalDiscovery:
    """Announce a started network on its interface, and dial whoever else is announced there."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._tasks = Tasks(logging.DEBUG)
        self._lookups = asyncio.Semaphore(MAXIMUM_LOOKUPS)
        self._under_way: set[str] = set()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None

    async def start(self) -> None:
        """Announce and look; a node without an address of its own, or a long host name, looks only."""
        host = self._network.address().host
        try:
            self._zeroconf = AsyncZeroconf(interfaces=[host], ip_version=IPVersion.V4Only)
        except OSError as error:
            raise Unavailable(f"no multicast on {host}: {error.strerror}") from error
        record = self._network.own_record
        if record is not None and len(encode(record)) <= _MAXIMUM_RECORD_BYTES:
            await self._zeroconf.async_register_service(_service(record))
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._handle_service_change])

    async def close(self) -> None:
        """Withdraw the announcement and stop looking."""
        await self._tasks.close()
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()

    def _handle_service_change(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed or name in self._under_way:
            return
        if len(self._under_way) < 4 * MAXIMUM_LOOKUPS:
            self._under_way.add(name)
            self._tasks.start("local discovery", self._look_up(zeroconf, name))

    async def _look_up(self, zeroconf: Zeroconf, name: str) -> None:
        try:
            async with self._lookups:
                info = AsyncServiceInfo(SERVICE, name)
                if not await info.async_request(zeroconf, LOOKUP_MILLISECONDS):
                    return
                record = record_of(info.properties)
                if record.peer_id != self._network.peer_id:
                    self._network.learn_address(record)
                    await self._network.connect(record.address)
        except (Rejected, Unavailable) as outcome:
            _log.debug("local discovery of %.80s: %s", name, outcome)
        finally:
            self._under_way.discard(name)


def record_of(properties: dict[Any, Any]) -> AddressRecord:
    """Return the record that an announcement carries; anything else is `MALFORMED`."""
    encoded = properties.get(_RECORD)
    if not isinstance(encoded, bytes) or len(encoded) > _MAXIMUM_RECORD_BYTES:
        raise Rejected(RejectionReason.MALFORMED, "the announcement carries no record")
    return decode(AddressRecord, encoded)


def _service(record: AddressRecord) -> AsyncServiceInfo:
    label = record.peer_id.hex()[:32]
    return AsyncServiceInfo(
        SERVICE,
        f"{label}.{SERVICE}",
        port=record.port,
        addresses=[ipaddress.ip_address(record.host).packed],
        properties={_RECORD: encode(record)},
        server=f"{label}.local.",
    )


IROH, TLS = "iroh", "tls"
TRANSPORTS = (IROH, TLS)


@dataclass(frozen=True, slots=True)
class ListenPlan:
    """Say where a process listens and how; relays serve iroh only."""

    identity: bytes
    host: str = "127.0.0.1"
    port: int = 0
    transport: str = IROH
    relays: tuple[str, ...] = ()


def is_iroh_installed() -> bool:
    """Return whether the `iroh` package can be imported."""
    return importlib.util.find_spec("iroh") is not None


async def listen(plan: ListenPlan) -> Transport:
    """Listen as planned; without the `iroh` package TLS takes its place, and the log says so."""
    if plan.transport not in TRANSPORTS:
        known = " or ".join(TRANSPORTS)
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"no transport {plan.transport!r}; choose {known}")
    if plan.transport == IROH and is_iroh_installed():
        from learnchain.network.iroh_transport import IrohTransport

        return await IrohTransport.listen(plan.identity, plan.host, plan.port, relay_urls=plan.relays)
    if plan.transport == IROH:
        _log.warning("iroh is not installed: listening with TLS, which reaches TLS nodes only")
    return await TlsTransport.listen(plan.identity, plan.host, plan.port)


async def discover(network: Network, wanted: bool) -> "LocalDiscovery | None":
    """Start discovery on the local network if it is wanted and possible; the log says when it is not."""
    if not wanted:
        return None
    if importlib.util.find_spec("zeroconf") is None:
        _log.warning("local discovery needs the package zeroconf, which is not installed")
        return None

    discovery = LocalDiscovery(network)
    try:
        await discovery.start()
    except Unavailable as unavailable:
        _log.warning("local discovery: %s", unavailable)
        return None
    return discovery


def check_peers(transport: str, peers: Iterable[str]) -> None:
    """Refuse peers that the transport could never dial: iroh has to know whom it dials."""
    for each in peers:
        if not parse_address(each).peer_id and transport == IROH and is_iroh_installed():
            detail = f"peer {each!r} has no identity: write PEER@HOST:PORT as its log says, or set the transport to tls"
            raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
