"""`learnchain node` and `learnchain miner`: run one node, or set one up to join an existing network."""

import asyncio
import dataclasses
import logging
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnchain.cli.output import LOCAL_DIRECTORY, DataDirectoryOption, JsonOption, RpcOption, page, run_verb
from learnchain.cli.rpc import client_for, layout_of
from learnchain.cli.wallet import keystore_address
from learnchain.rejection import Rejected, RejectionReason

if TYPE_CHECKING:
    from learnchain.node.settings import NodeSettings


application = typer.Typer(help="Run one node, or set one up.", no_args_is_help=True)
SETTINGS_NAME = "settings.json"
SettingsArgument = Annotated[Path, typer.Argument(metavar="SETTINGS", help="A settings file, or its directory.")]


@application.command("run")
def run_node(settings: SettingsArgument, as_json: JsonOption = False) -> None:
    """Run a node in this process until SIGINT or SIGTERM; its log goes to standard error."""
    run_verb(as_json, lambda: _serve(_load_settings(settings)), _show_end)


def miner(settings: SettingsArgument, as_json: JsonOption = False) -> None:
    """Run a node with mining on, whatever its settings file says."""
    run_verb(as_json, lambda: _serve(dataclasses.replace(_load_settings(settings), is_miner=True)), _show_end)


def audit(settings: SettingsArgument, as_json: JsonOption = False) -> None:
    """Run a node that audits winners for pay: who has no coins earns the first ones by replaying segments."""
    run_verb(as_json, lambda: _serve(dataclasses.replace(_load_settings(settings), is_auditor=True)), _show_end)


@application.command("init")
def init(
    directory: Annotated[Path, typer.Argument(help="Where the node shall keep its data; must not hold a node yet.")],
    *,
    genesis: Annotated[Path, typer.Option(help="The network's genesis.json.")],
    wallet: Annotated[Path, typer.Option(help="A keystore (.json, opened with LEARNCHAIN_PASSWORD) or a key file.")],
    peer: Annotated[
        list[str] | None, typer.Option(help="PEER@HOST:PORT, as `learnchain node address` says; repeatable.")
    ] = None,
    listen_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port for peers; 0 takes a free one.")] = 0,
    rpc_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port for JSON-RPC; 0 means none.")] = 0,
    mine: Annotated[bool, typer.Option("--mine", help="Train and compete for blocks.")] = False,
    audit: Annotated[bool, typer.Option("--audit", help="Replay segments of winners' training for pay.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Release keys and test sets of own tasks.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Set up a node that joins an existing network: genesis file, peers and wallet are checked before writing."""

    def work() -> dict[str, Any]:
        from learnchain.node.settings import NodeSettings

        place = directory.resolve()
        made = NodeSettings(
            name=place.name,
            genesis=str(place / "genesis.json"),
            data_directory=str(place),
            wallet=str(wallet.resolve()),
            listen_port=listen_port,
            peers=tuple(_check_peer(each) for each in peer or ()),
            is_miner=mine,
            is_publisher=publish,
            is_auditor=audit,
            rpc_port=rpc_port,
        )
        return _initialise(made, genesis)

    run_verb(as_json, work, _show_init)


def _initialise(made: "NodeSettings", genesis: Path) -> dict[str, Any]:
    from learnchain.app.service import load_wallet
    from learnchain.node.local_network import LAYOUT_NAME
    from learnchain.storage.genesis import load_genesis

    place = Path(made.data_directory)
    if (place / SETTINGS_NAME).exists():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{place} holds a node already; run it, or choose another")
    if (place / LAYOUT_NAME).exists():
        raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{place} holds a whole network; choose another directory")
    network = load_genesis(genesis)
    wallet = Path(made.wallet)
    if not wallet.is_file():
        detail = f"{wallet} is no wallet; `learnchain wallet new --out FILE` makes one"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    if wallet.suffix == ".json":
        # Its password may be given later, to the node that runs; that it is a keystore shows without one.
        keystore_address(wallet)
    else:
        load_wallet(wallet)
    place.mkdir(parents=True, exist_ok=True)
    if not Path(made.genesis).exists() or not genesis.samefile(made.genesis):
        shutil.copyfile(genesis, made.genesis)
    made.save(place / SETTINGS_NAME)
    return {
        "settings": str(place / SETTINGS_NAME),
        "genesis": network.hash.hex(),
        "consensus": network.rules.name,
        "peers": list(made.peers),
        "next": f"learnchain node run {place}",
    }


def _check_peer(text: str) -> str:
    from learnchain.network.listening import IROH, check_peers

    check_peers(IROH, (text,))
    return text


@application.command("address")
def address(
    rpc: RpcOption = None, data_dir: DataDirectoryOption = LOCAL_DIRECTORY, as_json: JsonOption = False
) -> None:
    """Show what others need to join: the address for their --peer, and which genesis it belongs to."""

    def work() -> dict[str, Any]:
        network = client_for(rpc, data_dir).call("learn_network")
        return {each: network[each] for each in ("address", "genesis", "consensus", "chain_id")}

    run_verb(as_json, work, _show_address)


def _show_address(data: dict[str, Any]) -> None:
    page().print(f"peer     {data['address']}\ngenesis  {data['genesis']}, {data['consensus']}", soft_wrap=True)


def _load_settings(path: Path) -> "NodeSettings":
    from learnchain.node.settings import load_settings

    if layout_of(path) and not (path / SETTINGS_NAME).exists():
        detail = f"{path} holds a whole network: `learnchain up --data-dir {path}`, or run one of its nodes, node-0 say"
        raise Rejected(RejectionReason.ARGUMENT_INVALID, detail)
    return load_settings(path / SETTINGS_NAME if path.is_dir() else path)


def _serve(settings: "NodeSettings") -> dict[str, Any]:
    from learnchain.app.service import NodeService

    logging.basicConfig(
        level=settings.log_level.upper(), format=f"%(asctime)s {settings.name} %(levelname)s %(name)s: %(message)s"
    )

    async def serve() -> None:
        service = NodeService(settings)
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, service.stop)
        await service.run()

    asyncio.run(serve())
    return {"name": settings.name, "stopped": True}


def _show_end(data: dict[str, Any]) -> None:
    page().print(f"{data['name']} has stopped")


def _show_init(data: dict[str, Any]) -> None:
    page().print(f"settings {data['settings']}\ngenesis  {data['genesis']}\nnext     {data['next']}", soft_wrap=True)
