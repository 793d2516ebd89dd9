"""`chain`, `task`, `model`, `why` and `wallet` against a node that answers from a table."""

import json

import pytest

from learnchain.cli.output import ether
from learnchain.cli.wallet import wei_of
from learnchain.engines.dlbc import Dlbc
from learnchain.engines.podl import Podl
from learnchain.engines.pole import Pole
from learnchain.engines.proof_of_work import ProofOfWork
from learnchain.protocol.payload import selector
from tests.cli.fake_node import RpcProblem, fake_node
from tests.cli.samples import (
    MODEL,
    TASK_ID,
    WAITING_ID,
    WINNER,
    exit_code,
    hashed_block,
    model_cid,
    node_answers,
    spoken,
)

KEY = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
KEY_ADDRESS = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"


@pytest.fixture
def rpc():
    with fake_node(node_answers()) as url:
        yield url


READING = (
    ("chain", "show"),
    ("chain", "show", "2"),
    ("task", "list"),
    ("task", "show", TASK_ID),
    ("why", "block", "2"),
    ("why", "reward", "2"),
    ("why", "disputes"),
    ("why", "idle"),
    ("wallet", "balance", WINNER),
)


@pytest.mark.parametrize("verb", READING, ids=" ".join)
def test_reading_verbs_answer_people_and_programs(verb, rpc, capsys):
    assert exit_code(*verb, "--rpc", rpc) == 0
    assert capsys.readouterr().out.strip()
    code, envelope = spoken(capsys, *verb, "--rpc", rpc)
    assert code == 0
    assert envelope["data"]


@pytest.mark.parametrize("verb", READING, ids=" ".join)
def test_without_a_node_they_are_unavailable(verb, capsys):
    code, envelope = spoken(capsys, *verb, "--rpc", "http://127.0.0.1:1")
    assert (code, envelope["error"]["reason"]) == (3, "unavailable")


def test_chain_show_tells_trained_from_empty(rpc, capsys):
    _, envelope = spoken(capsys, "chain", "show", "--rpc", rpc)
    assert [each["trained"] for each in envelope["data"]["blocks"]] == [False, True]


def test_a_height_above_the_head_is_refused(rpc, capsys):
    code, envelope = spoken(capsys, "chain", "show", "9", "--rpc", rpc)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_task_show_asks_the_contract(rpc, capsys):
    _, envelope = spoken(capsys, "task", "show", TASK_ID[:6], "--rpc", rpc)
    assert envelope["data"]["state"] == "settled"
    assert envelope["data"]["contract"]["contract_status"] == "paid"


def test_task_show_of_an_unknown_task(rpc, capsys):
    code, envelope = spoken(capsys, "task", "show", "0123", "--rpc", rpc)
    assert (code, envelope["error"]["reason"]) == (1, "task_unknown")


def test_why_names_the_waiting_tasks_and_the_candidates(rpc, capsys):
    _, envelope = spoken(capsys, "why", "block", "2", "--rpc", rpc)
    assert envelope["data"]["queued_tasks"] == [WAITING_ID]
    assert envelope["data"]["candidates"][0]["outcome"] == "winner"


