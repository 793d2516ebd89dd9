"""`learnchain wallet`: keys of one's own: made, listed, used to send, and taken elsewhere.

`learnchain wallet bond`: stake coins behind commitments, ask for them back, take them when the delay is over.
"""

import os
import secrets
import sys
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, RpcOption, ether, page, run_verb
from learnchain.cli.rpc import NodeClient, client_for, layout_of
from learnchain.encoding.codec import parse_json
from learnchain.rejection import Rejected, RejectionReason

if TYPE_CHECKING:
    from learnchain.execution.wallet import Wallet


application = typer.Typer(help="Make and use keys.", no_args_is_help=True)
PASSWORD_VARIABLE = "LEARNCHAIN_PASSWORD"
KEYSTORE_DIRECTORY = Path(".learnchain/wallets")
TRANSFER_GAS = 21_000

CALL_GAS = 120_000
"""What a call that stakes or takes coins may need: its state may have changed since it was estimated."""

_WEI_PER_ETHER = 10**18
_MAXIMUM_WEI = 1 << 256
_MAXIMUM_KEYSTORE_BYTES = 1 << 16

_EXACT = Context(prec=100, traps=[InvalidOperation, Overflow, Inexact])
"""Room for every amount that a transaction can carry; what would be rounded is refused."""

WalletArgument = Annotated[Path, typer.Argument(metavar="WALLET", help="A keystore (.json) or a node's wallet.key.")]


@application.command("new")
def new(
    out: Annotated[Path, typer.Option(help="The keystore to write; never overwritten.")] = KEYSTORE_DIRECTORY
    / "wallet.json",
    as_json: JsonOption = False,
) -> None:
    """Make a key, show its mnemonic once, and keep it in an encrypted keystore."""
    run_verb(as_json, lambda: _new(out), _show_new)


