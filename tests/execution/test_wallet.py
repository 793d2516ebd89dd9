"""Keys: the same accounts as every Ethereum wallet, files that only their owner reads, and no leaks."""

import json
import stat
from pathlib import Path

import pytest
from eth_account import Account

from learnchain.encoding.cryptography import recover
from learnchain.execution.wallet import (
    Wallet,
    development_accounts,
    load_keystore,
    new_mnemonic,
    save_keystore,
    wallet_from_mnemonic,
)
from learnchain.rejection import Rejected, RejectionReason

WORDS = "test test test test test test test test test test test junk"
FAST = 2


def test_a_mnemonic_gives_the_accounts_that_other_wallets_show():
    addresses = ["0x" + wallet.address.hex() for wallet in development_accounts(WORDS, 2)]
    assert addresses == [
        "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266",
        "0x70997970c51812dc3a010c7d01b50e0d17dc79c8",
    ]
    assert wallet_from_mnemonic(WORDS, passphrase="x").address != wallet_from_mnemonic(WORDS).address


def test_entropy_becomes_words_with_a_checksum():
    assert new_mnemonic(b"\0" * 16) == "abandon " * 11 + "about"
    assert wallet_from_mnemonic(new_mnemonic(bytes(range(16)))).address
    for attempt in (lambda: new_mnemonic(b"short"), lambda: wallet_from_mnemonic("abandon " * 12)):
        with pytest.raises(Rejected) as caught:
            attempt()
        assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def test_digests_recover_to_the_address():
    wallet = wallet_from_mnemonic(WORDS)
    assert recover(b"\x05" * 32, wallet.sign_digest(b"\x05" * 32)) == wallet.address


@pytest.mark.parametrize("recipient", [b"\xab" * 20, "0x" + "ab" * 20])
def test_a_transaction_is_signed_for_its_sender(recipient: bytes | str):
    wallet = wallet_from_mnemonic(WORDS)
    fields = {"chainId": 5, "nonce": 0, "to": recipient, "gas": 21_000, "maxFeePerGas": 9, "maxPriorityFeePerGas": 1}
    raw = wallet.sign_transaction(fields)
    assert raw[0] == 2
    assert bytes.fromhex(Account.recover_transaction(raw)[2:]) == wallet.address
    assert wallet.sign_transaction(fields) == raw
    assert wallet.sign_transaction(fields | {"to": None, "data": "0x5f5ffd"})[0] == 2


def test_an_incomplete_transaction_is_refused():
    for fields in ({}, {"chainId": 5}, {"to": "0xzz"}, {"nonce": -1, "chainId": 1, "gas": 1}):
        with pytest.raises(Rejected) as caught:
            wallet_from_mnemonic(WORDS).sign_transaction(fields)
        assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def test_a_keystore_is_private_and_opens_with_its_password_only(tmp_path: Path):
    wallet, path = wallet_from_mnemonic(WORDS), tmp_path / "keys" / "first.json"
    save_keystore(wallet, path, "correct horse", FAST)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert wallet.private_key.hex() not in path.read_text(encoding="utf-8")
    assert load_keystore(path, "correct horse").private_key == wallet.private_key
    with pytest.raises(Rejected) as caught:
        load_keystore(path, "wrong")
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID
    with pytest.raises(Rejected):
        save_keystore(wallet, path, "again", FAST)
    assert load_keystore(path, "correct horse").address == wallet.address


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"[" * 60_000, b'{"crypto": {"kdfparams": []}}'])
def test_a_broken_keystore_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(Rejected) as caught:
        load_keystore(path, "x")
    assert caught.value.reason == RejectionReason.ARGUMENT_INVALID


def test_a_keystore_cannot_ask_for_absurd_work(tmp_path: Path):
    path = tmp_path / "greedy.json"
    save_keystore(wallet_from_mnemonic(WORDS), path, "x", FAST)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["crypto"]["kdfparams"]["n"] = 1 << 30
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(Rejected):
        load_keystore(path, "x")
    path.write_bytes(b" " * 70_000)
    with pytest.raises(Rejected) as caught:
        load_keystore(path, "x")
    assert caught.value.reason == RejectionReason.TOO_LARGE
    with pytest.raises(Rejected):
        load_keystore(tmp_path / "missing.json", "x")


def test_a_key_does_not_show():
    wallet = wallet_from_mnemonic(WORDS)
    assert wallet.private_key.hex() not in repr(wallet)
    for key in (b"", b"\0" * 32, b"\xff" * 32, b"\x01" * 31):
        with pytest.raises(Rejected):
            Wallet(key)