@pytest.mark.parametrize(
    ("rules", "score", "reward"),
    [
        (Dlbc(), "Eq. 1-4", "Eq. 5"),
        (Pole(), "time limit", "ommers"),
        (Podl(), "earliest posted", "III-B"),
        (ProofOfWork(), "hashes", "POW-R3"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_why_shows_the_formulas_of_the_chains_own_engine(rules, score, reward, capsys):
    with fake_node(node_answers(rules)) as url:
        _, block = spoken(capsys, "why", "block", "2", "--rpc", url)
        _, paid = spoken(capsys, "why", "reward", "2", "--rpc", url)
    assert score in block["data"]["score_formula"]
    assert reward in paid["data"]["formula"]
    assert ("explain dlbc" in paid["data"]["formula"]) == (rules.name == "dlbc")


@pytest.mark.parametrize("question", ["block", "reward"])
def test_why_shows_the_signed_trace_without_its_bytes(question, rpc, capsys):
    _, envelope = spoken(capsys, "why", question, "2", "--rpc", rpc)
    (message,) = envelope["data"]["signed"]
    assert (message["step"], message["signer"], message["holds"]) == ("block", WINNER, True)
    assert "bytes" not in message


@pytest.mark.parametrize("which", ["2", model_cid()])
def test_a_model_is_downloaded_whole(which, rpc, tmp_path, capsys):
    out = tmp_path / "model.safetensors"
    code, envelope = spoken(capsys, "model", "download", which, "--out", str(out), "--rpc", rpc)
    assert (code, envelope["data"]["cid"]) == (0, model_cid())
    assert out.read_bytes() == MODEL
    code, envelope = spoken(capsys, "model", "download", which, "--out", str(out), "--rpc", rpc)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_an_empty_block_has_no_model(rpc, tmp_path, capsys):
    code, envelope = spoken(capsys, "model", "download", "1", "--out", str(tmp_path / "m"), "--rpc", rpc)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_a_changed_model_never_appears(tmp_path, capsys):
    answers = node_answers()
    honest = answers["learn_blob"]

    def forged(cid, offset=0):
        chunk = honest(cid, offset)
        return {**chunk, "data": "00" + chunk["data"][2:]}

    with fake_node({**answers, "learn_blob": forged}) as url:
        arguments = ("model", "download", "2", "--out", str(tmp_path / "m"), "--rpc", url)
        code, envelope = spoken(capsys, *arguments)
    assert (code, envelope["error"]["reason"]) == (1, "wrong_hash")
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_sends_nothing_is_noticed(tmp_path, capsys):
    silent = {**node_answers(), "learn_blob": lambda *_: {"size": 10, "offset": 0, "data": ""}}
    with fake_node(silent) as url:
        code, envelope = spoken(capsys, "model", "download", "2", "--out", str(tmp_path / "m"), "--rpc", url)
    assert (code, envelope["error"]["reason"]) == (1, "wrong_hash")


@pytest.mark.parametrize("raw", [b"<html>", b"[]", b"\xff"])
def test_what_is_no_json_rpc_is_unavailable(raw, capsys):
    with fake_node({}, raw) as url:
        code, envelope = spoken(capsys, "chain", "show", "--rpc", url)
    assert (code, envelope["error"]["reason"]) == (3, "unavailable")


def test_an_address_that_is_not_http_is_refused(capsys):
    code, envelope = spoken(capsys, "chain", "show", "--rpc", "file:///etc/passwd")
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_publishing_takes_the_token_of_the_data_directory(rpc, tmp_path, capsys):
    code, envelope = spoken(capsys, "task", "publish", "iris", "--rpc", rpc, "--data-dir", str(tmp_path))
    assert (code, envelope["error"]["reason"]) == (3, "unavailable")
    (tmp_path / "admin.token").write_text("secret\n")
    code, envelope = spoken(capsys, "task", "publish", "iris", "--rpc", rpc, "--data-dir", str(tmp_path))
    assert (code, envelope["data"]["token"], envelope["data"]["name"]) == (0, "secret", "iris")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "malformed"),
        ("name = 'x'", "argument_invalid"),
        (None, "argument_invalid"),
    ],
)
def test_a_wrong_task_file_is_refused_before_anything_is_sent(text, reason, tmp_path, capsys):
    file = tmp_path / "task.toml"
    if text is not None:
        file.write_text(text)
    code, envelope = spoken(capsys, "task", "publish", str(file), "--dry-run")
    assert (code, envelope["error"]["reason"]) == (1, reason)
    code, envelope = spoken(capsys, "up", "--task", str(file), "--data-dir", str(tmp_path / "net"))
    assert (code, envelope["error"]["reason"]) == (1, reason)
    assert not (tmp_path / "net").exists()


def test_a_transfer_is_signed_here(tmp_path, capsys):
    answers, sent = node_answers(), []
    key = tmp_path / "wallet.key"
    key.write_text(KEY + "\n")
    answers["eth_sendRawTransaction"] = lambda raw: sent.append(raw) or "0x" + "55" * 32
    with fake_node(answers) as url:
        arguments = ("wallet", "send", str(key), "--to", WINNER, "--ether", "1.25", "--rpc", url)
        code, envelope = spoken(capsys, *arguments)
        assert (code, envelope["data"]["value_wei"], envelope["data"]["from"]) == (0, 125 * 10**16, KEY_ADDRESS)
        assert len(sent) == 1
        assert WINNER[2:] in sent[0]
        for amount in ("0", "-1", "x", "nan", "0.0000000000000000001"):
            code, envelope = spoken(capsys, *arguments[:6], amount, *arguments[7:])
            assert (code, envelope["error"]["reason"]) == (1, "argument_invalid"), amount
        code, envelope = spoken(capsys, *arguments[:6], "5", *arguments[7:])
        assert (code, envelope["error"]["reason"]) == (1, "transaction_invalid")
    assert len(sent) == 1