@application.command("list")
def list_wallets(
    directory: Annotated[Path, typer.Option(help="Where keystores lie.", file_okay=False)] = KEYSTORE_DIRECTORY,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """List the keystores of a directory and the accounts of the local network."""
    run_verb(as_json, lambda: _list_keystores(directory, data_dir), _show_list)


@application.command("balance")
def balance(
    who: Annotated[str, typer.Argument(metavar="ADDRESS|WALLET", help="An address, or a wallet file.")],
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Show an account's coins at the head."""

    def work() -> dict[str, Any]:
        address = address_of(who)
        wei = int(client_for(rpc, data_dir).call("eth_getBalance", address, "latest"), 16)
        return {"address": address, "balance_wei": wei}

    run_verb(as_json, work, lambda data: page().print(f"{data['address']}  {ether(data['balance_wei'])} ether"))


@application.command("send")
def send(
    wallet: WalletArgument,
    to: Annotated[str, typer.Option(help="The recipient's address.")],
    amount: Annotated[str, typer.Option("--ether", help="How much, in ether; a decimal number.")],
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Sign a transfer here and hand it to a node; it is carried out by the next block."""

    def send() -> dict[str, Any]:
        fields = {"to": _check_address(to), "value": wei_of(amount)}
        return _send_transaction(client_for(rpc, data_dir), _open_wallet(wallet), fields, TRANSFER_GAS)

    run_verb(as_json, send, _show_sent)


@application.command("export")
def export(wallet: WalletArgument, as_json: JsonOption = False) -> None:
    """Print the private key of a wallet, for another program; whoever reads it owns the coins."""

    def work() -> dict[str, Any]:
        opened = _open_wallet(wallet)
        return {"address": "0x" + opened.address.hex(), "private_key": "0x" + opened.private_key.hex()}

    run_verb(as_json, work, lambda data: page().print(f"{data['address']}\n{data['private_key']}", soft_wrap=True))


def _new(out: Path) -> dict[str, Any]:
    from learnchain.execution.wallet import ENTROPY_BYTES, new_mnemonic, save_keystore, wallet_from_mnemonic

    if out.exists():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{out} exists; a key is never overwritten, choose --out")
    password = _password(f"password for {out}", twice=True)
    if not password:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "the password is empty: whoever reads the file owns the coins")
    mnemonic = new_mnemonic(secrets.token_bytes(ENTROPY_BYTES))
    made = wallet_from_mnemonic(mnemonic)
    save_keystore(made, out, password)
    return {"address": "0x" + made.address.hex(), "keystore": str(out), "mnemonic": mnemonic}


def _list_keystores(directory: Path, data_directory: Path) -> dict[str, Any]:
    keystores: list[dict[str, Any]] = []
    for path in sorted(directory.glob("*.json")) if directory.is_dir() else ():
        try:
            address = keystore_address(path)
        except (Rejected, OSError):
            # Other files may lie there; a list of wallets is no place to fail on them.
            continue
        keystores.append({"file": str(path), "address": address})
    return {"keystores": keystores, "local_network": layout_of(data_directory).get("accounts", [])}


def send_contract_call(client: NodeClient, path: Path, data: bytes, value_wei: int) -> dict[str, Any]:
    """Sign a call of the escrow contract here and hand it to a node."""
    from learnchain.execution.genesis import ESCROW_ADDRESS

    call = {"to": "0x" + ESCROW_ADDRESS.hex(), "value": value_wei, "data": "0x" + data.hex()}
    return _send_transaction(client, _open_wallet(path), call, CALL_GAS)


def _send_transaction(client: NodeClient, wallet: "Wallet", call: dict[str, Any], least_gas: int) -> dict[str, Any]:
    sender, value_wei = "0x" + wallet.address.hex(), int(call["value"])
    fee_wei = 2 * int(client.call("eth_gasPrice"), 16)
    balance_wei = int(client.call("eth_getBalance", sender, "latest"), 16)
    if balance_wei < value_wei + least_gas * fee_wei:
        detail = f"{sender} has {ether(balance_wei)} ether: too little for {ether(value_wei)} and the fee"
        raise Rejected(RejectionReason.TRANSACTION_INVALID, detail)
    gas = int(client.call("eth_estimateGas", {**call, "from": sender, "value": hex(value_wei)}), 16)
    raw = wallet.sign_transaction(
        {
            **call,
            "chainId": int(client.call("eth_chainId"), 16),
            "nonce": int(client.call("eth_getTransactionCount", sender, "pending"), 16),
            "gas": max(gas, least_gas),
            "maxFeePerGas": fee_wei,
            "maxPriorityFeePerGas": 0,
        }
    )
    sent = client.call("eth_sendRawTransaction", "0x" + raw.hex())
    return {"transaction": sent, "from": sender, "to": call["to"], "value_wei": value_wei}


def _open_wallet(path: Path) -> "Wallet":
    from learnchain.app.service import load_wallet
    from learnchain.execution.wallet import load_keystore

    if path.suffix == ".json" and path.is_file():
        return load_keystore(path, _password(f"password for {path}"))
    return load_wallet(path)


def _password(question: str, twice: bool = False) -> str:
    """Return the password from the environment, or ask a person; a program is never asked."""
    given = os.environ.get(PASSWORD_VARIABLE)
    if given is not None:
        return given
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"set {PASSWORD_VARIABLE}: there is no terminal to ask on")
    first = getpass(f"{question}: ", stream=sys.stderr)
    if twice and getpass("again: ", stream=sys.stderr) != first:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "the two passwords differ")
    return first


def address_of(who: str) -> str:
    """Return the address that a person names: by itself, or by a wallet file."""
    path = Path(who)
    if not path.is_file():
        return _check_address(who)
    if path.suffix == ".json":
        return keystore_address(path)
    return "0x" + _open_wallet(path).address.hex()


def keystore_address(path: Path) -> str:
    """Return the address that a keystore names, without its password; refuse what is no keystore."""
    try:
        if path.stat().st_size > _MAXIMUM_KEYSTORE_BYTES:
            raise ValueError("larger than any keystore")
        return _check_address("0x" + str(parse_json(path.read_bytes())["address"]).removeprefix("0x"))
    except (ValueError, KeyError, TypeError, Rejected) as error:
        raise Rejected(RejectionReason.MALFORMED, f"{path} is no keystore") from error


def _check_address(text: str) -> str:
    digits = text.removeprefix("0x")
    if len(digits) != 40 or any(each not in "0123456789abcdef" for each in digits.lower()):
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{text!r} is no address and no file")
    if digits not in (digits.lower(), digits.upper(), _with_checksum(digits.lower())):
        detail = f"{text!r}: its capitals are not those of its checksum (EIP-55), so a digit is mistyped"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    return "0x" + digits.lower()


def _with_checksum(digits: str) -> str:
    """Return an address's digits in the capitals that EIP-55 gives them."""
    from learnchain.encoding.cryptography import keccak256

    marks = keccak256(digits.encode()).hex()
    return "".join(each.upper() if int(mark, 16) > 7 else each for each, mark in zip(digits, marks, strict=False))


def wei_of(amount: str) -> int:
    """Return an amount in wei; nothing is rounded."""
    try:
        scaled = _EXACT.multiply(Decimal(amount), Decimal(_WEI_PER_ETHER))
        if not scaled.is_finite() or not 0 < scaled < _MAXIMUM_WEI or scaled != scaled.to_integral_value():
            raise InvalidOperation
    except (InvalidOperation, Overflow, Inexact) as error:
        detail = f"--ether {amount!r} is no positive decimal number with at most 18 places"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail) from error
    return int(scaled)


def _show_new(data: dict[str, Any]) -> None:
    console = page()
    console.print(
        f"address   {data['address']}\nkeystore  {data['keystore']}\nmnemonic  {data['mnemonic']}", soft_wrap=True
    )
    console.print("Write the words down now: they are shown only once, and they are the only way back to the key.")


def _show_list(data: dict[str, Any]) -> None:
    console = page()
    for each in data["keystores"]:
        console.print(f"{each['address']}  {each['file']}", soft_wrap=True)
    for index, each in enumerate(data["local_network"]):
        console.print(f"{each}  account {index} of the local network", soft_wrap=True)


def _show_sent(data: dict[str, Any]) -> None:
    page().print(
        f"sent {ether(data['value_wei'])} ether to {data['to']}\ntransaction {data['transaction']}", soft_wrap=True
    )


bond_application = typer.Typer(help="Stake coins behind commitments and audits.", no_args_is_help=True)
AmountOption = Annotated[str, typer.Option("--ether", help="How much, in ether; a decimal number.")]


@bond_application.command("deposit")
def deposit(
    wallet: WalletArgument,
    amount: AmountOption,
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Stake coins: from the next block on they cover commitments, so that no reward is kept back."""

    def work() -> dict[str, Any]:
        from learnchain.execution.escrow import deposit_calldata

        return send_contract_call(client_for(rpc, data_dir), wallet, deposit_calldata(), wei_of(amount))

    run_verb(as_json, work, _print_sent)


@bond_application.command("unbond")
def unbond(
    wallet: WalletArgument,
    amount: AmountOption,
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Ask for a part of the stake back; it covers nothing any more and can be slashed for another day."""

    def work() -> dict[str, Any]:
        from learnchain.execution.escrow import unbond_calldata

        return send_contract_call(client_for(rpc, data_dir), wallet, unbond_calldata(wei_of(amount)), 0)

    run_verb(as_json, work, _print_sent)


@bond_application.command("release")
def release(
    wallet: WalletArgument,
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Take what has waited long enough; a publisher's bond comes back this way too."""

    def work() -> dict[str, Any]:
        from learnchain.execution.escrow import release_calldata

        owner = bytes.fromhex(address_of(str(wallet))[2:])
        return send_contract_call(client_for(rpc, data_dir), wallet, release_calldata(owner), 0)

    run_verb(as_json, work, _print_sent)


@bond_application.command("show")
def show(
    who: Annotated[str, typer.Argument(metavar="ADDRESS|WALLET", help="An address, or a wallet file.")],
    rpc: RpcOption = None,
    data_dir: DataDirectoryOption = LOCAL_DIRECTORY,
    as_json: JsonOption = False,
) -> None:
    """Show what an account has staked and when the part that leaves may be taken."""
    run_verb(as_json, lambda: _read_stake(client_for(rpc, data_dir), address_of(who)), _show_stake)


def _read_stake(client: NodeClient, address: str) -> dict[str, Any]:
    from learnchain.execution.escrow import bond_calldata, decode_stake
    from learnchain.execution.genesis import ESCROW_ADDRESS
    from learnchain.protocol.payload import bond_pot

    data = bond_calldata(bond_pot(bytes.fromhex(address[2:])))
    call = {"to": "0x" + ESCROW_ADDRESS.hex(), "data": "0x" + data.hex()}
    stake = decode_stake(bytes.fromhex(client.call("eth_call", call, "latest")[2:]))
    return {
        "address": address,
        "active_wei": stake.active_wei,
        "leaving_wei": stake.leaving_wei,
        "leaves_seconds": stake.leaves_seconds,
    }


def _print_sent(data: dict[str, Any]) -> None:
    page().print(f"transaction {data['transaction']} from {data['from']}", soft_wrap=True)


def _show_stake(data: dict[str, Any]) -> None:
    text = f"{data['address']}  staked {ether(data['active_wei'])} ether, leaving {ether(data['leaving_wei'])} ether"
    page().print(text + (f" at {data['leaves_seconds']}" if data["leaving_wei"] else ""), soft_wrap=True)
