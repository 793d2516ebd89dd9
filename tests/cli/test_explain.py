"""`explain`, `bench`, `doctor`, `node init` and `chain verify`: what needs no running node."""

import asyncio
import time

import pytest

from learnchain.cli import bench
from learnchain.node.local_network import LocalPlan, provision_network
from learnchain.protocol.citations import citations
from tests.cli.samples import spoken


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    directory = tmp_path_factory.mktemp("network")
    return asyncio.run(provision_network(LocalPlan(directory, miners=1, rpc_port=0), time.time_ns() // 1_000_000))


def test_explain_shows_formula_line_and_vector(capsys):
    code, envelope = spoken(capsys, "explain", "dlbc", "4")
    shown = envelope["data"]["equations"][0]
    assert code == 0
    assert shown["function"] == "learnchain.engines.dlbc.rules.ranking_score"
    file, _, line = shown["source"].partition(":")
    assert file == "src/learnchain/engines/dlbc/rules.py"
    assert int(line) > 1
    assert shown["vector"]["given"]
    assert "DLBC-R1" in [each["identifier"] for each in shown["readings"]]


def test_explain_lists_all_equations_of_the_paper(capsys):
    _, envelope = spoken(capsys, "explain", "dlbc")
    assert [each["number"] for each in envelope["data"]["equations"]] == [1, 2, 3, 4, 5, 6, 7]
    assert len([each for each in citations() if each.paper == "dlbc"]) == 7


def test_explain_shows_equations_and_algorithms_of_a_paper_that_has_both(capsys):
    _, envelope = spoken(capsys, "explain", "pole")
    shown = [(each["kind"], each["number"]) for each in envelope["data"]["equations"]]
    assert shown == [("equation", 1), ("equation", 2), ("algorithm", 1), ("algorithm", 2), ("algorithm", 3)]
    _, envelope = spoken(capsys, "explain", "pole", "1")
    decryption, judging = envelope["data"]["equations"]
    assert decryption["function"].startswith("learnchain.encryption.functional.")
    assert {"POLE-R2", "POLE-R9"} <= {each["identifier"] for each in decryption["readings"]}
    assert judging["function"] == "learnchain.engines.pole.judging.judge"
    known = {each["identifier"] for each in judging["readings"]}
    assert {"POLE-R4", "POLE-R6"} <= known
    assert not {"POLE-R1", "POLE-R14"} & known
    _, envelope = spoken(capsys, "explain", "pole", "3")
    drawn = envelope["data"]["equations"]
    assert [each["function"] for each in drawn] == ["learnchain.engines.pole.mapping.query_vectors"]
    assert drawn[0]["vector"]["file"] == "src/learnchain/engines/pole/vectors/algorithms/3.json"


def test_explain_knows_the_market(capsys):
    _, envelope = spoken(capsys, "explain", "baas")
    shown = envelope["data"]["equations"]
    assert [each["number"] for each in shown] == [1, 2, 3, 4, 5, 6]
    assert all(each["vector"]["given"] and each["source"].startswith("src/learnchain/learning/") for each in shown)
    readings = {each["identifier"] for equation in shown for each in equation["readings"]}
    assert {"BAAS-R1", "BAAS-R2"} <= readings


@pytest.mark.parametrize("arguments", [("dlbc", "99"), ("baas", "7"), ("nonsense", "1"), ("../x",)])
def test_explain_refuses_what_is_not_there(arguments, capsys):
    code, envelope = spoken(capsys, "explain", *arguments)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_bench_lists_and_runs_by_name(capsys, monkeypatch):
    figures = {"name": "x", "figures": [{"what": "w", "value": 1, "unit": "s", "ratio": 1.5, "against": "a"}]}

    def quick():
        """Compare nothing."""
        return figures

    monkeypatch.setattr(bench, "_load_registers", lambda _peers: {"x": quick})
    assert spoken(capsys, "bench", "list")[1]["data"]["benchmarks"] == [{"name": "x", "what": "Compare nothing."}]
    assert spoken(capsys, "bench", "x")[1]["data"]["results"] == [figures]
    code, envelope = spoken(capsys, "bench", "x", "--with", "peer=program")
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
    code, envelope = spoken(capsys, "bench", "y")
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_bench_knows_the_learning_room(capsys):
    names = [each["name"] for each in spoken(capsys, "bench", "list")[1]["data"]["benchmarks"]]
    assert {"training", "watermark", "evaluation"} <= set(names)


def test_doctor_reports_every_check_with_advice(tmp_path, capsys):
    code, envelope = spoken(capsys, "doctor", "--no-probe", "--data-dir", str(tmp_path))
    found = {each["check"]: each for each in envelope["data"]["findings"]}
    assert code == 0
    assert {"python", "torch", "disk", "memory", "port", "clock", "coincurve"} <= set(found)
    assert all(each["well"] or each["what_to_do"] for each in found.values())


def test_node_init_joins_a_network(network, tmp_path, capsys):
    wallet = network.directory / "node-1" / "wallet.key"
    place = tmp_path / "joined"
    arguments = (
        "node",
        "init",
        str(place),
        "--wallet",
        str(wallet),
        "--genesis",
        str(network.directory / "genesis.json"),
    )
    peer = "ab" * 32 + "@127.0.0.1:4000"
    code, envelope = spoken(capsys, *arguments, "--peer", peer, "--mine")
    assert (code, envelope["data"]["peers"]) == (0, [peer])
    code, envelope = spoken(capsys, *arguments)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"--peer": "nowhere"}, "argument_invalid"),
        ({"--peer": "host:70000"}, "argument_invalid"),
        ({"--wallet": "missing.json"}, "argument_invalid"),
        ({"--genesis": "missing.json"}, "argument_invalid"),
    ],
)
def test_node_init_checks_before_it_writes(change, reason, network, tmp_path, capsys):
    chosen = {
        "--wallet": str(network.directory / "node-1" / "wallet.key"),
        "--genesis": str(network.directory / "genesis.json"),
        **change,
    }
    options = [part for pair in chosen.items() for part in pair]
    code, envelope = spoken(capsys, "node", "init", str(tmp_path / "joined"), *options)
    assert (code, envelope["error"]["reason"]) == (1, reason)
    assert not (tmp_path / "joined").exists()


