"""A genesis file of another format version is refused by name, before anything of it is decoded."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from learnchain.encoding.codec import FORMAT_VERSION
from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.rejection import Rejected, RejectionReason
from learnchain.storage.genesis import load_genesis, save_genesis

START_MILLISECONDS = 1_800_000_000_000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("genesis")
    asyncio.run(provision_network(LocalPlan(directory, miners=1), START_MILLISECONDS))
    return directory / "genesis.json"


def test_a_genesis_file_says_its_format_and_is_read_again(written: Path, tmp_path: Path) -> None:
    genesis = load_genesis(written)
    assert json.loads(written.read_text())["format"] == FORMAT_VERSION
    save_genesis(genesis, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    "version", [1, FORMAT_VERSION + 1, None, str(FORMAT_VERSION), float(FORMAT_VERSION), True, "x" * 5_000, [2]]
)
def test_another_format_is_refused_by_name(written: Path, tmp_path: Path, version: Any) -> None:
    content = {"format": version, "parameters": "not even hex"}
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps(content))
    with pytest.raises(Rejected) as refused:
        load_genesis(path)
    assert refused.value.reason is RejectionReason.FORMAT_UNSUPPORTED
    assert f"has format {version!r:.40}, this program reads {FORMAT_VERSION}" in refused.value.detail
    assert "or run the program version that wrote this one" in refused.value.detail
    assert len(refused.value.detail) < 500 + len(str(path))


def test_a_genesis_file_without_a_format_is_refused_by_name(written: Path, tmp_path: Path) -> None:
    content = json.loads(written.read_text())
    del content["format"]
    (tmp_path / "genesis.json").write_text(json.dumps(content))
    with pytest.raises(Rejected, match="has format None") as refused:
        load_genesis(tmp_path / "genesis.json")
    assert refused.value.reason is RejectionReason.FORMAT_UNSUPPORTED
