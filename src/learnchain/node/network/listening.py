"""Choose the transport of a process: iroh where it is installed, else TLS.

A network does not mix: nodes of different transports never reach each other, because one speaks QUIC over UDP and the
other TLS over TCP. Whoever starts a network chooses, and its settings files say so.
"""

import importlib.util
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learnchain.node.network.network import Network
from learnchain.node.network.tls_transport import TlsTransport
from learnchain.node.network.transport import Transport, parse_address
from learnchain.primitives.rejection import Rejected, RejectionReason, Unavailable

if TYPE_CHECKING:
    from learnchain.node.network.local_discovery import LocalDiscovery

IROH, TLS = "iroh", "tls"
TRANSPORTS = (IROH, TLS)
_log = logging.getLogger(__name__)


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
        from learnchain.node.network.iroh_transport import IrohTransport

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
    from learnchain.node.network.local_discovery import LocalDiscovery

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
