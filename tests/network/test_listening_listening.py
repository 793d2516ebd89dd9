"""Which transport a process takes, and its identity."""

import asyncio
import logging
from pathlib import Path

import pytest

from learnchain.network import listening
from learnchain.network.listening import ListenPlan, check_peers, discover, listen
from learnchain.network.network import Network
from learnchain.network.tls_transport import TlsTransport
from learnchain.network.transport import load_identity, peer_id_of
from learnchain.rejection import Rejected, RejectionReason


def made(plan: ListenPlan) -> type:
    async def whole() -> type:
        transport = await listen(plan)
        assert transport.peer_id == peer_id_of(plan.identity)
        await transport.close()
        return type(transport)

    return asyncio.run(whole())


def test_iroh_is_the_default_where_it_is_installed() -> None:
    iroh_transport = pytest.importorskip("learnchain.network.iroh_transport")
    assert made(ListenPlan(bytes(32))) is iroh_transport.IrohTransport


def test_tls_on_request() -> None:
    assert made(ListenPlan(bytes(32), transport="tls")) is TlsTransport


def test_tls_where_iroh_is_missing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(listening, "is_iroh_installed", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert made(ListenPlan(bytes(32))) is TlsTransport
    assert caplog.records


def test_another_transport_is_refused() -> None:
    with pytest.raises(Rejected) as caught:
        made(ListenPlan(bytes(32), transport="pigeon"))
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


def test_peer_without_identity_is_refused_where_it_could_never_be_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "is_iroh_installed", lambda: True)
    check_peers("tls", ["127.0.0.1:1"])
    check_peers("iroh", [f"{bytes(32).hex()}@127.0.0.1:1"])
    with pytest.raises(Rejected) as caught:
        check_peers("iroh", ["127.0.0.1:1"])
    assert caught.value.reason is RejectionReason.ARGUMENT_INVALID


def test_discovery_is_off_unless_wanted_and_missing_without_its_package(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network: Network = None  # type: ignore[assignment]
    assert asyncio.run(discover(network, wanted=False)) is None
    assert not caplog.records
    monkeypatch.setattr(listening.importlib.util, "find_spec", lambda name: None)
    assert asyncio.run(discover(network, wanted=True)) is None
    assert caplog.records


def test_identity_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    identity = load_identity(path)
    assert load_identity(path) == identity
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_identity_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    with pytest.raises(Rejected) as caught:
        load_identity(path)
    assert caught.value.reason is RejectionReason.MALFORMED