def test_a_changed_genesis_is_refused(network, tmp_path, capsys):
    changed = tmp_path / "genesis.json"
    text = (network.directory / "genesis.json").read_text()
    changed.write_text(text.replace('"genesis_hash": "', '"genesis_hash": "00', 1))
    wallet = str(network.directory / "node-1" / "wallet.key")
    arguments = ("node", "init", str(tmp_path / "n"), "--wallet", wallet, "--genesis", str(changed))
    code, envelope = spoken(capsys, *arguments)
    assert (code, envelope["error"]["reason"]) == (1, "wrong_hash")


@pytest.mark.parametrize("verb", [("node", "run"), ("miner",), ("audit",)])
def test_running_without_settings_is_refused(verb, tmp_path, capsys):
    code, envelope = spoken(capsys, *verb, str(tmp_path))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_verifying_nothing_is_refused(tmp_path, capsys):
    code, envelope = spoken(capsys, "chain", "verify", "--data-dir", str(tmp_path))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_up_refuses_another_consensus_and_a_wrong_number_of_miners(network, tmp_path, capsys):
    for arguments in (("--consensus", "none"), ("--miners", "0"), ("--miners", "99")):
        options = ("--data-dir", str(tmp_path / "net"), "--rpc-port", "0")
        code, envelope = spoken(capsys, "up", *arguments, *options)
        assert (code, envelope["error"]["reason"]) == (1, "argument_invalid"), arguments
    code, envelope = spoken(capsys, "up", "--consensus", "none", "--data-dir", str(network.directory))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