def test_a_new_wallet_is_encrypted_and_found_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LEARNCHAIN_PASSWORD", "correct horse")
    file = tmp_path / "mine.json"
    _, made = spoken(capsys, "wallet", "new", "--out", str(file))
    assert len(made["data"]["mnemonic"].split()) == 12
    _, listed = spoken(capsys, "wallet", "list", "--directory", str(tmp_path), "--data-dir", str(tmp_path))
    assert listed["data"]["keystores"][0]["address"].lower() == made["data"]["address"]
    _, exported = spoken(capsys, "wallet", "export", str(file))
    assert exported["data"]["private_key"][2:] not in file.read_text()
    assert exported["data"]["address"] == made["data"]["address"]
    code, envelope = spoken(capsys, "wallet", "new", "--out", str(file))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
    monkeypatch.setenv("LEARNCHAIN_PASSWORD", "wrong")
    code, envelope = spoken(capsys, "wallet", "export", str(file))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_nothing_asks_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LEARNCHAIN_PASSWORD", raising=False)
    code, envelope = spoken(capsys, "wallet", "new", "--out", str(tmp_path / "w.json"))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_names_its_ports(rpc, tmp_path, capsys):
    port = int(rpc.rpartition(":")[2])
    (tmp_path / "network.json").write_text(json.dumps({"rpc_ports": [port]}))
    assert spoken(capsys, "chain", "show", "--data-dir", str(tmp_path))[0] == 0
    code, envelope = spoken(capsys, "why", "idle", "--node", "7", "--data-dir", str(tmp_path))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
    (tmp_path / "network.json").write_text("{")
    code, envelope = spoken(capsys, "chain", "show", "--data-dir", str(tmp_path))
    assert (code, envelope["error"]["reason"]) == (1, "malformed")


@pytest.mark.parametrize(
    "address", ["nonsense", "ftp://x", "http://", "http://[::", "http://exa mple", "http://x:99999", "http://x\n"]
)
def test_an_address_that_no_request_could_be_sent_to_is_refused(address, capsys):
    code, envelope = spoken(capsys, "chain", "show", "--rpc", address)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


@pytest.mark.parametrize(
    ("file", "content", "code", "reason"),
    [
        ("network.json", b'{"rpc_ports": ["x"]}', 1, "malformed"),
        ("network.json", b'{"rpc_ports": [99999999]}', 1, "malformed"),
        ("network.json", b"\xff\xfe\x00", 1, "malformed"),
        ("network.json", b"[" * 100_000, 1, "malformed"),
        ("settings.json", b'{"rpc_port": "abc"}', 1, "malformed"),
        ("settings.json", b'{"rpc_port": 0}', 3, "unavailable"),
        ("other.json", b"{}", 3, "unavailable"),
    ],
)
def test_a_data_directory_that_names_no_node_is_said_to_be_one(tmp_path, file, content, code, reason, capsys):
    """A directory that was mistyped never falls back to whatever listens on the default port."""
    (tmp_path / file).write_bytes(content)
    told, envelope = spoken(capsys, "task", "list", "--data-dir", str(tmp_path))
    assert (told, envelope["error"]["reason"]) == (code, reason)
    assert str(tmp_path) in envelope["error"]["detail"]


def test_a_revert_is_told_in_the_contracts_own_words(tmp_path, capsys):
    key = tmp_path / "wallet.key"
    key.write_text(KEY)

    def refuse(*_params):
        raise RpcProblem(3, "execution reverted", data="0x" + selector("BondStays(uint64)").hex() + f"{77:064x}")

    with fake_node({**node_answers(), "eth_estimateGas": refuse}) as url:
        code, envelope = spoken(capsys, "wallet", "bond", "release", str(key), "--rpc", url)
    assert (code, envelope["error"]["reason"]) == (1, "execution_reverted")
    assert envelope["error"]["detail"].endswith("BondStays leavesSeconds 77")


CHECKSUMMED = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


@pytest.mark.parametrize("spelling", [CHECKSUMMED, CHECKSUMMED.lower(), CHECKSUMMED[2:].upper()])
def test_an_address_is_read_in_each_of_its_spellings(spelling, rpc, capsys):
    code, envelope = spoken(capsys, "wallet", "balance", spelling, "--rpc", rpc)
    assert (code, envelope["data"]["address"]) == (0, KEY_ADDRESS)


def test_an_address_whose_checksum_is_wrong_receives_nothing(tmp_path, rpc, capsys):
    key = tmp_path / "wallet.key"
    key.write_text(KEY)
    mistyped = CHECKSUMMED.replace("c8", "C8").replace("dc3A", "dC3A")
    assert mistyped.lower() == CHECKSUMMED.lower()
    code, envelope = spoken(capsys, "wallet", "send", str(key), "--to", mistyped, "--ether", "1", "--rpc", rpc)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


