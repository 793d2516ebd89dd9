"""A key and what it signs; keys come from a mnemonic (BIP-39, BIP-44) and rest in encrypted keystore files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.hdaccount.mnemonic import Mnemonic
from eth_utils import ValidationError

from learnchain.encoding.codec import Address, parse_json
from learnchain.encoding.cryptography import address_of, sign_digest
from learnchain.rejection import Rejected, RejectionReason

DERIVATION_PATH = "m/44'/60'/0'/0/{index}"
"""Where Ethereum wallets look for accounts, so that a mnemonic gives the same ones everywhere."""
ENTROPY_BYTES = 16
MAXIMUM_KEYSTORE_BYTES = 64 * 1024
_MAXIMUM_SCRYPT_COST = 1 << 20
_MAXIMUM_PBKDF2_ROUNDS = 10_000_000
_DYNAMIC_FEE = 2


Account.enable_unaudited_hdwallet_features()


class Wallet:
    """Sign with one private key; the key never shows in a representation or a message."""

    __slots__ = ("address", "private_key")

    def __init__(self, private_key: bytes) -> None:
        try:
            if len(private_key) != 32:
                raise ValueError("a private key has 32 bytes")
            self.address: Address = address_of(private_key)
        except ValueError as error:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, "the bytes are no private key") from error
        self.private_key = private_key

    def __repr__(self) -> str:
        return f"Wallet(0x{self.address.hex()})"

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes; return r, s and the recovery bit, 65 bytes."""
        return sign_digest(self.private_key, digest)

    def sign_transaction(self, fields: Mapping[str, Any]) -> bytes:
        """Return the raw bytes of a signed transaction, EIP-1559 unless `fields` name another type.

        `to` and `data` may be bytes or 0x-strings; a missing `to` creates a contract.
        """
        prepared: dict[str, Any] = {"type": _DYNAMIC_FEE, "value": 0, "data": b""} | dict(fields)
        try:
            for name in ("to", "data"):
                if isinstance(prepared.get(name), str):
                    prepared[name] = bytes.fromhex(prepared[name].removeprefix("0x"))
            if prepared.get("to") is None:
                prepared["to"] = b""
            return bytes(Account.sign_transaction(prepared, self.private_key).raw_transaction)
        except (TypeError, ValueError, KeyError, ValidationError) as error:
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"the transaction cannot be signed: {error}") from error


def new_mnemonic(entropy: bytes) -> str:
    """Return the English words that stand for 16 to 32 random bytes."""
    if len(entropy) not in (16, 20, 24, 28, 32):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{len(entropy)} bytes of entropy; take {ENTROPY_BYTES}")
    return str(Mnemonic().to_mnemonic(entropy))


def wallet_from_mnemonic(mnemonic: str, index: int = 0, passphrase: str = "") -> Wallet:
    """Return one account of a mnemonic; refuse words whose checksum is wrong."""
    if not 0 <= index < 1 << 31:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"there is no account {index}")
    try:
        account = Account.from_mnemonic(mnemonic, passphrase, DERIVATION_PATH.format(index=index))
    except (ValidationError, ValueError) as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "these words are no valid mnemonic") from error
    return Wallet(bytes(account.key))


def development_accounts(mnemonic: str, count: int) -> tuple[Wallet, ...]:
    """Return the first accounts of a mnemonic that everybody knows: for networks without value only."""
    return tuple(wallet_from_mnemonic(mnemonic, index) for index in range(count))


def save_keystore(wallet: Wallet, path: Path, password: str, iterations: int | None = None) -> None:
    """Write an encrypted keystore (version 3) that only its owner may read; never overwrite a key."""
    content = Account.encrypt(wallet.private_key, password, kdf="scrypt", iterations=iterations)
    data = json.dumps(content).encode()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} exists; a key is never overwritten") from error
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def load_keystore(path: Path, password: str) -> Wallet:
    """Return the wallet in a keystore; refuse a wrong password, a broken file or one that asks for absurd work."""
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{path} cannot be read: {error}") from error
    if size_bytes > MAXIMUM_KEYSTORE_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, f"a keystore of {size_bytes} bytes")
    try:
        content = parse_json(path.read_bytes())
        parameters = content["crypto"]["kdfparams"]
        work = (int(parameters.get("n", 0)), int(parameters.get("r", 0)) * int(parameters.get("p", 0)))
        if work[0] > _MAXIMUM_SCRYPT_COST or work[1] > 64 or int(parameters.get("c", 0)) > _MAXIMUM_PBKDF2_ROUNDS:
            raise ValueError("the keystore asks for too much work")
        return Wallet(bytes(Account.decrypt(content, password)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        detail = f"{path} is no keystore, or the password is wrong"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail) from error
