"""`node init`, `node run`: what is refused before anything is written or started."""

import asyncio
import json
import shutil
import time
from pathlib import Path

import pytest

from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.node.settings import load_settings
from tests.cli.fake_node import fake_node
from tests.cli.samples import spoken


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("network")
    asyncio.run(provision_network(LocalPlan(directory, miners=1, rpc_port=0), time.time_ns() // 1_000_000))
    return directory


@pytest.fixture
def initialised(tmp_path, network) -> Path:
    """Return the directory of a node that joins the network."""
    place = tmp_path / "node"
    shutil.copyfile(network / "node-1" / "wallet.key", tmp_path / "wallet.key")
    place.mkdir()
    shutil.copyfile(network / "genesis.json", place / "genesis.json")
    return place


def init(capsys, place: Path, genesis: Path, wallet: Path):
    return spoken(capsys, "node", "init", str(place), "--genesis", str(genesis), "--wallet", str(wallet))


def test_a_genesis_that_lies_there_already_is_kept(initialised, tmp_path, capsys):
    code, _ = init(capsys, initialised, initialised / "genesis.json", tmp_path / "wallet.key")
    assert code == 0
    assert (initialised / "settings.json").is_file()


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"{oops", b"\xff\xfe", b"[" * 60_000])
@pytest.mark.parametrize("name", ["wallet.json", "wallet.key"])
def test_a_file_that_is_no_wallet_is_refused_before_anything_is_written(name, content, tmp_path, network, capsys):
    (tmp_path / name).write_bytes(content)
    code, envelope = init(capsys, tmp_path / "node", network / "genesis.json", tmp_path / name)
    assert (code, envelope["error"]["reason"]) == (1, "malformed")
    assert not (tmp_path / "node").exists()


def test_the_directory_of_a_whole_network_is_no_node(network, capsys):
    code, envelope = init(capsys, network, network / "genesis.json", network / "node-1" / "wallet.key")
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
    code, envelope = spoken(capsys, "node", "run", str(network))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


@pytest.mark.parametrize("content", ["7", "[1]", "null", '"x"', "{}", "{oops", "[" * 100_000])
def test_a_settings_file_that_is_none_is_malformed(content, tmp_path, capsys):
    (tmp_path / "settings.json").write_text(content)
    code, envelope = spoken(capsys, "node", "run", str(tmp_path))
    assert (code, envelope["error"]["reason"]) == (1, "malformed")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rpc_port", "8545"),
        ("rpc_port", -1),
        ("rpc_port", 70_000),
        ("rpc_port", True),
        ("metrics_port", 1.5),
        ("peers", "127.0.0.1:1"),
        ("peers", [1]),
        ("is_miner", "yes"),
        ("log_level", "loud"),
        ("relays", ["relay"]),
        ("name", 5),
        ("state_blocks", -1),
        ("nonsense", 1),
        ("listen_host", "999.1.1.1"),
    ],
)
def test_each_wrong_entry_of_the_settings_is_named(name, value, initialised, tmp_path, capsys):
    init(capsys, initialised, initialised / "genesis.json", tmp_path / "wallet.key")
    settings = initialised / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), name: value}))
    code, envelope = spoken(capsys, "node", "run", str(initialised))
    assert (code, envelope["error"]["reason"]) == (1, "malformed")
    assert (name if name != "listen_host" else value) in envelope["error"]["detail"]


def test_a_network_and_a_node_may_be_moved(initialised, network, tmp_path, capsys):
    init(capsys, initialised, initialised / "genesis.json", tmp_path / "wallet.key")
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    initialised.rename(moved)
    settings = load_settings(moved / "settings.json")
    assert (Path(settings.genesis), Path(settings.data_directory)) == (moved / "genesis.json", moved)
    assert Path(settings.wallet) == tmp_path / "wallet.key"
    copied = tmp_path / "copied"
    shutil.copytree(network, copied)
    settings = load_settings(copied / "node-1" / "settings.json")
    assert (Path(settings.genesis), Path(settings.wallet)) == (
        copied / "genesis.json",
        copied / "node-1" / "wallet.key",
    )


@pytest.mark.parametrize("peer", ["rubbish", "127.0.0.1:1", "x@127.0.0.1:1", "127.0.0.1:x", ""])
def test_a_peer_that_could_never_be_dialled_is_refused_at_once(peer, tmp_path, network, capsys):
    arguments = ("--genesis", str(network / "genesis.json"), "--wallet", str(network / "node-1" / "wallet.key"))
    code, envelope = spoken(capsys, "node", "init", str(tmp_path / "node"), *arguments, "--peer", peer)
    assert code == 1
    assert envelope["error"]["reason"] in ("argument_invalid", "malformed")
    assert not (tmp_path / "node").exists()


def test_node_address_shows_what_others_need_to_join(capsys):
    told = {"address": "ab@127.0.0.1:1", "genesis": "00", "consensus": "dlbc", "chain_id": 1337, "engine": "x"}
    with fake_node({"learn_network": lambda: told}) as url:
        code, envelope = spoken(capsys, "node", "address", "--rpc", url)
    assert (code, envelope["data"]["address"], "engine" in envelope["data"]) == (0, "ab@127.0.0.1:1", False)