@pytest.mark.parametrize("amount", ["1e5000", "1e999999999", "nan", "-1", "0", "0.0000000000000000001", "1,5"])
def test_an_amount_that_no_transaction_can_carry_is_refused(amount, tmp_path, rpc, capsys):
    key = tmp_path / "wallet.key"
    key.write_text(KEY)
    code, envelope = spoken(capsys, "wallet", "send", str(key), "--to", WINNER, "--ether", amount, "--rpc", rpc)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_amounts_are_read_and_shown_exactly():
    wei = wei_of("12345678901.123456789012345678")
    assert wei == 12_345_678_901_123_456_789_012_345_678
    assert ether(wei) == "12,345,678,901.1235"
    assert ether(10**5000).startswith("1")


@pytest.mark.parametrize("content", [b"[" * 60_000, b"\xff\xfe", b"{}", b"[1]", b'{"address": "x"}', b" " * 100_000])
def test_wallet_list_passes_over_files_that_are_no_keystores(content, tmp_path, capsys):
    (tmp_path / "other.json").write_bytes(content)
    code, envelope = spoken(capsys, "wallet", "list", "--directory", str(tmp_path), "--data-dir", str(tmp_path))
    assert (code, envelope["data"]["keystores"]) == (0, [])
    code, envelope = spoken(capsys, "wallet", "balance", str(tmp_path / "other.json"))
    assert (code, envelope["error"]["reason"]) == (1, "malformed")


def test_a_key_without_a_password_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LEARNCHAIN_PASSWORD", "")
    code, envelope = spoken(capsys, "wallet", "new", "--out", str(tmp_path / "wallet.json"))
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
    assert not (tmp_path / "wallet.json").exists()


def test_a_file_where_a_directory_should_be_is_the_machines_fault_not_ours(tmp_path, rpc, monkeypatch, capsys):
    monkeypatch.setenv("LEARNCHAIN_PASSWORD", "words")
    (tmp_path / "file").write_text("")
    for verb in (("wallet", "new"), ("model", "download", "2", "--rpc", rpc)):
        code, envelope = spoken(capsys, *verb, "--out", str(tmp_path / "file" / "out.json"))
        assert (code, envelope["error"]["reason"]) == (3, "unavailable")
        assert str(tmp_path / "file") in envelope["error"]["detail"]


def test_a_task_whose_name_steers_terminals_is_shown_without_effect(capsys):
    hostile = {**node_answers()["learn_tasks"]()}
    hostile["queued_tasks"] = [{**each, "name": "\x1b]0;owned\x07\nfake row"} for each in hostile["queued_tasks"]]
    with fake_node({**node_answers(), "learn_tasks": lambda: hostile}) as url:
        assert exit_code("task", "list", "--rpc", url) == 0
        shown = capsys.readouterr().out
        _, envelope = spoken(capsys, "task", "list", "--rpc", url)
    assert "fake row" in shown
    assert not {"\x1b", "\x07"} & set(shown)
    assert envelope["data"]["queued_tasks"][0]["name"].isprintable()


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"[]", b"7", b'{"error": 5}', b"[" * 100_000, b"\xff\xfe"])
def test_a_server_that_speaks_something_else_is_unavailable(raw, capsys):
    with fake_node(node_answers(), raw=raw) as url:
        code, envelope = spoken(capsys, "task", "list", "--rpc", url)
    assert (code, envelope["error"]["reason"]) == (3, "unavailable")


def test_a_hashed_block_has_no_model_and_why_names_its_puzzle(capsys, tmp_path):
    answers = {**node_answers(), "learn_block": hashed_block}
    with fake_node(answers) as url:
        _, envelope = spoken(capsys, "why", "block", "2", "--rpc", url)
        assert "one hash in 17" in envelope["data"]["because"]
        assert envelope["data"]["commissioned"].startswith("no")
        for verb in ("download", "show"):
            code, refused = spoken(capsys, "model", verb, "2", "--out", str(tmp_path / verb), "--rpc", url)
            assert (code, refused["error"]["reason"]) == (1, "argument_invalid")
            assert "hashing" in refused["error"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_why_says_whether_somebody_commissioned_the_task(rpc, capsys):
    said = [spoken(capsys, "why", "block", each, "--rpc", rpc)[1]["data"]["commissioned"] for each in ("1", "2")]
    assert [each.partition(":")[0] for each in said] == ["yes", "yes"]
