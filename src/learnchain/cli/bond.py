"""`learnchain wallet bond`: stake coins behind commitments, ask for them back, take them when the delay is over."""

from typing import Annotated, Any

import typer

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, RpcOption, ether, page, run_verb
from learnchain.cli.rpc import NodeClient, client_for
from learnchain.cli.wallet import WalletArgument, address_of, send_contract_call, wei_of

application = typer.Typer(help="Stake coins behind commitments and audits.", no_args_is_help=True)
AmountOption = Annotated[str, typer.Option("--ether", help="How much, in ether; a decimal number.")]


@application.command("deposit")
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


@application.command("unbond")
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


@application.command("release")
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


@application.command("show")
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
