"""The market's verbs: what they refuse before anything is sent, and that the demo says what it plays."""

import pytest

from learnchain.execution.wallet import development_accounts
from learnchain.market.demo_stage import DEVELOPMENT_MNEMONIC
from tests.cli.samples import spoken

NAME = f"0x{'ab' * 20}/0x{'cd' * 32}@7"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def wallet(tmp_path):
    path = tmp_path / "wallet.key"
    path.write_text(development_accounts(DEVELOPMENT_MNEMONIC, 1)[0].private_key.hex())
    return path


def test_names_of_tasks_are_checked(capsys):
    code, envelope = spoken(capsys, "market", "show", "nonsense", "--rpc", NOWHERE)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_a_chain_that_does_not_answer_is_unavailable(capsys, wallet, tmp_path):
    code, envelope = spoken(capsys, "market", "show", NAME, "--rpc", NOWHERE)
    assert (code, envelope["error"]["reason"]) == (3, "unavailable")
    seat = ["--wallet", str(wallet), "--directory", str(tmp_path / "seat"), "--blob-store", f"folder:{tmp_path}/shared"]
    code, envelope = spoken(capsys, "market", "verify", NAME, "--rpc", NOWHERE, *seat)
    assert (code, envelope["error"]["reason"]) == (3, "unavailable")


@pytest.mark.parametrize("store", ["nowhere", "kubo:127.0.0.1"])
def test_blob_stores_are_checked(capsys, wallet, tmp_path, store):
    seat = ["--wallet", str(wallet), "--directory", str(tmp_path / "seat"), "--blob-store", store]
    code, envelope = spoken(capsys, "market", "verify", NAME, "--rpc", NOWHERE, *seat)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


@pytest.mark.parametrize("arguments", [("--contract", "0x12"), ("--contract", "zz")])
def test_addresses_and_files_are_checked(capsys, wallet, tmp_path, arguments):
    seat = ["--wallet", str(wallet), "--directory", str(tmp_path / "seat"), "--blob-store", f"folder:{tmp_path}/shared"]
    missing = str(tmp_path / "missing.toml")
    code, envelope = spoken(capsys, "market", "announce", missing, "--rpc", NOWHERE, *seat, *arguments)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_private_rows_have_to_be_there(capsys, wallet, tmp_path):
    seat = ["--wallet", str(wallet), "--directory", str(tmp_path / "seat"), "--blob-store", f"folder:{tmp_path}/shared"]
    gone = str(tmp_path / "gone.safetensors")
    code, envelope = spoken(capsys, "market", "contribute", NAME, "--rpc", NOWHERE, *seat, "--data", gone)
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")


def test_troubles_of_the_demo_have_names(capsys):
    code, envelope = spoken(capsys, "market", "demo", "--trouble", "boredom")
    assert (code, envelope["error"]["reason"]) == (1, "argument_invalid")
    assert "lying_verifier" in envelope["error"]["detail"]
