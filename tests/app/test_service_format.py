"""A node that is refused for the format of its files leaves every byte of them as it was."""

import asyncio
import json
from pathlib import Path

import pytest

from learnchain.app.service import NodeService
from learnchain.encoding.codec import FORMAT_VERSION
from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.node.settings import NodeSettings, load_settings
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.lmdb_store import LmdbStore

START_MILLISECONDS = 1_800_000_000_000


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    network = asyncio.run(provision_network(LocalPlan(tmp_path, miners=1), START_MILLISECONDS))
    return load_settings(network.settings[0])


def contents(directory: Path) -> dict[Path, bytes]:
    """Return every file but the table of readers, in which LMDB writes down each process that opens a store."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock.mdb"}


def refusal(settings: NodeSettings) -> str:
    with pytest.raises(Rejected) as refused:
        asyncio.run(NodeService(settings).run())
    assert refused.value.reason is RejectionReason.FORMAT_UNSUPPORTED
    return refused.value.detail


def test_a_genesis_of_another_format_changes_nothing(settings: NodeSettings, tmp_path: Path) -> None:
    path = Path(settings.genesis)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))
    before = contents(tmp_path)
    assert f"has format 1, this program reads {FORMAT_VERSION}" in refusal(settings)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [(b"format", b"3", "1"), (b"format_version", b"3", "3"), (b"format_version", b"\xff", "\ufffd")],
)
def test_a_data_directory_of_another_format_changes_nothing(
    settings: NodeSettings, tmp_path: Path, key: bytes, value: bytes, text: str
) -> None:
    store = LmdbStore(Path(settings.data_directory) / "chain")
    store.put_many({key: value, b"head": b"of another format"})
    store.close()
    before = contents(tmp_path)
    detail = refusal(settings)
    assert f"has format {text}, this program reads {FORMAT_VERSION}: start anew in another directory" in detail
    assert contents(tmp_path) == before
